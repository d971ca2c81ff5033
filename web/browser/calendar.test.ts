import { expect, test } from 'vitest';
import { findNothing } from './axe.ts';
import { installed, made, monthsAreKept, pick, register, row, url } from './pages.ts';
import { context, page, toast, withServiceWorker } from './session.ts';

withServiceWorker();

const day = (date: string) => page.getByRole('cell').filter({ has: page.locator(`time[datetime="${date}"]`) });
/** A task, wherever it stands: not its menu. */
const task = (title: string) => page.getByRole('button', { name: title }).and(page.locator('[aria-keyshortcuts]'));
const due = (date: string, title: string) => day(date).getByRole('button', { name: title }).and(page.locator('[aria-keyshortcuts]'));

test('a month shows what is due on its days, and a task is moved to another one by hand, by keys and by its menu', async () => {
  await register(page);
  await made(page, 'dentist 2027-03-04 09:30 #health', 'party 2027-03-31 20:00', 'later 2027-04-20');
  await row(page, 'later').waitFor();
  await page.goto(`${url}/calendar?month=2027-03`);
  await page.getByRole('heading', { name: 'March 2027' }).waitFor();
  await due('2027-03-04', '09:30 dentist').waitFor();
  await due('2027-03-31', '20:00 party').waitFor();
  expect(await task('later').count()).toBe(0);

  await due('2027-03-04', 'dentist').dragTo(day('2027-03-12'));
  await due('2027-03-12', '09:30 dentist').waitFor();
  await toast('“dentist”: 12 Mar 2027').waitFor();
  await due('2027-03-12', 'dentist').press('Alt+ArrowRight');
  await due('2027-03-13', '09:30 dentist').waitFor();
  await toast('“dentist”: 13 Mar 2027').getByRole('button', { name: 'Undo' }).click();
  await due('2027-03-12', '09:30 dentist').waitFor();
  await toast('Undone').waitFor();
  await day('2027-03-12').getByRole('button', { name: 'More actions: dentist' }).click();
  await page.getByRole('menuitem', { name: 'A week later' }).click();
  await due('2027-03-19', '09:30 dentist').waitFor();
  await toast('“dentist”: 19 Mar 2027').waitFor();

  await pick(page, 'Tags', 'health');
  await due('2027-03-31', 'party').waitFor({ state: 'detached' });
  await page.waitForURL(/tag=health/);
  await page.getByRole('button', { name: 'Clear filters' }).click();
  await page.keyboard.press('j');
  await page.getByRole('heading', { name: 'April 2027' }).waitFor();
  await page.waitForURL(/month=2027-04/);
  await task('later').click();
  await page.getByRole('complementary').getByRole('textbox', { name: 'Title' }).waitFor();
});

test('what is moved without a server stands on its new day, in this month and the next, and is sent once it is back', async () => {
  await register(page);
  await made(page, 'dentist 2027-03-04 09:30', 'party 2027-03-31 20:00', 'later 2027-04-20');
  await row(page, 'later').waitFor();
  await page.goto(`${url}/calendar?month=2027-04`);
  await due('2027-04-20', 'later').waitFor();
  await page.keyboard.press('k');
  await due('2027-03-04', 'dentist').waitFor();
  await installed(page);
  await monthsAreKept(page, 2);
  await context.setOffline(true);
  await due('2027-03-04', 'dentist').press('Alt+ArrowDown');
  await due('2027-03-11', '09:30 dentist').waitFor();
  expect(await due('2027-03-04', 'dentist').count()).toBe(0);
  // out of this month
  await due('2027-03-31', 'party').press('Alt+ArrowDown');
  await task('party').waitFor({ state: 'detached' });
  await page.keyboard.press('j');
  await due('2027-04-07', '20:00 party').waitFor();
  // what waits is on the disk
  await page.getByRole('status').filter({ hasText: '2 changes wait' }).waitFor();
  await page.reload();
  await due('2027-04-07', '20:00 party').waitFor();
  await page.keyboard.press('k');
  await due('2027-03-11', '09:30 dentist').waitFor();
  await context.setOffline(false);
  await page.getByRole('status').filter({ hasText: /^Live$/ }).waitFor();
  await page.getByRole('status').filter({ hasText: 'wait' }).waitFor({ state: 'detached' });
  await page.reload();
  await due('2027-03-11', '09:30 dentist').waitFor();
  await page.keyboard.press('j');
  await due('2027-04-07', '20:00 party').waitFor();
});

test('weeks begin with the chosen day, and days are those of the chosen time zone', async () => {
  await register(page);
  await made(page, 'late 2027-03-04 23:30');
  await row(page, 'late').waitFor();
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByLabel('First day of the week').selectOption('Sunday');
  // 13 hours before UTC+13
  await page.getByLabel('Time zone').selectOption('Pacific/Tongatapu');
  await page.goto(`${url}/calendar?month=2027-03`);
  await due('2027-03-05', 'late').waitFor();
  expect(await page.getByRole('columnheader').first().textContent()).toBe('Sun');
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByLabel('First day of the week').selectOption('Monday');
  await page.goto(`${url}/calendar?month=2027-03`);
  await due('2027-03-05', 'late').waitFor();
  expect(await page.getByRole('columnheader').first().textContent()).toBe('Mon');
});

test('what a day has no room for is in the list', async () => {
  await register(page);
  await made(page, ...Array.from({ length: 6 }, (_, n) => `t${n} 2027-03-04 1${n}:00`), 'other 2027-03-05');
  await row(page, 'other').waitFor();
  await page.goto(`${url}/calendar?month=2027-03`);
  await day('2027-03-04').getByRole('link', { name: '2 more' }).click();
  await row(page, 't5').waitFor();
  await row(page, 't0').waitFor();
  expect(await row(page, 'other').count()).toBe(0);
});

test('axe finds nothing in the calendar', async () => {
  await register(page);
  await made(page, 'dentist 2027-03-04 09:30', 'party 2027-03-31 20:00 !high');
  await row(page, 'dentist').getByRole('button', { name: 'dentist: To do' }).click();
  await toast('Done').waitFor();
  await findNothing(page, [['calendar', '/calendar?month=2027-03', 'dentist']]);
});
