// What was last seen, kept in this browser: it is shown at once when the page is opened, and as long as the server is away.

import { hashKey, type QueryKey } from '@tanstack/react-query';
import { firstPages, queryClient } from '../api/queries.ts';
import { onDisk, type Kept } from './records.ts';

interface Seen extends Kept {
  key: QueryKey;
  data: unknown;
  /** When it was answered, in milliseconds. */
  at: number;
}

/** Of each kind of answer so many: whoever reads many tasks still has the lists. No other kind is kept. */
const KEPT_MAX: Record<string, number> = { 'tasks list': 12, 'tasks facets': 12, 'tasks one': 40, account: 4, jobs: 4 };
const kindOf = ([first, second]: QueryKey): string => (first === 'tasks' ? `tasks ${String(second)}` : String(first));

/** Of a list. */
const PAGES_KEPT_MAX = 5;
const WRITTEN_AFTER_MS = 500;
/** Longer than any answer is taken for fresh. */
const OLD_MS = 600_000;
/** There may be no time for anything but the view. */
const IDLE_MS_MAX = 2_000;
/** A view waits no longer for what is kept of it: a disk may be busy. */
const READ_MS_MAX = 500;

interface Keeping {
  account: string;
  /** All of it is shown already. */
  whole: boolean;
  shown: () => void;
}

const records = onDisk<Seen>('seen');
const idOf = (account: string, hash: string) => `${account} ${hash}`;
let keeping: Keeping | null = null;
/** What is shown from here is here already. */
let showing = false;

/**
 * Shows what is kept of this account when there is time for it, and keeps from now on what it sees. `shown`: called whenever
 * something was shown. The end of it.
 */
export function keepSeen(account: string, shown: () => void): () => void {
  const mine: Keeping = { account, whole: false, shown };
  keeping = mine;
  whenIdle(() => void showRest(mine).catch(() => {}));
  const changed = new Set<string>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const write = () => {
    clearTimeout(timer);
    timer = undefined;
    for (const hash of changed) {
      const query = queryClient.getQueryCache().get(hash);
      if (query?.state.data === undefined) continue;
      const { data, dataUpdatedAt } = query.state;
      void records.put({ id: idOf(account, hash), account, key: query.queryKey, data: firstPages(data, PAGES_KEPT_MAX), at: dataUpdatedAt });
    }
    changed.clear();
  };
  const stop = queryClient.getQueryCache().subscribe((event) => {
    if (showing || event.type !== 'updated' || event.action.type !== 'success' || !(kindOf(event.query.queryKey) in KEPT_MAX)) return;
    changed.add(event.query.queryHash);
    timer ??= setTimeout(write, WRITTEN_AFTER_MS);
  });
  // the page may be closed, or put aside and never shown again
  addEventListener('pagehide', write);
  return () => {
    stop();
    removeEventListener('pagehide', write);
    clearTimeout(timer);
    if (keeping === mine) keeping = null;
  };
}

/** What a view shows, before it is drawn; what cannot be read soon comes later, or not at all. */
export async function showSeen(keys: readonly QueryKey[]): Promise<void> {
  const mine = keeping;
  if (!mine || mine.whole) return;
  const read = Promise.all(keys.map((key) => records.get(idOf(mine.account, hashKey(key)))));
  const shown = read.then((found) => show(mine, found.filter((seen) => seen !== undefined))).catch(() => {});
  let timer: ReturnType<typeof setTimeout> | undefined;
  await Promise.race([shown, new Promise((resolve) => (timer = setTimeout(resolve, READ_MS_MAX)))]);
  clearTimeout(timer);
}

async function showRest(mine: Keeping): Promise<void> {
  if (keeping !== mine) return;
  const left: Record<string, number> = { ...KEPT_MAX };
  const kept: Seen[] = [];
  for (const seen of (await records.all(mine.account)).sort((a, b) => b.at - a.at)) {
    const kind = kindOf(seen.key);
    left[kind] = (left[kind] ?? 0) - 1;
    if (left[kind] >= 0) kept.push(seen);
    else void records.delete(seen.id);
  }
  mine.whole = true;
  show(mine, kept);
}

function show(mine: Keeping, all: Seen[]): void {
  // somebody else may have logged in since
  if (keeping !== mine || all.length === 0) return;
  // what happened after it was written nobody here knows: it is asked for again
  const old = Date.now() - OLD_MS;
  showing = true;
  for (const { key, data, at } of all) {
    if (queryClient.getQueryData(key) === undefined) queryClient.setQueryData(key, data, { updatedAt: Math.min(at, old) });
  }
  showing = false;
  mine.shown();
}

function whenIdle(act: () => void): void {
  if ('requestIdleCallback' in globalThis) requestIdleCallback(act, { timeout: IDLE_MS_MAX });
  else setTimeout(act, WRITTEN_AFTER_MS);
}

export function forgetSeen(account: string): Promise<void> {
  return records.clear(account);
}
