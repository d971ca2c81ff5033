import { expect, test } from 'vitest';
import { findNothingHere } from './axe.ts';
import { asOperator, part, table } from './operator.ts';
import { register, url } from './pages.ts';
import { page } from './session.ts';

test('only operators are led there, and nobody else is told anything', async () => {
  await register(page);
  expect(await page.getByRole('link', { name: 'Operations' }).count()).toBe(0);
  await page.goto(`${url}/operations`);
  await page.getByRole('alert').waitFor();
  expect(await page.getByRole('table').count()).toBe(0);
});

test('read models, their lag and their rebuild are shown, and the guide is at hand', async () => {
  await asOperator();
  await table('Read models').getByRole('cell', { name: 'live' }).first().waitFor();
  expect(await page.getByRole('img', { name: /^Now \d+ events/ }).locator('polyline').getAttribute('points')).toMatch(/^[\d.]+,[\d.]+/);
  await page.getByText('As a table').click();
  await table('Lag behind the log').getByRole('row').nth(2).waitFor();
  await page.getByText('primetrade rebuild --back').waitFor();
  const guide = await page.request.get(url + (await page.getByRole('link', { name: 'operations guide' }).getAttribute('href')));
  expect([guide.status(), (await guide.text()).slice(0, 12)]).toEqual([200, '# Operations']);
  await findNothingHere(page, 'operations');
});

test('a rebuild is shown as far as it is, and how far Kafka has the log', async () => {
  // nobody rebuilds or publishes here: it is said in an answer of the server
  await page.route('**/api/v1/admin/projections', async (route) => {
    const answer = await route.fetch();
    const { items, ...all } = await answer.json();
    const rebuild = { generation: 2, phase: 'compare', running: true, events_done: 250, events_total: 1_000, events_per_second: 50, seconds_left: 15, started_at: '2026-11-29T10:00:00Z' };
    const relay = [{ shard: 0, topic: 'task-events', publication: 1, position: 40, lag_events: 7, lag_seconds: 1.5 }];
    await route.fulfill({ response: answer, json: { ...all, relay, items: items.map((item: object) => ({ ...item, state: 'rebuilding', rebuild })) } });
  });
  await asOperator();
  const progress = page.getByRole('progressbar', { name: 'Generation 2: comparing with the live one (4 of 5)' });
  await progress.waitFor();
  expect([await progress.getAttribute('value'), await progress.getAttribute('max')]).toEqual(['250', '1000']);
  await page.getByText('250 of 1,000 events, 50 a second, about 15 s left').waitFor();
  await table('Read models').getByRole('cell', { name: 'being rebuilt' }).first().waitFor();
  await table('Relay to Kafka').getByRole('row', { name: 'task-events 0 1 40 7 1.5' }).waitFor();
});

test('each step of a rebuild has its command, and it is said that none is taken over HTTP', async () => {
  await asOperator();
  await page.getByText(/^No rebuild is under way\. Generation \d+ is served\.$/).waitFor();
  const steps = ['primetrade doctor', 'primetrade rebuild', 'primetrade rebuild --expect-same', 'primetrade rebuild --back'];
  for (const command of steps) await page.getByText(command, { exact: true }).waitFor();
  await page.getByText('Over HTTP a rebuild can be watched').waitFor();
  const guide = new URL((await page.getByRole('link', { name: 'What a rebuild needs' }).getAttribute('href'))!, url);
  expect(await (await page.request.get(url + guide.pathname)).text()).toContain('**A rebuild.**');
});

test('an account is disabled and enabled again, and the audit says who did it', async () => {
  const account = await register(page);
  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('E-mail').waitFor();
  await asOperator();
  await part('Accounts').click();
  const more = page.getByRole('button', { name: 'Show more' });
  const disable = page.getByRole('button', { name: `Disable ${account.email}` });
  // on the last of the pages
  for (await disable.or(more).first().waitFor(); !(await disable.isVisible()); await disable.or(more).first().waitFor()) {
    // gone where the last page has come meanwhile
    await more.click({ timeout: 1_000 }).catch(() => {});
  }
  await disable.click();
  await page.getByRole('button', { name: `Enable ${account.email}` }).click();
  await disable.waitFor();
  await findNothingHere(page, 'operations-accounts');
  await page.getByRole('link', { name: account.email }).click();
  await table('Audit').getByRole('cell', { name: 'account-enabled' }).waitFor();
  await table('Audit').getByRole('cell', { name: 'account-disabled' }).waitFor();
  await page.getByLabel('What').selectOption('account-disabled');
  await table('Audit').getByRole('cell', { name: 'account-enabled' }).waitFor({ state: 'detached' });
  expect(new URL(page.url()).searchParams.get('act')).toBe('account-disabled');
  await findNothingHere(page, 'operations-audit');
});
