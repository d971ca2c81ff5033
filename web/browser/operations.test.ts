import { expect, test } from 'vitest';
import { findNothingHere } from './axe.ts';
import { logIn, register, url } from './pages.ts';
import { page } from './session.ts';

const [email, password] = (process.env.PRIMETRADE_ADMIN ?? '').split(' ') as [string, string];
const part = (name: string) => page.getByRole('navigation', { name: 'Operations' }).getByRole('link', { name, exact: true });
const table = (name: string) => page.getByRole('region', { name });

async function asOperator(): Promise<void> {
  await logIn(page, { email, password });
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByRole('heading', { name: 'Operations', exact: true }).waitFor();
}

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
  await page.getByText('Nothing is published to Kafka from here.').waitFor();
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

test('events that are parked are shown with their reason, and retried, all of a reason or one', async () => {
  await asOperator();
  await part('Parked events').click();
  const parked = page.getByRole('row').filter({ hasText: 'TaskPainted' });
  await parked.nth(1).waitFor();
  await findNothingHere(page, 'operations-parked');
  await page.getByRole('button', { name: 'Retry all 2' }).click();
  await page.getByRole('status').filter({ hasText: '2 will be tried.' }).waitFor();
  // they cannot be applied this time either
  const left = async () => {
    await page.reload();
    await parked.first().or(page.getByText('Nothing is parked.')).first().waitFor();
    return parked.getByRole('button', { name: 'Retry' }).count();
  };
  await expect.poll(left, { timeout: 60_000 }).toBe(2);
  await parked.first().getByRole('button', { name: 'Retry' }).click();
  await page.getByRole('status').filter({ hasText: 'It will be tried.' }).waitFor();
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

test("the health of the process, which errors it answered and its caches' hit rates are shown", async () => {
  await asOperator();
  await part('Health').click();
  await table('Checks of this process').getByRole('cell', { name: 'in order' }).first().waitFor();
  await page.request.get(`${url}/api/v1/tasks`);
  await table('Error answers by code').getByRole('link', { name: 'unauthenticated' }).waitFor();
  // of a single process; services tell of them at addresses of their own
  await table('Caches').getByRole('row', { name: /^process, answer [\d,]+ [\d,]+ [\d.]+ %$/ }).waitFor();
  await findNothingHere(page, 'operations-health');
});

test('the hit rate of a cache is the found of all lookups, and none where nothing was looked up', async () => {
  const lines = ['cache_hits_total{layer="process",kind="answer"} 30', 'cache_misses_total{layer="process",kind="answer"} 10', 'cache_misses_total{layer="redis",kind="profile"} 4', 'cache_hits_total{layer="redis",kind="owner_version"} 0'];
  await page.route('**/metrics', (route) => route.fulfill({ contentType: 'text/plain', body: `${lines.join('\n')}\n` }));
  await asOperator();
  await part('Health').click();
  for (const name of ['process, answer 30 40 75 %', 'redis, profile 0 4 0 %', 'redis, owner_version 0 0 –']) {
    await table('Caches').getByRole('row', { name, exact: true }).waitFor();
  }
});
