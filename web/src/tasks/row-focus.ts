// Which task of a list the keys are about: the one that has the focus, wherever its row stands by now.

import type { Task } from './values.ts';

export interface RowFocus {
  /** Null: none has it. */
  id: string | null;
  /** Its row, or that of the last one that had it; -1: none had. */
  at: number;
}

export const NO_FOCUS: RowFocus = { id: null, at: -1 };

/** The same once the list is another one: no other task takes the focus of one that is gone. */
export function followed(tasks: readonly Pick<Task, 'id'>[], focus: RowFocus): RowFocus {
  const { id, at } = focus;
  if (id === null || tasks[at]?.id === id) return focus;
  const now = tasks.findIndex((task) => task.id === id);
  return now >= 0 ? { id, at: now } : { id: null, at };
}

/** The row that is `by` rows from there. */
export function rowFrom(tasks: readonly unknown[], { id, at }: RowFocus, by: number): number {
  // where one is gone, the next one stands
  const from = id === null && by > 0 ? at - 1 : at;
  return Math.max(0, Math.min(tasks.length - 1, from + by));
}
