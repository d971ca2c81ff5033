// Lists as they will be once what waits here has happened. It may be wrong; the server's answer corrects it.

import type { Filter } from '../tasks/filter.ts';
import { shown, type Change } from '../tasks/shown.ts';
import { tagOf } from '../tasks/tags.ts';
import type { Task } from '../tasks/values.ts';

/** `made`: the server has carried it out, and no version of its task from this one on lacks it. */
type Command = Change & { task_id: string; made?: number };

type ByTask = ReadonlyMap<string, readonly Command[]>;

/** What is asked for of each task, in order. */
export function byTask(commands: readonly Command[]): ByTask {
  const all = new Map<string, Command[]>();
  for (const command of commands) {
    const known = all.get(command.task_id);
    if (known) known.push(command);
    else all.set(command.task_id, [command]);
  }
  return all;
}

/** Of its commands those that it does not have yet. */
const lacked = ({ id, version }: Task, commands: ByTask) => (commands.get(id) ?? []).filter(({ made }) => made === undefined || version < made);

/** The task after all of its commands; null: it is in no list any more. */
export function after(task: Task, commands: ByTask): Task | null {
  return lacked(task, commands).reduce<Task | null>((now, command) => now && shown(now, command), task);
}

/** What is created and not deleted again. */
export function created(commands: readonly Command[], now: Date): Task[] {
  const ofTask = byTask(commands);
  return commands.flatMap((command) => {
    if (command.type !== 'CreateTask') return [];
    const { task_id: id, title, priority = 'medium', due_at = null, tags = [] } = command;
    const at = now.toISOString();
    const task: Task = {
      id, title, priority, due_at, tags: tags.map(tagOf), description: null, status: 'pending', rank: null, version: 1,
      created_at: at, updated_at: at, started_at: null, completed_at: null,
    };
    return after(task, ofTask) ?? [];
  });
}

/**
 * The pages of a list with it; those that have none of it are the same. What is new and matches stands at the top, and so does
 * what of the others that are `known` matches by these commands. (Who matched before may be on a page that is not here, unless
 * the list is whole. What is known may be as it will be already.)
 */
export function overlaid(pages: Task[][], commands: readonly Command[], filter: Filter, now: Date, known: readonly Task[] = [], isWhole = false): Task[][] {
  // as it was at some time: what waits is later
  if (commands.length === 0 || 'as_of' in filter) return pages;
  const ofTask = byTask(commands);
  const isTouched = (task: Task) => lacked(task, ofTask).length > 0;
  const next = pages.map((page) => (page.some(isTouched) ? page.flatMap((task) => after(task, ofTask) ?? []) : page));
  const listed = new Set(pages.flat().map(({ id }) => id));
  const brought = known.filter((task) => isTouched(task) && (isWhole || !matches(filter, task, now))).flatMap((task) => after(task, ofTask) ?? []);
  // what was created may have been shown, and so be brought
  const others = new Map([...brought, ...created(commands, now)].map((task) => [task.id, task]));
  const added = [...others.values()].filter((task) => !listed.has(task.id) && matches(filter, task, now));
  const [first = [], ...later] = next;
  return added.length > 0 ? [[...added.reverse(), ...first], ...later] : next;
}

/** Nearly as the server does it. */
function matches({ q, status, priority, tag, overdue, due_after, due_before }: Filter, task: Task, now: Date): boolean {
  const one = (list: string | undefined, values: string[]) => list === undefined || list.split(',').some((value) => values.includes(value));
  const due = task.due_at === null ? NaN : Date.parse(task.due_at);
  return (
    one(status, [task.status]) &&
    one(priority, [task.priority]) &&
    one(tag?.split(',').map(tagOf).join(), task.tags) &&
    (!overdue || due < now.getTime()) &&
    (!due_after || due >= Date.parse(due_after)) &&
    (!due_before || due < Date.parse(due_before)) &&
    (!q || q.toLowerCase().split(/\s+/).every((word) => task.title.toLowerCase().includes(word)))
  );
}
