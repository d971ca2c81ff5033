import { InfiniteQueryObserver, QueryObserver } from '@tanstack/react-query';
import { beforeEach, expect, test, vi } from 'vitest';
import type { Command } from '../offline/outbox.ts';
import type { Status, Task } from '../tasks/values.ts';
import { answer } from './arrived.ts';
import * as jobs from '../jobs/state.ts';
import * as operations from '../operations/queries.ts';
import * as queries from './queries.ts';

const asked = vi.hoisted(() => [] as { path: string; query: Record<string, unknown>; signal: AbortSignal | undefined }[]);
const notTold = vi.hoisted(() => [] as (Command & { made: number })[]);
vi.mock('../offline/kept.ts', () => ({ outbox: { notTold: () => notTold } }));
vi.mock('./client.ts', async () => ({
  Problem: (await import('./problem.ts')).Problem,
  api: {
    GET: (path: string, { params, signal }: { params?: { query?: object }; signal?: AbortSignal } = {}) => {
      asked.push({ path, query: { ...params?.query }, signal });
      return Promise.resolve();
    },
  },
  ask: async (outcome: Promise<unknown>) => {
    await outcome;
    return (await server.answer?.()) ?? { items: [], next_cursor: null, by_status: {} };
  },
}));
const server = vi.hoisted(() => ({ answer: undefined as (() => Promise<unknown>) | undefined }));

const { queryClient, isShort } = queries;
const pages = (count: number) => ({ pages: Array.from({ length: count }, () => ({ items: [] })), pageParams: Array.from({ length: count }, () => null) });

beforeEach(() => {
  queryClient.clear();
  asked.length = 0;
  notTold.length = 0;
});

test('a task that was moved stays where it is, also where lists arrive that were asked for before', () => {
  const moved = (status: Status, version: number) => ({ id: 'a', title: 'a', tags: [], due_at: null, status, version }) as unknown as Task;
  const pageOf = (...items: Task[]) => ({ items, next_cursor: null });
  const arrive = (status: Status, shown: Task[], ...arrived: Task[]) => {
    const share = queries.listQuery({ status }).structuralSharing as (shown: unknown, arrived: unknown) => { pages: { items: Task[] }[] };
    return share({ pages: [pageOf(...shown)], pageParams: [null] }, { pages: [answer(pageOf(...arrived))], pageParams: [null] }).pages[0]!.items;
  };
  notTold.push({ type: 'StartTask', task_id: 'a', made: 2 }, { type: 'CompleteTask', task_id: 'a', made: 3 });
  expect(arrive('in_progress', [], moved('in_progress', 2))).toMatchObject([{ status: 'completed' }]);
  expect(arrive('completed', [moved('completed', 2)])).toMatchObject([{ status: 'completed' }]);
  // told of: now the server knows best
  expect(arrive('completed', [moved('completed', 3)])).toEqual([]);
  expect(arrive('in_progress', [], moved('in_progress', 4))).toMatchObject([{ status: 'in_progress' }]);
});

test('no query goes on that nobody waits for any more', async () => {
  const days = { from: '2026-01-01', to: '2026-01-02', time_zone: 'UTC' };
  const all = [
    queries.listQuery({}), queries.facetsQuery({}), queries.statsQuery(days), queries.flowQuery(days), queries.doneQuery({}, '2026-01-01'),
    queries.taskQuery('a'), queries.dueQuery({ due_after: '', due_before: '' }), queries.firstTaskQuery(), queries.sinceQuery('2026-01-01'),
    queries.historyQuery('a'), queries.trashQuery(), queries.changesQuery(undefined), queries.changeQuery('a'), queries.meQuery(), queries.sessionsQuery(),
    jobs.jobsQuery(), jobs.jobErrorsQuery('a'),
    operations.projectionsQuery(), operations.parkedQuery(), operations.usersQuery(), operations.auditQuery({}),
  ];
  const { signal } = new AbortController();
  for (const { queryKey, queryFn } of all) {
    asked.length = 0;
    await (queryFn as unknown as (context: object) => Promise<unknown>)({ queryKey, signal, pageParam: null });
    expect(asked.length, String(queryKey)).toBeGreaterThan(0);
    for (const one of asked) expect(one.signal, `${String(queryKey)}: ${one.path}`).toBe(signal);
  }
});

test('the first page of a list is a small one', async () => {
  const { queryFn } = queries.listQuery({ tag: 'home' });
  for (const pageParam of [null, 'next']) await (queryFn as unknown as (context: object) => Promise<unknown>)({ signal: undefined, pageParam });
  expect(asked.map(({ query }) => query)).toEqual([
    { tag: 'home', sort: '-created_at', limit: 100 },
    { tag: 'home', sort: '-created_at', limit: 200, cursor: 'next' },
  ]);
});

