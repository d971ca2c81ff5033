let lastAt = 0;

/** A version 7 UUID: by time, so that what is made later stands later, also within a millisecond. */
export function uuid(): string {
  lastAt = Math.max(Date.now(), lastAt + 1);
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  new DataView(bytes.buffer).setBigUint64(0, (BigInt(lastAt) << 16n) | (BigInt(bytes[6]!) << 8n) | BigInt(bytes[7]!));
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** When such an id was made, in milliseconds. */
export const madeAt = (id: string): number => parseInt(id.replaceAll('-', '').slice(0, 12), 16);

export const isId = (text: unknown): text is string => typeof text === 'string' && /^[0-9a-f-]{36}$/i.test(text);
