// Months, `2026-11`, as a calendar shows them.

import { daysFrom } from '../tasks/zones.ts';

export function isMonth(text: unknown): text is string {
  return typeof text === 'string' && /^[12]\d{3}-(0[1-9]|1[0-2])$/.test(text);
}

export function monthsFrom(month: string, months: number): string {
  const [year, number] = month.split('-').map(Number) as [number, number];
  return new Date(Date.UTC(year, number - 1 + months)).toISOString().slice(0, 7);
}

/** The weeks in which a month has a day, each from its first day (0 being Sunday). */
export function weeksOf(month: string, firstDay: number): string[][] {
  const first = `${month}-01`;
  const next = `${monthsFrom(month, 1)}-01`;
  const weeks: string[][] = [];
  const offset = (new Date(first).getUTCDay() - firstDay + 7) % 7;
  for (let day = daysFrom(first, -offset); day < next; day = daysFrom(day, 7)) {
    weeks.push(Array.from({ length: 7 }, (_, at) => daysFrom(day, at)));
  }
  return weeks;
}
