// The pictures of the README.

import { writeFile } from 'node:fs/promises';
import { test } from 'vitest';
import { register, url } from '../pages.ts';
import { page } from '../session.ts';

const FOLDER = process.env.PICTURES ?? '../docs/pictures';
const DAY_MS = 86_400_000;

const inDays = (days: number, hour: number) => {
  const time = new Date(Date.now() + days * DAY_MS);
  time.setUTCHours(hour, 0, 0, 0);
  return time.toISOString();
};

const TASKS = [
  ['Renew the TLS certificate of the shop', 'urgent', ['ops'], inDays(1, 9), 'StartTask'],
  ['Write the release notes for 2.4', 'high', ['release', 'docs'], inDays(2, 15), 'StartTask'],
  ['Call back Ms Okafor about the delivery', 'high', ['customers'], inDays(1, 11)],
  ['Read models: measure a rebuild with 5 million events', 'medium', ['release', 'backend'], inDays(3, 10)],
  ['Invoice for October', 'medium', ['office'], inDays(-1, 12)],
  ['Order paper and toner', 'low', ['office'], undefined],
  ['Prepare the talk on event sourcing', 'medium', ['talks'], inDays(9, 18), 'StartTask'],
  ['Ask three customers what search lacks', 'medium', ['customers'], inDays(6, 14)],
  ['Flaky test: two browsers, one task', 'high', ['backend'], undefined, 'CompleteTask'],
  ['Book the room for the retrospective', 'low', ['office'], inDays(-2, 9), 'CompleteTask'],
  ['Upgrade PostgreSQL on staging', 'medium', ['ops'], inDays(-1, 16), 'CompleteTask'],
  ['Move the wiki to another host', 'low', ['ops'], undefined, 'CancelTask'],
] as const;

async function fill(): Promise<void> {
  const account = await register(page);
  const { access_token } = await (await page.request.post(`${url}/api/v1/auth/login`, { data: { email: account.email, password: account.password } })).json();
  const commands = TASKS.toReversed().flatMap(([title, priority, tags, due_at, then]) => {
    const task_id = crypto.randomUUID();
    return [{ type: 'CreateTask', task_id, title, priority, tags, due_at }, ...(then ? [{ type: then, task_id }] : [])];
  });
  const answer = await page.request.post(`${url}/api/v1/commands`, { headers: { Authorization: `Bearer ${access_token}` }, data: { commands } });
  if (!answer.ok() || (await answer.json()).failed > 0) throw new Error(await answer.text());
}

/** As WebP, which the browser can make: a third of a PNG. */
async function keep(name: string): Promise<void> {
  await page.mouse.move(0, 0);
  const png = (await page.screenshot({ animations: 'disabled' })).toString('base64');
  const webp = await page.evaluate(async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: 'image/png' }));
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext('2d')!.drawImage(image, 0, 0);
    return canvas.toDataURL('image/webp', 0.85).split(',')[1]!;
  }, png);
  await writeFile(`${FOLDER}/${name}.webp`, Buffer.from(webp, 'base64'));
}

test('list and board', async () => {
  await fill();
  await page.setViewportSize({ width: 1360, height: 640 });
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  await page.goto(`${url}/list`);
  await page.getByRole('row').nth(TASKS.length - 1).waitFor();
  await page.getByText(TASKS[1][0]).click();
  await page.getByRole('region', { name: 'History' }).getByText('Started').waitFor();
  await page.getByRole('complementary').evaluate((panel) => panel.focus());
  await keep('list');
  await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
  await page.goto(`${url}/board`);
  await page.getByText('Move the wiki').waitFor();
  await keep('board');
});
