import type { QueryClient } from '@tanstack/react-query';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { keepSeen, showSeen } from './seen.ts';

const { client, records, disk, idle } = vi.hoisted(() => ({
  client: { now: null as QueryClient | null },
  records: new Map<string, Record>(),
  /** What is read comes after this. */
  disk: { ready: Promise.resolve() },
  idle: [] as (() => void)[],
}));
interface Record {
  id: string;
  account: string;
  key: readonly unknown[];
  data: unknown;
  at: number;
}

vi.mock('./records.ts', () => ({
  onDisk: () => ({
    all: async (account: string) => [...records.values()].filter((record) => record.account === account),
    get: (id: string) => disk.ready.then(() => records.get(id)),
    put: async (record: Record) => void records.set(record.id, record),
    delete: async (id: string) => void records.delete(id),
  }),
}));
vi.mock('../api/queries.ts', async () => {
  const { QueryClient } = await import('@tanstack/react-query');
  client.now = new QueryClient();
  return { queryClient: client.now, firstPages: (data: unknown) => data };
});
vi.stubGlobal('requestIdleCallback', (act: () => void) => idle.push(act));
let leave = () => {};
vi.stubGlobal('addEventListener', (_: 'pagehide', act: () => void) => (leave = act));
vi.stubGlobal('removeEventListener', () => (leave = () => {}));

const keep = (key: unknown[], data: unknown, at = 1, account = 'me') =>
  records.set(`${account} ${JSON.stringify(key)}`, { id: `${account} ${JSON.stringify(key)}`, account, key, data, at });
const list = (name: string) => ['tasks', 'list', name];
const one = (name: string) => ['tasks', 'one', name];
const shown = (key: unknown[]) => client.now!.getQueryData(key);
async function whenIdle() {
  for (const act of idle.splice(0)) act();
  await new Promise((resolve) => setTimeout(resolve));
}

let stop = () => {};
beforeEach(() => {
  records.clear();
  disk.ready = Promise.resolve();
  idle.length = 0;
  client.now!.clear();
});
afterEach(() => stop());

test('what a view shows comes before the rest', async () => {
  keep(list('a'), 'A');
  keep(list('b'), 'B');
  const tell = vi.fn();
  stop = keepSeen('me', tell);
  await showSeen([list('a'), list('nothing')]);
  expect([shown(list('a')), shown(list('b'))]).toEqual(['A', undefined]);
  expect(tell).toHaveBeenCalledTimes(1);
  await whenIdle();
  expect(shown(list('b'))).toBe('B');
  expect(client.now!.getQueryState(list('b'))!.dataUpdatedAt).toBe(1);
});

test('tasks that were read push no list out, and of each kind the latest stay', async () => {
  keep(list('first'), 'list', 1);
  for (let n = 0; n < 100; n++) keep(one(String(n)), n, 10 + n);
  keep(['tasks', 'history', 'a'], 'of another version of the page', 1_000);
  stop = keepSeen('me', () => {});
  await whenIdle();
  expect(shown(list('first'))).toBe('list');
  expect([shown(one('59')), shown(one('60'))]).toEqual([undefined, 60]);
  expect(records.size).toBe(41);
});

test('what is answered is kept, what is shown from here is not written again', async () => {
  vi.useFakeTimers();
  keep(list('a'), 'A');
  stop = keepSeen('me', () => {});
  await showSeen([list('a')]);
  records.clear();
  client.now!.setQueryData(one('b'), 'B');
  client.now!.setQueryData(['tasks', 'history', 'b'], 'history');
  vi.advanceTimersByTime(500);
  vi.useRealTimers();
  expect([...records.values()].map(({ key }) => key)).toEqual([one('b')]);
});

test('what was answered just before the page is left is kept', () => {
  stop = keepSeen('me', () => {});
  client.now!.setQueryData(list('a'), 'A');
  expect(records.size).toBe(0);
  leave();
  expect([...records.values()].map(({ data }) => data)).toEqual(['A']);
});

test('nothing of one account is shown to another', async () => {
  keep(list('a'), 'mine');
  keep(list('a'), 'theirs', 1, 'they');
  stop = keepSeen('me', () => {});
  const showing = showSeen([list('a')]);
  stop();
  stop = keepSeen('they', () => {});
  await showing;
  await whenIdle();
  expect(shown(list('a'))).toBe('theirs');
});

test('a view does not wait for a disk that is busy, or fails, and shows what is kept once it is read', async () => {
  keep(list('a'), 'A');
  stop = keepSeen('me', () => {});
  let read = (_: void) => {};
  disk.ready = new Promise((resolve) => (read = resolve));
  vi.useFakeTimers();
  const drawn = vi.fn();
  const showing = showSeen([list('a')]).then(drawn);
  await vi.advanceTimersByTimeAsync(499);
  expect(drawn).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await showing;
  expect(shown(list('a'))).toBeUndefined();
  read();
  await vi.advanceTimersByTimeAsync(0);
  expect(shown(list('a'))).toBe('A');
  disk.ready = Promise.reject(new Error('the disk is full'));
  await showSeen([list('b')]);
  expect(shown(list('b'))).toBeUndefined();
  vi.useRealTimers();
});
