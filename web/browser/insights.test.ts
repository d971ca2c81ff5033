import { expect, test } from 'vitest';
import { findNothing } from './axe.ts';
import { made, pick, register, row, url } from './pages.ts';
import { page, toast } from './session.ts';

const chart = (name: string) => page.getByRole('figure').filter({ has: page.getByRole('heading', { name }) });
const table = async (name: string) => {
  await chart(name).getByText('As a table').click();
  return chart(name).getByRole('row').allTextContents();
};

test('what was created and done is counted by day, priority and tag, and each chart has its table', async () => {
  await register(page);
  await made(page, 'one #home !high', 'two #home', 'three');
  await row(page, 'one').getByRole('button', { name: 'one: To do' }).click();
  await toast('Done').waitFor();
  await page.getByRole('link', { name: 'Insights' }).click();
  const perDay = await table('Created and done each day');
  expect(perDay[0]).toBe('DayCreatedDone');
  expect(perDay).toHaveLength(31);
  expect(perDay.at(-1)).toMatch(/^\d+ \w+ \d{4}31$/);
  expect((await table('Where tasks stood')).at(-1)).toMatch(/^\d+ \w+ \d{4}2010$/);
  expect((await table('Burn-up')).at(-1)).toMatch(/^\d+ \w+ \d{4}31$/);
  await expect.poll(() => page.locator('canvas').count()).toBe(3);
  const times = page.getByRole('region', { name: 'From creation to done', exact: true });
  await times.getByRole('row', { name: /9 of 10 within [\d.]+ seconds?/ }).waitFor();
  await page.getByRole('region', { name: 'By tag', exact: true }).getByRole('row', { name: '#home 2' }).waitFor();
  await page.getByRole('region', { name: 'By priority', exact: true }).getByRole('row', { name: 'High 1' }).waitFor();

  // live
  await page.getByRole('region', { name: 'By tag', exact: true }).getByRole('link', { name: '#home' }).click();
  await row(page, 'two').waitFor();
  expect(await row(page, 'three').count()).toBe(0);
});

test('a filter has its burn-up, and says how long what was done took, by priority and tag', async () => {
  const account = await register(page);
  await made(page, 'one #home !high', 'two #home #garden', 'three #work', 'four #home');
  for (const title of ['one', 'three']) await row(page, title).getByRole('button', { name: `${title}: To do` }).click();
  await row(page, 'three').getByRole('button', { name: 'three: Done' }).waitFor();
  await row(page, 'four').focus();
  await page.keyboard.press('Delete');
  await toast('Task deleted').waitFor();
  await page.getByRole('link', { name: 'Insights' }).click();
  await pick(page, 'Tags', 'home');
  await page.getByRole('button', { name: '7 days' }).click();
  await page.waitForURL(/\/insights\?tag=home&from=[\d-]+$|\/insights\?from=[\d-]+&tag=home$/);
  await page.reload();
  const { access_token } = await (await page.request.post(`${url}/api/v1/auth/login`, { data: account })).json();
  const headers = { Authorization: `Bearer ${access_token}` };
  const times = page.getByRole('region', { name: 'From creation to done, by tag' });
  await times.getByRole('row', { name: /^#home 1 ([\d.,]+ seconds?) \1 \1$/ }).waitFor();
  expect(await times.getByRole('row').count()).toBe(2);
  await page.getByRole('region', { name: 'From creation to done, by priority' }).getByRole('row', { name: /^High 1 / }).waitFor();
  // by the API, at the same moments
  await chart('Burn-up').getByText('As a table').click();
  // drawn day by day
  const rows = () => chart('Burn-up').getByRole('row').allTextContents();
  await expect.poll(rows, { timeout: 15_000 }).toHaveLength(8);
  const burnUp = await rows();
  expect(burnUp[0]).toBe('DayAllDone');
  const { by_status } = await (await page.request.get(`${url}/api/v1/tasks/facets?tag=home`, { headers })).json();
  expect([by_status.pending, by_status.completed]).toEqual([1, 1]);
  expect(burnUp.at(-1)).toMatch(/ \d{4}21$/);
  expect(burnUp.at(-2)).toMatch(/ \d{4}00$/);
});

test('the days are in the address, and the address shows them again', async () => {
  await register(page);
  await page.keyboard.press('g');
  await page.keyboard.press('i');
  await page.getByRole('button', { name: '7 days' }).click();
  await page.waitForURL(/\/insights\?from=\d{4}-\d{2}-\d{2}$/);
  await page.reload();
  expect(await page.getByRole('button', { name: '7 days' }).getAttribute('aria-pressed')).toBe('true');
  expect(await table('Created and done each day')).toHaveLength(8);
  await page.getByLabel('From', { exact: true }).fill('2026-01-30');
  await page.getByLabel('To', { exact: true }).fill('2026-02-02');
  await page.waitForURL(/from=2026-01-30&to=2026-02-02$/);
  await chart('Where tasks stood').getByText('As a table').click();
  await chart('Where tasks stood').getByRole('row', { name: '31 Jan 2026 0 0 0 0' }).waitFor();
  // the days until today have this one too
  await expect.poll(() => chart('Where tasks stood').getByRole('row').count()).toBe(5);
});

test('days are those of the time zone that a person has chosen', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByLabel('Time zone').selectOption('Pacific/Kiritimati');
  await page.getByRole('link', { name: 'List' }).click();
  await made(page, 'due 2027-03-04 17:00');
  await row(page, 'due').getByRole('button', { name: 'due', exact: true }).click();
  const due = page.getByRole('complementary').getByLabel('Due');
  expect(await due.inputValue()).toBe('2027-03-04T17:00');
  const task = await page.evaluate(() => document.querySelector('[role=row] time')?.getAttribute('datetime'));
  expect(Date.parse(task!), '14 hours before').toBe(Date.parse('2027-03-04T03:00:00Z'));

  const asked = page.waitForRequest(/stats\/flow\?.*time_zone=Pacific%2FKiritimati/);
  await page.getByRole('link', { name: 'Insights' }).click();
  await asked;
  const there = new Date().toLocaleDateString('en-GB', { dateStyle: 'medium', timeZone: 'Pacific/Kiritimati' });
  expect((await table('Created and done each day')).at(-1)).toBe(`${there}10`);
});

test('axe finds nothing on the insights', async () => {
  await register(page);
  await made(page, 'one #home !high', 'two #work');
  await row(page, 'one').getByRole('button', { name: 'one: To do' }).click();
  await toast('Done').waitFor();
  await findNothing(page, [['insights', '/insights?from=2026-11-01', 'Burn-up']]);
});
