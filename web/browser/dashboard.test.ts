import { expect, test } from 'vitest';
import { findNothing } from './axe.ts';
import { add, create, hasFocus, logIn, made, newPage, pick, register, row, url } from './pages.ts';
import { browser, page, toast } from './session.ts';

test('of many tasks only those in sight are there, a reader is told how many there are, and the last one is reached', async () => {
  const account = await register(page);
  await create(page, account, Array.from({ length: 600 }, (_, n) => `task ${n + 1001}`));
  await page.goto(`${url}/list?sort=title`);
  await row(page, 'task 1001').waitFor();
  const grid = page.getByRole('grid');
  await expect.poll(() => grid.getAttribute('aria-rowcount')).toBe('600');
  expect(await page.getByRole('row').count()).toBeLessThan(60);
  // pages come as they are reached
  const toEnd = async () => {
    await grid.evaluate((rows) => rows.scrollTo(0, rows.scrollHeight));
    return row(page, 'task 1600').isVisible();
  };
  await expect.poll(toEnd, { timeout: 30_000 }).toBe(true);
  expect(await row(page, 'task 1600').getAttribute('aria-rowindex')).toBe('600');
  expect(await page.getByRole('row').count()).toBeLessThan(60);
});

test('a line becomes a task with its date, tag and priority', async () => {
  await register(page);
  await page.getByLabel('Add a task').fill('buy milk tomorrow 5pm #home !high');
  await page.getByText('#home', { exact: true }).waitFor();
  await page.getByText(/17:00/).waitFor();
  await page.getByLabel('Add a task').press('Enter');
  const milk = row(page, 'buy milk');
  await milk.getByText('High').waitFor();
  expect(await milk.textContent()).toMatch(/#home.*17:00/);
});

test('filters, search and order are in the address, and the address shows them again', async () => {
  await register(page);
  await made(page, 'alpha #one !urgent', 'beta #two', 'gamma #one');
  await row(page, 'gamma').waitFor();
  await pick(page, 'Tags', 'one');
  await row(page, 'beta').waitFor({ state: 'detached' });
  await page.getByLabel('Order').selectOption('Most urgent first');
  await page.waitForURL(/tag=one&sort=-priority|sort=-priority&tag=one/);
  await page.reload();
  await row(page, 'alpha').waitFor();
  expect(await page.getByRole('row').allTextContents()).toHaveLength(2);
  expect(await page.getByRole('row').first().textContent()).toContain('alpha');

  await page.getByRole('button', { name: 'Clear filters' }).click();
  await row(page, 'beta').waitFor();
  await page.getByLabel('Search tasks').fill('bet');
  await row(page, 'alpha').waitFor({ state: 'detached' });
  await row(page, 'beta').waitFor();
  expect(page.url()).toContain('q=bet');
});

test('days of the due date are a filter, and it is in the address', async () => {
  await register(page);
  await made(page, 'alpha 2027-03-04 12:00', 'beta 2027-03-31 23:00', 'gamma 2027-04-01 12:00', 'delta');
  const due = page.locator('summary').filter({ hasText: 'Due' });
  await due.click();
  await page.getByLabel('Due from').fill('2027-03-04');
  await row(page, 'delta').waitFor({ state: 'detached' });
  await page.getByLabel('Due until').fill('2027-03-31');
  await row(page, 'gamma').waitFor({ state: 'detached' });
  await page.waitForURL(/due_after=.*due_before=/);
  await page.keyboard.press('Escape');
  await page.getByLabel('Due from').waitFor({ state: 'hidden' });
  await page.reload();
  await row(page, 'alpha').waitFor();
  await row(page, 'beta').waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
  expect(await due.textContent()).toBe('Due: 4 Mar – 31 Mar');
  await page.getByRole('button', { name: 'Clear filters' }).click();
  await row(page, 'delta').waitFor();
  await due.click();
  await page.getByRole('button', { name: 'In the next 24 hours' }).click();
  await page.getByText('Nothing matches').waitFor();
});

test('a change is undone and done again, by toast and by keys', async () => {
  await register(page);
  await made(page, 'write');
  const write = row(page, 'write');
  await write.getByRole('button', { name: 'write: To do' }).click();
  await write.getByRole('button', { name: 'write: Done' }).waitFor();
  await toast('Done').getByRole('button', { name: 'Undo' }).click();
  await toast('Undone').waitFor();
  await write.getByRole('button', { name: 'write: To do' }).waitFor();
  await write.focus();
  await page.keyboard.press('Control+Shift+Z');
  await write.getByRole('button', { name: 'write: Done' }).waitFor();
  // an event may come before the answer, which is what can be undone next
  await toast('Done again').waitFor();
  await page.keyboard.press('Control+Z');
  await toast('Undone').waitFor();
  await write.getByRole('button', { name: 'write: To do' }).waitFor();
  await page.keyboard.press('Control+Z');
  await page.getByText('No tasks yet').waitFor();
});

test('every field is changed in place, and the history tells', async () => {
  await register(page);
  await made(page, 'draft');
  await row(page, 'draft').getByRole('button', { name: 'draft', exact: true }).click();
  const panel = page.getByRole('complementary');
  await panel.getByRole('textbox', { name: 'Title' }).fill('final');
  await panel.getByRole('textbox', { name: 'Title' }).press('Enter');
  await row(page, 'final').waitFor();
  await panel.getByLabel('Priority').selectOption('Urgent');
  await row(page, 'final').getByText('Urgent').waitFor();
  await panel.getByLabel('Add a tag').fill('Work');
  await panel.getByLabel('Add a tag').press('Enter');
  await row(page, 'final').getByText('#work').waitFor();
  const history = panel.getByRole('region', { name: 'History' });
  await history.getByText('Tagged').waitFor();
  const items = await history.getByRole('listitem').allTextContents();
  expect(items.join('\n')).toMatch(/Renamed[^]*draft[^]*final/);
  expect(items.join('\n')).toMatch(/Priority[^]*Medium[^]*Urgent/);
});

test('many are changed by one command, which is one step back', async () => {
  await register(page);
  await made(page, 'a1', 'a2', 'a3', 'b1');
  await row(page, 'b1').waitFor();
  await page.getByLabel('Select a3').click();
  await page.getByLabel('Select a1').click({ modifiers: ['Shift'] });
  await page.getByRole('region', { name: '3 selected' }).getByRole('button', { name: 'Complete' }).click();
  for (const name of ['a1', 'a2', 'a3']) await row(page, name).getByRole('button', { name: `${name}: Done` }).waitFor();
  await toast('3 tasks changed').getByRole('button', { name: 'Undo' }).click();
  for (const name of ['a1', 'a2', 'a3']) await row(page, name).getByRole('button', { name: `${name}: To do` }).waitFor();

  await page.getByLabel('Search tasks').fill('a');
  await row(page, 'b1').waitFor({ state: 'detached' });
  await page.getByLabel('Select a1').click();
  await page.getByRole('button', { name: 'Select all 3 that match' }).click();
  await page.getByRole('region', { name: '3 selected' }).getByRole('button', { name: 'Delete' }).click();
  await toast('3 tasks changed').waitFor();
  await page.getByText('Nothing matches').waitFor();
  await page.getByRole('button', { name: 'Undo' }).click();
  await row(page, 'a2').waitFor();
});

test('what was deleted is in the trash and comes back', async () => {
  await register(page);
  await made(page, 'keep me');
  await row(page, 'keep me').focus();
  await page.keyboard.press('Delete');
  await page.getByText('No tasks yet').waitFor();
  await page.getByRole('link', { name: 'Trash' }).click();
  await page.getByRole('button', { name: 'Restore: keep me' }).click();
  await page.getByText('The trash is empty').waitFor();
  await page.getByRole('link', { name: 'List' }).click();
  await row(page, 'keep me').waitFor();
});

test('what people write is text', async () => {
  await register(page);
  const titles = ['<script>alert(1)</script>', '<img src=x onerror=alert(1)>', '\u202Egnorw ti daer', 'z\u0351\u0352\u0353\u0354\u0355a\u0351\u0352\u0353lgo'];
  await add(page, ...titles);
  for (const title of titles) await row(page, title).waitFor();
  expect(await page.locator('main script, main img').count()).toBe(0);
  const heights = await page.getByRole('row').evaluateAll((rows) => rows.map((row) => row.getBoundingClientRect().height));
  expect(new Set(heights).size, 'no title is over another one').toBe(1);
});

test('keys work, are listed, do not type into fields, and can be switched off', async () => {
  await register(page);
  await page.keyboard.press('?');
  const help = page.getByRole('dialog', { name: 'Keyboard shortcuts' });
  await help.getByText('Show keyboard shortcuts').waitFor();
  await page.keyboard.press('Escape');
  await help.waitFor({ state: 'detached' });
  await page.keyboard.press('n');
  await page.keyboard.type('n? glass');
  expect(await page.getByLabel('Add a task').inputValue()).toBe('n? glass');
  await page.keyboard.press('Control+K');
  await hasFocus(page.getByRole('combobox', { name: 'Type a command' }));
  await page.keyboard.type('go to the board');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Board' }).waitFor();
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await page.keyboard.press('g');
  await page.keyboard.press('a');
  await page.getByRole('heading', { name: 'Account' }).waitFor();
  await page.getByLabel('Single-key shortcuts').uncheck();
  await page.getByRole('heading', { name: 'Account' }).click();
  await page.keyboard.press('?');
  await page.keyboard.press('Control+K');
  await page.getByRole('dialog', { name: 'Commands' }).waitFor();
  expect(await page.getByRole('dialog').count()).toBe(1);
});

test('texts are apart: the same page in German', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByLabel('Language').selectOption('Deutsch');
  await page.getByRole('link', { name: 'Liste' }).click();
  await page.getByText('Noch keine Aufgaben').waitFor();
  expect(await page.locator('html').getAttribute('lang')).toBe('de');
});

