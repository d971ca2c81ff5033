/** A tag as the server has it, however it was typed: small letters may compose where capitals did not. */
export function tagOf(text: string): string {
  return text.trim().normalize('NFC').toLowerCase().normalize('NFC');
}
