import { byRank } from './ranks.ts';
import { STATUSES, type Status, type Task } from './values.ts';

/**
 * The columns of a board from the lists that were asked for, one for each of `STATUSES`: a task that was moved stands in its new column before the
 * server lists it there. In the order by hand at its place, else at the top. `moved`: those that do, which are to be given again
 * as `kept` for as long as not all lists are up to date: one may have lost a task that the other one does not have yet.
 */
export function columnsOf(lists: Task[][], byHand: boolean, kept: Task[]): { columns: Record<Status, Task[]>; moved: Task[] } {
  const latest = new Map<string, Task>();
  for (const task of [...lists.flat(), ...kept]) {
    const known = latest.get(task.id);
    if (!known || known.version < task.version) latest.set(task.id, task);
  }
  const columns: Record<Status, Task[]> = { pending: [], in_progress: [], completed: [], cancelled: [] };
  const listed = lists.map((list) => new Set(list.map(({ id }) => id)));
  const moved = [...latest.values()].filter(({ id, status }) => !listed[STATUSES.indexOf(status)]!.has(id));
  for (const task of moved) columns[task.status].push(task);
  listed.forEach((ids, at) => {
    for (const id of ids) {
      const task = latest.get(id)!;
      if (task.status === STATUSES[at]) columns[task.status].push(task);
    }
  });
  if (byHand) for (const tasks of Object.values(columns)) tasks.sort(byRank);
  return { columns, moved };
}
