import { beforeEach, expect, test, vi } from 'vitest';
import { queryClient, STALE_MS } from '../api/queries.ts';
import type { Command } from '../offline/outbox.ts';
import { askAnew, showPending, showTold } from './known.ts';
import type { Task } from './values.ts';

const waiting = vi.hoisted(() => [] as Command[]);
const carriedOut = vi.hoisted(() => [] as (Command & { made: number })[]);
/** As the server has them; those that are not here are not there. */
const there = vi.hoisted(() => new Map<string, Task>());
const asked = vi.hoisted(() => [] as string[]);
vi.mock('../offline/kept.ts', () => ({ outbox: { pending: () => waiting, notTold: () => [...carriedOut, ...waiting], get: () => [], onChange: () => () => {} } }));
vi.mock('../api/client.ts', async () => {
  const { Problem } = await import('../api/problem.ts');
  const GET = async (_: string, { params }: { params: { path: { id: string } } }) => {
    asked.push(params.path.id);
    const task = there.get(params.path.id);
    if (!task) throw new Problem({ code: 'not-found' }, 404);
    return task;
  };
  return { Problem, api: { GET }, ask: (outcome: Promise<unknown>) => outcome };
});

const task = (id: string, version = 1, title = id) => ({ id, version, title, status: 'pending', tags: [], due_at: null }) as unknown as Task;
const list = (...pages: Task[][]) => ({ pages: pages.map((items) => ({ items, next_cursor: null })), pageParams: pages.map(() => null) });
const first = ['tasks', 'list', { sort: 'title' }];
const other = ['tasks', 'list', { sort: 'title', tag: 'home' }];
const shown = (key: unknown[]) => queryClient.getQueryData<ReturnType<typeof list>>(key)!;
const titles = (key: unknown[]) => shown(key).pages.map(({ items }) => items.map(({ title }) => title).join(' '));

beforeEach(() => {
  queryClient.clear();
  waiting.length = 0;
  carriedOut.length = 0;
  there.clear();
  asked.length = 0;
});

test('what is told touches only what shows it, and is no answer', () => {
  queryClient.setQueryData(first, list([task('a'), task('b')], [task('c')]), { updatedAt: 7 });
  queryClient.setQueryData(other, list([task('c')]), { updatedAt: 7 });
  const before = [shown(first), shown(other)] as const;
  const heard: unknown[] = [];
  const stop = queryClient.getQueryCache().subscribe(({ type, query }) => type === 'updated' && heard.push(query.queryKey));
  showTold([{ id: 'b', version: 2, task: task('b', 2, 'B') }, { id: 'x', version: 4, task: task('x', 4) }]);
  stop();
  expect(titles(first)).toEqual(['a B', 'c']);
  expect(heard).toEqual([first]);
  expect(shown(other)).toBe(before[1]);
  expect(shown(first).pages[1]).toBe(before[0].pages[1]);
  expect(shown(first).pages[0]!.items[0]).toBe(before[0].pages[0]!.items[0]);
  expect(queryClient.getQueryState(first)!.dataUpdatedAt).toBe(7);
});

test('of many events the latest of each task counts, and none that is older than what is shown', () => {
  queryClient.setQueryData(first, list([task('a', 5), task('b'), task('c')]));
  queryClient.setQueryData(['tasks', 'one', 'b'], task('b'));
  showTold([
    { id: 'b', version: 3, task: task('b', 3, 'third') },
    { id: 'b', version: 2, task: task('b', 2, 'second') },
    { id: 'a', version: 4, task: task('a', 4, 'old') },
    { id: 'c', version: 2, task: null },
  ]);
  expect(titles(first)).toEqual(['a third']);
  expect(queryClient.getQueryData<Task>(['tasks', 'one', 'b'])!.title).toBe('third');
});

test('what waits here stays over what is told', () => {
  queryClient.setQueryData(first, list([task('a')]));
  waiting.push({ type: 'CompleteTask', task_id: 'a' });
  showTold([{ id: 'a', version: 2, task: task('a', 2, 'theirs') }]);
  expect(shown(first).pages[0]!.items).toMatchObject([{ title: 'theirs', status: 'completed' }]);
});

test('an event of an earlier command, after the answer to a later one, takes nothing of it back', () => {
  queryClient.setQueryData(first, list([{ ...task('a'), status: 'completed' }]));
  carriedOut.push({ type: 'StartTask', task_id: 'a', made: 2 }, { type: 'CompleteTask', task_id: 'a', made: 3 });
  showTold([{ id: 'a', version: 2, task: { ...task('a', 2), status: 'in_progress' } }]);
  expect(shown(first).pages[0]!.items).toMatchObject([{ version: 2, status: 'completed' }]);
  // what somebody does after both counts
  showTold([{ id: 'a', version: 4, task: task('a', 4) }]);
  expect(shown(first).pages[0]!.items).toMatchObject([{ version: 4, status: 'pending' }]);
});

test('a list that is to be asked for again still is', () => {
  queryClient.setQueryData(first, list([task('a')]));
  void queryClient.invalidateQueries({ queryKey: first });
  showTold([{ id: 'a', version: 2, task: task('a', 2) }]);
  expect(queryClient.getQueryCache().find({ queryKey: first })!.isStaleByTime(STALE_MS)).toBe(true);
});

test('what waits touches only lists that have it', () => {
  queryClient.setQueryData(first, list([task('a')], [task('b')]));
  queryClient.setQueryData(other, list([task('b')]));
  const before = [shown(first), shown(other)] as const;
  waiting.push({ type: 'RenameTask', task_id: 'a', title: 'mine' });
  const heard: unknown[] = [];
  const stop = queryClient.getQueryCache().subscribe(({ type, query }) => type === 'updated' && heard.push(query.queryKey));
  showPending();
  stop();
  expect(heard).toEqual([first]);
  expect(titles(first)).toEqual(['mine', 'b']);
  expect(shown(first).pages[1]).toBe(before[0].pages[1]);
  expect(shown(other)).toBe(before[1]);
});

test('what was refused is shown as the server has it, in the same version too', async () => {
  queryClient.setQueryData(first, list([task('new', 1, 'refused'), task('a', 3, 'mine'), task('b', 9, 'told since')]));
  queryClient.setQueryData(['tasks', 'one', 'a'], task('a', 3, 'mine'));
  there.set('a', task('a', 3, 'theirs')).set('b', task('b', 8, 'before'));
  await askAnew(['new', 'a', 'b', 'a']);
  expect(titles(first)).toEqual(['theirs told since']);
  expect(queryClient.getQueryData<Task>(['tasks', 'one', 'a'])!.title).toBe('theirs');
  expect(asked).toEqual(['new', 'a', 'b']);
  asked.length = 0;
  await askAnew(Array.from({ length: 60 }, (_, n) => String(n)));
  expect(asked).toHaveLength(50);
});
