import { expect, test } from 'vitest';
import { madeAt, uuid } from './ids.ts';
import { shown, stageChanges, type Change } from './shown.ts';
import { STATUSES, type Task } from './values.ts';

const task: Task = {
  id: 'a', title: 'a', description: null, status: 'pending', priority: 'medium', due_at: null, tags: ['x'], rank: null, version: 1,
  created_at: '2026-01-01T00:00:00Z', updated_at: '2026-01-01T00:00:00Z', started_at: null, completed_at: null,
};

test('every stage that can be reached is reached by the commands named', () => {
  for (const from of STATUSES) {
    for (const to of STATUSES) {
      const changes = stageChanges(from, to);
      if (changes === null) {
        expect([from, to]).toEqual(['in_progress', 'pending']);
        continue;
      }
      const end = changes.reduce<Task | null>((now, change) => now && shown(now, change), { ...task, status: from });
      expect(end?.status).toBe(to);
    }
  }
});

test('what the rules refuse is not shown', () => {
  const completed: Task = { ...task, status: 'completed' };
  for (const type of ['StartTask', 'CancelTask', 'CompleteTask'] as const) expect(shown(completed, { type })).toEqual(completed);
});

test('fields', () => {
  const after = (change: Change) => shown(task, change);
  expect(after({ type: 'TagTask', tags: ['b', 'x'] })?.tags).toEqual(['b', 'x']);
  expect(after({ type: 'UntagTask', tags: ['x'] })?.tags).toEqual([]);
  expect(after({ type: 'RenameTask', title: ' b ' })?.title).toBe('b');
  expect(after({ type: 'DeleteTask' })).toBeNull();
});

test('ids are of version 7 and in the order in which they are made', () => {
  const first = uuid();
  expect(first).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(madeAt(first)).toBeGreaterThan(Date.now() - 1000);
  expect(new Set(Array.from({ length: 1000 }, uuid)).size).toBe(1000);
});
