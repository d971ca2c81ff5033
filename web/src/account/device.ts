// What a session is on, in words, from the `User-Agent` that it was begun with.

/** The first that occurs: those that name another one as well come before it. */
const BROWSERS = { Edg: 'Edge', OPR: 'Opera', SamsungBrowser: 'Samsung Internet', Firefox: 'Firefox', FxiOS: 'Firefox', CriOS: 'Chrome', Chrome: 'Chrome', Safari: 'Safari' };
const SYSTEMS = { Android: 'Android', iPhone: 'iOS', iPad: 'iPadOS', Windows: 'Windows', 'Mac OS X': 'macOS', CrOS: 'ChromeOS', Linux: 'Linux' };

/** What is no browser is told as it calls itself. */
export function deviceText(userAgent: string): string {
  const first = (names: Record<string, string>) => Object.entries(names).find(([name]) => userAgent.includes(name))?.[1];
  const browser = first(BROWSERS);
  return browser ? [browser, first(SYSTEMS)].filter(Boolean).join(', ') : userAgent;
}
