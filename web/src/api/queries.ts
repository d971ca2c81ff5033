// The state of the server, in Query alone.

import { infiniteQueryOptions, keepPreviousData, QueryClient, queryOptions, type QueryKey } from '@tanstack/react-query';
import { outbox } from '../offline/kept.ts';
import { after, byTask, overlaid } from '../offline/overlay.ts';
import { filterOf, SORT_DEFAULT, type Filter, type View } from '../tasks/filter.ts';
import type { Status, Task } from '../tasks/values.ts';
import { answer, arrivedPages, arrivedTask, type Page } from './arrived.ts';
import { api, ask, Problem, type Outcome } from './client.ts';
import { since } from './since.ts';

/** Of the API. */
const PAGE_MAX = 200;
/** It is shown sooner. */
const FIRST_PAGE = 100;
/** A list of more than that is asked for again only by a person: it would be walked through from its beginning. */
const PAGES_ASKED_AGAIN_MAX = 10;
/** An answer that is older is asked for again when it is shown. */
export const STALE_MS = 30_000;

interface Paged {
  pages: readonly unknown[];
  pageParams?: readonly unknown[];
}

const isPaged = (data: unknown): data is Paged => typeof data === 'object' && data !== null && 'pages' in data;

/** Whether it is asked for again by itself. */
export function isShort({ state }: { state: { data: unknown } }): boolean {
  return !isPaged(state.data) || state.data.pages.length <= PAGES_ASKED_AGAIN_MAX;
}

/** Of a list so many pages; all else whole. */
export function firstPages<T>(data: T, pages: number): T {
  if (!isPaged(data)) return data;
  return { ...data, pages: data.pages.slice(0, pages), ...(data.pageParams && { pageParams: data.pageParams.slice(0, pages) }) };
}

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: STALE_MS,
      gcTime: 3_600_000,
      // the browser does not know whether the server answers
      networkMode: 'always',
      refetchOnReconnect: isShort,
      refetchOnWindowFocus: isShort,
      refetchOnMount: isShort,
      // what is refused is refused again; who is away is waited for by the stream
      retry: (failures, error) => !(error instanceof Problem && error.status < 500) && failures < 3,
    },
  },
});

/**
 * Asks again for what is shown of these, but for lists that were followed far. Whose first answer is still awaited is asked once more
 * after it: that one was asked for before, and Query has it count as the answer to this.
 */
export async function askAgain(these: { queryKey?: QueryKey } = {}): Promise<void> {
  const all = { ...these, predicate: isShort };
  const active = queryClient.getQueryCache().findAll({ ...all, type: 'active' });
  const first = new Set(active.filter(({ state }) => state.data === undefined && state.fetchStatus !== 'idle').map(({ queryHash }) => queryHash));
  await queryClient.invalidateQueries(all);
  if (first.size > 0) await queryClient.invalidateQueries({ predicate: ({ queryHash }) => first.has(queryHash) });
}

/** Whoever comes back to a list that was followed far finds its beginning, as it is by then. */
queryClient.getQueryCache().subscribe(({ type, query }) => {
  if (type !== 'observerRemoved' || isShort(query)) return;
  // until then another view may show it as it was
  setTimeout(() => {
    const { data, dataUpdatedAt } = query.state;
    if (query.getObserversCount() === 0) queryClient.setQueryData(query.queryKey, firstPages(data, 1), { updatedAt: dataUpdatedAt });
  });
});

/** Lists with what the server has not told of, as if it had happened: a task that it brought there stays until the server tells of it. */
const withNotTold = (filter: Filter) => (pages: Task[][], shown: Task[]) => overlaid(pages, outbox.notTold(), filter, new Date(), shown, true);

/** What was does not change: events leave it as it is. */
const keyOf = (view: { as_of?: string | undefined }) => (view.as_of ? 'past' : 'tasks');
const timeOf = (view: View) => (view.as_of ? { as_of: view.as_of } : {});

/** What is shown as it is now is followed from there on. */
async function askNow<T extends { revision: number }>(query: object, outcome: Promise<Outcome<T>>): Promise<T> {
  const answered = await ask(outcome);
  if (!('as_of' in query)) since.saw(answered.revision);
  return answered;
}

