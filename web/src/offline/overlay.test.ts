import { expect, test } from 'vitest';
import type { Task } from '../tasks/values.ts';
import { overlaid } from './overlay.ts';

const task = (id: string, more: Partial<Task> = {}) => ({ id, title: id, status: 'pending', priority: 'medium', tags: [], due_at: null, version: 1, ...more }) as Task;
const now = new Date('2030-01-01T00:00:00Z');
const ids = (pages: Task[][]) => pages.map((page) => page.map(({ id, status }) => `${id} ${status}`));

test('what waits is shown, twice as once', () => {
  const commands = [
    { type: 'CreateTask' as const, task_id: 'new', title: 'new' },
    { type: 'CompleteTask' as const, task_id: 'b' },
    { type: 'DeleteTask' as const, task_id: 'c' },
    { type: 'StartTask' as const, task_id: 'new' },
  ];
  const once = overlaid([[task('a'), task('b')], [task('c')]], commands, {}, now);
  expect(ids(once)).toEqual([['new in_progress', 'a pending', 'b completed'], []]);
  expect(ids(overlaid(once, commands, {}, now))).toEqual(ids(once));
});

test('a list that was asked for before is shown with what was carried out after it, and no other', () => {
  const commands = [{ type: 'CompleteTask' as const, task_id: 'a', made: 3 }];
  expect(ids(overlaid([[task('a', { version: 2 })]], commands, {}, now))).toEqual([['a completed']]);
  expect(ids(overlaid([[task('a', { version: 3 })]], commands, {}, now))).toEqual([['a pending']]);
});

test('what was created and is shown already is there once', () => {
  const commands = [{ type: 'CreateTask' as const, task_id: 'new', title: 'new' }, { type: 'StartTask' as const, task_id: 'new' }];
  const once = overlaid([[]], commands, {}, now);
  expect(ids(overlaid([[]], commands, {}, now, once[0], true))).toEqual([['new in_progress']]);
});

test('what a change brings into a list is shown there, once', () => {
  const commands = [{ type: 'ScheduleTask' as const, task_id: 'a', due_at: '2029-05-01T00:00:00Z' }];
  const elsewhere = [task('a', { due_at: '2029-04-01T00:00:00Z' }), task('b', { due_at: '2029-05-02T00:00:00Z' })];
  const may = { due_after: '2029-05-01T00:00:00Z', due_before: '2029-06-01T00:00:00Z' };
  const once = overlaid([[task('c')]], commands, may, now, elsewhere);
  expect(once.map((page) => page.map(({ id, due_at }) => `${id} ${due_at}`))).toEqual([['a 2029-05-01T00:00:00Z', 'c null']]);
  expect(ids(overlaid(once, commands, may, now, elsewhere))).toEqual([['a pending', 'c pending']]);
  expect(ids(overlaid([[task('a')]], commands, { due_before: '2029-05-01T00:00:00Z' }, now, elsewhere))).toEqual([['a pending']]);
  // already shown as it will be in another list, which was kept, while this one was not
  const shownThere = [task('a', { due_at: '2029-05-01T00:00:00Z' }), elsewhere[1]!];
  expect(ids(overlaid([[task('c')]], commands, may, now, shownThere, true))).toEqual([['a pending', 'c pending']]);
  expect(ids(overlaid([[task('c')]], commands, may, now, shownThere))).toEqual([['c pending']]);
});

test('what is new is shown where it matches, and what was created and deleted nowhere', () => {
  const commands = [
    { type: 'CreateTask' as const, task_id: 'x', title: 'Buy milk', tags: ['home'], due_at: '2029-01-01T00:00:00Z' },
    { type: 'CreateTask' as const, task_id: 'y', title: 'gone' },
    { type: 'DeleteTask' as const, task_id: 'y' },
  ];
  for (const filter of [{}, { tag: 'home,work' }, { q: 'MILK buy' }, { overdue: 'true' }, { due_before: '2029-06-01T00:00:00Z' }]) {
    expect(ids(overlaid([[]], commands, filter, now)), JSON.stringify(filter)).toEqual([['x pending']]);
  }
  for (const filter of [{ tag: 'work' }, { q: 'bread' }, { status: 'completed' }, { due_after: '2029-06-01T00:00:00Z' }, { as_of: '2029-01-01T00:00:00Z' }]) {
    expect(ids(overlaid([[]], commands, filter, now)), JSON.stringify(filter)).toEqual([[]]);
  }
});

test('each task has only its own commands looked at', () => {
  let looked = 0;
  const count = 200;
  const commands = Array.from({ length: count }, (_, n) => ({
    task_id: String(n),
    title: 'new',
    get type() {
      looked++;
      return 'RenameTask' as const;
    },
  }));
  const tasks = Array.from({ length: count }, (_, n) => task(String(n)));
  expect(overlaid([tasks], commands, {}, now)[0]!.every(({ title }) => title === 'new')).toBe(true);
  expect(looked).toBeLessThan(10 * count);
});
