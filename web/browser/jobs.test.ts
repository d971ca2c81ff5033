import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { findNothingHere } from './axe.ts';
import { made, register, row, url } from './pages.ts';
import { page } from './session.ts';

const job = (name: string) => page.getByRole('region', { name: 'Jobs' }).getByRole('listitem').filter({ hasText: name });

async function choose(name: string, text: string): Promise<void> {
  await page.getByLabel('File', { exact: true }).setInputFiles({ name, mimeType: 'text/csv', buffer: Buffer.from(text) });
}

test('a table is looked at, its columns are named, checked, imported, and undone', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Import/export' }).click();
  await choose('list.csv', 'Name;Owner;Notes;Priority\nwater the plants;me;"all; of them";high\nbuy soap;you;;soon\n');
  const preview = page.getByRole('region', { name: 'The first rows' });
  await preview.getByText('all; of them').waitFor();
  expect(await preview.getByLabel('Column “Name” is').inputValue()).toBe('title');
  expect(await preview.getByLabel('Column “Owner” is').inputValue()).toBe('');
  await preview.getByLabel('Column “Notes” is').selectOption('Description');

  await page.getByRole('button', { name: 'Check only' }).click();
  const check = job('Import, checked only');
  await check.getByText('1 succeeded, 1 failed').waitFor();
  await check.getByRole('button', { name: 'Show what failed' }).click();
  await check.getByText('Line 3').waitFor();
  await check.getByText(/priority/).waitFor();
  await page.getByRole('link', { name: 'List' }).click();
  await page.getByText('No tasks yet').waitFor();

  await page.getByRole('link', { name: 'Import/export' }).click();
  await choose('list.csv', 'Name;Owner;Notes;Priority\nwater the plants;me;"all; of them";high\nbuy soap;you;;low\n');
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  const imported = job('2 succeeded, 0 failed');
  await imported.waitFor();
  await page.getByRole('link', { name: 'List' }).click();
  await row(page, 'water the plants').getByText('High').waitFor();
  await row(page, 'buy soap').waitFor();

  await page.getByRole('link', { name: 'Import/export' }).click();
  await imported.getByRole('button', { name: 'Undo' }).click();
  await page.getByRole('status').filter({ hasText: 'Undone' }).waitFor();
  await page.getByRole('link', { name: 'List' }).click();
  await page.getByText('No tasks yet').waitFor();
});

test('a long import says how far it is, and is cancelled', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Import/export' }).click();
  await choose('long.csv', `title\n${Array.from({ length: 50_000 }, (_, n) => `line ${n}\n`).join('')}`);
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  const long = job('Import');
  await long.getByRole('progressbar').waitFor();
  await long.getByRole('button', { name: 'Cancel' }).click();
  await long.getByText('Cancelled').waitFor();
  await long.getByRole('progressbar').waitFor({ state: 'detached' });
});

test('a table without a title is not sent', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Import/export' }).click();
  await choose('other.csv', 'what,when\nthis,now\n');
  await page.getByRole('alert').filter({ hasText: 'Which column is the title?' }).waitFor();
  expect(await page.getByRole('button', { name: 'Check only' }).isDisabled()).toBe(true);
  await page.getByLabel('Column “what” is').selectOption('Title');
  expect(await page.getByRole('button', { name: 'Check only' }).isEnabled()).toBe(true);
});

test('what matches is exported, downloaded, and is the same when it is imported again', async () => {
  await register(page);
  await made(page, 'alpha #one', 'beta #two', 'gamma #one');
  await row(page, 'gamma').waitFor();
  await page.goto(`${url}/jobs?tag=one`);
  await page.getByLabel('Format').selectOption('NDJSON (with history)');
  await page.getByRole('button', { name: 'Export 2 tasks' }).click();
  const download = page.waitForEvent('download');
  await job('Export').getByRole('button', { name: 'Download' }).click();
  const file = await download;
  expect(file.suggestedFilename()).toMatch(/^primetrade-\d{4}-\d\d-\d\d\.ndjson$/);
  const text = await readFile(await file.path(), 'utf8');
  const commands = text.trim().split('\n').map((line) => JSON.parse(line) as { type: string; title: string });
  expect(commands.map(({ type, title }) => [type, title])).toEqual([['CreateTask', 'alpha'], ['CreateTask', 'gamma']]);

  await choose('again.ndjson', text);
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  await job('Import').getByText('2 succeeded, 0 failed').waitFor();
  await page.getByRole('link', { name: 'List' }).click();
  await row(page, 'gamma').waitFor();
  expect(await page.getByRole('row').count()).toBe(3);

  await page.getByRole('link', { name: 'Import/export' }).click();
  await job('Export').getByRole('button', { name: 'Drop the file' }).click();
  await job('Export').getByRole('button', { name: 'Download' }).waitFor({ state: 'detached' });
});

test('axe finds nothing in import and export', async () => {
  await register(page);
  await page.getByRole('link', { name: 'Import/export' }).click();
  await choose('list.csv', 'Name,Owner\na,me\nb,you\n');
  await page.getByRole('button', { name: 'Import', exact: true }).click();
  await job('2 succeeded').waitFor();
  await choose('list.csv', 'Name,Owner\na,me\nb,you\n');
  await page.getByText('The first rows').waitFor();
  await findNothingHere(page, 'jobs');
});
