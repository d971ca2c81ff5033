// What a single process tells operators: services tell of their health at addresses that no gateway leads to, and publish the log.

import { expect, test } from 'vitest';
import { findNothingHere } from '../axe.ts';
import { asOperator, part, table } from '../operator.ts';
import { url } from '../pages.ts';
import { page } from '../session.ts';

test('that nothing is published is said', async () => {
  await asOperator();
  await page.getByText('Nothing is published to Kafka from here.').waitFor();
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
