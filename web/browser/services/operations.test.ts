// What the services tell operators behind their gateway, and a single process does not.

import { expect, test } from 'vitest';
import { findNothingHere } from '../axe.ts';
import { asOperator, part, table } from '../operator.ts';
import { page } from '../session.ts';

test('how far Kafka has the log, and what of it is read, is shown', async () => {
  await asOperator();
  await table('Relay to Kafka').getByRole('row', { name: /^primetrade\.task-events 0 \d+ [\d,]+ 0 0$/ }).waitFor({ timeout: 60_000 });
  await table('Partitions of Kafka').getByRole('row', { name: /^primetrade\.task-events \d+ / }).first().waitFor();
  await findNothingHere(page, 'operations-services');
});

test('each process tells of its health at an address of its own, and it is said so', async () => {
  await asOperator();
  await part('Health').click();
  await page.getByText('at an address of its own, which the gateway does not pass on').waitFor();
  expect(await page.getByRole('table').count()).toBe(0);
});
