// What a command will have done, shown before the server has said so. It may be wrong; the answer corrects it.

import { tagOf } from './tags.ts';
import { isOpen, type Priority, type Task } from './values.ts';

/** A command as a batch takes it, without its task. */
export type Change =
  | { type: 'CreateTask'; title: string; tags?: string[]; priority?: Priority; due_at?: string }
  | { type: 'RenameTask'; title: string }
  | { type: 'DescribeTask'; description: string | null }
  | { type: 'ReprioritizeTask'; priority: Priority }
  | { type: 'ScheduleTask'; due_at: string | null }
  | { type: 'RankTask'; rank: string | null }
  | { type: 'TagTask' | 'UntagTask'; tags: string[] }
  | { type: 'StartTask' | 'CompleteTask' | 'ReopenTask' | 'CancelTask' | 'DeleteTask' | 'RestoreTask' };

/** The task after it; null: it is in no list any more. What the rules refuse changes nothing. */
export function shown(task: Task, change: Change): Task | null {
  const open = isOpen(task);
  switch (change.type) {
    case 'RenameTask':
      return { ...task, title: change.title.trim() };
    case 'DescribeTask':
      return { ...task, description: change.description };
    case 'ReprioritizeTask':
      return { ...task, priority: change.priority };
    case 'ScheduleTask':
      return { ...task, due_at: change.due_at };
    case 'RankTask':
      return { ...task, rank: change.rank };
    case 'TagTask':
      return { ...task, tags: [...new Set([...task.tags, ...change.tags.map(tagOf)])].sort() };
    case 'UntagTask': {
      const taken = change.tags.map(tagOf);
      return { ...task, tags: task.tags.filter((tag) => !taken.includes(tag)) };
    }
    case 'StartTask':
      return task.status === 'pending' ? { ...task, status: 'in_progress' } : task;
    case 'CompleteTask':
      return open ? { ...task, status: 'completed' } : task;
    case 'CancelTask':
      return open ? { ...task, status: 'cancelled' } : task;
    case 'ReopenTask':
      return open ? task : { ...task, status: 'pending' };
    case 'DeleteTask':
      return null;
    case 'CreateTask':
    case 'RestoreTask':
      return task;
  }
}

/** The commands that lead a task from one stage to another, as the rules allow it; null: there is no way. */
export function stageChanges(from: Task['status'], to: Task['status']): Change[] | null {
  if (from === to) return [];
  const reopen: Change[] = from === 'completed' || from === 'cancelled' ? [{ type: 'ReopenTask' }] : [];
  switch (to) {
    case 'pending':
      return reopen.length > 0 ? reopen : null;
    case 'in_progress':
      return [...reopen, { type: 'StartTask' }];
    case 'completed':
      return [...reopen, { type: 'CompleteTask' }];
    case 'cancelled':
      return [...reopen, { type: 'CancelTask' }];
  }
}
