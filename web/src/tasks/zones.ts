// What a clock on the wall of a time zone shows, `2026-11-29T14:05`, and when it shows that.

const DAY_MS = 86_400_000;

export function wallClock(time: Date, zone: string): string {
  return new Date(time.getTime() + offsetMs(time, zone)).toISOString().slice(0, 16);
}

/** Of an hour that comes twice it is the first one; one that is skipped is as much later as the clocks were put forward. */
export function timeOfWallClock(text: string, zone: string): Date {
  const wall = Date.parse(`${text}Z`);
  // where the clocks are changed that day, before and after
  const before = wall - offsetMs(new Date(wall - DAY_MS), zone);
  const after = wall - offsetMs(new Date(wall + DAY_MS), zone);
  const holds = (time: number) => time + offsetMs(new Date(time), zone) === wall;
  return new Date(!holds(before) && holds(after) ? after : before);
}

/** From UTC. */
function offsetMs(time: Date, zone: string): number {
  const part = Object.fromEntries(formatOf(zone).formatToParts(time).map(({ type, value }) => [type, Number(value)]));
  const wall = Date.UTC(part['year']!, part['month']! - 1, part['day'], part['hour'], part['minute'], part['second']);
  return wall - Math.floor(time.getTime() / 1_000) * 1_000;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** To make one takes long. */
function formatOf(timeZone: string): Intl.DateTimeFormat {
  let known = formats.get(timeZone);
  if (!known) {
    const numeric = { year: 'numeric', month: 'numeric', day: 'numeric', hour: 'numeric', minute: 'numeric', second: 'numeric' } as const;
    known = new Intl.DateTimeFormat('en', { ...numeric, hourCycle: 'h23', timeZone });
    formats.set(timeZone, known);
  }
  return known;
}

/** A date so many days after another one. */
export function daysFrom(date: string, days: number): string {
  return new Date(Date.parse(date) + days * DAY_MS).toISOString().slice(0, 10);
}