test('the next page of a list leaves what was told while it was asked for', async () => {
  const task = (id: string, version = 1) => ({ id, version, title: id, tags: [] });
  let arrive = (_: unknown) => {};
  server.answer = async () => ({ items: [task('a')], next_cursor: '1' });
  const list = new InfiniteQueryObserver(queryClient, queries.listQuery({}));
  const leave = list.subscribe(() => {});
  await vi.waitFor(() => expect(list.getCurrentResult().data?.pages).toHaveLength(1));
  server.answer = () => new Promise((resolve) => (arrive = resolve));
  const next = list.fetchNextPage();
  await vi.waitFor(() => expect(asked).toHaveLength(2));
  queryClient.setQueryData(list.options.queryKey as unknown[], { pages: [{ items: [task('a', 2)], next_cursor: '1' }], pageParams: [null] });
  await vi.waitFor(() => {
    arrive({ items: [task('b')], next_cursor: null });
    expect(list.getCurrentResult().data?.pages).toHaveLength(2);
  });
  await next;
  leave();
  server.answer = undefined;
  expect(list.getCurrentResult().data!.pages.map(({ items }) => items)).toEqual([[task('a', 2)], [task('b')]]);
});

test('what was asked for before is asked for again, also where nothing has been shown yet', async () => {
  const answers: ((page: unknown) => void)[] = [];
  server.answer = () => new Promise((resolve) => answers.push(resolve));
  const list = new InfiniteQueryObserver(queryClient, queries.listQuery({}));
  const leave = list.subscribe(() => {});
  await vi.waitFor(() => expect(answers).toHaveLength(1));
  const again = queries.askAgain({ queryKey: ['tasks'] });
  answers[0]!({ items: [], next_cursor: null });
  await vi.waitFor(() => expect(answers).toHaveLength(2));
  answers[1]!({ items: [{ id: 'a', version: 1 }], next_cursor: null });
  await again;
  expect(list.getCurrentResult().data!.pages[0]!.items).toMatchObject([{ id: 'a' }]);
  // what is shown is asked for once
  const once = queries.askAgain();
  await vi.waitFor(() => expect(answers).toHaveLength(3));
  answers[2]!({ items: [], next_cursor: null });
  await once;
  leave();
  server.answer = undefined;
  expect(answers).toHaveLength(3);
});

test('a list that was followed far is not walked through again by itself', () => {
  const { queries: defaults } = queryClient.getDefaultOptions();
  for (const when of [defaults!.refetchOnMount, defaults!.refetchOnReconnect, defaults!.refetchOnWindowFocus]) {
    const decides = when as unknown as typeof isShort;
    expect([undefined, [], pages(10), pages(11)].map((data) => decides({ state: { data } }))).toEqual([true, true, true, false]);
  }
});

test('whoever comes back to it finds its beginning', async () => {
  vi.useFakeTimers();
  const queryKey = ['tasks', 'list', {}];
  queryClient.setQueryData(queryKey, pages(11), { updatedAt: 5 });
  const leave = new QueryObserver(queryClient, { queryKey, enabled: false }).subscribe(() => {});
  leave();
  expect(queryClient.getQueryData(queryKey), 'not while it may be shown').toEqual(pages(11));
  vi.advanceTimersByTime(1);
  vi.useRealTimers();
  expect(queryClient.getQueryData(queryKey)).toEqual(pages(1));
  expect(queryClient.getQueryState(queryKey)!.dataUpdatedAt).toBe(5);
});

test('where tasks stood is known time by time, a few of all of them first', async () => {
  for (let count = 0; count < 20; count++) expect(queries.coarseFirst(count).toSorted((a, b) => a - b)).toEqual([...Array(count).keys()]);
  const known: string[] = [];
  const stop = queryClient.getQueryCache().subscribe(({ query: { queryKey, state } }) => {
    const stages = queryKey[1] === 'stages' ? (state.data as (object | null)[] | undefined) : undefined;
    const now = stages?.map((each) => (each ? '#' : '.')).join('');
    if (now && now !== known.at(-1)) known.push(now);
  });
  await queryClient.fetchQuery(queries.stagesQuery({}, ['2026-01-01', '2026-01-02', '2026-01-03', null]));
  stop();
  expect(known).toEqual(['...#', '#..#', '#.##', '####']);
  expect(asked).toHaveLength(4);
});
