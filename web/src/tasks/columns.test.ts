import { expect, test } from 'vitest';
import { columnsOf } from './columns.ts';
import type { Status, Task } from './values.ts';

const task = (id: string, status: Status, rank: string | null = null, version = 1) => ({ id, status, rank, version }) as Task;
const ids = (tasks: Task[]) => tasks.map(({ id }) => id).join('');

test('a task that was moved stands in its new column at once: by rank in the order by hand, else at the top', () => {
  const lists = [[task('a', 'pending', 'A'), task('b', 'in_progress', 'M')], [task('c', 'in_progress', 'C'), task('d', 'in_progress')], [], []];
  const byHand = columnsOf(lists, true, []);
  expect([ids(byHand.columns.pending), ids(byHand.columns.in_progress), ids(byHand.moved)]).toEqual(['a', 'cbd', 'b']);
  expect(ids(columnsOf(lists, false, []).columns.in_progress)).toBe('bcd');
});

test('it is shown once, while only one of the lists is up to date', () => {
  const before = task('b', 'completed');
  const { moved } = columnsOf([[before], [], [], []], true, []);
  expect(ids(columnsOf([[], [], [], []], true, moved).columns.completed)).toBe('b');
  const both = columnsOf([[before], [], [task('b', 'completed', 'A', 2)], []], true, moved);
  expect(both.columns.completed).toEqual([task('b', 'completed', 'A', 2)]);
  expect(both.moved).toEqual([]);
});
