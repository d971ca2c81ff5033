// How the dashboard does, in figures: printed, and to be looked at by a person (docs/performance.md).

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { chromium, type BrowserContext, type CDPSession, type Page } from 'playwright-core';
import { afterAll, beforeAll, test } from 'vitest';
import { FLAGS, register, url } from '../pages.ts';

const MANY = 100_000;
const SOME = 1_000;
const BATCH = 5_000;
const SCROLLED_MS = 10_000;
const LIGHTHOUSE = process.env.LIGHTHOUSE ?? '';
const MINUTES_MS = 60_000;

let context: BrowserContext;
let folder: string;
let page: Page;
let devtools: CDPSession;

const say = (text: string) => process.stdout.write(`${text}\n`);

beforeAll(async () => {
  folder = await mkdtemp(`${tmpdir()}/measured-`);
  context = await chromium.launchPersistentContext(folder, {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: [...FLAGS, '--remote-debugging-port=9333'],
    viewport: { width: 1280, height: 800 },
    locale: 'en-GB',
  });
  page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(MINUTES_MS);
  devtools = await context.newCDPSession(page);
  await page.addInitScript(watchEvents);
  say(`load of the machine, 1 and 5 minutes: ${loadavg().slice(0, 2).map((load) => load.toFixed(1)).join(', ')}; ${cpus().length} cores`);
});
afterAll(async () => {
  say(`load of the machine at the end: ${loadavg().slice(0, 2).map((load) => load.toFixed(1)).join(', ')}`);
  await context.close();
  await rm(folder, { recursive: true });
});

/** In the page: how long each interaction took until it was painted. */
function watchEvents() {
  const durations = new Map<number, number>();
  Object.assign(globalThis, { durations });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries() as (PerformanceEntry & { interactionId?: number })[]) {
      if (entry.interactionId) durations.set(entry.interactionId, Math.max(durations.get(entry.interactionId) ?? 0, entry.duration));
    }
  }).observe({ type: 'event', durationThreshold: 16, buffered: true } as PerformanceObserverInit);
}

/** Of all interactions since it was asked last, the slowest: there are few. In milliseconds; the browser tells none under 16. */
async function slowestInteraction(): Promise<string> {
  // the last ones are told a moment later
  await page.waitForTimeout(500);
  return page.evaluate(() => {
    const { durations } = globalThis as unknown as { durations: Map<number, number> };
    const all = [...durations.values()];
    durations.clear();
    return all.length === 0 ? 'under 16 ms' : `${Math.max(...all)} ms of ${all.length}`;
  });
}

async function heapMb(): Promise<string> {
  await devtools.send('HeapProfiler.collectGarbage');
  const { usedSize } = (await devtools.send('Runtime.getHeapUsage')) as { usedSize: number };
  return `${(usedSize / 1e6).toFixed(1)} MB`;
}

async function fill(count: number): Promise<void> {
  const account = await register(page);
  const { access_token } = await (await page.request.post(`${url}/api/v1/auth/login`, { data: { email: account.email, password: account.password } })).json();
  const headers = { Authorization: `Bearer ${access_token}` };
  const priorities = ['low', 'medium', 'medium', 'high', 'urgent'];
  const now = Date.now();
  for (let from = 0; from < count; from += BATCH) {
    const commands = Array.from({ length: Math.min(BATCH, count - from) }, (_, at) => {
      const n = from + at;
      const id = crypto.randomUUID();
      const due_at = new Date(now + ((n * 7919) % 90) * 86_400_000).toISOString();
      const create = { type: 'CreateTask', task_id: id, title: `Task number ${n}`, priority: priorities[n % 5], tags: [`tag-${n % 23}`], ...(n % 3 > 0 && { due_at }) };
      return n % 4 === 0 ? [create, { type: n % 8 === 0 ? 'CompleteTask' : 'StartTask', task_id: id }] : [create];
    }).flat();
    const answer = await page.request.post(`${url}/api/v1/commands`, { headers, data: { commands }, timeout: 2 * MINUTES_MS });
    if (!answer.ok()) throw new Error(await answer.text());
  }
  for (let total = 0; total < count; await page.waitForTimeout(1_000)) {
    total = (await (await page.request.get(`${url}/api/v1/tasks/facets`, { headers })).json()).total;
  }
}

/** Turns the wheel over the middle of an element, and tells what the frames meanwhile were. */
async function scroll(selector: string): Promise<string> {
  const box = (await page.locator(selector).first().boundingBox())!;
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  const frames = page.evaluate(async (ms) => {
    const times: number[] = [];
    const until = performance.now() + ms;
    for (let at = performance.now(); at < until; at = times.at(-1)!) times.push(await new Promise<number>(requestAnimationFrame));
    return times;
  }, SCROLLED_MS);
  for (let until = Date.now() + SCROLLED_MS; Date.now() < until; await page.waitForTimeout(16)) await page.mouse.wheel(0, 240);
  const times = await frames;
  const gaps = times.slice(1).map((time, at) => time - times[at]!).sort((a, b) => a - b);
  const share = (of: number) => gaps[Math.ceil(of * gaps.length) - 1]!.toFixed(1);
  const late = gaps.filter((gap) => gap > 25).length / gaps.length;
  return `${(gaps.length / (SCROLLED_MS / 1_000)).toFixed(0)} frames a second; p50 ${share(0.5)}, p95 ${share(0.95)}, slowest ${gaps.at(-1)!.toFixed(0)} ms; ${(100 * late).toFixed(1)} % late`;
}