test('on a phone one sees what is urgent, and where one is', async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await register(page);
  await made(page, 'first tomorrow !urgent', 'second !low');
  await row(page, 'first').getByText('Urgent').waitFor();
  const box = await row(page, 'first').boundingBox();
  expect(box!.width).toBeLessThanOrEqual(390);
  const isInView = (name: string) =>
    page.getByRole('link', { name }).evaluate((link) => {
      const { left, right } = link.getBoundingClientRect();
      return left >= 0 && right <= innerWidth;
    });
  await expect.poll(() => isInView('Account')).toBe(false);
  await page.goto(`${url}/account`);
  await page.getByText('This session').waitFor();
  await expect.poll(() => isInView('Account')).toBe(true);
});

test('a finger on a phone does what a mouse does', async () => {
  const account = await register(page);
  await create(page, account, ['touched']);
  const phone = await browser.newContext({ locale: 'en-GB', viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true });
  try {
    const { page: held } = await newPage(phone);
    await logIn(held, account);
    const touched = row(held, 'touched');
    await touched.getByRole('button', { name: 'More actions: touched' }).tap();
    await held.getByRole('menuitem', { name: 'Move to In progress' }).tap();
    await touched.getByRole('button', { name: 'touched: In progress' }).tap();
    await touched.getByRole('button', { name: 'touched: Done' }).waitFor();
    // where a message is, nothing else is closed or turned
    await held.getByRole('status').filter({ hasText: '“touched”: Done' }).waitFor();
    await touched.getByRole('button', { name: 'touched', exact: true }).tap();
    const panel = held.getByRole('complementary');
    await panel.getByLabel('Priority').selectOption('High');
    await held.getByRole('status').filter({ hasText: 'Task changed' }).waitFor();
    await panel.getByRole('button', { name: 'Close' }).tap();
    await touched.getByText('High').waitFor();
    // the title has a line of its own, and the other line is in the row too
    const [whole, title, priority] = await Promise.all(
      [touched, touched.getByRole('button', { name: 'touched', exact: true }), touched.getByText('High')].map((part) => part.boundingBox()),
    );
    expect(title!.width).toBeGreaterThan(200);
    expect(priority!.y).toBeGreaterThanOrEqual(title!.y + title!.height);
    expect(priority!.y + priority!.height).toBeLessThanOrEqual(whole!.y + whole!.height);
  } finally {
    await phone.close();
  }
});

test('axe finds nothing, in both themes, wide and narrow', async () => {
  await register(page);
  await made(page, 'first tomorrow #home !high', 'second #work !urgent', 'third !low');
  await row(page, 'third').waitFor();
  await row(page, 'second').getByRole('button', { name: 'second: To do' }).click();
  await row(page, 'first').getByRole('button', { name: 'first', exact: true }).click();
  await page.getByRole('region', { name: 'History' }).waitFor();
  const withPanel = new URL(page.url());
  await findNothing(page, [
    ['list', '/list', 'third'],
    ['task', withPanel.pathname + withPanel.search, 'Created'],
    ['board', '/board', 'third'],
    ['trash', '/trash', 'The trash is empty'],
    ['account', '/account', 'This session'],
    ['login', '/login', 'Log in'],
  ]);
});
