import { expect, test } from 'vitest';
import { shown } from '../tasks/shown.ts';
import type { Task } from '../tasks/values.ts';
import { changesTo, fieldsAt } from './versions.ts';

const history: Parameters<typeof fieldsAt>[0] = [
  { version: 1, changes: { title: { from: null, to: 'draft' }, tags: { from: [], to: ['a', 'b'] }, status: { from: null, to: 'pending' } } },
  { version: 2, changes: { title: { from: 'draft', to: 'final' }, priority: { from: 'medium', to: 'high' } } },
  { version: 3, changes: { tags: { from: ['a', 'b'], to: ['b', 'c'] }, due_at: { from: null, to: '2027-01-01T00:00:00Z' } } },
  { version: 4, changes: { status: { from: 'pending', to: 'completed' }, completed_at: { from: null, to: '2026-01-01T00:00:00Z' } } },
];

test('a version is what all changes up to it have made', () => {
  expect(fieldsAt(history, 1)).toMatchObject({ title: 'draft', priority: 'medium', tags: ['a', 'b'], status: 'pending', description: null });
  expect(fieldsAt(history, 3)).toMatchObject({ title: 'final', priority: 'high', tags: ['b', 'c'], due_at: '2027-01-01T00:00:00Z' });
  expect(fieldsAt(history, 4)).toMatchObject({ status: 'completed' });
});

test('the way back to each version leads to just that', () => {
  const now = fieldsAt(history, 4) as Task;
  for (const { version } of history) {
    const then = fieldsAt(history, version);
    const { changes, stage } = changesTo(then, now);
    expect(stage).toBe(true);
    expect(changes.reduce<Task>((task, change) => shown(task, change)!, now)).toEqual(then);
  }
  expect(changesTo(now, now)).toEqual({ changes: [], stage: true });
});

test('what is in progress cannot be as before its start, but all else can', () => {
  const then = fieldsAt(history, 1);
  const { changes, stage } = changesTo(then, { ...then, title: 'other', status: 'in_progress' });
  expect(stage).toBe(false);
  expect(changes).toEqual([{ type: 'RenameTask', title: 'draft' }]);
});
