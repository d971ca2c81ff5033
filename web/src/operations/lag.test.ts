import { expect, test } from 'vitest';
import { KEPT_MS, line, sampled } from './lag.ts';

const sample = (at: number, events: number) => ({ at, events, seconds: 0 });

test('what is too old is dropped, and what is asked twice is there once', () => {
  const first = sampled([], sample(1_000, 1));
  const both = sampled(sampled(first, sample(6_000, 2)), sample(6_000, 2));
  expect(both.map(({ at }) => at)).toEqual([1_000, 6_000]);
  expect(sampled(both, sample(1_000 + KEPT_MS, 3)).map(({ at }) => at)).toEqual([6_000, 1_000 + KEPT_MS]);
});

test('the largest value is at the top, now at the right', () => {
  const samples = [sample(0, 0), sample(30_000, 10), sample(120_000, 5)];
  expect(line(samples, ({ events }) => events, 120, 40)).toBe('0,40 30,0 120,20');
  expect(line([sample(60_000, 0)], ({ events }) => events, 100, 40), 'no lag is at the bottom').toBe('100,40');
});
