import { afterEach, expect, test, vi } from 'vitest';
import { dueText, timeText, timeZone } from './times.ts';

const chosen = vi.hoisted(() => ({ language: 'en', timeZone: 'UTC' as string | null, firstDay: null }));
vi.mock('../shell/preferences.ts', () => ({ preferences: { get: () => chosen } }));
vi.stubGlobal('navigator', { languages: ['en-GB', 'de-DE'] });

afterEach(() => {
  Object.assign(chosen, { language: 'en', timeZone: 'UTC' });
  vi.restoreAllMocks();
});

test('what is chosen holds at once', () => {
  const time = '2031-03-04T23:30:00Z';
  expect(timeText(time)).toBe('4 Mar 2031, 23:30');
  chosen.timeZone = 'Asia/Kathmandu';
  expect(timeText(time)).toBe('5 Mar 2031, 05:15');
  chosen.language = 'de';
  expect(timeText(time)).toBe('05.03.2031, 05:15');
});

test('formats are made once, not for each date', () => {
  const texts = (n: number) => Array.from({ length: n }, (_, at) => dueText(new Date(Date.UTC(2031, 0, 1 + at)).toISOString()) + timeZone());
  const told = texts(1);
  const made = vi.spyOn(Intl, 'DateTimeFormat');
  const others = ['toLocaleString', 'toLocaleDateString', 'toLocaleTimeString'] as const;
  const spies = [made, ...others.map((name) => vi.spyOn(Date.prototype, name))];
  expect(texts(100)[0]).toBe(told[0]);
  for (const spy of spies) expect(spy).not.toHaveBeenCalled();
});

test("the machine's time zone is asked for once, and again when its clock is another one", () => {
  chosen.timeZone = null;
  expect(timeZone()).toBe(Intl.DateTimeFormat().resolvedOptions().timeZone);
  const made = vi.spyOn(Intl, 'DateTimeFormat');
  for (let n = 0; n < 10; n++) timeZone();
  expect(made).not.toHaveBeenCalled();
  vi.spyOn(Date.prototype, 'getTimezoneOffset').mockReturnValue(-345);
  timeZone();
  expect(made).toHaveBeenCalledTimes(1);
});
