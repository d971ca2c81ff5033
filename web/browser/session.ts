// A browser for the tests of the file that imports this, and for each of them a page that nobody is logged in on. Whatever the
// page complains of fails the test.

import type { Browser, BrowserContext, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { newPage, open } from './pages.ts';

export let browser: Browser;
export let context: BrowserContext;
export let page: Page;
let complaints: string[];

beforeAll(async () => {
  browser = await open();
});
afterAll(() => browser.close());
beforeEach(async () => {
  context = await browser.newContext({ locale: 'en-GB', viewport: { width: 1280, height: 800 } });
  if (!hasServiceWorker) await context.addInitScript('delete Navigator.prototype.serviceWorker');
  ({ page, complaints } = await newPage(context));
});
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') await tellWhatIsShown();
  await context.close();
  expect(complaints).toEqual([]);
});

const SHOWN_LETTERS_MAX = 2_000;

/** A test that fails says what it waited for; this is what was there. */
async function tellWhatIsShown(): Promise<void> {
  const text = await page.locator('body').innerText({ timeout: 2_000 }).catch(String);
  console.error(`${page.url()} shows:\n${text.slice(0, SHOWN_LETTERS_MAX)}`);
}

let hasServiceWorker = false;

/** For the tests of this file. It loads all files of the page for each of them: the others go without. */
export function withServiceWorker(): void {
  hasServiceWorker = true;
}

export const toast = (text: string | RegExp) => page.getByRole('status').filter({ hasText: text });
