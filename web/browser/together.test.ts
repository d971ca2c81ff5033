import { expect, test } from 'vitest';
import { add, logIn, made, newPage, register, row } from './pages.ts';
import { browser, context, page, toast } from './session.ts';

test('a due date that is not whole is neither saved nor lost, and it is said', async () => {
  await register(page);
  await made(page, 'due 2027-03-04 17:00', 'other');
  await row(page, 'due').getByRole('button', { name: 'due', exact: true }).click();
  const panel = page.getByRole('complementary');
  const due = panel.getByLabel('Due');
  const isPartial = () => due.evaluate((input) => (input as HTMLInputElement).validity.badInput);
  await due.focus();
  await page.keyboard.press('Delete');
  expect([await due.inputValue(), await isPartial()]).toEqual(['', true]);
  await panel.getByLabel('Priority').focus();
  await panel.getByRole('alert').filter({ hasText: 'Not saved' }).waitFor();
  // somebody else's change does not take it away either
  const other = (await newPage(context)).page;
  await other.goto(page.url());
  await other.getByRole('complementary').getByLabel('Priority').selectOption('High');
  await row(page, 'due').getByText('High').waitFor();
  expect(await isPartial()).toBe(true);
  expect(await other.getByRole('complementary').getByLabel('Due').inputValue()).toBe('2027-03-04T17:00');
  await due.focus();
  await page.keyboard.press('Escape');
  expect(await due.inputValue()).toBe('2027-03-04T17:00');
  await panel.getByRole('alert').waitFor({ state: 'detached' });
  await due.fill('2027-03-05T08:30');
  await panel.getByLabel('Priority').focus();
  await toast('Task changed').waitFor();
  await expect.poll(() => other.getByRole('complementary').getByLabel('Due').inputValue()).toBe('2027-03-05T08:30');
  await due.fill('');
  await panel.getByLabel('Priority').focus();
  await expect.poll(() => other.getByRole('complementary').getByLabel('Due').inputValue()).toBe('');
});

test('two windows change one task, and both changes stay', async () => {
  await register(page);
  await made(page, 'shared');
  await row(page, 'shared').getByRole('button', { name: 'shared', exact: true }).click();
  const panel = page.getByRole('complementary');
  await panel.getByRole('textbox', { name: 'Title' }).fill('mine');
  // the other window's change comes while this one is being written
  const other = (await newPage(context)).page;
  await other.goto(page.url());
  await other.getByRole('complementary').getByLabel('Priority').selectOption('High');
  await row(other, 'shared').getByText('High').waitFor();
  await row(page, 'shared').getByText('High').waitFor();
  await panel.getByRole('textbox', { name: 'Title' }).press('Enter');
  await row(page, 'mine').getByText('High').waitFor();
});

test('what is being written stays while somebody else changes the same, and then it is asked', async () => {
  await register(page);
  await made(page, 'shared');
  await row(page, 'shared').getByRole('button', { name: 'shared', exact: true }).click();
  const title = page.getByRole('complementary').getByRole('textbox', { name: 'Title' });
  await title.fill('mine');
  const other = (await newPage(context)).page;
  await other.goto(page.url());
  const theirs = other.getByRole('complementary').getByRole('textbox', { name: 'Title' });
  await theirs.fill('theirs');
  await theirs.press('Enter');
  await row(page, 'theirs').waitFor();
  expect(await title.inputValue()).toBe('mine');
  await title.press('Enter');
  await page.getByRole('group', { name: 'theirs: Title' }).getByRole('button', { name: 'Yours mine' }).click();
  await row(page, 'mine').waitFor();
  await row(other, 'mine').waitFor();
});

test('what happens in one browser is seen in another one', async () => {
  const account = await register(page);
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await other.getByText('No tasks yet').waitFor();
    await add(page, 'from here');
    await row(other, 'from here').waitFor();
    await row(other, 'from here').getByRole('button', { name: 'from here: To do' }).click();
    await row(page, 'from here').getByRole('button', { name: 'from here: Done' }).waitFor();
  } finally {
    await elsewhere.close();
  }
});

test('a change of what somebody else has changed meanwhile is asked about', async () => {
  await context.route('**/api/v1/stream', (route) => route.abort());
  const account = await register(page);
  await made(page, 'contested');
  await row(page, 'contested').getByRole('button', { name: 'contested', exact: true }).click();
  const panel = page.getByRole('complementary');
  await panel.getByRole('region', { name: 'History' }).getByText('Created').waitFor();
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await row(other, 'contested').getByRole('button', { name: 'contested', exact: true }).click();
    await other.getByRole('complementary').getByLabel('Priority').selectOption('High');
    await other.getByRole('status').filter({ hasText: 'Task changed' }).waitFor();
    await panel.getByLabel('Priority').selectOption('Low');
    const question = page.getByRole('group', { name: 'contested: Priority' });
    await question.getByRole('button', { name: 'Yours Low' }).waitFor();
    await row(other, 'contested').getByText('High').waitFor();
    await question.getByRole('button', { name: 'Theirs High' }).click();
    await row(page, 'contested').getByText('High').waitFor();
    await row(other, 'contested').getByText('High').waitFor();
  } finally {
    await elsewhere.close();
  }
});

test('a change whose answer is lost is sent again and has one effect', async () => {
  await register(page);
  let lost = 0;
  await context.route('**/api/v1/commands', async (route) => {
    if (lost++ > 0) return route.continue();
    await route.fetch();
    return route.abort();
  });
  await add(page, 'only once');
  await toast('only once').waitFor();
  expect(lost).toBe(2);
  expect(await row(page, 'only once').count()).toBe(1);
  await toast('only once').getByRole('button', { name: 'Undo' }).click();
  await page.getByText('No tasks yet').waitFor();
});
