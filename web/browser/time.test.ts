import { expect, test } from 'vitest';
import { findNothing } from './axe.ts';
import { made, newPage, register, row, url } from './pages.ts';
import { context, page, toast } from './session.ts';

/** What the clock shows between what was done and what follows. */
async function instant(): Promise<string> {
  const time = new Date().toISOString();
  await expect.poll(() => Date.now()).toBeGreaterThan(Date.parse(time) + 20);
  return time;
}

test('a task is made again what it was at a version, in one step', async () => {
  await register(page);
  await made(page, 'draft #old');
  await row(page, 'draft').getByRole('button', { name: 'draft', exact: true }).click();
  const panel = page.getByRole('complementary');
  await panel.getByRole('textbox', { name: 'Title' }).fill('final');
  await panel.getByRole('textbox', { name: 'Title' }).press('Enter');
  await panel.getByLabel('Priority').selectOption('Urgent');
  await panel.getByRole('button', { name: 'Remove tag old' }).click();
  await panel.getByRole('button', { name: 'Done', exact: true }).click();
  await panel.getByRole('button', { name: 'Restore version 4' }).waitFor();
  await panel.getByRole('button', { name: 'Restore version 1' }).click();
  await toast('as it was at version 1').waitFor();
  await row(page, 'draft').getByText('#old').waitFor();
  await row(page, 'draft').getByRole('button', { name: 'draft: To do' }).waitFor();
  expect(await row(page, 'Urgent').count()).toBe(0);
  await toast('as it was at version 1').getByRole('button', { name: 'Undo' }).click();
  await row(page, 'final').getByText('Urgent').waitFor();
  await row(page, 'final').getByRole('button', { name: 'final: Done' }).waitFor();
});

test('the list and the board are led through time, nothing can be changed there, and what has changed since is told', async () => {
  await register(page);
  await made(page, 'first', 'second');
  const then = await instant();
  await row(page, 'first').getByRole('button', { name: 'first: To do' }).click();
  await row(page, 'first').getByRole('button', { name: 'first: Done' }).waitFor();
  await made(page, 'third');
  await row(page, 'second').focus();
  await page.keyboard.press('Delete');
  await toast('Task deleted').waitFor();

  await page.goto(`${url}/list?as_of=${then}`);
  await row(page, 'second').waitFor();
  await page.getByRole('button', { name: 'first: To do' }).waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
  expect(await page.getByLabel('Add a task').count()).toBe(0);
  await row(page, 'first').focus();
  await page.keyboard.press('c');
  await page.keyboard.press('Delete');
  expect(await page.getByRole('button', { name: 'first: To do' }).isDisabled()).toBe(true);
  await page.getByText('Changed since: 3').click();
  const since = page.getByRole('region', { name: 'Earlier times' }).getByRole('listitem');
  expect((await since.allTextContents()).sort()).toEqual(['firstChanged', 'secondDeleted', 'thirdCreated']);
  await since.filter({ hasText: 'first' }).getByRole('button').click();
  const panel = page.getByRole('complementary', { name: 'first' });
  await panel.getByText('Then and now').waitFor();
  expect(await panel.getByRole('listitem').allTextContents()).toEqual(['StatusTo doDone']);
  await panel.press('Escape');

  await page.getByRole('link', { name: 'Board' }).click();
  await page.getByRole('button', { name: 'Earlier times' }).click();
  const slider = page.getByRole('slider', { name: 'Earlier times' });
  await slider.press('Home');
  const column = (name: string) => page.getByRole('region', { name, exact: true });
  await column('To do').getByRole('button', { name: 'first', exact: true }).waitFor();
  await column('Done').getByRole('listitem').first().waitFor({ state: 'detached' });
  await page.waitForURL(/as_of=/);
  await page.getByRole('button', { name: 'Play' }).click();
  await column('Done').getByRole('button', { name: 'first', exact: true }).waitFor({ timeout: 60_000 });
  // the rest is like it: to see that it ends, from nearer to the end
  await slider.press('End');
  for (let step = 0; step < 10; step++) await slider.press('ArrowLeft');
  await page.getByRole('button', { name: 'Play' }).click();
  await page.getByRole('button', { name: 'Pause' }).waitFor();
  // where the slider was put, not where the list was last asked for
  expect(Number(await slider.inputValue())).toBeGreaterThan((Number(await slider.getAttribute('min')) + Number(await slider.getAttribute('max'))) / 2);
  await page.getByRole('button', { name: 'Play' }).waitFor({ timeout: 60_000 });
  await page.getByRole('button', { name: 'Back to now' }).click();
  await page.getByLabel('Add a task').waitFor();
  expect(new URL(page.url()).searchParams.has('as_of')).toBe(false);
});

test('what happens now does not change how it looked then', async () => {
  await register(page);
  await made(page, 'first', 'second');
  const then = await instant();
  await page.goto(`${url}/list?as_of=${then}`);
  await row(page, 'second').waitFor();
  // not asked again, so that an event has the last word
  await page.route(/as_of=/, (route) => route.abort());
  const other = (await newPage(context)).page;
  await other.goto(`${url}/list`);
  await row(other, 'first').getByRole('button', { name: 'first: To do' }).click();
  await row(other, 'second').focus();
  await other.keyboard.press('Delete');
  await page.getByText('Changed since: 2').waitFor();
  await page.getByRole('button', { name: 'first: To do' }).waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
});

test('axe finds nothing at another time', async () => {
  await register(page);
  await made(page, 'first #home !high', 'second');
  const then = await instant();
  await row(page, 'first').getByRole('button', { name: 'first: To do' }).click();
  await toast('Done').waitFor();
  await row(page, 'first').getByRole('button', { name: 'first', exact: true }).click();
  await page.waitForURL(/task=/);
  const task = new URL(page.url()).searchParams.get('task');
  await findNothing(page, [
    ['list-then', `/list?as_of=${then}`, 'second'],
    ['task-then', `/list?as_of=${then}&task=${task}`, 'Then and now'],
    ['board-then', `/board?as_of=${then}`, 'second'],
  ]);
});
