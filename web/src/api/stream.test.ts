import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { since } from './since.ts';
import { follow, type Follower } from './stream.ts';

interface Connection {
  after: string | undefined;
  send: (text: string) => void;
  end: () => void;
}
const server = vi.hoisted(() => ({ status: 200, connections: [] as Connection[] }));
vi.mock('./session.ts', () => ({ isLoggedOut: () => false }));
vi.mock('./client.ts', () => ({
  authorised: async ({ headers }: { headers: Record<string, string> }) => {
    const { status } = server;
    if (status === 0) throw new Error('no answer');
    let to!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (to = controller) });
    server.connections.push({ after: headers['Last-Event-ID'], send: (text) => to.enqueue(new TextEncoder().encode(text)), end: () => to.close() });
    return status === 200 ? new Response(body) : new Response('{}', { status });
  },
}));

const open = new Set<Tab>();
class Tab {
  onmessage: ((message: { data: unknown }) => void) | null = null;
  constructor() {
    open.add(this);
  }
  postMessage(data: unknown) {
    for (const other of open) if (other !== this) queueMicrotask(() => other.onmessage?.({ data: structuredClone(data) }));
  }
  close() {
    open.delete(this);
  }
}

let turn: Promise<unknown>;
const listeners = new Set<unknown>();

/** A tab; what it was told. */
function tab() {
  const ending = new AbortController();
  const told: string[] = [];
  const follower: Follower = {
    apply: (live) => told.push(live.type === 'job' ? 'job' : live.task.id),
    connected: (is) => told.push(is ? 'connected' : 'away'),
    missed: () => told.push('missed'),
    replaced: () => told.push('replaced'),
  };
  follow(follower, ending.signal);
  return { told, close: () => ending.abort() };
}

const event = (id: number, task: string) => `id: ${id}\nevent: TaskRenamed\ndata: {"id":"${task}","version":2}\n\n`;
const realTurn = setImmediate;
async function settled() {
  for (let n = 0; n < 10; n++) await new Promise((resolve) => realTurn(resolve));
}
async function after(ms: number) {
  await vi.advanceTimersByTimeAsync(ms);
  await settled();
}
const last = () => server.connections.at(-1)!;
let tabs: { close: () => void }[];
function opened() {
  const one = tab();
  tabs.push(one);
  return one;
}

beforeEach(() => {
  vi.useFakeTimers();
  turn = Promise.resolve();
  tabs = [];
  server.status = 200;
  server.connections.length = 0;
  vi.stubGlobal('BroadcastChannel', Tab);
  vi.stubGlobal('Request', class {
    headers: Record<string, string>;
    constructor(_: string, { headers }: { headers: Record<string, string> }) {
      this.headers = headers;
    }
  });
  vi.stubGlobal('navigator', {
    locks: {
      request: (_: string, { signal }: { signal: AbortSignal }, act: () => Promise<void>) => {
        const acted = turn.then(() => (signal.aborted ? undefined : act()));
        turn = acted.catch(() => {});
        return acted;
      },
    },
  });
  vi.stubGlobal('addEventListener', (_: string, listener: unknown) => listeners.add(listener));
  vi.stubGlobal('removeEventListener', (_: string, listener: unknown) => listeners.delete(listener));
});
afterEach(async () => {
  for (const { close } of tabs) close();
  for (const { end } of server.connections) try { end(); } catch { /* it has ended */ }
  await settled();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  expect([open.size, listeners.size], 'nothing is left').toEqual([0, 0]);
});

test('it begins after what the first answer shows, and goes on after the last event', async () => {
  const { told } = opened();
  await settled();
  expect(server.connections).toEqual([]);
  since.saw(17);
  await settled();
  expect(last().after).toBe('17');
  last().send(event(18, 'a'));
  await settled();
  last().end();
  await settled();
  await after(1_000);
  expect(server.connections.map(({ after }) => after)).toEqual(['17', '18']);
  expect(told).toEqual(['a', 'away', 'connected']);
});

test('whoever shows no tasks is not kept waiting', async () => {
  opened();
  await settled();
  await after(2_000);
  expect(server.connections.map(({ after }) => after)).toEqual([undefined]);
});

test('a tab that is opened later knows where they are, and goes on there when it is the only one', async () => {
  const first = opened();
  since.saw(17);
  await settled();
  const second = opened();
  await settled();
  last().send(event(20, 'a'));
  await settled();
  expect(second.told).toEqual(['a']);
  first.close();
  last().end();
  await settled();
  expect(server.connections.map(({ after }) => after)).toEqual(['17', '20']);
});

test('a tab that nobody has told of an event yet goes on where the others were', async () => {
  const first = opened();
  since.saw(17);
  await settled();
  opened();
  await settled();
  first.close();
  last().end();
  await settled();
  expect(last().after).toBe('17');
});

test('all tabs know whether there is a connection, also one that is opened while there is none', async () => {
  const first = opened();
  const second = opened();
  since.saw(17);
  await settled();
  server.status = 0;
  last().end();
  await settled();
  expect([first.told, second.told]).toEqual([['away'], ['away']]);
  const third = opened();
  await settled();
  expect([first.told, second.told, third.told]).toEqual([['away'], ['away'], ['away']]);
  server.status = 200;
  await after(30_000);
  expect([first.told, second.told, third.told].map((told) => told.at(-1))).toEqual(['connected', 'connected', 'connected']);
});

test('a log that does not know where they are is another one', async () => {
  server.status = 400;
  const { told } = opened();
  since.saw(17);
  await settled();
  expect(told).toEqual(['replaced', 'away']);
  server.status = 200;
  since.saw(3);
  await after(1_000);
  expect(last().after).toBe('3');
});

test('waiting for the next attempt leaves no listener behind', async () => {
  server.status = 0;
  opened();
  since.saw(17);
  await settled();
  for (let n = 0; n < 5; n++) await after(30_000);
  expect(listeners.size).toBe(1);
});

test('what is shown is to be as late as what was told', async () => {
  const { told } = opened();
  since.saw(17);
  await settled();
  last().send(event(20, 'a'));
  await settled();
  since.saw(20);
  expect(told).toEqual(['a']);
  // by a copy of the server that knows less
  since.saw(19);
  expect(told).toEqual(['a', 'missed']);
});
