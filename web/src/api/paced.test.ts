import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { gathered, throttled } from './paced.ts';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

test('what comes within a time is one', () => {
  const act = vi.fn();
  const take = gathered<number>(100, act);
  take(1);
  vi.advanceTimersByTime(99);
  take(2);
  vi.advanceTimersByTime(1);
  take(3);
  vi.advanceTimersByTime(100);
  expect(act.mock.calls).toEqual([[[1, 2]], [[3]]]);
});

test('many who want it are served by one, and those who come meanwhile by one more', async () => {
  let end = () => {};
  const act = vi.fn(() => new Promise<void>((resolve) => (end = resolve)));
  const want = throttled(400, act);
  want();
  await vi.advanceTimersByTimeAsync(399);
  want();
  expect(act).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  expect(act).toHaveBeenCalledTimes(1);
  want();
  want();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(act, 'while it acts').toHaveBeenCalledTimes(1);
  end();
  await vi.advanceTimersByTimeAsync(400);
  expect(act).toHaveBeenCalledTimes(2);
  end();
  await vi.advanceTimersByTimeAsync(1_000);
  expect(act).toHaveBeenCalledTimes(2);
});

test('one that fails does not stop the next', async () => {
  const act = vi.fn(() => Promise.reject(new Error('no answer')));
  const want = throttled(1, act);
  for (let n = 0; n < 2; n++) {
    want();
    await vi.advanceTimersByTimeAsync(1);
  }
  expect(act).toHaveBeenCalledTimes(2);
});
