import { beforeEach, expect, test, vi } from 'vitest';
import { Since } from './since.ts';

let since: Since;
let missed: ReturnType<typeof vi.fn<() => void>>;

beforeEach(() => {
  since = new Since();
  missed = vi.fn();
  since.missed = missed;
});

test('events are told from the first answer on', async () => {
  const first = since.first(1_000);
  since.saw(7);
  since.saw(5);
  expect(await first).toBe(5);
  since.began(5);
  since.saw(6);
  expect(missed).not.toHaveBeenCalled();
});

test('whoever shows nothing is not waited for long', async () => {
  expect(await since.first(1)).toBeNull();
});

test('what an answer shows too little of is asked for again, whichever comes first', () => {
  since.saw(5);
  since.began(6);
  expect(missed).toHaveBeenCalledTimes(1);
  since.saw(5);
  expect(missed).toHaveBeenCalledTimes(2);
  since.saw(6);
  since.forget();
  since.saw(1);
  since.began(1);
  expect(missed).toHaveBeenCalledTimes(2);
});

test('an answer that shows less than was told meanwhile is asked for again', () => {
  since.saw(5);
  since.went(9);
  since.began(5);
  since.saw(5);
  expect(missed).not.toHaveBeenCalled();
  since.went(7);
  since.went(6);
  since.saw(6);
  expect(missed).toHaveBeenCalledTimes(1);
  since.saw(7);
  expect(missed).toHaveBeenCalledTimes(1);
});
