// What is asked of the server and not answered yet, kept in this browser: in order, each with the ids that give it one effect
// however often it is sent. What somebody else has changed meanwhile is merged or becomes a question; what is refused after it
// has waited stays until it was read.

import { Problem, type ProblemBody } from '../api/problem.ts';
import { madeAt, uuid } from '../tasks/ids.ts';
import { OwnVersions } from '../tasks/own-versions.ts';
import type { Change } from '../tasks/shown.ts';
import type { Task } from '../tasks/values.ts';
import { keepMine, merge, type Question } from './merge.ts';
import type { Kept, Records } from './records.ts';

export type Command = Change & { task_id: string; expected_version?: number };
type Sent = Command & { command_id: string };

/** Commands that are one change. */
export interface Commands extends Kept {
  kind: 'commands';
  said: string;
  commands: Sent[];
  /** The tasks as they were shown when this was decided, by id. */
  bases: Record<string, Task>;
  /** The one that was put at a place of the order by hand; null: none was. */
  placed: string | null;
  /** How often it was tried, and no answer came. */
  tries: number;
  merges: number;
  /** The changes that its first parts have made, where some of it is sent once more. */
  made: string[];
}

/** The undo of one change, or of all that what waits before it makes. */
export interface Undo extends Kept {
  kind: 'undo';
  said: string;
  /** Those that are left to be undone, the next one first; null: `of` waits, and has not made all of its own. */
  changes: string[] | null;
  of: string | null;
  tries: number;
  /** By which others were undone already, and how many tasks of them could not be. */
  made: string[];
  failed: number;
}

/** Both have changed a field: a person decides. */
export interface Asked extends Kept {
  kind: 'question';
  said: string;
  question: Question;
}

/** After it had waited: whoever wrote it may not have been there. */
export interface Refused extends Kept {
  kind: 'refused';
  said: string;
  problem: { code: string; text: string };
}

export type Entry = Commands | Undo | Asked | Refused;
type Waiting = Commands | Undo;
/** `made`: the version of its task by it; `at`: when it was answered, in milliseconds since the epoch. */
type CarriedOut = Command & { made: number; at: number };

export interface Answered {
  results: ({ version: number } | { status: number; problem: ProblemBody })[];
  change: string | null;
}

export interface Undone<J> {
  change: string | null;
  failed: number;
  /** It is carried out in the background. */
  job: J | null;
}

/** Each throws a [`Problem`] where nothing, or no answer to it, came back. */
export interface Server<J> {
  /** What is sent now is this account's. */
  ready(account: string): Promise<void>;
  carryOut(commands: Sent[]): Promise<Answered>;
  undo(change: string, key: string): Promise<Undone<J>>;
  /** As it is now; null: it is deleted. */
  task(id: string): Promise<Task | null>;
}

export type Outcome<J> =
  /** It stays here until the server answers; another outcome follows. */
  | { state: 'waits'; tries: number }
  | { state: 'done'; made: string[]; undone: Undone<J> | null }
  /** `made`: by what of it was carried out. */
  | { state: 'asks'; made: string[] }
  /** `kept`: it stays here until it was read. */
  | { state: 'refused'; made: string[]; problem: Problem; kept: boolean };

/** One at a time for all tabs. */
export type Lock = <T>(act: () => Promise<T>) => Promise<T>;

export type Told<J> = (outcome: Outcome<J>) => void;

/** An error of the server that comes again and again is an answer. */
const TRIES_MAX = 5;
/** Of a change of more than that no single task is looked at, but for places. */
const MERGED_COMMANDS_MAX = 50;
/** Whoever asked for something that is refused later than that may look at something else by then. */
const LOOKED_AT_MS = 5_000;
/** A read may be a moment behind the commands. */
const MERGES_MAX = 20;
const READ_AGAIN_MS = 150;
/** No read is further behind: only the latest commands are remembered. */
const CARRIED_OUT_KEPT_MAX = 1_000;
const CARRIED_OUT_KEPT_MS = 30_000;

export class Outbox<J> {
  #entries: Entry[] = [];
  #account: string | null = null;
  readonly #own = new OwnVersions();
  /** What the server has carried out, the latest last, with the version that each has made. */
  #carriedOut: CarriedOut[] = [];
  readonly #listeners = new Set<() => void>();
  /** Who waits for an outcome, in this tab. */
  readonly #waiting = new Map<string, Told<J>>();
  /** Not on disk yet. */
  #adding: Entry[] = [];

