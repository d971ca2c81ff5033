import { afterAll, afterEach, expect, test } from 'vitest';
import { add, installed, logIn, newPage, register, registerByForm, row, settled, tasksOf, url } from '../pages.ts';
import { browser, context, page, toast, withServiceWorker } from '../session.ts';
import { filesOf, installNewVersion, kill, NEW_TITLE, putBackOldVersion, renamed, stack, TITLE, worker } from './stack.ts';

withServiceWorker();

const MINUTES_MS = 60_000;
const PATIENCE = { timeout: 60_000 };

// what a test has killed runs again for its next try, and for the next test
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') await stack('up');
}, 5 * MINUTES_MS);
afterAll(putBackOldVersion, 5 * MINUTES_MS);

const says = (text: string | RegExp) => page.getByRole('status').filter({ hasText: text });

const ask = async (path: string, accept = '*/*') => {
  const answer = await fetch(url + path, { headers: { Accept: accept } });
  await answer.arrayBuffer();
  const { status, headers } = answer;
  return [status, headers.get('content-type'), headers.get('cache-control')];
};

test('it opens by any of its addresses, and without a server too', async () => {
  const { email, password } = await registerByForm(page);
  await page.goto(`${url}/board?priority=high`);
  await page.getByRole('heading', { name: 'Board' }).waitFor();
  await page.getByRole('button', { name: 'Priority: High' }).waitFor();
  await says(/^Live$/).waitFor();
  const html = [200, 'text/html; charset=utf-8', 'no-cache'];
  expect(await ask('/')).toEqual(html);
  expect(await ask('/insights?from=2026-11-01', 'text/html')).toEqual(html);
  expect(await ask('/insights')).toEqual([404, 'application/problem+json', 'private, no-cache']);
  expect(await ask('/sw.js')).toEqual([200, 'application/javascript', 'no-cache']);
  const files = filesOf(await worker());
  expect(files.length).toBeGreaterThan(20);
  for (const file of files) expect((await ask(`/${file}`)).toSpliced(1, 1), file).toEqual([200, 'public, max-age=31536000, immutable']);
  expect((await ask('/assets/nothing.js'))[0]).toBe(404);

  await installed(page);
  await context.setOffline(true);
  await page.goto(`${url}/list`);
  await page.getByRole('heading', { name: 'List' }).waitFor();
  await context.setOffline(false);
  const elsewhere = await browser.newContext();
  try {
    await logIn((await newPage(elsewhere)).page, { email, password });
  } finally {
    await elsewhere.close();
  }
});

test('all copies are started anew one after the other: nobody notices, and each change is there once', async () => {
  const account = await register(page);
  const restart = { running: true };
  const restarted = stack('restart').finally(() => (restart.running = false));
  const expected: string[] = [];
  try {
    for (let n = 0; restart.running; n++) {
      await add(page, `task ${n}.`);
      await row(page, `task ${n}.`).waitFor();
      if (n % 2 > 0) await row(page, `task ${n}.`).getByRole('button', { name: `task ${n}.: To do` }).click();
      expected.push(n % 2 > 0 ? `task ${n}. completed 2` : `task ${n}. pending 1`);
      expect(await page.locator('[data-failed=true]').allTextContents()).toEqual([]);
    }
  } finally {
    await restarted;
  }
  await settled(page);
  expect(expected.length).toBeGreaterThan(5);
  await expect.poll(() => tasksOf(page, account), PATIENCE).toEqual(expected);
  await page.reload();
  await row(page, `task ${expected.length - 1}.`).waitFor();
}, 5 * MINUTES_MS);

test('the servers are killed in the middle of a change: the page says so, keeps it, and it has one effect', async () => {
  const account = await register(page);
  await add(page, 'steady');
  await toast('steady').waitFor();
  await page.route('**/api/v1/commands', async (route) => {
    const sent = route.continue();
    kill('command-api-1', 'command-api-2');
    await sent;
    await page.unroute('**/api/v1/commands');
  });
  await add(page, 'interrupted');
  await row(page, 'interrupted').waitFor();
  await says('1 change waits').waitFor(PATIENCE);
  await toast('Your change is kept here and sent as soon as it does.').waitFor(PATIENCE);
  await row(page, 'steady').getByRole('button', { name: 'steady: To do' }).click();
  await row(page, 'steady').getByRole('button', { name: 'steady: Done' }).waitFor();
  await says('2 changes wait').waitFor();
  kill('query-api-1', 'query-api-2');
  await says('Reconnecting …').waitFor(PATIENCE);
  await stack('up');
  await settled(page);
  await expect.poll(() => tasksOf(page, account), PATIENCE).toEqual(['steady completed 2', 'interrupted pending 1']);
  await page.reload();
  await row(page, 'steady').getByRole('button', { name: 'steady: Done' }).waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
}, 5 * MINUTES_MS);

test('a new version comes while it is open: it says so, files of both are there meanwhile, and what is gone is asked for anew', async () => {
  await putBackOldVersion();
  await register(page);
  await add(page, 'goes on');
  await toast('goes on').waitFor();
  await installed(page);
  // without a service worker it has only the files that it has asked for
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    await elsewhere.addInitScript('delete Navigator.prototype.serviceWorker');
    const bare = (await newPage(elsewhere)).page;
    await register(bare);
    const old = filesOf(await worker());
    await installNewVersion();
    await stack('restart', 'query-api-1');
    // whichever copy is asked first, the other one has it
    for (const file of [...old, ...old.map((name) => `assets/${renamed(name)}`)]) {
      for (let asked = 0; asked < 4; asked++) expect((await ask(`/${file}`))[0], file).toBe(200);
    }
    await stack('restart', 'query-api-2');
    expect((await ask(`/${old[0]}`))[0]).toBe(404);

    expect(await bare.title()).toBe(TITLE);
    await bare.getByRole('link', { name: 'Insights' }).click();
    await bare.getByRole('heading', { name: 'Insights' }).waitFor();
    await bare.waitForFunction((title) => document.title === title, NEW_TITLE);
    await bare.getByRole('figure').first().waitFor();

    // a page that is looked at again looks whether there is a new one
    await page.evaluate(() => dispatchEvent(new Event('visibilitychange')));
    await page.getByRole('button', { name: 'Load the new version' }).waitFor(PATIENCE);
    await add(page, 'still the old one');
    await row(page, 'still the old one').waitFor();
    await page.getByRole('link', { name: 'Insights' }).click();
    await page.getByRole('figure').first().waitFor();
    expect(await page.title()).toBe(TITLE);
    await page.getByRole('button', { name: 'Load the new version' }).click();
    await page.waitForFunction((title) => document.title === title, NEW_TITLE);
    await page.getByRole('link', { name: 'List' }).click();
    await row(page, 'still the old one').waitFor();
    await page.getByRole('button', { name: 'Load the new version' }).waitFor({ state: 'detached' });
  } finally {
    await elsewhere.close();
  }
}, 5 * MINUTES_MS);
