import { expect, test } from 'vitest';
import { columnIs, create, hasFocus, made, register, url } from './pages.ts';
import { page, toast } from './session.ts';

const column = (name: string) => page.getByRole('region', { name, exact: true });

test('a card is moved by hand, by keys and by its menu', async () => {
  await register(page);
  await made(page, 'card');
  await page.getByRole('link', { name: 'Board' }).click();
  const card = (name: string) => column(name).getByRole('button', { name: 'card', exact: true });
  await card('To do').waitFor();
  await card('To do').dragTo(column('In progress'));
  await card('In progress').waitFor();
  // at rest there
  await toast('“card”: In progress').waitFor();
  await card('In progress').press('Alt+ArrowRight');
  await card('Done').waitFor();
  await toast('“card”: Done').waitFor();
  await column('Done').getByRole('button', { name: 'More actions: card' }).click();
  await page.getByRole('menuitem', { name: 'Move to To do' }).click();
  await card('To do').waitFor();
});

test('cards stand in the order that people give them, by hand, by keys and by menu, and it is one step back', async () => {
  await register(page);
  await made(page, 'a', 'b', 'c', 'd');
  await page.getByRole('link', { name: 'Board' }).click();
  const card = (title: string) => page.getByRole('button', { name: title, exact: true });
  await columnIs(page, 'To do', 'abcd');
  await card('c').press('Alt+ArrowUp');
  await columnIs(page, 'To do', 'acbd');
  await toast('“c”: To do, place 2').waitFor();
  // the key can be pressed again
  await hasFocus(card('c'));
  await page.keyboard.press('Alt+ArrowUp');
  await columnIs(page, 'To do', 'cabd');
  await toast('“c”: To do, place 1').waitFor();
  await card('c').press('Alt+ArrowDown');
  await columnIs(page, 'To do', 'acbd');
  await toast('“c”: To do, place 2').waitFor();
  await page.getByRole('button', { name: 'More actions: d' }).click();
  await page.getByRole('menuitem', { name: 'Move to the top' }).click();
  await columnIs(page, 'To do', 'dacb');
  await toast('“d”: To do, place 1').waitFor();
  // before the half of a card it stands before it, after the half after it
  await card('b').dragTo(card('a'), { targetPosition: { x: 20, y: 2 } });
  await columnIs(page, 'To do', 'dbac');
  await toast('“b”: To do, place 2').getByRole('button', { name: 'Undo' }).click();
  await columnIs(page, 'To do', 'dacb');
  await toast('Undone').waitFor();

  await card('a').dragTo(column('In progress'));
  await columnIs(page, 'In progress', 'a');
  // at rest there, not under the hand that drags the next one to it
  await toast('“a”: In progress').waitFor();
  await card('c').dragTo(card('a'), { targetPosition: { x: 20, y: 2 } });
  await columnIs(page, 'In progress', 'ca');
  await columnIs(page, 'To do', 'db');
  await toast('“c”: In progress, place 1').waitFor();
  await page.reload();
  await columnIs(page, 'In progress', 'ca');
  await columnIs(page, 'To do', 'db');

  const titles = () => page.getByRole('row').evaluateAll((rows) => rows.map((row) => row.querySelector('bdi')?.textContent).join(''));
  await page.getByRole('link', { name: 'List' }).click();
  await page.getByLabel('Order').selectOption('By hand');
  await expect.poll(titles, { timeout: 15_000 }).toMatch(/d.*b/);
  await page.getByLabel('Order').selectOption('By title');
  await expect.poll(titles, { timeout: 15_000 }).toBe('abcd');

  await page.getByRole('link', { name: 'Board' }).click();
  await columnIs(page, 'In progress', 'ca');
  await page.getByLabel('Order').selectOption('Newest first');
  await page.waitForURL(/sort=-created_at/);
  await columnIs(page, 'To do', 'db');
  await page.getByRole('button', { name: 'More actions: d' }).click();
  await page.getByRole('menuitem', { name: 'Delete' }).waitFor();
  // another order is not by hand
  await page.getByRole('menuitem', { name: 'Move to the top' }).waitFor({ state: 'detached' });
});

test('a card is put among many that have no place yet: that is one change, and one step back', async () => {
  const account = await register(page);
  await create(page, account, Array.from({ length: 60 }, (_, n) => `n${n + 1}`));
  await page.goto(`${url}/board`);
  const card = (title: string) => column('To do').getByRole('listitem').filter({ has: page.getByRole('button', { name: title, exact: true }) });
  const cards = column('To do').getByRole('list');
  // the last ones are drawn once they are in sight
  const toEnd = async () => {
    await cards.evaluate((list) => list.scrollTo(0, list.scrollHeight));
    return card('n60').isVisible();
  };
  await expect.poll(toEnd, { timeout: 15_000 }).toBe(true);
  const place = (title: string) => card(title).getAttribute('aria-posinset');
  let sent = 0;
  page.on('request', (request) => void (request.url().endsWith('/api/v1/commands') && sent++));
  await page.getByRole('button', { name: 'n60', exact: true }).press('Alt+ArrowUp');
  await toast('“n60”: To do, place 59').waitFor();
  await expect.poll(() => Promise.all([place('n60'), place('n59')])).toEqual(['59', '60']);
  expect(sent).toBe(1);
  await toast('“n60”: To do, place 59').getByRole('button', { name: 'Undo' }).click();
  await expect.poll(() => Promise.all([place('n59'), place('n60')]), { timeout: 15_000 }).toEqual(['59', '60']);
});