  readonly #records: Records<Entry>;
  readonly #server: Server<J>;
  readonly #lock: Lock;
  /** Tells the other tabs. */
  readonly #tell: (answered: { id: string; outcome: Outcome<J> } | null) => void;

  constructor(records: Records<Entry>, server: Server<J>, lock: Lock, tell: (answered: { id: string; outcome: Outcome<J> } | null) => void = () => {}) {
    this.#records = records;
    this.#server = server;
    this.#lock = lock;
    this.#tell = tell;
  }

  /** Takes up what this account has left here. */
  async open(account: string | null): Promise<void> {
    if (account !== this.#account) {
      this.#entries = [];
      this.#carriedOut = [];
    }
    this.#account = account;
    await this.#read();
  }

  onChange = (tell: () => void): (() => void) => {
    this.#listeners.add(tell);
    return () => this.#listeners.delete(tell);
  };

  get = (): readonly Entry[] => this.#entries;

  /** What is shown as if it had happened. */
  pending(): Command[] {
    return this.#entries.flatMap((entry) => (entry.kind === 'commands' ? entry.commands : []));
  }

  /**
   * What is laid over whatever the server tells: what was carried out lately, then what waits here. An event of an earlier
   * command, or a list that was asked for before, may come after the answer. Versions of a task below `made` lack the command.
   */
  notTold(): (Command & { made?: number })[] {
    const since = Date.now() - CARRIED_OUT_KEPT_MS;
    return [...this.#carriedOut.filter(({ at }) => at > since), ...this.pending()];
  }

  /** The log is another one: its versions are others. */
  replaced(): void {
    this.#carriedOut = [];
  }

  /** Another tab has changed something. */
  async heard(answered: { id: string; outcome: Outcome<J> } | null): Promise<void> {
    const told = answered && this.#waiting.get(answered.id);
    if (told) {
      this.#waiting.delete(answered.id);
      told(answered.outcome);
    }
    await this.#read();
  }

  /** `bases`: of the tasks whose fields are to be merged. The entry's id. */
  carryOut(commands: Command[], said: string, bases: Record<string, Task>, told: Told<J>, placed: string | null = null): string {
    const ofTask = new Map<string, number>();
    const sent = commands.map((command): Sent => {
      const base = bases[command.task_id];
      const before = ofTask.get(command.task_id) ?? 0;
      ofTask.set(command.task_id, before + 1);
      // what is to be merged says what it was decided on; each command makes the next version
      const isMerged = commands.length <= MERGED_COMMANDS_MAX || command.task_id === placed || (placed !== null && command.type === 'RankTask');
      const expected = base && isMerged ? base.version + before : command.expected_version;
      return { ...command, command_id: uuid(), ...(expected !== undefined && { expected_version: expected }) };
    });
    return this.#add({ kind: 'commands', id: uuid(), account: this.#account ?? '', said, commands: sent, bases, placed, tries: 0, merges: 0, made: [] }, told);
  }

  /** Of these changes in their order, or of all that what was asked for under `of` makes. */
  undo(changes: string[] | null, of: string | null, said: string, told: Told<J>): string {
    return this.#add({ kind: 'undo', id: uuid(), account: this.#account ?? '', said, changes, of, tries: 0, made: [], failed: 0 }, told);
  }

  /** Takes back what was never sent. False: it may have been. */
  cancel(id: string): Promise<boolean> {
    return this.#lock(async () => {
      const entry = (await this.#all(this.#account ?? '')).find((known) => known.id === id);
      if (entry?.kind !== 'commands' || entry.tries > 0) return false;
      await this.#records.delete(id);
      await this.#changed();
      this.#answer(id, { state: 'done', made: [], undone: null });
      return true;
    });
  }

