import { afterEach, beforeEach, expect, test, vi } from 'vitest';

/** Ends what waits for an answer. */
let silence: AbortController;
let limits: number[];
let asked: number;
const stored = new Map<string, string>();
/** Of the tab, over all pages that are loaded in it. */
const ofTab = new Map<string, string>();
const storage = (values: Map<string, string>) => ({
  getItem: (name: string) => values.get(name) ?? null,
  setItem: (name: string, value: string) => values.set(name, value),
  removeItem: (name: string) => values.delete(name),
});

class Tabs {
  onmessage = null;
  postMessage() {}
}

beforeEach(() => {
  silence = new AbortController();
  limits = [];
  asked = 0;
  stored.clear();
  ofTab.clear();
  vi.resetModules();
  vi.stubGlobal('BroadcastChannel', Tabs);
  vi.stubGlobal('navigator', { locks: { request: (_: string, __: object, act: () => Promise<void>) => act() } });
  vi.stubGlobal('localStorage', storage(stored));
  vi.stubGlobal('sessionStorage', storage(ofTab));
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

/** The page is loaded, or loaded again, and asks the server who is logged in: this one, or nobody. */
async function loadedBy(id: string | null) {
  const granted = { access_token: `.${btoa(JSON.stringify({ sub: id, role: 'user' }))}.`, expires_in: 900 };
  vi.stubGlobal('fetch', async () => (id === null ? new Response('{}', { status: 401 }) : Response.json(granted)));
  vi.resetModules();
  const session = await import('./session.ts');
  const before = session.lastSeen.get();
  await session.accessToken();
  return { session, before, after: session.lastSeen.get() };
}

test('a page that is loaded again shows no less than it did before, to the same person', async () => {
  const { session, before } = await loadedBy('me');
  expect(before).toBeNull();
  session.lastSeen.set('seventh');
  session.lastSeen.set(null);
  expect(await loadedBy('me')).toMatchObject({ before: 'seventh', after: 'seventh' });
  const yours = await loadedBy('you');
  expect(yours).toMatchObject({ before: 'seventh', after: null });
  yours.session.lastSeen.set('eighth');
  expect(await loadedBy(null), 'nobody').toMatchObject({ before: 'eighth', after: null });
});

test('what somebody else saw in this tab means nothing, where another tab has logged in meanwhile', async () => {
  const { session } = await loadedBy('me');
  session.lastSeen.set('seventh');
  stored.set('primetrade-account', JSON.stringify({ id: 'you', role: 'user' }));
  expect(await loadedBy('you')).toMatchObject({ before: null, after: null });
});
