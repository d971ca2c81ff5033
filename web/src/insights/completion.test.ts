import { expect, test } from 'vitest';
import type { Task } from '../tasks/values.ts';
import { doneWithin, timesBy } from './completion.ts';

const done = (seconds: number, more: Partial<Task> = {}) =>
  ({ created_at: '2026-11-01T00:00:00Z', completed_at: new Date(Date.UTC(2026, 10, 1, 0, 0, seconds)).toISOString(), priority: 'medium', tags: [], ...more }) as unknown as Task;

test('percentiles are of the nearest rank, for each priority and each tag by itself', () => {
  const hundred = Array.from({ length: 100 }, (_, n) => done(100 - n));
  expect(timesBy(hundred, ({ priority }) => [priority])).toEqual([{ key: 'medium', count: 100, p50: 50, p90: 90, p99: 99 }]);
  const tagged = [done(1, { tags: ['b', 'a'] }), done(9, { tags: ['b'] }), done(5)];
  expect(timesBy(tagged, ({ tags }) => tags)).toEqual([
    { key: 'b', count: 2, p50: 1, p90: 9, p99: 9 },
    { key: 'a', count: 1, p50: 1, p90: 1, p99: 1 },
  ]);
  expect(timesBy([], ({ tags }) => tags)).toEqual([]);
});

test('only what was done within the days counts', () => {
  const tasks = [done(9), done(10), done(19), done(20), done(0, { completed_at: null })];
  expect(doneWithin(tasks, '2026-11-01T00:00:10Z', '2026-11-01T00:00:20Z')).toEqual([tasks[1], tasks[2]]);
});
