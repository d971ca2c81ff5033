import { beforeEach, expect, test, vi } from 'vitest';
import { Problem } from '../api/problem.ts';
import type { Change } from '../tasks/shown.ts';
import { shown } from '../tasks/shown.ts';
import type { Task } from '../tasks/values.ts';
import { Outbox, type Answered, type Asked, type Entry, type Outcome, type Server, type Undone } from './outbox.ts';
import { inMemory, type Records } from './records.ts';

const ME = 'me';

/** One task's truth, as the API keeps it: versions, ids that have one effect, changes that are undone. */
class OneTask implements Server<never> {
  task_: Task | null = { id: 't', title: 'old', priority: 'medium', status: 'pending', tags: [], description: null, due_at: null, version: 1 } as unknown as Task;
  reachable = true;
  /** Carried out, but nobody hears of it. */
  losesAnswers = 0;
  sent: string[][] = [];
  undos: string[] = [];
  keys: string[] = [];
  readonly #done = new Map<string, { version: number; said: string }>();
  #changes = 0;

  ready = async (): Promise<void> => {};

  async carryOut(commands: (Change & { task_id: string; command_id: string; expected_version?: number })[]): Promise<Answered> {
    if (!this.reachable) throw new Problem({ code: 'offline' }, 0);
    this.sent.push(commands.map(({ type }) => type));
    let made = false;
    const results = commands.map((command) => {
      const known = this.#done.get(command.command_id);
      const said = JSON.stringify(command);
      if (known) return known.said === said ? known : { status: 422, problem: { code: 'key-reused' } };
      if (command.task_id !== 't') {
        made = true;
        return { version: 2 };
      }
      if (this.task_ === null) return { status: 404, problem: { code: 'not-found' } };
      if (command.expected_version !== undefined && command.expected_version !== this.task_.version) {
        return { status: 412, problem: { code: 'stale-version' } };
      }
      if ('title' in command && command.title === 'forbidden') return { status: 422, problem: { code: 'invalid-fields', detail: 'no' } };
      made = true;
      this.else(command);
      const outcome = { version: this.task_?.version ?? 0, said };
      this.#done.set(command.command_id, outcome);
      return outcome;
    });
    const change = made ? `change ${++this.#changes}` : null;
    if (this.losesAnswers-- > 0) throw new Problem({ code: 'offline' }, 0);
    return { results, change };
  }

  async undo(change: string, key: string): Promise<Undone<never>> {
    if (!this.reachable) throw new Problem({ code: 'offline' }, 0);
    if (change === 'change of long ago') throw new Problem({ code: 'changed-since', detail: 'no' }, 409);
    this.undos.push(change);
    this.keys.push(key);
    return { change: `undo of ${change}`, failed: 1, job: null };
  }

  async task(): Promise<Task | null> {
    if (!this.reachable) throw new Problem({ code: 'offline' }, 0);
    return this.task_;
  }

  /** Somebody else's change. */
  else(change: Change): void {
    const next = shown(this.task_!, change);
    this.task_ = next && { ...next, version: this.task_!.version + 1 };
  }
}

let server: OneTask;
let records: Records<Entry>;
let outbox: Outbox<never>;
let outcomes: Outcome<never>[];
const told = (outcome: Outcome<never>) => void outcomes.push(outcome);
const last = () => outcomes.at(-1);

/** As after the page was opened again. */
async function opened(): Promise<Outbox<never>> {
  let turn: Promise<unknown> = Promise.resolve();
  const opened = new Outbox<never>(records, server, (act) => {
    const acted = turn.then(act);
    turn = acted.catch(() => {});
    return acted;
  });
  await opened.open(ME);
  return opened;
}

async function settled(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
  await outbox.flush();
}

const rename = (title: string) => outbox.carryOut([{ type: 'RenameTask', title, task_id: 't' }], 'renamed', { t: server.task_! }, told);

beforeEach(async () => {
  server = new OneTask();
  records = inMemory();
  outbox = await opened();
  outcomes = [];
});

test('what is asked for is sent, and gone from here', async () => {
  rename('new');
  expect(outbox.pending()).toHaveLength(1);
  await settled();
  expect(server.task_!.title).toBe('new');
  expect(last()).toEqual({ state: 'done', made: ['change 1'], undone: null });
  expect(outbox.get()).toEqual([]);
});

test('what was carried out is known with its version, before what waits, in this account and log', async () => {
  rename('new');
  await settled();
  server.reachable = false;
  rename('newer');
  expect(outbox.notTold()).toMatchObject([{ title: 'new', made: 2 }, { title: 'newer' }]);
  outbox.replaced();
  expect(outbox.notTold()).toEqual(outbox.pending());
  server.reachable = true;
  await settled();
  expect(outbox.notTold()).toMatchObject([{ title: 'newer', made: 3 }]);
  await outbox.open('somebody else');
  expect(outbox.notTold()).toEqual([]);
});

