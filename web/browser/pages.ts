// Chromium, driven by a test: the one of the machine, on the server that PRIMETRADE_URL names.

import { chromium, type Browser, type BrowserContext, type Locator, type Page } from 'playwright-core';
import { expect } from 'vitest';
import { uuid } from '../src/tasks/ids.ts';

export const url = process.env.PRIMETRADE_URL ?? 'http://127.0.0.1:8080';

export const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

export function open(): Promise<Browser> {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
}

/** A page whose complaints are collected: what a policy forbids, scripts that fail. */
export async function newPage(context: BrowserContext): Promise<{ page: Page; complaints: string[] }> {
  const page = await context.newPage();
  const complaints: string[] = [];
  page.setDefaultTimeout(30_000);
  page.on('pageerror', (error) => complaints.push(String(error)));
  page.on('dialog', (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('console', (message) => {
    // an answer that is an error is told by the page itself
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) complaints.push(message.text());
  });
  return { page, complaints };
}

let accounts = 0;

export interface Account {
  email: string;
  password: string;
}

const newAccount = (): Account => ({ email: `person-${process.pid}-${Date.now()}-${accounts++}@example.com`, password: 'correct horse battery' });

/** An account that is logged in already; ends on the list. */
export async function register(page: Page): Promise<Account> {
  const account = newAccount();
  const asked = async (path: string, data: object) => (await page.request.post(`${url}/api/v1/auth/${path}`, { data })).status();
  // where services were killed a moment ago, the gateway may have to find them
  const patience = { timeout: 30_000, intervals: [200, 1_000] };
  await expect.poll(() => asked('register', { ...account, name: 'A Person' }), patience).toBe(201);
  await expect.poll(() => asked('login', { ...account, session: 'cookie' }), patience).toBe(200);
  await page.goto(`${url}/list`);
  // what says so is drawn after the page listens to keys
  await page.getByText('No tasks yet').waitFor();
  return account;
}

/** By the form; ends on the list. */
export async function registerByForm(page: Page): Promise<Account> {
  const account = newAccount();
  await page.goto(`${url}/login`);
  await page.getByRole('button', { name: 'Create account' }).click();
  await page.getByLabel('Name').fill('A Person');
  await page.getByLabel('E-mail').fill(account.email);
  await page.getByLabel('Password').fill(account.password);
  await page.getByRole('button', { name: 'Create account' }).click();
  await page.getByRole('heading', { name: 'List' }).waitFor();
  return account;
}

/** By the form, in a browser that knows nothing of the account. */
export async function logIn(page: Page, account: Account): Promise<void> {
  await page.goto(url);
  await logInHere(page, account);
  await page.getByRole('heading', { name: 'List' }).waitFor();
}

/** By the form that is there. */
export async function logInHere(page: Page, { email, password }: Account): Promise<void> {
  await page.getByLabel('E-mail').fill(email);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
}

/** The service worker has all files of the page. */
export async function installed(page: Page): Promise<void> {
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
}

/** What is kept of lists for when there is no server: that is half a second after they were shown. */
const keptLists = (page: Page) =>
  page.evaluate(
    () =>
      new Promise<{ key: unknown[]; data: unknown }[]>((resolve) => {
        const opening = indexedDB.open('primetrade');
        opening.onsuccess = () => {
          const asked = opening.result.transaction('seen').objectStore('seen').getAll();
          asked.onsuccess = () => {
            opening.result.close();
            resolve(asked.result.filter(({ key }) => key[1] === 'list'));
          };
        };
      }),
  );

/** Until so many months of the calendar are kept. */
export async function monthsAreKept(page: Page, months: number): Promise<void> {
  const count = async () => (await keptLists(page)).filter(({ key }) => key[3] === 'due').length;
  await expect.poll(count, { timeout: 15_000 }).toBe(months);
}

/** Until a list is kept that has this title. */
export async function listIsKept(page: Page, title: string): Promise<void> {
  const texts = async () => JSON.stringify((await keptLists(page)).map(({ data }) => data));
  await expect.poll(texts, { timeout: 15_000 }).toContain(`"${title}"`);
}

/** By the line above the list. */
export async function add(page: Page, ...lines: string[]): Promise<void> {
  for (const line of lines) {
    await page.getByLabel('Add a task').fill(line);
    await page.getByLabel('Add a task').press('Enter');
  }
}

/** The same, until the server has all of them. */
export async function made(page: Page, ...lines: string[]): Promise<void> {
  await add(page, ...lines);
  // they are sent one after the other
  await page.getByRole('status').filter({ hasText: `Added “${lines.at(-1)!.split(' ')[0]}` }).waitFor();
}

/** By the API, in this order. */
export async function create(page: Page, account: Account, titles: readonly string[]): Promise<void> {
  const { access_token } = await (await page.request.post(`${url}/api/v1/auth/login`, { data: account })).json();
  const commands = titles.map((title) => ({ type: 'CreateTask', task_id: uuid(), title }));
  const answer = await page.request.post(`${url}/api/v1/commands`, { headers: { Authorization: `Bearer ${access_token}` }, data: { commands } });
  expect(answer.ok(), await answer.text()).toBe(true);
}

/** All tasks of an account as the API has them: title, status and version. */
export async function tasksOf(page: Page, { email, password }: Account): Promise<string[]> {
  const { access_token } = await (await page.request.post(`${url}/api/v1/auth/login`, { data: { email, password } })).json();
  const headers = { Authorization: `Bearer ${access_token}` };
  const { items, next_cursor } = await (await page.request.get(`${url}/api/v1/tasks?limit=200&sort=created_at`, { headers })).json();
  expect(next_cursor).toBeNull();
  return (items as { title: string; status: string; version: number }[]).map(({ title, status, version }) => `${title} ${status} ${version}`);
}

/** Nothing waits any more, and what happens is seen again. */
export async function settled(page: Page): Promise<void> {
  const says = (text: string | RegExp) => page.getByRole('status').filter({ hasText: text });
  await says(/^Live$/).waitFor({ timeout: 60_000 });
  await says('wait').waitFor({ state: 'detached', timeout: 60_000 });
}

/** Picks from the menu of a filter, and closes it: as long as it is there, keys belong to it. */
export async function pick(page: Page, menu: string, value: string): Promise<void> {
  await page.getByRole('button', { name: menu }).click();
  await page.getByRole('menuitemcheckbox', { name: value }).click();
  await page.keyboard.press('Escape');
  await page.getByRole('menu').waitFor({ state: 'detached' });
}

/** Until the keys go there. */
export async function hasFocus(of: Locator): Promise<void> {
  await expect.poll(() => of.evaluate((element) => element === document.activeElement), { timeout: 15_000 }).toBe(true);
}

/** The row, or the card, of a task. */
export const row = (page: Page, title: string) => page.getByRole('row').filter({ hasText: title });

/** The cards of a column of the board, by titles of one letter. */
export async function columnIs(page: Page, name: string, titles: string): Promise<void> {
  const cards = page.getByRole('region', { name, exact: true }).getByRole('listitem');
  const shown = () =>
    cards.evaluateAll((all) =>
      all
        .sort((a, b) => Number(a.ariaPosInSet) - Number(b.ariaPosInSet))
        .map((card) => card.querySelector('bdi')?.textContent)
        .join(''),
    );
  await expect.poll(shown, { timeout: 15_000 }).toBe(titles);
}
