import { expect, test } from 'vitest';
import { followed, NO_FOCUS, rowFrom } from './row-focus.ts';

const tasks = (ids: string) => [...ids].map((id) => ({ id }));

test('the focus stays with its task, whatever rows come and go before it', () => {
  const focus = { id: 'b', at: 1 };
  expect(followed(tasks('abc'), focus)).toBe(focus);
  expect(followed(tasks('xyabc'), focus)).toEqual({ id: 'b', at: 3 });
  expect(followed(tasks('bc'), focus)).toEqual({ id: 'b', at: 0 });
});

test('no other task takes it over, and none has it at first', () => {
  expect(followed(tasks('ac'), { id: 'b', at: 1 })).toEqual({ id: null, at: 1 });
  expect(followed(tasks('abc'), NO_FOCUS).id).toBeNull();
});

test('keys move on from there', () => {
  expect([1, -1, 15, -15].map((by) => rowFrom(tasks('abcd'), { id: 'b', at: 1 }, by))).toEqual([2, 0, 3, 0]);
  expect([1, -1].map((by) => rowFrom(tasks('acd'), { id: null, at: 1 }, by)), 'from one that is gone').toEqual([1, 0]);
  expect([1, -1].map((by) => rowFrom(tasks('abcd'), NO_FOCUS, by))).toEqual([0, 0]);
});
