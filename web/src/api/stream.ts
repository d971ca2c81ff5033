// What happens to the account's tasks, as it happens: one stream for all tabs, which goes on where it was.

import { EventSourceParserStream } from 'eventsource-parser/stream';
import type { Task } from '../tasks/values.ts';
import { authorised, type Job } from './client.ts';
import * as session from './session.ts';
import { since } from './since.ts';

export type Live =
  | { type: 'job'; job: Job }
  | { type: 'deleted'; task: Pick<Task, 'id' | 'version'> }
  | { type: 'task'; task: Task };

export interface Follower {
  apply: (live: Live) => void;
  /** There is a connection now, or none any more, in whichever tab. At first it is taken for granted. */
  connected: (is: boolean) => void;
  /** Something happened that nobody tells of. */
  missed: () => void;
  /** The log is another one: what is shown may never have happened. */
  replaced: () => void;
}

/** What the tab that has the connection tells the others. */
interface Passed {
  id: string | null;
  live: Live | null;
  connected: boolean;
  replaced?: boolean;
}

/** A tab that was opened wants to know where they are. */
const HELLO = 'hello';

const RETRY_MS_MAX = 30_000;
/** Some pages show no tasks, and nobody may answer: it is waited for once. */
const FIRST_ANSWER_MS_MAX = 2_000;

/** Follows until the signal. */
export function follow({ apply, connected, missed, replaced }: Follower, signal: AbortSignal): void {
  let lastId: string | null = null;
  let isConnected = true;
  let leads = false;
  let waitMs = FIRST_ANSWER_MS_MAX;
  since.forget();
  since.missed = missed;
  const tabs = new BroadcastChannel('primetrade-stream');
  tabs.onmessage = ({ data }: MessageEvent<Passed | typeof HELLO>) => {
    if (data !== HELLO) take(data);
    else if (leads) tabs.postMessage({ id: lastId, live: null, connected: isConnected } satisfies Passed);
  };
  signal.addEventListener('abort', () => tabs.close());
  tabs.postMessage(HELLO);

  function take(passed: Passed) {
    if (passed.replaced) {
      lastId = null;
      since.forget();
      replaced();
    }
    if (passed.id !== null) {
      if (lastId === null) since.began(Number(passed.id));
      else since.went(Number(passed.id));
      lastId = passed.id;
    }
    if (passed.connected !== isConnected) {
      isConnected = passed.connected;
      connected(isConnected);
    }
    if (passed.live) apply(passed.live);
  }

  function pass(passed: Passed) {
    if (signal.aborted) return;
    take(passed);
    tabs.postMessage(passed);
  }

  async function read(): Promise<void> {
    const first = lastId === null ? await since.first(waitMs) : null;
    waitMs = 0;
    // another tab may have told meanwhile
    const from = lastId ?? (first === null ? null : String(first));
    const headers: Record<string, string> = from === null ? {} : { 'Last-Event-ID': from };
    const answer = await authorised(new Request('/api/v1/stream', { headers, signal }));
    if (answer.status === 400 && from !== null) pass({ id: null, live: null, connected: false, replaced: true });
    if (!answer.ok || !answer.body) throw new Error(`the stream was refused (${answer.status})`);
    pass({ id: from, live: null, connected: true });
    const events = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
    const reader = events.getReader();
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      const { id, event, data } = next.value;
      pass({ id: id ?? null, live: data ? live(event, JSON.parse(data)) : null, connected: true });
    }
  }

  /** The tab that has the lock; another one gets it when this one is closed. */
  async function lead(): Promise<void> {
    leads = true;
    for (let failures = 0; !signal.aborted && !session.isLoggedOut(); ) {
      const began = Date.now();
      await read().catch(() => {});
      if (signal.aborted) return;
      pass({ id: null, live: null, connected: false });
      failures = Date.now() - began > RETRY_MS_MAX ? 0 : failures + 1;
      await pause(Math.min(500 * 2 ** failures, RETRY_MS_MAX), signal);
    }
  }

  navigator.locks.request('primetrade-stream', { signal }, lead).catch(() => {});
}

function live(event: string | undefined, data: unknown): Live {
  if (event === 'job') return { type: 'job', job: data as Job };
  if (event === 'TaskDeleted' || event === 'TaskPurged') return { type: 'deleted', task: data as Task };
  return { type: 'task', task: data as Task };
}

/** Until then, or until there is a network again. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      removeEventListener('online', end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener('abort', end);
    addEventListener('online', end);
  });
}
