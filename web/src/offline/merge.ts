// A command was decided on a task that somebody else has changed since. Field by field: what they left alone is sent again,
// what both have changed is a question to the person.

import { shown, stageChanges, type Change } from '../tasks/shown.ts';
import type { Task } from '../tasks/values.ts';

export type Field = 'title' | 'description' | 'priority' | 'due_at' | 'status' | 'rank';

export interface Question {
  task_id: string;
  /** Of the task as it is now, or as it was last seen. */
  title: string;
  /** `deleted`: the whole task. */
  field: Field | 'deleted';
  mine: string | null;
  theirs: string | null;
  /** What asked for `mine`. */
  changes: Change[];
  /** That `theirs` is of; null: the task is deleted. */
  version: number | null;
}

/** The one field that a command sets. Tags are added and taken away one by one, so no two of them contradict each other. */
export function fieldOf({ type }: Pick<Change, 'type'>): Field | null {
  switch (type) {
    case 'RenameTask':
      return 'title';
    case 'DescribeTask':
      return 'description';
    case 'ReprioritizeTask':
      return 'priority';
    case 'ScheduleTask':
      return 'due_at';
    case 'StartTask':
    case 'CompleteTask':
    case 'ReopenTask':
    case 'CancelTask':
      return 'status';
    case 'RankTask':
      return 'rank';
    default:
      return null;
  }
}

/**
 * `base`: as the task was shown when the changes were made; `current`: as it is now; null: it is deleted. `isPlaced`: a person
 * has put this task where it is to stand; the others are only to make room for it, and stay where somebody else has put them.
 */
export function merge(changes: Change[], base: Task, current: Task | null, isPlaced = false): { send: Change[]; questions: Question[] } {
  if (current === null) {
    const left = changes.filter(({ type }) => type !== 'DeleteTask');
    const question: Question = { task_id: base.id, title: base.title, field: 'deleted', mine: null, theirs: null, changes: left, version: null };
    return { send: [], questions: left.length > 0 ? [question] : [] };
  }
  const send: Change[] = [];
  const questions: Question[] = [];
  for (const field of new Set(changes.map(fieldOf))) {
    const asked = changes.filter((change) => fieldOf(change) === field);
    if (field === null) {
      send.push(...asked);
      continue;
    }
    const mine = asked.reduce<Task>((task, change) => shown(task, change) ?? task, base)[field];
    const theirs = current[field];
    if (same(field, theirs, mine)) continue;
    if (same(field, theirs, base[field])) send.push(...asked);
    else if (field !== 'rank' || isPlaced) questions.push({ task_id: base.id, title: current.title, field, mine, theirs, changes: asked, version: current.version });
  }
  return { send, questions };
}

function same(field: Field, a: string | null, b: string | null): boolean {
  if (a === b) return true;
  // one instant may be written in several ways; an empty description is none
  if (field === 'due_at') return a !== null && b !== null && Date.parse(a) === Date.parse(b);
  return field === 'description' && !a && !b;
}

/** The commands that make `mine` of what is there; null: the rules have no way to it. */
export function keepMine({ field, changes, mine, theirs }: Question): Change[] | null {
  if (field === 'deleted') return [{ type: 'RestoreTask' }, ...changes];
  return field === 'status' ? stageChanges(theirs as Task['status'], mine as Task['status']) : changes;
}
