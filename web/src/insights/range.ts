// The days that are looked at, as the address has them.

import { daysFrom } from '../tasks/zones.ts';

/** Both are dates, and both days are meant. */
export interface Range {
  from: string;
  to: string;
}

/** What of a range is in the address; what is not there follows today. */
export type AskedRange = Partial<Range>;

/** Of the API. */
const DAYS_MAX = 366;
export const DAYS_DEFAULT = 30;
const DAY_MS = 86_400_000;

export function askedRangeOf(search: Record<string, unknown>): AskedRange {
  const { from, to } = search;
  return { ...(isDate(from) && { from }), ...(isDate(to) && { to }) };
}

/** Days that can be asked for: none after today, the first not after the last, and no more than the API takes. */
export function rangeOf(asked: AskedRange, today: string): Range {
  const to = asked.to && asked.to < today ? asked.to : today;
  const from = asked.from ?? daysFrom(to, 1 - DAYS_DEFAULT);
  const earliest = daysFrom(to, 1 - DAYS_MAX);
  return { from: from > to ? to : from < earliest ? earliest : from, to };
}

function isDate(text: unknown): text is string {
  if (typeof text !== 'string' || !/^\d{4}-\d{2}-\d{2}$/.test(text)) return false;
  const date = new Date(text);
  return !Number.isNaN(date.getTime()) && date.toISOString().startsWith(text);
}

/** So many of its days at most, equally far apart, and its last one. */
export function someOf({ from, to }: Range, daysMax: number): string[] {
  const length = (Date.parse(to) - Date.parse(from)) / DAY_MS + 1;
  const step = Math.ceil(length / daysMax);
  const dates: string[] = [];
  for (let date = to; date >= from; date = daysFrom(date, -step)) dates.unshift(date);
  return dates;
}
