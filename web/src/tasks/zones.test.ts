import { expect, test } from 'vitest';
import { timeOfWallClock, wallClock } from './zones.ts';

test('a time and what the clock there shows lead to each other', () => {
  for (const [zone, time, text] of [
    ['UTC', '2026-11-29T14:05:00Z', '2026-11-29T14:05'],
    ['Europe/Berlin', '2026-07-01T22:30:00Z', '2026-07-02T00:30'],
    ['Asia/Kathmandu', '2026-01-01T00:00:00Z', '2026-01-01T05:45'],
    ['Pacific/Kiritimati', '2026-12-31T10:00:00Z', '2027-01-01T00:00'],
    ['America/St_Johns', '2026-03-07T12:00:00Z', '2026-03-07T08:30'],
  ] as const) {
    expect(wallClock(new Date(time), zone)).toBe(text);
    expect(timeOfWallClock(text, zone)).toEqual(new Date(time));
  }
});

test('an hour that comes twice is the first one, one that is skipped is later', () => {
  expect(timeOfWallClock('2026-10-25T02:30', 'Europe/Berlin')).toEqual(new Date('2026-10-25T00:30:00Z'));
  expect(timeOfWallClock('2026-10-25T03:30', 'Europe/Berlin')).toEqual(new Date('2026-10-25T02:30:00Z'));
  expect(timeOfWallClock('2026-03-29T02:30', 'Europe/Berlin')).toEqual(new Date('2026-03-29T01:30:00Z'));
  expect(timeOfWallClock('2026-03-29T03:30', 'Europe/Berlin')).toEqual(new Date('2026-03-29T01:30:00Z'));
  expect(timeOfWallClock('2026-11-01T01:30', 'America/New_York')).toEqual(new Date('2026-11-01T05:30:00Z'));
});
