// Who is logged in. The refresh token is a cookie that no script sees; the access token is only in memory.

interface Access {
  token: string;
  /** In milliseconds, by this machine's clock. */
  until: number;
}

/** Before its end, in milliseconds: a request takes a while. */
const RENEW_BEFORE_MS = 30_000;
const LOCK = 'primetrade-session';

/** Whoever is silent for longer is away: the server, or another tab that is to renew the session. */
const ANSWER_MS_MAX = 10_000;
const inTime = () => AbortSignal.timeout(ANSWER_MS_MAX);

/** Set from the moment that somebody leaves until the server knows. */
const LEAVING = 'primetrade-leaving';
/** Who was logged in last: shown while the server is away. */
const ACCOUNT = 'primetrade-account';
/** Whose consistency token the last one of this tab is, and that. A page that is loaded again shows no less than before. */
const SEEN = 'primetrade-seen';

let access: Access | null = null;
let state: 'unknown' | 'in' | 'out' = 'unknown';
const changed = new Set<() => void>();

// The other tabs have the same session: a token that one of them gets is good for all.
const tabs = new BroadcastChannel('primetrade-session');
tabs.onmessage = ({ data }: MessageEvent<Access | null>) => set(data);

function set(next: Access | null) {
  const was = state === 'out' ? null : account()?.id;
  access = next;
  const before = state;
  state = next ? 'in' : 'out';
  const known = next && claims(next.token);
  // what somebody else saw means nothing here
  if (known === null || known.id !== was) lastSeen.forget();
  if (known) localStorage.setItem(ACCOUNT, JSON.stringify(known));
  else localStorage.removeItem(ACCOUNT);
  if (was !== (known?.id ?? null) || before !== state) for (const tell of changed) tell();
}

function tellAll(next: Access | null) {
  set(next);
  tabs.postMessage(next);
}

interface Granted {
  access_token: string;
  expires_in: number;
}

function granted({ access_token, expires_in }: Granted): Access {
  return { token: access_token, until: Date.now() + expires_in * 1000 };
}

function isFresh(): boolean {
  return access !== null && access.until - RENEW_BEFORE_MS > Date.now();
}

let refreshing: Promise<void> | null = null;

/** One refresh at a time for all tabs; who waited for another one takes its token. All who ask in this tab have one outcome. */
function refresh(): Promise<void> {
  refreshing ??= inTurn().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function inTurn(): Promise<void> {
  await navigator.locks.request(LOCK, { signal: inTime() }, renew);
}

async function renew(): Promise<void> {
  if (isFresh()) return;
  if (localStorage.getItem(LEAVING) !== null) {
    // whoever left while the server was away
    await tellOfLeaving().catch(() => {});
    return tellAll(null);
  }
  for (let attempt = 0; attempt < 3; attempt++) {
    const answer = await fetch('/api/v1/auth/refresh', { method: 'POST', signal: inTime() });
    if (answer.ok) return tellAll(granted(await answer.json()));
    // answered to another one that came later
    if (answer.status === 409) continue;
    if (answer.status < 500 && answer.status !== 429) return tellAll(null);
    throw new Error(`the session could not be renewed (${answer.status})`);
  }
}

/** A token that holds for a while, or null: nobody is logged in. */
export async function accessToken(): Promise<string | null> {
  if (!isFresh()) await refresh();
  return access?.token ?? null;
}

/** The server does not take this token any more. */
export function forget(token: string | null): void {
  if (access?.token === token) access = null;
}

/** With what `POST /auth/login` answered. */
export function begin(answer: Granted): void {
  localStorage.removeItem(LEAVING);
  tellAll(granted(answer));
}

/** In all tabs, at once; at the server as soon as it answers. */
export async function leave(): Promise<void> {
  localStorage.setItem(LEAVING, '1');
  tellAll(null);
  await tellOfLeaving().catch(() => {});
}

async function tellOfLeaving(): Promise<void> {
  const answer = await fetch('/api/v1/auth/logout', { method: 'POST', signal: inTime() });
  // or there is no session to end
  if (answer.status < 500 && answer.status !== 429) localStorage.removeItem(LEAVING);
}

/** Calls back when somebody logs in or out, in this tab or another one, or another account is there. */
export function onChange(tell: () => void): () => void {
  changed.add(tell);
  return () => changed.delete(tell);
}

interface Account {
  id: string;
  /** An operator is an `admin`. */
  role: string;
}

/** As the access token says; while the server is away, as it said last. */
export function account(): Account | null {
  if (access) return claims(access.token);
  if (state === 'out') return null;
  return JSON.parse(localStorage.getItem(ACCOUNT) ?? 'null') as Account | null;
}

function claims(token: string): Account {
  const payload = token.split('.')[1] ?? '';
  const { sub, role } = JSON.parse(atob(payload.replaceAll('-', '+').replaceAll('_', '/'))) as { sub: string; role: string };
  return { id: sub, role };
}

export const isLoggedIn = (): boolean => state === 'in';
/** The server has said so. */
export const isLoggedOut = (): boolean => state === 'out';

/** Of the last answer: a read that sends it shows at least what that one did. */
export const lastSeen = {
  // another tab may have logged somebody else in while this one was not there
  get: (): string | null => {
    const [of, token] = (sessionStorage.getItem(SEEN) ?? '').split(' ');
    return token !== undefined && of === account()?.id ? token : null;
  },
  set: (token: string | null) => {
    // an answer that comes after the log-out leaves nothing behind
    const of = account()?.id;
    if (token !== null && of !== undefined) sessionStorage.setItem(SEEN, `${of} ${token}`);
  },
  forget: () => sessionStorage.removeItem(SEEN),
};
