// The pages of operators, and the one that PRIMETRADE_ADMIN names: e-mail and password.

import { logIn } from './pages.ts';
import { page } from './session.ts';

const [email, password] = (process.env.PRIMETRADE_ADMIN ?? '').split(' ') as [string, string];

export const part = (name: string) => page.getByRole('navigation', { name: 'Operations' }).getByRole('link', { name, exact: true });
export const table = (name: string) => page.getByRole('region', { name });

export async function asOperator(): Promise<void> {
  await logIn(page, { email, password });
  await page.getByRole('link', { name: 'Operations' }).click();
  await page.getByRole('heading', { name: 'Operations', exact: true }).waitFor();
}
