import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { dismiss, toast, toasts } from './toasts.ts';

const texts = () => toasts.get().map(({ text }) => text);

beforeEach(() => vi.useFakeTimers());
afterEach(() => {
  vi.runAllTimers();
  vi.useRealTimers();
});

test('a message takes the place of the last one', () => {
  toast({ text: 'one' });
  toast({ text: 'two' });
  expect(texts()).toEqual(['two']);
  vi.advanceTimersByTime(8_000);
  expect(texts()).toEqual([]);
});

test('failures are all seen, for their whole time, whatever follows', () => {
  for (let n = 1; n <= 6; n++) toast({ text: `failure ${n}`, failed: true });
  toast({ text: 'saved' });
  expect(texts()).toEqual(['saved', 'failure 1', 'failure 2', 'failure 3']);
  dismiss(toasts.get()[1]!.id);
  expect(texts()).toEqual(['saved', 'failure 2', 'failure 3', 'failure 4']);
  vi.advanceTimersByTime(8_000);
  expect(texts()).toEqual(['failure 2', 'failure 3', 'failure 4', 'failure 5']);
  vi.advanceTimersByTime(8_000);
  expect(texts(), 'those that waited have their time from now').toEqual(['failure 5', 'failure 6']);
  vi.advanceTimersByTime(16_000);
  expect(texts()).toEqual([]);
});

test('the same failure twice is shown once', () => {
  toast({ text: 'no answer', failed: true });
  toast({ text: 'no answer', failed: true });
  expect(texts()).toEqual(['no answer']);
});
