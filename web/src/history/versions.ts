// A task as it was at one of its versions, and the way back there.

import type { HistoryItem } from '../api/client.ts';
import { stageChanges, type Change } from '../tasks/shown.ts';
import type { Task } from '../tasks/values.ts';

export type Fields = Pick<Task, 'title' | 'description' | 'status' | 'priority' | 'due_at' | 'tags' | 'rank'>;

const EMPTY: Fields = { title: '', description: null, status: 'pending', priority: 'medium', due_at: null, tags: [], rank: null };

/** `items`: the history from its beginning, at least up to that version. */
export function fieldsAt(items: readonly Pick<HistoryItem, 'version' | 'changes'>[], version: number): Fields {
  const fields: Record<string, unknown> = { ...EMPTY };
  for (const { changes } of items.filter((item) => item.version <= version)) {
    for (const [field, { to }] of Object.entries(changes)) if (field in EMPTY) fields[field] = to;
  }
  return fields as unknown as Fields;
}

/** What leads a task to these fields. `stage` is false where the rules have no way to its status of then. */
export function changesTo(then: Fields, now: Fields): { changes: Change[]; stage: boolean } {
  const changes: Change[] = [];
  if (then.title !== now.title) changes.push({ type: 'RenameTask', title: then.title });
  if (then.description !== now.description) changes.push({ type: 'DescribeTask', description: then.description });
  if (then.priority !== now.priority) changes.push({ type: 'ReprioritizeTask', priority: then.priority });
  if (then.due_at !== now.due_at) changes.push({ type: 'ScheduleTask', due_at: then.due_at });
  if (then.rank !== now.rank) changes.push({ type: 'RankTask', rank: then.rank });
  // first, so that there is room for the others
  const gone = now.tags.filter((tag) => !then.tags.includes(tag));
  if (gone.length > 0) changes.push({ type: 'UntagTask', tags: gone });
  const missing = then.tags.filter((tag) => !now.tags.includes(tag));
  if (missing.length > 0) changes.push({ type: 'TagTask', tags: missing });
  const stages = stageChanges(now.status, then.status);
  return { changes: [...changes, ...(stages ?? [])], stage: stages !== null };
}
