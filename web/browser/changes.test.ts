import { expect, test } from 'vitest';
import { findNothing } from './axe.ts';
import { made, register, row } from './pages.ts';
import { page, toast } from './session.ts';

const changes = () => page.getByRole('list', { name: 'Changes' }).getByRole('listitem');

test('changes are listed, undone and redone from their page, and keys go on from there', async () => {
  await register(page);
  await made(page, 'first', 'second');
  await row(page, 'second').getByRole('button', { name: 'second: To do' }).click();
  await toast('Done').waitFor();
  await page.getByRole('link', { name: 'Changes' }).click();
  await changes().nth(2).waitFor();
  const texts = await changes().allTextContents();
  expect(texts.map((text) => text.match(/^(Created|Completed)/)?.[1])).toEqual(['Completed', 'Created', 'Created']);
  expect(texts[0]).toContain('1 task');

  // not the latest: the one before it
  await changes().nth(1).getByRole('button', { name: 'Undo: Created' }).click();
  await toast('One task was changed again since').waitFor();
  await changes().nth(2).getByRole('button', { name: 'Undo: Created' }).click();
  await toast('Undone').waitFor();
  await changes().nth(0).getByRole('link', { name: 'Undo of “Created”' }).waitFor();
  await changes().nth(3).getByRole('button', { name: 'Redo: Created' }).click();
  await toast('Done again').waitFor();
  await changes().nth(4).getByRole('button', { name: 'Undo: Created' }).waitFor();
  await page.keyboard.press('Control+Z');
  await toast('Undone').waitFor();
  await changes().nth(5).getByRole('button', { name: 'Redo: Created' }).waitFor();

  await changes().nth(0).getByRole('link', { name: 'Undo of' }).click();
  await page.getByText('One change').waitFor();
  await page.waitForURL(/change=/);
  expect(await changes().count()).toBe(1);
  await page.getByRole('link', { name: 'All changes' }).click();
  await changes().nth(5).waitFor();

  await page.getByRole('link', { name: 'List' }).click();
  await row(page, 'second').waitFor();
  // its creation is undone
  await row(page, 'first').waitFor({ state: 'detached' });
});

test('the changes of one task are a link away from it, and the link shows the same', async () => {
  await register(page);
  await made(page, 'mine', 'other');
  await row(page, 'mine').getByRole('button', { name: 'mine', exact: true }).click();
  await page.getByRole('region', { name: 'History' }).getByRole('link', { name: 'Changes' }).click();
  await page.getByText('Of “mine”').waitFor();
  await page.reload();
  await page.getByText('Of “mine”').waitFor();
  await changes().first().waitFor();
  expect(await changes().count()).toBe(1);
  await page.getByRole('link', { name: 'All changes' }).click();
  await changes().nth(1).waitFor();
});

test('axe finds nothing on the page of changes', async () => {
  await register(page);
  await made(page, 'first', 'second');
  await toast('second').getByRole('button', { name: 'Undo' }).click();
  await toast('Undone').waitFor();
  await page.keyboard.press('g');
  await page.keyboard.press('c');
  await changes().nth(2).waitFor();
  await findNothing(page, [['changes', '/changes', 'Undo of']]);
});
