import { createServer, request as ask, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Page } from 'playwright-core';
import { expect, test } from 'vitest';
import { findNothingHere } from './axe.ts';
import { add, columnIs, installed, listIsKept, logIn, made, newPage, register, row, url } from './pages.ts';
import { browser, context, page, toast, withServiceWorker } from './session.ts';

withServiceWorker();

const waits = (text: string) => page.getByRole('status').filter({ hasText: text });
const decisions = (of: Page) => of.getByRole('dialog', { name: 'Changes that need you' });

test('without a server it opens, shows what was seen, and keeps what is changed; on return each has one effect', async () => {
  const account = await register(page);
  await made(page, 'first #home', 'second');
  await row(page, 'second').waitFor();
  await installed(page);
  await listIsKept(page, 'second');
  await context.setOffline(true);
  await add(page, 'made offline !high');
  await row(page, 'made offline').getByText('High').waitFor();
  await row(page, 'first').getByRole('button', { name: 'first: To do' }).click();
  await row(page, 'first').getByRole('button', { name: 'first: Done' }).waitFor();
  await row(page, 'second').focus();
  await page.keyboard.press('Delete');
  await row(page, 'second').waitFor({ state: 'detached' });
  await waits('3 changes wait').waitFor();

  await page.reload();
  await row(page, 'made offline').getByText('High').waitFor();
  await row(page, 'first').getByRole('button', { name: 'first: Done' }).waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
  await page.goto(`${url}/board`);
  await page.getByRole('region', { name: 'To do', exact: true }).waitFor();

  await context.setOffline(false);
  await page.getByRole('status').filter({ hasText: /^Live$/ }).waitFor();
  await waits('wait').waitFor({ state: 'detached' });
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await row(other, 'made offline').getByText('High').waitFor();
    await row(other, 'first').getByRole('button', { name: 'first: Done' }).waitFor();
    expect(await other.getByRole('row').count()).toBe(2);
    await row(other, 'made offline').getByRole('button', { name: 'made offline', exact: true }).click();
    const history = other.getByRole('region', { name: 'History' });
    await history.getByText('Created').waitFor();
    expect(await history.getByRole('listitem').count()).toBe(1);
  } finally {
    await elsewhere.close();
  }
});

test('what was not sent is taken back without a server', async () => {
  await register(page);
  await made(page, 'steady');
  await installed(page);
  await context.setOffline(true);
  await add(page, 'hasty');
  await row(page, 'hasty').waitFor();
  await row(page, 'steady').focus();
  await page.keyboard.press('Delete');
  await row(page, 'steady').waitFor({ state: 'detached' });
  await page.keyboard.press('Control+Z');
  await row(page, 'steady').waitFor();
  await context.setOffline(false);
  await page.getByRole('status').filter({ hasText: /^Live$/ }).waitFor();
  await page.reload();
  await row(page, 'hasty').waitFor();
  await row(page, 'steady').waitFor();
});

test('two browsers change one task: other fields are merged, the same field is asked about', async () => {
  const account = await register(page);
  await made(page, 'shared');
  await row(page, 'shared').getByRole('button', { name: 'shared', exact: true }).click();
  const panel = page.getByRole('complementary');
  await panel.getByRole('region', { name: 'History' }).getByText('Created').waitFor();
  await installed(page);
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await row(other, 'shared').getByRole('button', { name: 'shared', exact: true }).click();

    await context.setOffline(true);
    await panel.getByRole('textbox', { name: 'Title' }).fill('my title');
    await panel.getByRole('textbox', { name: 'Title' }).press('Enter');
    await panel.getByLabel('Priority').selectOption('Low');
    await panel.getByLabel('Add a tag').fill('mine');
    await panel.getByLabel('Add a tag').press('Enter');
    await waits('3 changes wait').waitFor();

    const theirs = other.getByRole('complementary');
    await theirs.getByRole('textbox', { name: 'Title' }).fill('their title');
    await theirs.getByRole('textbox', { name: 'Title' }).press('Enter');
    await row(other, 'their title').waitFor();
    await theirs.getByLabel('Add a tag').fill('theirs');
    await theirs.getByLabel('Add a tag').press('Enter');
    await row(other, 'their title').getByText('#theirs').waitFor();

    await context.setOffline(false);
    const question = decisions(page).getByRole('group', { name: 'their title: Title' });
    await question.getByText('my title').waitFor();
    await findNothingHere(page, 'decisions');
    // nothing is lost by deciding later
    await page.keyboard.press('Escape');
    await page.reload();
    await question.getByRole('button', { name: 'my title' }).click();
    await decisions(page).waitFor({ state: 'detached' });
    for (const each of [page, other]) {
      await row(each, 'my title').getByText('Low').waitFor();
      await row(each, 'my title').getByText('#mine').waitFor();
      await row(each, 'my title').getByText('#theirs').waitFor();
    }
  } finally {
    await elsewhere.close();
  }
});

