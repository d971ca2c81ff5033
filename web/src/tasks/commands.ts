// Every change of tasks goes through here: it is shown at once, kept in the outbox until the server has answered, and can be
// undone by its change.

import { api, ask, Problem, type Job } from '../api/client.ts';
import { outbox } from '../offline/kept.ts';
import type { Asked, Command, Outcome, Undone } from '../offline/outbox.ts';
import { texts } from '../texts/index.ts';
import { toast } from '../shell/toasts.ts';
import type { Filter } from './filter.ts';
import { uuid } from './ids.ts';
import { askAnew, refreshTasks, showAgain, shownNow, shownTasks, showPending, type Shown } from './known.ts';
import type { Change } from './shown.ts';
import type { Task } from './values.ts';

export type { Command };

/** How often a request is sent whose answer did not come. */
const ATTEMPTS_MAX = 4;
const STEPS_KEPT_MAX = 100;
const JOB_ASKED_EVERY_MS = 2_000;
/** Of the API, for one batch. */
export const BATCH_MAX = 10_000;

/** What can be undone, or done again: what it has made, or what waits under this id and has made nothing yet. */
interface Step {
  /** Several, where a part of it was sent once more. */
  changes: string[];
  /** Empty: nobody here has said what it did. */
  said: string;
  waiting: { id: string; commands: Command[]; said: string; placed: string | undefined; before: Shown } | null;
}

/** The latest last. */
const done: Step[] = [];
const undone: Step[] = [];

interface Decided {
  /** The task that it was decided on, where that is not the one shown now. */
  seen?: Task | undefined;
  /** The task that was put at a place of the order by hand: should somebody else do the same, it is asked. */
  placed?: string | undefined;
}

/** Carries commands out as one change, after those before it. False if any was refused; true also while they wait for the server. */
export function carryOut(commands: Command[], said: string, { seen, placed }: Decided = {}): Promise<boolean> {
  undone.length = 0;
  const before = shownNow();
  const bases = { ...shownTasks(commands), ...(seen && { [seen.id]: seen }) };
  const step: Step = { changes: [], said, waiting: null };
  return new Promise((resolve) => {
    const told = (outcome: Outcome<Job>) => {
      resolve(outcome.state !== 'refused');
      answered(outcome, step, said, commands.map(({ task_id }) => task_id));
    };
    const id = outbox.carryOut(commands, said, bases, told, placed);
    step.waiting = { id, commands, said, placed, before };
    keep(done, step);
    showPending();
  });
}

/** A person has decided between two values of a field. */
export async function decide(asked: Asked, keeps: 'mine' | 'theirs'): Promise<void> {
  const step: Step = { changes: [], said: asked.said, waiting: null };
  keep(done, step);
  const isPossible = await outbox.decide(asked, keeps, (outcome) => answered(outcome, step, asked.said, [asked.question.task_id]));
  if (!isPossible) toast({ text: texts().noWay, failed: true });
  if (!isPossible || keeps === 'theirs') without(done, step);
  showPending();
}

function answered(outcome: Outcome<Job>, step: Step, said: string, tasks: string[]): void {
  if (outcome.state === 'waits') return tellOfWaiting(outcome.tries, texts().kept);
  step.waiting = null;
  step.changes = outcome.made;
  if (outcome.made.length === 0) without(done, step);
  if (outcome.state !== 'done') void askAnew(tasks);
  if (outcome.state === 'refused') tellOfRefusal(outcome);
  // whoever has undone it meanwhile is told of that
  else if (done.includes(step)) toast({ text: said, action: undoing(step) });
  refreshTasks();
}

/** What is kept is told where it is kept. */
function tellOfRefusal({ problem, kept }: Outcome<Job> & { state: 'refused' }) {
  if (!kept) toast({ text: problemText(problem), failed: true });
}

/** Not of a moment in which the server starts again. */
function tellOfWaiting(tries: number, text: string) {
  if (tries === 3 || (tries === 1 && !navigator.onLine)) toast({ text });
}

/** The same change of all tasks that match, carried out in the background. */
export async function changeAll(filter: Filter, change: Change): Promise<void> {
  // at least one member is needed, and this one leaves nothing out
  const all = { status: 'pending,in_progress,completed,cancelled', ...filter };
  const headers = { 'Idempotency-Key': uuid() };
  try {
    const body = { filter: all, command: change };
    const job = await again(() => ask(api.POST('/api/v1/tasks/bulk', { body: body as never, params: { header: headers } as never })));
    undone.length = 0;
    await untilEnded(job, done);
  } catch (error) {
    toast({ text: problemText(error), failed: true });
  }
}

/** Jobs that were started here, and where their changes go. */
const running = new Map<string, Step[]>();

async function untilEnded(job: Job, to: Step[]): Promise<void> {
  running.set(job.id, to);
  toast({ text: texts().jobStarted });
  // the stream tells of it too, and mostly before; what it has told while it was away does not come again
  for (jobChanged(job); running.has(job.id); ) {
    await pause(JOB_ASKED_EVERY_MS);
    jobChanged(await again(() => ask(api.GET('/api/v1/jobs/{id}', { params: { path: { id: job.id } } }))));
  }
}

