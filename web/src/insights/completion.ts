// How long tasks took, from their creation until they were done.

import type { Task } from '../tasks/values.ts';

export interface Times {
  key: string;
  /** How many were done. */
  count: number;
  /** In seconds: half of them, 9 of 10, 99 of 100 took no longer. */
  p50: number;
  p90: number;
  p99: number;
}

type Done = Pick<Task, 'created_at' | 'completed_at' | 'priority' | 'tags'>;

/** Of those that were done within a time, from included, to excluded. */
export function doneWithin<T extends Pick<Task, 'completed_at'>>(tasks: readonly T[], from: string, to: string): T[] {
  return tasks.filter(({ completed_at: at }) => at !== null && Date.parse(at) >= Date.parse(from) && Date.parse(at) < Date.parse(to));
}

/** For each key that tasks have, the most frequent first. */
export function timesBy(tasks: readonly Done[], keysOf: (task: Done) => readonly string[]): Times[] {
  const seconds = new Map<string, number[]>();
  for (const task of tasks) {
    const took = (Date.parse(task.completed_at!) - Date.parse(task.created_at)) / 1_000;
    for (const key of keysOf(task)) {
      const known = seconds.get(key);
      if (known) known.push(took);
      else seconds.set(key, [took]);
    }
  }
  const times = [...seconds].map(([key, all]): Times => {
    all.sort((a, b) => a - b);
    return { key, count: all.length, p50: nearestRank(all, 0.5), p90: nearestRank(all, 0.9), p99: nearestRank(all, 0.99) };
  });
  return times.sort((a, b) => b.count - a.count || (a.key < b.key ? -1 : 1));
}

/** As the API's statistics do it. `sorted` is not empty. */
function nearestRank(sorted: readonly number[], share: number): number {
  return sorted[Math.ceil(share * sorted.length) - 1]!;
}
