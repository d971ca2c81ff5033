import { expect, test } from 'vitest';
import { add, logIn, logInHere, made, newPage, register, registerByForm, row, url } from './pages.ts';
import { browser, context, page, toast } from './session.ts';

test('an account is made, stays logged in, and is left', async () => {
  const { email, password } = await registerByForm(page);
  await page.goto(`${url}/board?priority=high`);
  await page.getByRole('heading', { name: 'Board' }).waitFor();
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  expect(stored, 'no script sees a token of the session').not.toMatch(/token|eyJ[\w-]+\.eyJ/);

  await page.getByRole('link', { name: 'Account' }).click();
  await page.getByText('This session').waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.goto(`${url}/board?priority=high`);
  await page.getByLabel('E-mail').fill(email);
  await page.getByLabel('Password').fill('not this one');
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('alert').filter({ hasText: 'not right' }).waitFor();
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await page.getByRole('heading', { name: 'Board' }).waitFor();
  expect(new URL(page.url()).search, 'where one wanted to go').toBe('?priority=high');
});

test('name, password and look are changed, and sessions are seen and ended', async () => {
  const account = await register(page);
  const elsewhere = await browser.newContext({ locale: 'en-GB' });
  try {
    const other = (await newPage(elsewhere)).page;
    await logIn(other, account);
    await page.getByRole('link', { name: 'Account' }).click();
    await expect.poll(() => page.getByLabel('Name', { exact: true }).inputValue()).toBe('A Person');
    await page.getByLabel('Name', { exact: true }).fill('Another Name');
    await page.getByRole('button', { name: 'Save' }).click();
    await toast('Saved').waitFor();
    await page.reload();
    await expect.poll(() => page.getByLabel('Name', { exact: true }).inputValue()).toBe('Another Name');

    await page.getByLabel('Theme').selectOption('Dark');
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    expect(await ground()).toBe('rgb(19, 20, 23)');
    await page.reload();
    await page.getByText('This session').waitFor();
    expect(await ground(), 'it is kept').toBe('rgb(19, 20, 23)');

    const end = page.getByRole('button', { name: 'End', exact: true });
    await end.click();
    await end.waitFor({ state: 'detached' });
    // whoever is in it is led to the log-in, and from there back to where they were
    await other.goto(`${url}/board?priority=high`);
    await logInHere(other, account);
    await other.getByRole('heading', { name: 'Board' }).waitFor();
    expect(new URL(other.url()).search).toBe('?priority=high');

    const changed = { ...account, password: 'another correct horse' };
    await page.getByLabel('Current password').fill(account.password);
    await page.getByLabel('New password').fill(changed.password);
    await page.getByRole('button', { name: 'Change password' }).click();
    await toast('Your other sessions have ended').waitFor();
    await other.goto(`${url}/list`);
    await logInHere(other, changed);
    await other.getByRole('heading', { name: 'List' }).waitFor();
    await page.reload();
    await page.getByText('This session').waitFor();
  } finally {
    await elsewhere.close();
  }
});

test('a session that expires while one works leads to the log-in, and what was written meanwhile is sent after it', async () => {
  const account = await register(page);
  await made(page, 'before');
  // as after its time: neither the token nor the cookie is taken any more
  await context.clearCookies();
  await context.route('**/api/v1/commands', (route) => route.fulfill({ status: 401, contentType: 'application/problem+json', body: '{"code":"unauthenticated","status":401}' }));
  await add(page, 'meanwhile');
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await context.unroute('**/api/v1/commands');
  await logInHere(page, account);
  await row(page, 'before').waitFor();
  await row(page, 'meanwhile').waitFor();
  await page.reload();
  await row(page, 'meanwhile').waitFor();
});