export function listQuery(view: View) {
  const query = { ...filterOf(view), ...timeOf(view), sort: view.sort ?? SORT_DEFAULT };
  return infiniteQueryOptions({
    queryKey: [keyOf(view), 'list', query],
    queryFn: async ({ pageParam, signal }): Promise<Page> => {
      const part = pageParam ? { limit: PAGE_MAX, cursor: pageParam } : { limit: FIRST_PAGE };
      return answer(await askNow(query, api.GET('/api/v1/tasks', { params: { query: { ...query, ...part } as never }, signal })));
    },
    structuralSharing: (shown, arrived) => arrivedPages(shown as never, arrived as never, withNotTold(query)),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    placeholderData: keepPreviousData,
  });
}

export function facetsQuery(view: View) {
  const query = { ...filterOf(view), ...timeOf(view) };
  return queryOptions({
    queryKey: [keyOf(view), 'facets', query],
    queryFn: ({ signal }) => askNow(query, api.GET('/api/v1/tasks/facets', { params: { query: query as never }, signal })),
    placeholderData: keepPreviousData,
  });
}

export interface Days {
  from: string;
  to: string;
  time_zone: string;
}

export function statsQuery(days: Days) {
  return queryOptions({
    queryKey: ['tasks', 'stats', days],
    queryFn: ({ signal }) => ask(api.GET('/api/v1/stats', { params: { query: { ...days } }, signal })),
    placeholderData: keepPreviousData,
  });
}

export function flowQuery(days: Days) {
  return queryOptions({
    queryKey: ['tasks', 'flow', days],
    queryFn: ({ signal }) => ask(api.GET('/api/v1/stats/flow', { params: { query: { ...days } }, signal })),
    placeholderData: keepPreviousData,
  });
}

const DONE_PAGES_MAX = 5;
/** Events leave these as they are: they take many questions. */
const MANY_ASKED_EVERY_MS = 60_000;

/** Tasks that are done and were changed at or after a time, up to a number of them; `more`: there are others. */
export function doneQuery(filter: Filter, after: string) {
  return queryOptions({
    queryKey: ['insights', 'done', filter, after],
    queryFn: async ({ signal }) => {
      const pages: Page[] = [];
      const isAfter = ({ updated_at }: Task) => Date.parse(updated_at) >= Date.parse(after);
      let more = true;
      for (let cursor: string | null = null; more && pages.length < DONE_PAGES_MAX; ) {
        const query = { ...filter, status: 'completed', sort: '-updated_at', limit: PAGE_MAX, ...(cursor && { cursor }) };
        const page: Page = await ask(api.GET('/api/v1/tasks', { params: { query: query as never }, signal }));
        pages.push(page);
        cursor = page.next_cursor;
        more = cursor !== null && page.items.every(isAfter);
      }
      return { tasks: pages.flatMap(({ items }) => items), more };
    },
    refetchInterval: MANY_ASKED_EVERY_MS,
    placeholderData: keepPreviousData,
  });
}

/** How many stood where. */
export type Stages = Record<Status, number>;

/**
 * How many stood where at each of these times; null is now. One after the other, since each is a walk over the account's past: what
 * is not known yet is null until then, and a few of all the times are asked for first.
 */
export function stagesQuery(filter: Filter, times: (string | null)[]) {
  const queryKey = ['insights', 'stages', filter, times];
  return queryOptions({
    queryKey,
    queryFn: async ({ signal }) => {
      const stages = [...(queryClient.getQueryData<(Stages | null)[]>(queryKey) ?? times.map(() => null))];
      for (const at of coarseFirst(times.length)) {
        signal.throwIfAborted();
        const time = times[at];
        const facets = await queryClient.fetchQuery(time ? { ...facetsQuery({ ...filter, as_of: time }), staleTime: Infinity } : facetsQuery(filter));
        stages[at] = facets.by_status;
        // should it end here, it is asked for again
        if (!signal.aborted) queryClient.setQueryData(queryKey, [...stages], { updatedAt: 0 });
      }
      return stages;
    },
    refetchInterval: MANY_ASKED_EVERY_MS,
  });
}

/** All indices of so many: the last one, the first one, and then what lies in the middle of those before. */
export function coarseFirst(count: number): number[] {
  const order = new Set(count > 0 ? [count - 1, 0] : []);
  for (let step = count - 1; step > 1; step = Math.ceil(step / 2)) {
    for (let at = 0; at < count; at += Math.ceil(step / 2)) order.add(at);
  }
  return [...order];
}

