import { preferences } from '../shell/preferences.ts';
import { timeOfWallClock, wallClock } from './zones.ts';

const DAY_MS = 86_400_000;

/** Days and hours as they are written where the person is, if that is in the language of the page. */
function locale(): string {
  const { language } = preferences.get();
  return navigator.languages.find((known) => known.startsWith(language)) ?? language;
}

let machine: { zone: string; offset: number } | undefined;

/** The time zone that days and hours are told in. */
export function timeZone(): string {
  const { timeZone } = preferences.get();
  if (timeZone !== null) return timeZone;
  // to ask for it takes long, to see that it may have changed does not
  const offset = new Date().getTimezoneOffset();
  if (machine?.offset !== offset) machine = { zone: Intl.DateTimeFormat().resolvedOptions().timeZone, offset };
  return machine.zone;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** To make one takes long. */
function formatOf(options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const language = locale();
  const key = `${language} ${Object.entries(options).join(' ')}`;
  let known = formats.get(key);
  if (!known) {
    known = new Intl.DateTimeFormat(language, options);
    formats.set(key, known);
  }
  return known;
}

/** The date there of a time, as `2026-11-29`. */
export function dateOf(time: Date | string): string {
  return inputTime(typeof time === 'string' ? time : time.toISOString()).slice(0, 10);
}

export const today = (): string => dateOf(new Date());

/** The first day of a week, 0 being Sunday. */
export function firstDay(): number {
  const { firstDay } = preferences.get();
  if (firstDay !== null) return firstDay;
  const region = new Intl.Locale(locale()) as Intl.Locale & { getWeekInfo?: () => { firstDay: number } };
  return (region.getWeekInfo?.().firstDay ?? 1) % 7;
}

/** When a day begins in the time zone of these pages. */
export const midnight = (date: string): string => timeOfInput(`${date}T00:00`).toISOString();

/** A due date as short as it can be said: a day, and a time where it is near. */
export function dueText(time: string): string {
  const due = new Date(time);
  const near = Math.abs(due.getTime() - Date.now()) < 7 * DAY_MS;
  const sameYear = dateOf(time).slice(0, 4) === today().slice(0, 4);
  const format: Intl.DateTimeFormatOptions = near
    ? { weekday: 'short', hour: '2-digit', minute: '2-digit' }
    : { day: 'numeric', month: 'short', ...(!sameYear && { year: 'numeric' }) };
  return formatOf({ ...format, timeZone: timeZone() }).format(due);
}

export function timeText(time: string): string {
  return formatOf({ dateStyle: 'medium', timeStyle: 'short', timeZone: timeZone() }).format(new Date(time));
}

/** A date in words. */
export function dateText(date: string, short = false): string {
  const format: Intl.DateTimeFormatOptions = short ? { day: 'numeric', month: 'short' } : { dateStyle: 'medium' };
  return formatOf({ ...format, timeZone: 'UTC' }).format(new Date(date));
}

/** A month, `2026-11`, in words. */
export function monthText(month: string): string {
  return formatOf({ month: 'long', year: 'numeric', timeZone: 'UTC' }).format(new Date(month));
}

/** The name of a day of the week, 0 being Sunday. */
export function weekdayText(day: number, short = false): string {
  // a Sunday
  const date = new Date(Date.UTC(2026, 1, 1 + day));
  return formatOf({ weekday: short ? 'short' : 'long', timeZone: 'UTC' }).format(date);
}

const UNITS = [['day', 86_400], ['hour', 3_600], ['minute', 60], ['second', 1]] as const;

/** How long something took, in its largest unit of which there is more than one. */
export function durationText(seconds: number): string {
  const [unit, size] = UNITS.find(([, size]) => seconds >= 2 * size) ?? UNITS.at(-1)!;
  return (seconds / size).toLocaleString(locale(), { style: 'unit', unit, unitDisplay: 'long', maximumFractionDigits: 1 });
}

/** As an input of a date and time has it, in the time zone of these pages. */
export function inputTime(time: string | null): string {
  return time ? wallClock(new Date(time), timeZone()) : '';
}

/** The time of what such an input has. */
export function timeOfInput(text: string): Date {
  return timeOfWallClock(text, timeZone());
}
