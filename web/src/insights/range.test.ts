import { expect, test } from 'vitest';
import { daysFrom } from '../tasks/zones.ts';
import { askedRangeOf, rangeOf, someOf } from './range.ts';

test('of an address only days that exist are a range', () => {
  expect(askedRangeOf({ from: '2026-02-29', to: '2026-02-28', more: 'x' })).toEqual({ to: '2026-02-28' });
  expect(askedRangeOf({ from: '2024-02-29', to: '28.2.2026' })).toEqual({ from: '2024-02-29' });
});

test('without any it is the last 30 days, today included', () => {
  expect(rangeOf({}, '2026-03-01')).toEqual({ from: '2026-01-31', to: '2026-03-01' });
});

test('it ends today at the latest, begins before it ends, and is no longer than a year', () => {
  expect(rangeOf({ to: '2027-01-01', from: '2026-02-01' }, '2026-03-01')).toEqual({ from: '2026-02-01', to: '2026-03-01' });
  expect(rangeOf({ to: '2026-01-01', from: '2026-02-01' }, '2026-03-01')).toEqual({ from: '2026-01-01', to: '2026-01-01' });
  expect(rangeOf({ from: '2001-01-01' }, '2026-03-01')).toEqual({ from: daysFrom('2026-03-01', -365), to: '2026-03-01' });
});

test('of many days some are looked at, the last one among them', () => {
  expect(someOf({ from: '2026-03-01', to: '2026-03-03' }, 16)).toEqual(['2026-03-01', '2026-03-02', '2026-03-03']);
  expect(someOf({ from: '2026-03-01', to: '2026-03-04' }, 3)).toEqual(['2026-03-02', '2026-03-04']);
  const year = someOf({ from: '2025-03-01', to: '2026-03-01' }, 16);
  expect([year.length, year[0]! >= '2025-03-01', year.at(-1)]).toEqual([16, true, '2026-03-01']);
});
