import { expect, test } from 'vitest';
import { isMonth, monthsFrom, weeksOf } from './month.ts';

test('a month is shown in whole weeks, whatever day they begin with', () => {
  const monday = weeksOf('2026-11', 1);
  expect(monday).toHaveLength(6);
  expect([monday[0]![0], monday.at(-1)!.at(-1)]).toEqual(['2026-10-26', '2026-12-06']);
  const sunday = weeksOf('2026-11', 0);
  expect([sunday.length, sunday[0]![0], sunday.at(-1)!.at(-1)]).toEqual([5, '2026-11-01', '2026-12-05']);
  expect(weeksOf('2026-02', 0)).toHaveLength(4);
  for (const weeks of [monday, sunday, weeksOf('2024-02', 6)]) for (const week of weeks) expect(new Set(week).size).toBe(7);
});

test('months follow each other over the year', () => {
  expect([monthsFrom('2026-12', 1), monthsFrom('2026-01', -1), monthsFrom('2026-05', 20)]).toEqual(['2027-01', '2025-12', '2028-01']);
  expect(['2026-13', '2026-1', '0000-01', 7, '2026-11'].map(isMonth)).toEqual([false, false, false, false, true]);
});
