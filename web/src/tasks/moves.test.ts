import { expect, test, vi } from 'vitest';
import { placeAt } from './moves.ts';
import type { Task } from './values.ts';

const carried = vi.hoisted(() => [] as { types: string[]; placed: string | undefined }[]);
const toasts = vi.hoisted(() => [] as string[]);
vi.mock('./commands.ts', () => ({
  BATCH_MAX: 10_000,
  carryOut: async (commands: { type: string }[], _: string, { placed }: { placed?: string }) => {
    carried.push({ types: commands.map(({ type }) => type), placed });
    return true;
  },
}));
vi.mock('../shell/toasts.ts', () => ({ toast: ({ text }: { text: string }) => toasts.push(text) }));
vi.mock('../texts/index.ts', async () => {
  const { en } = await import('../texts/en.ts');
  return { texts: () => en };
});

const task = (id: string, status: Task['status'] = 'pending') => ({ id, title: id, status, rank: null }) as unknown as Task;
const many = (count: number) => Array.from({ length: count }, (_, n) => task(`t${String(n).padStart(5, '0')}`));

test('all that gets a place is one change, however many they are, and the stage is part of it', async () => {
  await placeAt(task('moved', 'in_progress'), 'completed', many(9_998), 9_998);
  expect(carried).toHaveLength(1);
  expect(carried[0]!.placed).toBe('moved');
  expect(carried[0]!.types[0]).toBe('CompleteTask');
  expect(carried[0]!.types).toHaveLength(10_000);
});

test('more than one change can have are not begun, and it is said', async () => {
  carried.length = 0;
  await placeAt(task('moved'), 'pending', many(10_000), 10_000);
  expect(carried).toEqual([]);
  expect(toasts).toEqual(['One change takes 10,000 tasks at most.']);
});