/** A job of the account is somewhere else now: told by the stream. */
export function jobChanged(job: Job): void {
  const to = running.get(job.id);
  if (!to || !['succeeded', 'failed', 'cancelled'].includes(job.state)) return;
  running.delete(job.id);
  const text = texts().jobEnded(job.succeeded, job.failed);
  if (job.succeeded === 0) toast({ text, failed: job.failed > 0 });
  else if (job.change_id) toast({ text, action: keep(to, { changes: [job.change_id], said: '', waiting: null }) });
  else toast({ text });
  refreshTasks();
}

/** The last step. */
export async function undo(): Promise<void> {
  const step = done.at(-1);
  return step ? undoStep(step) : toast({ text: texts().nothingToUndo });
}

/** The step that was undone last. */
export function redo(): void {
  const step = undone.at(-1);
  if (step) redoStep(step);
  else toast({ text: texts().nothingToRedo });
}

const undoing = (step: Step) => ({ text: texts().undo, run: () => void undoStep(step) });
const redoing = (step: Step) => ({ text: texts().redo, run: () => redoStep(step) });

/** This one, whatever was done after it; once. */
async function undoStep(step: Step): Promise<void> {
  if (!without(done, step)) return;
  const { waiting } = step;
  if (waiting && (await outbox.cancel(waiting.id))) {
    // it was never sent
    showAgain(waiting.before);
    step.waiting = waiting;
    return toast({ text: texts().undone, action: keep(undone, step) });
  }
  leadBack(step, undone);
}

function redoStep(step: Step): void {
  if (!without(undone, step)) return;
  if (!step.waiting) return leadBack(step, done);
  const others = [...undone];
  const { commands, said, placed } = step.waiting;
  void carryOut(commands, said, { placed });
  undone.push(...others);
}

/** Undoes one change, of whatever time. */
export function undoChange(change: string): void {
  leadBack(ofChange(done, change), undone);
}

/** Redoes what this undo has undone. */
export function redoChange(undo: string): void {
  leadBack(ofChange(undone, undo), done);
}

function ofChange(steps: Step[], change: string): Step {
  const known = steps.find(({ changes }) => changes.includes(change));
  if (known) known.changes = known.changes.filter((other) => other !== change);
  if (known?.changes.length === 0) without(steps, known);
  return { changes: [change], said: known?.said ?? '', waiting: null };
}

/** False: it was not there. */
function without(steps: Step[], step: Step): boolean {
  const at = steps.indexOf(step);
  if (at >= 0) steps.splice(at, 1);
  return at >= 0;
}

/** Undoes a step. What that made can itself be undone: it goes to the other list. */
function leadBack({ changes, said, waiting }: Step, to: Step[]): void {
  const t = texts();
  const verb = to === undone ? t.undo : t.redo;
  const tell = ({ failed, job }: Undone<Job>, made: string[]) => {
    const back = made.length > 0 && { action: keep(to, { changes: made, said, waiting: null }) };
    // of many tasks: it takes a while
    if (job) return void untilEnded(job, to).catch((error: unknown) => toast({ text: problemText(error), failed: true }));
    toast({ ...(failed ? { text: t.partlyUndone(failed), failed: true } : { text: to === undone ? t.undone : t.redone }), ...back });
  };
  // the last of them first
  outbox.undo(waiting ? null : changes.toReversed(), waiting?.id ?? null, said ? `${verb}: ${said}` : verb, (outcome) => {
    if (outcome.state === 'waits') return tellOfWaiting(outcome.tries, t.undoneLater);
    if (outcome.state === 'done' && outcome.undone) tell(outcome.undone, outcome.made);
    else if (outcome.made.length > 0) keep(to, { changes: outcome.made, said, waiting: null });
    if (outcome.state === 'refused') tellOfRefusal(outcome);
    refreshTasks();
  });
}

export async function restore(task: Pick<Task, 'id' | 'title'>): Promise<boolean> {
  return carryOut([{ type: 'RestoreTask', task_id: task.id }], texts().restored(task.title));
}

/** What leads back from it. */
function keep(steps: Step[], step: Step): { text: string; run: () => void } {
  steps.push(step);
  if (steps.length > STEPS_KEPT_MAX) steps.shift();
  return steps === done ? undoing(step) : redoing(step);
}

/** What has an id has one effect, however often it is sent. */
export async function again<T>(send: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send();
    } catch (error) {
      const passing = error instanceof Problem && (error.status === 0 || error.status === 503);
      if (!passing || attempt === ATTEMPTS_MAX) throw error;
      await pause(400 * 2 ** attempt);
    }
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

export function problemText(error: unknown): string {
  if (!(error instanceof Problem)) return texts().unexpected;
  const known = texts().problems[error.code];
  return known ?? error.message;
}
