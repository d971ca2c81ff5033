// The tasks that are shown anywhere: as they will be, as the server tells of them, and as it is asked for them again.

import type { Query } from '@tanstack/react-query';
import { api, ask, Problem } from '../api/client.ts';
import { throttled } from '../api/paced.ts';
import { askAgain, queryClient, STALE_MS } from '../api/queries.ts';
import { outbox } from '../offline/kept.ts';
import type { Command } from '../offline/outbox.ts';
import { after, byTask, created, overlaid } from '../offline/overlay.ts';
import type { Filter } from './filter.ts';
import type { Task } from './values.ts';

interface Pages {
  pages: readonly { items: Task[]; next_cursor?: string | null }[];
}

/** What was told of a task; null: it is deleted. */
export interface Told {
  id: string;
  version: number;
  task: Task | null;
}

const cache = queryClient.getQueryCache();
const lists = () => cache.findAll({ queryKey: ['tasks', 'list'] });

/** What waits, as if it had happened. */
export function showPending(): void {
  const commands = outbox.pending();
  if (commands.length === 0) return;
  const now = new Date();
  const known = Object.values(shownTasks(commands));
  for (const query of lists()) {
    const data = query.state.data as Pages | undefined;
    if (!data) continue;
    const items = overlaid(data.pages.map((page) => page.items), commands, query.queryKey[2] as Filter, now, known, data.pages.at(-1)?.next_cursor === null);
    const pages = data.pages.map((page, at) => (items[at] === page.items ? page : { ...page, items: items[at]! }));
    if (pages.some((page, at) => page !== data.pages[at])) showIn(query, { ...data, pages });
  }
  const ofTask = byTask(commands);
  for (const { id } of known) showOne(id, (task) => after(task, ofTask));
  for (const task of created(commands, now)) queryClient.setQueryData<Task>(['tasks', 'one', task.id], (known) => known ?? task);
}

/** What was told, wherever an earlier version is shown. */
export function showTold(all: readonly Told[]): void {
  const latest = new Map<string, Told>();
  for (const told of all) if (told.version > (latest.get(told.id)?.version ?? 0)) latest.set(told.id, told);
  const notTold = byTask(outbox.notTold());
  const now = (known: Task): Task | null => {
    const told = latest.get(known.id);
    if (!told || known.version >= told.version) return known;
    return told.task && after(told.task, notTold);
  };
  show(latest.keys(), now);
}

/** Each of these as it is `now`, wherever it is shown; null: in no list any more. */
function show(ids: Iterable<string>, now: (task: Task) => Task | null): void {
  for (const query of lists()) {
    const data = query.state.data as Pages | undefined;
    const next = data && patched(data, now);
    if (next !== data) showIn(query, next);
  }
  for (const id of ids) showOne(id, now);
}

/** More than that are not asked for one by one. */
const ASKED_ANEW_MAX = 50;

/** What was to become of these has not: shows them as the server has them, in the version that is shown too. */
export async function askAnew(ids: Iterable<string>): Promise<void> {
  const wanted = [...new Set(ids)].slice(0, ASKED_ANEW_MAX);
  const answered = new Map<string, Task | null>();
  await Promise.all(wanted.map(async (id) => {
    const task = await asItIs(id);
    if (task !== undefined) answered.set(id, task);
  }));
  const notTold = byTask(outbox.notTold());
  show(answered.keys(), (known) => {
    const task = answered.get(known.id);
    if (task === undefined || (task && task.version < known.version)) return known;
    return task && after(task, notTold);
  });
}

/** Null: it is not there; undefined: nobody has said. */
async function asItIs(id: string): Promise<Task | null | undefined> {
  try {
    return await ask(api.GET('/api/v1/tasks/{id}', { params: { path: { id } } }));
  } catch (error) {
    return error instanceof Problem && error.status === 404 ? null : undefined;
  }
}

/** With each task as it is `now`, null being none; the same where nothing changes, also each page of it. */
export function patched<T extends Pages>(data: T, now: (task: Task) => Task | null): T {
  const pages = data.pages.map((page) => {
    const items = page.items.map(now);
    return items.every((task, at) => task === page.items[at]) ? page : { ...page, items: items.filter((task) => task !== null) };
  });
  return pages.every((page, at) => page === data.pages[at]) ? data : { ...data, pages };
}

function showOne(id: string, now: (task: Task) => Task | null): void {
  const query = cache.find({ queryKey: ['tasks', 'one', id], exact: true });
  const task = query?.state.data as Task | undefined;
  const next = task && now(task);
  if (query && next && next !== task) showIn(query, next);
}

/** It is no answer of the server, which makes it no fresher; what is to be asked for again still is. */
function showIn(query: Query, data: unknown): void {
  const { dataUpdatedAt, isInvalidated } = query.state;
  const updatedAt = isInvalidated ? Math.min(dataUpdatedAt, Date.now() - STALE_MS) : dataUpdatedAt;
  queryClient.setQueryData(query.queryKey, data, { updatedAt });
}

/** The tasks of these commands as they are shown, by id. */
export function shownTasks(commands: readonly Command[]): Record<string, Task> {
  const wanted = new Set(commands.filter(({ type }) => type !== 'CreateTask').map(({ task_id }) => task_id));
  const found: Record<string, Task> = {};
  const see = (task: Task) => {
    if (wanted.has(task.id) && task.version >= (found[task.id]?.version ?? 0)) found[task.id] = task;
  };
  for (const query of lists()) (query.state.data as Pages | undefined)?.pages.forEach(({ items }) => items.forEach(see));
  for (const [, task] of queryClient.getQueriesData<Task>({ queryKey: ['tasks', 'one'] })) if (task) see(task);
  return found;
}

export type Shown = readonly { query: Query; data: unknown }[];

/** All of it, to be shown again. */
export function shownNow(): Shown {
  const all = cache.findAll({ queryKey: ['tasks'], predicate: ({ queryKey }) => queryKey[1] === 'list' || queryKey[1] === 'one' });
  return all.map((query) => ({ query, data: query.state.data }));
}

export function showAgain(before: Shown): void {
  for (const { query, data } of before) if (data !== undefined) showIn(query, data);
  showPending();
  refreshTasks();
}

/** After the first event, or the answer to an own change, of which an event tells too. */
const REFRESH_AFTER_MS = 400;

/**
 * Asks again for all that is shown of tasks: whether one still matches, and what is new, only the server can say. Of a list that
 * was followed far only what is known of its tasks changes.
 */
export const refreshTasks = throttled(REFRESH_AFTER_MS, () => askAgain({ queryKey: ['tasks'] }));

let waiting: ReadonlySet<string> = new Set();

// Whichever page has asked for it, also one that is closed: what has had its answer was shown here too.
outbox.onChange(() => {
  const now = new Set(outbox.get().flatMap(({ kind, id }) => (kind === 'commands' ? [id] : [])));
  if ([...waiting].some((id) => !now.has(id))) refreshTasks();
  waiting = now;
});