test('without a server it waits, over the end of the page, and then has one effect, in order', async () => {
  server.reachable = false;
  rename('first');
  rename('second');
  await settled();
  expect(last()).toMatchObject({ state: 'waits' });
  outbox = await opened();
  expect(outbox.pending().map((command) => 'title' in command && command.title)).toEqual(['first', 'second']);
  server.reachable = true;
  expect(await outbox.flush()).toBe(true);
  expect(server.task_).toMatchObject({ title: 'second', version: 3 });
});

test('a lost answer is asked for again, and the effect is one', async () => {
  server.losesAnswers = 1;
  rename('new');
  await settled();
  expect(server.sent).toHaveLength(2);
  expect(server.task_).toMatchObject({ title: 'new', version: 2 });
  expect(outbox.get()).toEqual([]);
});

test('what is sent again after the page was closed says the same', async () => {
  const seen = server.task_!;
  rename('first');
  await settled();
  // decided before the first was answered, so on the version before it
  server.losesAnswers = 1;
  outbox.carryOut([{ type: 'ReprioritizeTask', priority: 'low', task_id: 't' }], 'changed', { t: { ...seen, title: 'first' } }, told);
  await new Promise((resolve) => setTimeout(resolve));
  outbox = await opened();
  await settled();
  expect(server.task_).toMatchObject({ title: 'first', priority: 'low', version: 3 });
  expect(outbox.get()).toEqual([]);
});

test('what was dropped while it was sent does not come back', async () => {
  server.reachable = false;
  let goOn = () => {};
  const sent = new Promise<void>((resolve) => (goOn = resolve));
  server.ready = () => sent;
  rename('mine');
  await new Promise((resolve) => setTimeout(resolve));
  await outbox.clear();
  goOn();
  await settled();
  expect(await records.all(ME)).toEqual([]);
});

test('what somebody else has changed in other fields stays beside mine', async () => {
  server.reachable = false;
  rename('mine');
  await settled();
  server.else({ type: 'ReprioritizeTask', priority: 'high' });
  server.reachable = true;
  await settled();
  expect(server.task_).toMatchObject({ title: 'mine', priority: 'high' });
  expect(last()).toMatchObject({ state: 'done' });
});

test('the same field is asked about, and either answer holds', async () => {
  for (const keep of ['mine', 'theirs'] as const) {
    server.reachable = false;
    rename('mine');
    await settled();
    server.else({ type: 'RenameTask', title: 'theirs' });
    server.reachable = true;
    await settled();
    expect(last()).toEqual({ state: 'asks', made: [] });
    expect(server.task_!.title).toBe('theirs');
    // the question is there when the page is opened again
    outbox = await opened();
    const [asked] = outbox.get() as [Asked];
    expect(asked.question).toMatchObject({ field: 'title', mine: 'mine', theirs: 'theirs' });
    expect(await outbox.decide(asked, keep, told)).toBe(true);
    await settled();
    expect(server.task_!.title).toBe(keep);
    expect(outbox.get()).toEqual([]);
  }
});

test('a place that somebody else gave meanwhile is not taken from it in silence, however many make room', async () => {
  for (const others of [0, 200]) {
    server.reachable = false;
    const room = Array.from({ length: others }, () => ({ type: 'RankTask' as const, rank: 'V', task_id: 'other' }));
    outbox.carryOut([...room, { type: 'RankTask', rank: 'k', task_id: 't' }], 'placed', { t: server.task_! }, told, 't');
    await settled();
    const theirs = `theirs${others}`;
    server.else({ type: 'RankTask', rank: theirs });
    server.reachable = true;
    await settled();
    expect(server.task_!.rank).toBe(theirs);
    const [asked] = outbox.get() as [Asked];
    expect(asked.question).toMatchObject({ field: 'rank', mine: 'k', theirs });
    await outbox.decide(asked, 'theirs', told);
  }
});

test('who makes room stays where somebody else has put it, however many make room, and with a change of another field makes it', async () => {
  for (const others of [0, 200]) {
    for (const theirs of [{ type: 'RankTask', rank: `theirs${others}` }, { type: 'RenameTask', title: `theirs${others}` }] as const) {
      server.reachable = false;
      const before = server.task_!.rank;
      const room = Array.from({ length: others }, () => ({ type: 'RankTask' as const, rank: 'V', task_id: 'other' }));
      outbox.carryOut([...room, { type: 'RankTask', rank: 'V', task_id: 't' }], 'placed', { t: server.task_! }, told, 'other');
      await settled();
      server.else(theirs);
      server.reachable = true;
      await settled();
      expect(server.task_!.rank, `${others} ${theirs.type} ${before}`).toBe(theirs.type === 'RankTask' ? theirs.rank : 'V');
      expect(outbox.get()).toEqual([]);
    }
  }
});

