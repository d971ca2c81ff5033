import type { Route } from 'playwright-core';
import { afterEach, expect, test } from 'vitest';
import { add, made, register, row, settled, tasksOf } from '../pages.ts';
import { page, toast } from '../session.ts';
import { kill, startAgain } from './server.ts';

const MINUTES_MS = 60_000;
const PATIENCE = { timeout: 60_000 };

// the next try, and the next test, find one
afterEach(async ({ task }) => {
  if (task.result?.state === 'fail') await startAgain();
}, 2 * MINUTES_MS);

const MOMENTS: Record<string, (route: Route) => Promise<void>> = {
  'while a change is on its way': async (route) => {
    const sent = route.continue();
    kill();
    await sent;
  },
  'when it has carried a change out and not answered': async (route) => {
    expect((await route.fetch()).status()).toBe(200);
    kill();
    await route.abort();
  },
};

test.each(Object.entries(MOMENTS))('the server is killed %s: the page says so, keeps it, and it has one effect', async (_, cut) => {
  const account = await register(page);
  await made(page, 'steady');
  await page.route('**/api/v1/commands', cut, { times: 1 });
  await add(page, 'interrupted');
  await row(page, 'interrupted').waitFor();
  await toast('1 change waits').waitFor(PATIENCE);
  await toast('Your change is kept here and sent as soon as it does.').waitFor(PATIENCE);
  await toast('Reconnecting …').waitFor(PATIENCE);
  await row(page, 'steady').getByRole('button', { name: 'steady: To do' }).click();
  await row(page, 'steady').getByRole('button', { name: 'steady: Done' }).waitFor();
  await toast('2 changes wait').waitFor();
  await startAgain();
  await settled(page);
  await expect.poll(() => tasksOf(page, account), PATIENCE).toEqual(['steady completed 2', 'interrupted pending 1']);
  await page.reload();
  await row(page, 'steady').getByRole('button', { name: 'steady: Done' }).waitFor();
  await row(page, 'interrupted').waitFor();
  expect(await page.getByRole('row').count()).toBe(2);
}, 5 * MINUTES_MS);
