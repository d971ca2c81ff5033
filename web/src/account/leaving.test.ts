import { expect, test } from 'vitest';
import type { Entry } from '../offline/outbox.ts';
import { de } from '../texts/de.ts';
import { en } from '../texts/en.ts';
import { lostByLeaving } from './leaving.ts';

const entry = (kind: Entry['kind'], more: object = {}) => ({ kind, id: '0', account: 'me', said: kind, ...more }) as Entry;
const question = (title: string, field: string) => entry('question', { question: { title, field } });

test('who leaves nothing behind is not asked', () => {
  expect(lostByLeaving([], en)).toBeNull();
});

test('what was not sent, not decided and not read is named', () => {
  const all = [entry('commands'), entry('undo'), question('Buy milk', 'title'), question('Ring Zoe', 'deleted'), entry('refused', { said: 'Added “x”' })];
  expect(lostByLeaving(all, en)).toBe(
    '2 changes have not reached the server and would be lost. Not decided yet, and lost by logging out: “Buy milk” – Title, “Ring Zoe”. Not carried out, and not read yet: Added “x”.',
  );
  for (const one of all) expect(lostByLeaving([one], de), one.kind).not.toBeNull();
});

test('of many the first are named', () => {
  const many = Array.from({ length: 5 }, (_, n) => entry('refused', { said: String(n) }));
  expect(lostByLeaving(many, en)).toBe('Not carried out, and not read yet: 0, 1, 2 (+2).');
});