  /** All of this account is dropped. */
  async clear(): Promise<void> {
    if (this.#account !== null) await this.#records.clear(this.#account);
    this.#waiting.clear();
    await this.#changed();
  }

  /** A person has decided. False: the rules have no way to what is to be kept. */
  async decide({ id, said, question }: Asked, keep: 'mine' | 'theirs', told: Told<J>): Promise<boolean> {
    const changes = keep === 'mine' ? keepMine(question) : [];
    if (changes === null) return false;
    const { task_id, title, field, theirs, version } = question;
    // should it change once more, it is asked once more
    const base = version !== null && ({ id: task_id, title, version, [field]: theirs } as unknown as Task);
    if (changes.length > 0) this.carryOut(changes.map((change) => ({ ...change, task_id })), said, base ? { [task_id]: base } : {}, told, field === 'rank' ? task_id : null);
    await this.dismiss(id);
    return true;
  }

  /** It was read. */
  async dismiss(id: string): Promise<void> {
    await this.#records.delete(id);
    await this.#changed();
  }

  /** Sends what waits, in order. True: nothing does any more. */
  flush(): Promise<boolean> {
    return this.#lock(async () => {
      for (let next = await this.#next(); next; next = await this.#next()) {
        try {
          await this.#server.ready(next.account);
          await (next.kind === 'commands' ? this.#send(next) : this.#sendUndo(next));
        } catch (error) {
          if (isPassing(error, next.tries)) {
            // as it was sent: the same id says the same
            const sent = (await this.#kept(next)) ?? next;
            await this.#replace(next, [{ ...sent, tries: next.tries + 1 }]);
            for (const told of this.#waiting.values()) told({ state: 'waits', tries: next.tries + 1 });
            return false;
          }
          await this.#refuse(next, asProblem(error));
        }
      }
      return true;
    });
  }

  #add(entry: Waiting, told: Told<J>): string {
    this.#waiting.set(entry.id, told);
    this.#adding.push(entry);
    this.#show([...this.#entries, entry]);
    void this.#records.put(entry).then(() => {
      this.#adding = this.#adding.filter(({ id }) => id !== entry.id);
      this.#tell(null);
      return this.flush();
    });
    return entry.id;
  }

  async #next(): Promise<Waiting | undefined> {
    const entries = await this.#all(this.#account ?? '');
    return entries.find((entry): entry is Waiting => entry.kind === 'commands' || entry.kind === 'undo');
  }

  async #send(entry: Commands): Promise<void> {
    const commands = entry.commands.map((command) => {
      const { task_id, expected_version: seen } = command;
      const latest = seen && this.#own.latest(task_id, seen);
      return latest === seen || latest === undefined ? command : { ...command, expected_version: latest };
    });
    if (commands.some((command, index) => command !== entry.commands[index])) await this.#replace(entry, [{ ...entry, commands }]);
    const { results, change } = await this.#server.carryOut(commands);
    const refused: Sent[] = [];
    let problem: Problem | null = null;
    for (const [index, command] of commands.entries()) {
      const result = results[index];
      if (result && 'version' in result) {
        // of what is created nothing older is told
        if (command.type !== 'CreateTask') this.#carriedOut.push({ ...command, made: result.version, at: Date.now() });
        if (command.expected_version !== undefined) this.#own.made(command.task_id, command.expected_version, result.version);
      } else if (result) {
        const said = new Problem(result.problem, result.status);
        // gone, or another version: merged where it is known what was changed
        const isMerged = (result.status === 412 || result.status === 404) && entry.bases[command.task_id] && entry.merges < MERGES_MAX;
        if (isMerged) refused.push(command);
        else problem ??= said;
      }
    }
    this.#carriedOut = this.#carriedOut.slice(-CARRIED_OUT_KEPT_MAX);
    const { again, asked } = await this.#merged(entry, refused);
    const made = change === null ? entry.made : [...entry.made, change];
    // while the rest of it is sent again nobody is told anything
    const kept = again.length > 0 || this.#hasWaited(entry);
    const toRead = [...asked, ...(problem && kept ? [refusalOf(entry, problem)] : [])];
    if (again.length > 0) {
      if (entry.merges > 0) await new Promise((resolve) => setTimeout(resolve, READ_AGAIN_MS));
      return this.#replace(entry, [...toRead, { ...entry, commands: again, merges: entry.merges + 1, made }]);
    }
    await this.#end(entry, made, toRead);
    if (problem) this.#answer(entry.id, { state: 'refused', made, problem, kept });
    else this.#answer(entry.id, asked.length > 0 ? { state: 'asks', made } : { state: 'done', made, undone: null });
  }

  /** What of the refused commands is sent again, and what is asked. */
  async #merged(entry: Commands, refused: Sent[]): Promise<{ again: Sent[]; asked: Asked[] }> {
    const again: Sent[] = [];
    const asked: Asked[] = [];
    // where very many of those that make room were changed meanwhile, the others stay where they are: each is a question to the server
    const { placed } = entry;
    const looked = [...new Set(refused.map(({ task_id }) => task_id))].filter((id, at) => placed === null || id === placed || at < MERGED_COMMANDS_MAX);
    for (const id of looked) {
      const commands = refused.filter(({ task_id }) => task_id === id);
      const current = await this.#server.task(id);
      const { send, questions } = merge(commands, entry.bases[id]!, current, placed === id);
      // each keeps its id: it has had no effect
      const left = commands.filter((command) => send.includes(command));
      left.forEach((command, index) => again.push({ ...command, expected_version: current!.version + index }));
      for (const question of questions) asked.push({ kind: 'question', id: uuid(), account: entry.account, said: entry.said, question });
    }
    return { again, asked };
  }

  async #sendUndo(entry: Undo): Promise<void> {
    const [change, ...left] = entry.changes ?? [];
    if (change === undefined) {
      // what it was to undo has made no change
      await this.#replace(entry, []);
      return this.#answer(entry.id, { state: 'done', made: [], undone: null });
    }
    // each has a key of its own, the same whenever it is sent
    const undone = await this.#server.undo(change, left.length === 0 ? entry.id : `${entry.id}.${left.length}`);
    const made = undone.change === null ? entry.made : [...entry.made, undone.change];
    const failed = entry.failed + undone.failed;
    if (left.length > 0) return this.#replace(entry, [{ ...entry, changes: left, made, failed }]);
    await this.#replace(entry, []);
    this.#answer(entry.id, { state: 'done', made, undone: { ...undone, failed } });
  }

  /** Nothing of it is left: whatever is to undo it knows what it has made, of which the last is undone first. */
  async #end(entry: Commands, made: string[], next: Entry[]): Promise<void> {
    if (made.length > 0) {
      for (const later of await this.#all(entry.account)) {
        if (later.kind === 'undo' && later.of === entry.id) await this.#records.put({ ...later, changes: made.toReversed(), of: null });
      }
    }
    await this.#replace(entry, next);
  }

  async #refuse(entry: Waiting, problem: Problem): Promise<void> {
    const kept = this.#hasWaited(entry);
    const next = kept ? [refusalOf(entry, problem)] : [];
    await (entry.kind === 'commands' ? this.#end(entry, entry.made, next) : this.#replace(entry, next));
    this.#answer(entry.id, { state: 'refused', made: entry.made, problem, kept });
  }

  /** A message would come when nobody expects it any more: only the first one that waits is tried. */
  #hasWaited({ id, tries }: Waiting): boolean {
    return tries > 0 || !this.#waiting.has(id) || Date.now() - madeAt(id) > LOOKED_AT_MS;
  }

  /** Nothing takes the place of what was dropped meanwhile. */
  async #replace(entry: Waiting, next: Entry[]): Promise<void> {
    if (await this.#kept(entry)) {
      for (const other of next) await this.#records.put(other);
      if (!next.some(({ id }) => id === entry.id)) await this.#records.delete(entry.id);
    }
    await this.#changed();
  }

  async #kept({ id, account }: Waiting): Promise<Waiting | undefined> {
    return (await this.#all(account)).find((entry): entry is Waiting => entry.id === id);
  }

  async #all(account: string): Promise<Entry[]> {
    return (await this.#records.all(account)).map(asNow);
  }

  async #changed(): Promise<void> {
    await this.#read();
    this.#tell(null);
  }

  async #read(): Promise<void> {
    const account = this.#account;
    const kept = account === null ? [] : await this.#all(account);
    const isKept = new Set(kept.map(({ id }) => id));
    if (account === this.#account) this.#show([...kept, ...this.#adding.filter(({ id }) => !isKept.has(id))]);
  }

  #show(entries: Entry[]): void {
    this.#entries = entries;
    for (const tell of this.#listeners) tell();
  }

  #answer(id: string, outcome: Outcome<J>): void {
    const told = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (told) told(outcome);
    else this.#tell({ id, outcome });
  }
}

/** A version of this page that knew of one change only may have left it. */
function asNow(entry: Entry | (Omit<Undo, 'said' | 'changes' | 'made' | 'failed'> & { change: string | null })): Entry {
  if (!('change' in entry)) return entry;
  const { change, ...undo } = entry;
  return { ...undo, said: '', changes: change === null ? null : [change], made: [], failed: 0 };
}

function refusalOf({ account, said }: Waiting, { code, message }: Problem): Refused {
  return { kind: 'refused', id: uuid(), account, said, problem: { code, text: message } };
}

/** It may be answered another time. */
function isPassing(error: unknown, tries: number): boolean {
  if (!(error instanceof Problem)) return false;
  return [0, 401, 429, 502, 503, 504].includes(error.status) || (error.status >= 500 && tries < TRIES_MAX);
}

const asProblem = (error: unknown): Problem => (error instanceof Problem ? error : new Problem({ title: String(error) }, 400));