test('two browsers put one card at different places: it is asked which one stays', async () => {
  const account = await register(page);
  await made(page, 'a', 'b', 'c');
  await page.getByRole('link', { name: 'Board' }).click();
  await columnIs(page, 'To do', 'abc');
  const a = (of: Page) => of.getByRole('button', { name: 'a', exact: true });
  for (const [place, order] of [[2, 'bac'], [3, 'bca']] as const) {
    await a(page).press('Alt+ArrowDown');
    await columnIs(page, 'To do', order);
    await toast(`place ${place}`).waitFor();
  }
  await installed(page);
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await other.getByRole('link', { name: 'Board' }).click();
    await columnIs(other, 'To do', 'bca');
    await context.setOffline(true);
    await a(page).press('Alt+ArrowUp');
    await columnIs(page, 'To do', 'bac');
    await waits('1 change waits').waitFor();
    await other.getByRole('button', { name: 'More actions: a' }).click();
    await other.getByRole('menuitem', { name: 'Move to the top' }).click();
    await other.getByRole('status').filter({ hasText: 'place 1' }).waitFor();
    await context.setOffline(false);
    const question = decisions(page).getByRole('group', { name: 'a: Place' });
    await question.getByRole('button', { name: 'Theirs Where it stands now' }).waitFor();
    await columnIs(other, 'To do', 'abc');
    await question.getByRole('button', { name: 'Yours Where you put it' }).click();
    for (const each of [page, other]) await columnIs(each, 'To do', 'bac');
  } finally {
    await elsewhere.close();
  }
});

test('who logs out leaves nothing behind, and is asked first where something was not sent', async () => {
  await register(page);
  await made(page, 'private');
  await installed(page);
  await context.setOffline(true);
  await add(page, 'unsent');
  await row(page, 'unsent').waitFor();
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByRole('button', { name: 'Log out' }).click();
  await toast('1 change has not reached the server').getByRole('button', { name: 'Log out anyway' }).click();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  const kept = () =>
    page.evaluate(async () => {
      const db = await new Promise<IDBDatabase>((resolve) => (indexedDB.open('primetrade').onsuccess = ({ target }) => resolve((target as IDBOpenDBRequest).result)));
      const all = await Promise.all(
        [...db.objectStoreNames].map((name) => new Promise((resolve) => (db.transaction(name).objectStore(name).getAll().onsuccess = ({ target }) => resolve((target as IDBRequest).result)))),
      );
      const answers = await Promise.all((await caches.keys()).map(async (name) => (await (await caches.open(name)).keys()).map((request) => request.url)));
      return JSON.stringify([all, answers.flat().filter((address) => address.includes('/api')), { ...localStorage }, { ...sessionStorage }]);
    });
  await expect.poll(kept).not.toMatch(/private|unsent|"id"|primetrade-seen/);
  await page.goto(`${url}/list`);
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  // the server hears of it once it is there: the cookie opens nothing
  await context.setOffline(false);
  await page.goto(`${url}/list`);
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.goto(`${url}/list`);
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
});

test('a new version waits until its person wants it', async () => {
  let version = 1;
  const proxy = createServer((asked, answer) => {
    const headers = { ...asked.headers, 'accept-encoding': 'identity' };
    const passed = ask(url + asked.url, { method: asked.method, headers }, (got) => {
      const { 'content-length': _, etag: __, ...others } = got.headers;
      answer.writeHead(got.statusCode ?? 502, asked.url === '/sw.js' ? others : got.headers);
      if (asked.url === '/sw.js') answer.write(`// ${version}\n`);
      got.pipe(answer);
    });
    passed.on('error', () => answer.destroy());
    answer.on('close', () => passed.destroy());
    asked.pipe(passed);
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  try {
    const through = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
    await page.goto(`${through}/login`);
    await installed(page);
    const account = { email: `version-${Date.now()}@example.com`, password: 'correct horse battery', name: 'A' };
    await page.request.post(`${url}/api/v1/auth/register`, { data: account });
    await page.getByLabel('E-mail').fill(account.email);
    await page.getByLabel('Password').fill(account.password);
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByText('No tasks yet').waitFor();
    expect(await page.getByRole('button', { name: 'Load the new version' }).count()).toBe(0);
    version = 2;
    await page.reload();
    await page.getByRole('button', { name: 'Load the new version' }).click();
    await page.getByText('No tasks yet').waitFor();
    await page.getByRole('button', { name: 'Load the new version' }).waitFor({ state: 'detached' });
  } finally {
    await closed(proxy);
  }
});

function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}
