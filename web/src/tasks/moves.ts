import { toast } from '../shell/toasts.ts';
import { texts } from '../texts/index.ts';
import { BATCH_MAX, carryOut, type Command } from './commands.ts';
import { ranksFor } from './ranks.ts';
import { stageChanges } from './shown.ts';
import type { Status, Task } from './values.ts';

/** Brings a task to a stage by the commands that lead there; says so where there is no way. */
export function moveTo(task: Task, status: Status): Promise<void> {
  return move(task, status, [], texts().moved(task.title, texts().statuses[status]!));
}

/** Puts a task at a place of a column: before `others[index]`, as they stand there in the order by hand. */
export function placeAt(task: Task, status: Status, others: Task[], index: number): Promise<void> {
  const ranks = ranksFor(task.id, others, index).map(({ id, rank }): Command => ({ type: 'RankTask', rank, task_id: id }));
  return move(task, status, ranks, texts().placed(task.title, texts().statuses[status]!, index + 1));
}

async function move(task: Task, status: Status, ranks: Command[], said: string): Promise<void> {
  const changes = stageChanges(task.status, status);
  if (changes === null) return toast({ text: texts().noWay, failed: true });
  const commands = [...changes.map((change) => ({ ...change, task_id: task.id })), ...ranks];
  // as many before it have no place of their own yet
  if (commands.length > BATCH_MAX) return toast({ text: texts().tooMany, failed: true });
  if (commands.length > 0) await carryOut(commands, said, { placed: task.id });
}
