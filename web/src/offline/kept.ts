// The outbox of this browser: one for all tabs, which tell each other.

import { api, ask, askWhole, Problem, type Job } from '../api/client.ts';
import * as session from '../api/session.ts';
import type { Task } from '../tasks/values.ts';
import { Outbox, type Answered, type Outcome, type Server } from './outbox.ts';
import { onDisk } from './records.ts';

const RETRY_MS = 800;
const RETRY_MS_MAX = 30_000;

/** The longest answer is that to a batch; whoever is silent for longer is away. */
const ANSWER_MS_MAX = 60_000;
const inTime = () => AbortSignal.timeout(ANSWER_MS_MAX);

const server: Server<Job> = {
  async ready(account) {
    const isOwn = await session.accessToken().then(() => session.account()?.id === account, () => false);
    if (!isOwn) throw new Problem({ code: 'offline' }, 0);
  },
  async carryOut(commands) {
    const { data, response } = await askWhole(api.POST('/api/v1/commands', { body: { commands } as never, signal: inTime() }));
    return { results: data.results as Answered['results'], change: response.headers.get('Change-Id') };
  },
  async undo(change, key) {
    const params = { path: { id: change }, header: { 'Idempotency-Key': key } };
    const { data, response } = await askWhole(api.POST('/api/v1/changes/{id}/undo', { params: params as never, signal: inTime() }));
    // of many tasks: a job
    if ('kind' in data) return { change: null, failed: 0, job: data };
    return { change: response.headers.get('Change-Id'), failed: data.failed, job: null };
  },
  async task(id): Promise<Task | null> {
    try {
      return await ask(api.GET('/api/v1/tasks/{id}', { params: { path: { id } }, signal: inTime() }));
    } catch (error) {
      if (error instanceof Problem && error.status === 404) return null;
      throw error;
    }
  },
};

type Answer = { id: string; outcome: Outcome<Job> } | null;
const tabs = new BroadcastChannel('primetrade-outbox');

export const outbox = new Outbox<Job>(
  onDisk('outbox'),
  server,
  async (act) => navigator.locks.request('primetrade-outbox', act),
  (answered) => tabs.postMessage(answered && { ...answered, outcome: plain(answered.outcome) }),
);
tabs.onmessage = ({ data }: MessageEvent<Answer>) => void outbox.heard(data && { ...data, outcome: revived(data.outcome) });

/** An error has no members that a message to another tab would keep. */
function plain(outcome: Outcome<Job>): object {
  if (outcome.state !== 'refused') return outcome;
  const { code, status, message } = outcome.problem;
  return { ...outcome, problem: { code, status, detail: message } };
}

function revived(outcome: Outcome<Job>): Outcome<Job> {
  return outcome.state === 'refused' ? { ...outcome, problem: new Problem(outcome.problem, outcome.problem.status) } : outcome;
}

let timer: ReturnType<typeof setTimeout> | undefined;

/** What has had no answer is tried again, by and by, and at once when the network is back. */
outbox.onChange(() => {
  const first = outbox.get().find((entry) => entry.kind === 'commands' || entry.kind === 'undo');
  if (!first || first.tries === 0 || timer !== undefined) return;
  timer = setTimeout(retry, Math.min(RETRY_MS * 2 ** (first.tries - 1), RETRY_MS_MAX));
});
addEventListener('online', retry);

export function retry(): void {
  clearTimeout(timer);
  timer = undefined;
  void outbox.flush();
}
