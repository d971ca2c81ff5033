import { expect, test } from 'vitest';
import { overlaid } from '../offline/overlay.ts';
import { parseQuickAdd } from './quick-add.ts';
import { shown } from './shown.ts';
import { tagOf } from './tags.ts';
import type { Task } from './values.ts';

const composed = 'caf\u00e9';
const apart = 'Cafe\u0301';
const task = { id: 'a', title: 'a', status: 'pending', tags: [composed], due_at: null, version: 1 } as unknown as Task;

test('a tag is one tag, on whatever keyboard it was typed', () => {
  expect([composed, apart, ` ${apart.toUpperCase()} `].map(tagOf)).toEqual([composed, composed, composed]);
  expect(tagOf('J\u030c'), 'composed only as a small letter').toBe('\u01f0');
});

test('it is compared so wherever it is shown before the server has said so', () => {
  expect(shown(task, { type: 'TagTask', tags: [apart] })?.tags).toEqual([composed]);
  expect(shown(task, { type: 'UntagTask', tags: [apart] })?.tags).toEqual([]);
  expect(parseQuickAdd(`buy milk #${apart} #${composed}`, new Date(), null).tags).toEqual([composed]);
  const commands = [{ type: 'CreateTask' as const, task_id: 'b', title: 'b', tags: [apart] }];
  for (const tag of [composed, apart, `x,${apart}`]) {
    expect(overlaid([[]], commands, { tag }, new Date())[0]!.map(({ tags }) => tags), tag).toEqual([[composed]]);
  }
});
