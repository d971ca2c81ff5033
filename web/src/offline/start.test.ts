import { beforeEach, expect, test, vi } from 'vitest';
import { enter } from './start.ts';

const session = vi.hoisted(() => ({ account: vi.fn(), accessToken: vi.fn() }));
const outbox = vi.hoisted(() => ({ open: vi.fn(async () => {}) }));
vi.mock('../api/session.ts', () => session);
vi.mock('./kept.ts', () => ({ outbox, retry: () => {} }));
vi.mock('./seen.ts', () => ({ keepSeen: () => () => {}, forgetSeen: async () => {} }));
vi.mock('../tasks/known.ts', () => ({ showPending: () => {} }));

beforeEach(() => vi.resetAllMocks());

test('whoever is known sees what is kept while the server is asked', async () => {
  session.account.mockReturnValue({ id: 'me', role: 'user' });
  session.accessToken.mockReturnValue(new Promise(() => {}));
  expect(await enter()).toBe(true);
  expect(session.accessToken).toHaveBeenCalled();
  expect(outbox.open).toHaveBeenCalledWith('me');
});

test('who is not known is asked for first', async () => {
  session.account.mockReturnValue(null);
  session.accessToken.mockResolvedValue(null);
  expect(await enter()).toBe(false);
  session.accessToken.mockImplementation(async () => {
    await new Promise((resolve) => setTimeout(resolve));
    session.account.mockReturnValue({ id: 'you', role: 'user' });
    return 'token';
  });
  expect(await enter()).toBe(true);
  expect(outbox.open).toHaveBeenCalledWith('you');
  session.account.mockReturnValue(null);
  session.accessToken.mockRejectedValue(new Error('no answer'));
  expect(await enter(), 'without a server nobody is').toBe(false);
});