test('a question is asked once more where it has changed once more', async () => {
  server.reachable = false;
  rename('mine');
  await settled();
  server.else({ type: 'RenameTask', title: 'theirs' });
  server.reachable = true;
  await settled();
  server.else({ type: 'RenameTask', title: 'theirs again' });
  await outbox.decide(outbox.get()[0] as Asked, 'mine', told);
  await settled();
  expect(outbox.get()).toMatchObject([{ kind: 'question', question: { mine: 'mine', theirs: 'theirs again' } }]);
});

test('of several changes those go on that can', async () => {
  server.reachable = false;
  outbox.carryOut(
    [{ type: 'RenameTask', title: 'mine', task_id: 't' }, { type: 'ReprioritizeTask', priority: 'low', task_id: 't' }],
    'changed', { t: server.task_! }, told,
  );
  await settled();
  server.else({ type: 'RenameTask', title: 'theirs' });
  server.reachable = true;
  await settled();
  expect(server.task_).toMatchObject({ title: 'theirs', priority: 'low' });
  expect(last()).toEqual({ state: 'asks', made: ['change 1'] });
});

test('a refusal is told at once; one that had waited stays until it is read', async () => {
  rename('forbidden');
  await settled();
  expect(last()).toMatchObject({ state: 'refused', problem: { code: 'invalid-fields' }, kept: false });
  expect(outbox.get()).toEqual([]);
  server.reachable = false;
  rename('forbidden');
  await settled();
  server.reachable = true;
  await settled();
  expect(outbox.get()).toMatchObject([{ kind: 'refused', said: 'renamed', problem: { text: 'no' } }]);
  await outbox.dismiss(outbox.get()[0]!.id);
  expect(outbox.get()).toEqual([]);
});

test('of all that waited each refusal stays, also of an undo, and also for a page that was opened since', async () => {
  server.reachable = false;
  rename('forbidden');
  rename('forbidden');
  outbox.undo(['change of long ago'], null, 'Undo: renamed', told);
  await settled();
  expect(server.sent).toEqual([]);
  outbox = await opened();
  outcomes = [];
  server.reachable = true;
  await settled();
  expect(outbox.get()).toMatchObject([
    { kind: 'refused', said: 'renamed' },
    { kind: 'refused', said: 'renamed' },
    { kind: 'refused', said: 'Undo: renamed', problem: { code: 'changed-since' } },
  ]);
  expect((await opened()).get()).toHaveLength(3);
});

test('what waited behind another one has waited too', async () => {
  vi.useFakeTimers({ toFake: ['Date'] });
  let goOn = () => {};
  const isReady = new Promise<void>((resolve) => (goOn = resolve));
  server.ready = () => isReady;
  rename('mine');
  rename('forbidden');
  await new Promise((resolve) => setTimeout(resolve));
  vi.setSystemTime(Date.now() + 6_000);
  goOn();
  await settled();
  vi.useRealTimers();
  expect(last()).toMatchObject({ state: 'refused', kept: true });
  expect(outbox.get()).toMatchObject([{ kind: 'refused', said: 'renamed' }]);
});

test('what was never sent is taken back; what may have been is undone once it is answered', async () => {
  server.reachable = false;
  const tried = rename('tried');
  await settled();
  expect(await outbox.cancel(tried)).toBe(false);
  outbox.undo(null, tried, 'undo', told);
  await settled();
  outbox = await opened();
  server.reachable = true;
  await settled();
  expect(server.undos).toEqual(['change 1']);
  expect(outbox.get()).toEqual([]);
});

test('the undo of what was sent in two parts undoes both, the last one first', async () => {
  server.reachable = false;
  const both = outbox.carryOut(
    [{ type: 'CompleteTask', task_id: 'other' }, { type: 'RenameTask', title: 'mine', task_id: 't' }], 'changed', { t: server.task_! }, told,
  );
  outbox.undo(null, both, 'undo', told);
  await settled();
  server.else({ type: 'ReprioritizeTask', priority: 'high' });
  server.reachable = true;
  await settled();
  expect(server.sent).toEqual([['CompleteTask', 'RenameTask'], ['RenameTask']]);
  expect(server.undos).toEqual(['change 2', 'change 1']);
  expect(new Set(server.keys).size).toBe(2);
  expect(last()).toMatchObject({ state: 'done', made: ['undo of change 2', 'undo of change 1'], undone: { failed: 2 } });
  expect(outbox.get()).toEqual([]);
});

test('an undo that an older version of the page has left is carried out', async () => {
  const left = { kind: 'undo', id: '0', account: ME, change: 'change 7', of: null, tries: 1 };
  await records.put(left as unknown as Entry);
  outbox = await opened();
  await outbox.flush();
  expect([server.undos, server.keys]).toEqual([['change 7'], ['0']]);
});

test('another account neither sees nor sends it', async () => {
  server.reachable = false;
  rename('mine');
  await settled();
  server.reachable = true;
  await outbox.open('somebody else');
  expect(outbox.get()).toEqual([]);
  await outbox.flush();
  expect(server.task_!.title).toBe('old');
  await outbox.open(ME);
  await outbox.flush();
  expect(server.task_!.title).toBe('mine');
});
