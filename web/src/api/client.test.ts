import { beforeEach, expect, test, vi } from 'vitest';

const kept = vi.hoisted(() => ({ token: null as string | null, account: 'me' }));
vi.mock('./session.ts', () => ({
  accessToken: () => Promise.resolve('access'),
  account: () => ({ id: kept.account }),
  forget: () => {},
  lastSeen: {
    get: () => kept.token,
    set: (token: string | null) => void (kept.token = token ?? kept.token),
    forget: () => void (kept.token = null),
  },
}));

interface Asked {
  sent: string | null;
  answer: (token: string) => void;
  refuse: (body: string) => void;
}
let asked: Asked[];

vi.stubGlobal('location', { origin: 'http://server' });
vi.stubGlobal('fetch', (request: Request) => {
  const sent = request.headers.get('Consistency-Token');
  return new Promise<Response>((resolve) => {
    asked.push({
      sent,
      answer: (token) => resolve(new Response('{}', { headers: { 'Consistency-Token': token } })),
      refuse: (body) => resolve(new Response(body, { status: 400 })),
    });
  });
});
const { authorised } = await import('./client.ts');

/** A request that is on its way, and its end. */
async function send(method: string) {
  const before = asked.length;
  const answered = authorised(new Request('http://server/api/v1/tasks', { method }));
  await vi.waitFor(() => expect(asked).toHaveLength(before + 1));
  const { sent, answer, refuse } = asked[before]!;
  return {
    sent,
    answered,
    refuse,
    answer: async (token: string) => {
      answer(token);
      await answered;
    },
  };
}

beforeEach(() => {
  asked = [];
  kept.token = null;
  kept.account = 'me';
});

test('what was seen is sent with each request, of writes too', async () => {
  const first = await send('POST');
  expect(first.sent).toBeNull();
  await first.answer('one');
  for (const method of ['GET', 'PATCH']) expect((await send(method)).sent).toBe('one');
});

test('a read that a write overtook takes nothing back', async () => {
  const [read, write] = [await send('GET'), await send('POST')];
  await write.answer('written');
  await read.answer('before');
  expect(kept.token).toBe('written');
  await (await send('GET')).answer('after');
  expect(kept.token).toBe('after');
});

test('a write that a read overtook is seen', async () => {
  const [write, read] = [await send('POST'), await send('GET')];
  await read.answer('before');
  await write.answer('written');
  expect(kept.token).toBe('written');
});

test('a token of another log is dropped, and the request sent without it', async () => {
  kept.token = 'of another log';
  const write = await send('POST');
  write.refuse('{"code":"invalid-consistency-token"}');
  await vi.waitFor(() => expect(asked).toHaveLength(2));
  expect(asked[1]!.sent).toBeNull();
  asked[1]!.answer('new');
  expect((await write.answered).status).toBe(200);
});

test('a 400 of a proxy is an answer', async () => {
  const write = await send('POST');
  write.refuse('<h1>Bad Request</h1>');
  expect((await write.answered).status).toBe(400);
});

test('an answer to somebody who was logged in before leaves nothing for whoever is now', async () => {
  for (const method of ['GET', 'POST']) {
    kept.account = 'me';
    const mine = await send(method);
    kept.account = 'you';
    await mine.answer('mine');
    expect(kept.token, method).toBeNull();
  }
});
