import { expect, test } from 'vitest';
import type { Task } from '../tasks/values.ts';
import { keepMine, merge } from './merge.ts';

const base: Task = {
  id: '0', title: 'old', description: null, status: 'pending', priority: 'medium', due_at: '2030-01-01T09:00:00Z', tags: ['a'], rank: null,
  version: 3, created_at: '', updated_at: '', started_at: null, completed_at: null,
} as Task;

test('what somebody else left alone is sent', () => {
  const current = { ...base, priority: 'high', version: 4 } as Task;
  expect(merge([{ type: 'RenameTask', title: 'mine' }], base, current)).toEqual({ send: [{ type: 'RenameTask', title: 'mine' }], questions: [] });
});

test('a field that both have changed is asked about, and the others go on', () => {
  const current = { ...base, title: 'theirs', version: 5 };
  const { send, questions } = merge([{ type: 'RenameTask', title: 'mine' }, { type: 'ReprioritizeTask', priority: 'low' }], base, current);
  expect(send).toEqual([{ type: 'ReprioritizeTask', priority: 'low' }]);
  expect(questions).toEqual([
    { task_id: '0', title: 'theirs', field: 'title', mine: 'mine', theirs: 'theirs', changes: [{ type: 'RenameTask', title: 'mine' }], version: 5 },
  ]);
  expect(keepMine(questions[0]!)).toEqual([{ type: 'RenameTask', title: 'mine' }]);
});

test('who wants the same is not asked', () => {
  const due = { type: 'ScheduleTask', due_at: '2030-02-01T10:00:00.000Z' } as const;
  expect(merge([due], base, { ...base, due_at: '2030-02-01T10:00:00Z' })).toEqual({ send: [], questions: [] });
  expect(merge([{ type: 'CompleteTask' }], base, { ...base, status: 'completed' })).toEqual({ send: [], questions: [] });
});

test('tags never contradict each other', () => {
  const changes = [{ type: 'TagTask' as const, tags: ['b'] }, { type: 'UntagTask' as const, tags: ['a'] }];
  expect(merge(changes, base, { ...base, tags: ['c'], version: 9 }).send).toEqual(changes);
});

test('a stage is one field, and mine is reached from where the task is now', () => {
  const { send, questions } = merge([{ type: 'CompleteTask' }], base, { ...base, status: 'cancelled', version: 4 });
  expect(send).toEqual([]);
  expect(questions).toMatchObject([{ field: 'status', mine: 'completed', theirs: 'cancelled' }]);
  expect(keepMine(questions[0]!)).toEqual([{ type: 'ReopenTask' }, { type: 'CompleteTask' }]);
  const [back] = merge([{ type: 'ReopenTask' }], { ...base, status: 'completed' }, { ...base, status: 'in_progress', version: 6 }).questions;
  expect(keepMine(back!), 'no rule leads back').toBeNull();
});

test('a place that two have given is asked about; who only made room gives way', () => {
  const mine = [{ type: 'RankTask' as const, rank: 'k' }];
  const current = { ...base, rank: 'V', version: 4 };
  expect(merge(mine, base, { ...base, title: 'theirs', version: 4 }, true)).toEqual({ send: mine, questions: [] });
  const { send, questions } = merge(mine, base, current, true);
  expect(send).toEqual([]);
  expect(questions).toMatchObject([{ field: 'rank', mine: 'k', theirs: 'V', version: 4 }]);
  expect(keepMine(questions[0]!)).toEqual(mine);
  expect(merge(mine, base, current)).toEqual({ send: [], questions: [] });
});

test('a change of what was deleted is asked about, a deletion is not', () => {
  const [question] = merge([{ type: 'RenameTask', title: 'mine' }], base, null).questions;
  expect(keepMine(question!)).toEqual([{ type: 'RestoreTask' }, { type: 'RenameTask', title: 'mine' }]);
  expect(merge([{ type: 'DeleteTask' }], base, null)).toEqual({ send: [], questions: [] });
});
