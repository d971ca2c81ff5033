import { beforeEach, expect, test, vi } from 'vitest';
import type { Outcome } from '../offline/outbox.ts';
import type { Toast } from '../shell/toasts.ts';
import { carryOut, redo, undo } from './commands.ts';

type Told = (outcome: Outcome<never>) => void;
const outbox = vi.hoisted(() => ({
  told: [] as Told[],
  undos: [] as { changes: string[] | null; of: string | null; said: string; told: Told }[],
  carryOut(_: unknown, __: unknown, ___: unknown, told: Told) {
    return `entry ${this.told.push(told)}`;
  },
  undo(changes: string[] | null, of: string | null, said: string, told: Told) {
    this.undos.push({ changes, of, said, told });
  },
  cancel: async () => false,
}));
const toasts = vi.hoisted(() => [] as Toast[]);
vi.mock('../offline/kept.ts', () => ({ outbox }));
vi.mock('../api/client.ts', async () => ({ Problem: (await import('../api/problem.ts')).Problem }));
vi.mock('../shell/toasts.ts', () => ({ toast: (toast: Toast) => toasts.push(toast) }));
vi.mock('../texts/index.ts', async () => {
  const { en } = await import('../texts/en.ts');
  return { texts: () => en };
});
vi.mock('./known.ts', () => ({
  askAnew: async () => {}, refreshTasks: () => {}, showAgain: () => {}, showPending: () => {}, shownNow: () => [], shownTasks: () => ({}),
}));

/** Said, and answered with these changes. */
function carriedOut(said: string, ...made: string[]): Toast {
  void carryOut([{ type: 'StartTask', task_id: 'a' }], said);
  outbox.told.at(-1)!({ state: 'done', made, undone: null });
  return toasts.at(-1)!;
}

const undone = (change: string, made: string[]) =>
  outbox.undos.at(-1)!.told({ state: 'done', made, undone: { change, failed: 0, job: null } });

beforeEach(() => {
  outbox.undos.length = 0;
  toasts.length = 0;
});

test("a message's Undo undoes what the message speaks of, once", async () => {
  const first = carriedOut('first', 'change 1');
  const second = carriedOut('second', 'change 2');
  first.action!.run();
  first.action!.run();
  await undo();
  second.action!.run();
  expect(outbox.undos).toMatchObject([
    { changes: ['change 1'], said: 'Undo: first' },
    { changes: ['change 2'], said: 'Undo: second' },
  ]);
});

test('and its Redo likewise, of all parts', async () => {
  const first = carriedOut('in two parts', 'change 1', 'change 2');
  const second = carriedOut('another', 'change 3');
  first.action!.run();
  expect(outbox.undos.at(-1)!.changes).toEqual(['change 2', 'change 1']);
  undone('undo 1', ['undo 2', 'undo 1']);
  const message = toasts.at(-1)!;
  expect(message.text).toBe('Undone');
  second.action!.run();
  undone('undo 3', ['undo 3']);
  message.action!.run();
  expect(outbox.undos.at(-1), 'another was undone since').toMatchObject({ changes: ['undo 1', 'undo 2'], said: 'Redo: in two parts' });
});

test('what was undone while it waited is told of as undone only', async () => {
  void carryOut([{ type: 'StartTask', task_id: 'a' }], 'waits');
  await undo();
  expect(outbox.undos).toMatchObject([{ changes: null, of: `entry ${outbox.told.length}` }]);
  outbox.told.at(-1)!({ state: 'done', made: ['change 1'], undone: null });
  expect(toasts).toEqual([]);
  undone('undo 1', ['undo 1']);
  expect(toasts.map(({ text }) => text)).toEqual(['Undone']);
  redo();
  expect(outbox.undos.at(-1)).toMatchObject({ changes: ['undo 1'] });
});