/** As it is, or as it was at a time. */
export function taskQuery(id: string, asOf?: string) {
  return queryOptions({
    queryKey: [keyOf({ as_of: asOf }), 'one', id, ...(asOf ? [asOf] : [])],
    queryFn: ({ signal }): Promise<Task> =>
      ask(api.GET('/api/v1/tasks/{id}', { params: { path: { id }, query: asOf ? { as_of: asOf } : {} }, signal })),
    structuralSharing: (shown, arrived) =>
      arrivedTask(shown as Task | undefined, arrived as Task, (task) => (asOf ? task : (after(task, byTask(outbox.notTold())) ?? task))),
    // until it is answered: as a list shows it
    initialDataUpdatedAt: 0,
    initialData: () =>
      asOf
        ? undefined
        : queryClient
            .getQueriesData<{ pages: Page[] }>({ queryKey: ['tasks', 'list'] })
            .flatMap(([, data]) => data?.pages ?? [])
            .flatMap(({ items }) => items)
            .find((task) => task.id === id),
  });
}

const DUE_PAGES_MAX = 5;

/** All tasks that are due within a time, up to a number of them; if the last page names a next one, there are others. */
export function dueQuery(filter: Filter & { due_after: string; due_before: string }) {
  return queryOptions({
    queryKey: ['tasks', 'list', filter, 'due'],
    queryFn: async ({ signal }) => {
      const pages: Page[] = [];
      for (let cursor: string | null | undefined; cursor !== null && pages.length < DUE_PAGES_MAX; cursor = pages.at(-1)!.next_cursor) {
        const query = { ...filter, sort: 'due_at', limit: PAGE_MAX, ...(cursor && { cursor }) };
        pages.push(answer(await askNow(filter, api.GET('/api/v1/tasks', { params: { query: query as never }, signal }))));
      }
      return { pages };
    },
    structuralSharing: (shown, arrived) => arrivedPages(shown as never, arrived as never, withNotTold(filter)),
    placeholderData: keepPreviousData,
  });
}

/** The oldest task; null: there is none. */
export function firstTaskQuery() {
  return queryOptions({
    queryKey: ['past', 'first'],
    queryFn: async ({ signal }): Promise<Task | null> =>
      (await ask(api.GET('/api/v1/tasks', { params: { query: { sort: 'created_at', limit: 1 } }, signal }))).items[0] ?? null,
  });
}

/** Tasks that were changed, made or deleted after a time, the last first; `more`: there are others. */
export function sinceQuery(asOf: string) {
  return queryOptions({
    queryKey: ['tasks', 'since', asOf],
    queryFn: async ({ signal }) => {
      const [changed, deleted] = await Promise.all([
        ask(api.GET('/api/v1/tasks', { params: { query: { sort: '-updated_at', limit: PAGE_MAX } }, signal })),
        ask(api.GET('/api/v1/tasks/deleted', { params: { query: { limit: PAGE_MAX } }, signal })),
      ]);
      const isAfter = (time: string) => Date.parse(time) > Date.parse(asOf);
      const lists = [deleted.items.filter((task) => isAfter(task.deleted_at)), changed.items.filter((task) => isAfter(task.updated_at))];
      return { tasks: lists.flat(), more: lists.some(({ length }) => length === PAGE_MAX) };
    },
    placeholderData: keepPreviousData,
  });
}

export function historyQuery(id: string) {
  return infiniteQueryOptions({
    queryKey: ['tasks', 'history', id],
    queryFn: ({ pageParam, signal }) =>
      ask(api.GET('/api/v1/tasks/{id}/history', { params: { path: { id }, query: pageParam ? { cursor: pageParam } : {} }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

export function trashQuery() {
  return infiniteQueryOptions({
    queryKey: ['tasks', 'deleted'],
    queryFn: ({ pageParam, signal }) => ask(api.GET('/api/v1/tasks/deleted', { params: { query: pageParam ? { cursor: pageParam } : {} }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

/** All of the account's changes, or those that touched one task. */
export function changesQuery(task: string | undefined) {
  const filter = task ? { task_id: task } : {};
  return infiniteQueryOptions({
    queryKey: ['tasks', 'changes', filter],
    queryFn: ({ pageParam, signal }) =>
      ask(api.GET('/api/v1/changes', { params: { query: { ...filter, ...(pageParam && { cursor: pageParam }) } }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

export function changeQuery(id: string) {
  return queryOptions({
    queryKey: ['tasks', 'change', id],
    queryFn: ({ signal }) => ask(api.GET('/api/v1/changes/{id}', { params: { path: { id } }, signal })),
  });
}

export function meQuery() {
  return queryOptions({ queryKey: ['account', 'me'], queryFn: ({ signal }) => ask(api.GET('/api/v1/auth/me', { signal })) });
}

export function sessionsQuery() {
  return queryOptions({ queryKey: ['account', 'sessions'], queryFn: ({ signal }) => ask(api.GET('/api/v1/auth/sessions', { signal })) });
}