async function open(path: string, shown: () => Promise<unknown>): Promise<number> {
  const began = Date.now();
  await page.goto(url + path);
  await shown();
  return Date.now() - began;
}

test('lighthouse', async () => {
  await fill(SOME);
  for (const path of ['/list', '/board']) {
    for (const form of ['desktop', 'mobile']) {
      const options = [LIGHTHOUSE, url + path, '--port=9333', '--output=json', '--quiet', '--only-categories=performance,accessibility,best-practices'];
      if (form === 'desktop') options.push('--preset=desktop');
      const { stdout } = await promisify(execFile)('node', options, { maxBuffer: 1e9 });
      const report = JSON.parse(stdout) as { finalDisplayedUrl: string; categories: Record<string, { score: number }>; audits: Record<string, { score: number | null; displayValue?: string; scoreDisplayMode: string }> };
      if (!report.finalDisplayedUrl.endsWith(path)) throw new Error(`it looked at ${report.finalDisplayedUrl}`);
      const scores = Object.entries(report.categories).map(([name, { score }]) => `${name} ${Math.round(100 * score)}`);
      const values = ['first-contentful-paint', 'largest-contentful-paint', 'total-blocking-time', 'cumulative-layout-shift'].map((name) => `${name} ${report.audits[name]!.displayValue}`);
      say(`${path}, ${SOME} tasks, ${form}: ${[...scores, ...values].join(', ')}`);
      const lost = Object.entries(report.audits).filter(([, { score, scoreDisplayMode }]) => scoreDisplayMode === 'binary' && score === 0);
      if (lost.length > 0) say(`  not well: ${lost.map(([name]) => name).join(', ')}`);
    }
  }
}, 15 * MINUTES_MS);

test('100,000 tasks', async () => {
  await context.clearCookies();
  await fill(MANY);
  await page.setContent('<ul style="height: 700px; overflow: auto"><li style="height: 4000000px">');
  say(`an empty list as high, scrolled: ${await scroll('ul')}`);
  const row = page.getByRole('row').filter({ hasText: 'Task number' });
  say(`list: ${await open('/list', () => row.first().waitFor())} ms until it is shown, heap ${await heapMb()}`);
  say(`list, scrolled: ${await scroll('[role=grid]')}`);
  await row.nth(3).focus();
  await page.keyboard.type('jjjkkkxjjx');
  await page.keyboard.press('Enter');
  await page.getByRole('complementary').waitFor();
  await page.keyboard.press('Escape');
  await page.getByLabel('Add a task').fill('');
  await page.getByLabel('Add a task').pressSequentially('buy milk tomorrow 5pm #home !high');
  await page.getByRole('button', { name: 'Priority' }).click();
  await page.getByRole('menuitemcheckbox', { name: 'High' }).click();
  await page.keyboard.press('Escape');
  say(`list, keys and clicks: slowest ${await slowestInteraction()}; heap ${await heapMb()}, ${await page.getByRole('grid').getAttribute('aria-rowcount')} rows`);

  say(`board: ${await open('/board', () => page.getByText('Task number').first().waitFor())} ms`);
  say(`board, scrolled: ${await scroll('section ul')}`);
  await page.getByRole('button', { name: /^Task number/ }).first().focus();
  for (const key of ['Alt+ArrowDown', 'Alt+ArrowDown', 'Alt+ArrowRight', 'Tab', 'Enter']) await page.keyboard.press(key);
  say(`board, keys: slowest ${await slowestInteraction()}; heap ${await heapMb()}`);

  say(`calendar: ${await open('/calendar', () => page.getByRole('link', { name: /more$/ }).first().waitFor())} ms`);
  for (const key of ['j', 'k', 't']) await page.keyboard.press(key);
  say(`calendar, keys: slowest ${await slowestInteraction()}; heap ${await heapMb()}`);

  say(`insights: ${await open('/insights', () => page.getByRole('figure').nth(2).waitFor())} ms`);
  const began = Date.now();
  await page.getByRole('button', { name: 'Tags' }).click();
  await page.getByRole('menuitemcheckbox').first().click();
  await page.getByRole('button', { name: /^Tags: / }).waitFor();
  const burnUp = page.getByRole('figure').filter({ hasText: 'Burn-up' });
  await burnUp.waitFor();
  const drawn = Date.now() - began;
  await burnUp.getByText('At the end of each day that is shown').waitFor({ timeout: 3 * MINUTES_MS });
  say(`insights, burn-up of a tag: begun after ${drawn} ms, whole after ${Date.now() - began} ms; slowest interaction ${await slowestInteraction()}; heap ${await heapMb()}`);

  const then = new Date(Date.now() - 60_000).toISOString();
  say(`list a minute ago: ${await open(`/list?as_of=${then}`, () => row.first().waitFor())} ms`);
  say(`list a minute ago, scrolled: ${await scroll('[role=grid]')}; heap ${await heapMb()}`);
  say(`changes: ${await open('/changes', () => page.getByRole('listitem').first().waitFor())} ms, trash: ${await open('/trash', () => page.getByText('The trash is empty').waitFor())} ms`);
}, 30 * MINUTES_MS);
