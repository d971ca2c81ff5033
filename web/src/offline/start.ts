// What this browser keeps of an account, from its log-in to its log-out.

import * as session from '../api/session.ts';
import { showPending } from '../tasks/known.ts';
import { outbox, retry } from './kept.ts';
import { forgetSeen, keepSeen } from './seen.ts';

let current: { account: string; stop: () => void } | null = null;

/**
 * Before a page is shown: what is kept of whoever was logged in last is there at once, while the server is asked whether they
 * still are. The shell looks at what it says. False: nobody is.
 */
export async function enter(): Promise<boolean> {
  const asked = session.accessToken().catch(() => null);
  if (session.account() === null) await asked;
  const who = session.account();
  if (who === null) return false;
  await start(who.id);
  return true;
}

async function start(account: string): Promise<void> {
  if (current?.account === account) return;
  stop();
  await outbox.open(account);
  current = { account, stop: keepSeen(account, showPending) };
  retry();
}

/** Somebody else has logged in, in another tab: nothing of the two may be mixed. */
export function isOfAnother(account: string | undefined): boolean {
  return current !== null && account !== undefined && account !== current.account;
}

function stop(): void {
  current?.stop();
  current = null;
}

/** The session has ended, here or elsewhere: what was seen is wiped. What was not sent waits for the same account. */
export async function forget(): Promise<void> {
  if (!current) return;
  const { account } = current;
  stop();
  await outbox.open(null);
  await forgetSeen(account);
}

/** A person leaves: nothing of the account stays. */
export async function leave(): Promise<void> {
  await outbox.clear();
  const forgotten = forget();
  await session.leave();
  await forgotten;
}
