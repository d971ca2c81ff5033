import { afterEach, beforeEach, expect, test, vi } from 'vitest';

/** Ends what waits for an answer. */
let silence: AbortController;
let limits: number[];
let asked: number;
const stored = new Map<string, string>();

class Tabs {
  onmessage = null;
  postMessage() {}
}

beforeEach(() => {
  silence = new AbortController();
  limits = [];
  asked = 0;
  stored.clear();
  vi.resetModules();
  vi.stubGlobal('BroadcastChannel', Tabs);
  vi.stubGlobal('navigator', { locks: { request: (_: string, __: object, act: () => Promise<void>) => act() } });
  vi.stubGlobal('localStorage', {
    getItem: (name: string) => stored.get(name) ?? null,
    setItem: (name: string, value: string) => stored.set(name, value),
    removeItem: (name: string) => stored.delete(name),
  });
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
    limits.push(ms);
    return silence.signal;
  });
  vi.stubGlobal('fetch', (_: string, { signal }: RequestInit) => {
    asked++;
    return new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason as Error)));
  });
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test('a server that is silent is given up in time, once for all who ask', async () => {
  const { accessToken, isLoggedOut } = await import('./session.ts');
  const asking = [accessToken(), accessToken(), accessToken()];
  await Promise.resolve();
  expect([asked, Math.max(...limits)]).toEqual([1, 10_000]);
  silence.abort(new Error('too late'));
  for (const one of await Promise.allSettled(asking)) expect(one.status).toBe('rejected');
  expect(asked).toBe(1);
  expect(isLoggedOut(), 'that is no answer').toBe(false);
});

test('whoever was logged in last is known meanwhile', async () => {
  stored.set('primetrade-account', JSON.stringify({ id: 'me', role: 'user' }));
  const { accessToken, account } = await import('./session.ts');
  const asking = accessToken().catch(() => 'no answer');
  expect(account()).toEqual({ id: 'me', role: 'user' });
  silence.abort(new Error('too late'));
  expect(await asking).toBe('no answer');
});
