import { defineConfig } from 'vitest/config';

// One after the other: the machine has few cores, and each test opens pages of its own.
export default defineConfig({
  test: { include: [`${process.env.TESTS ?? 'browser'}/*.test.ts`], fileParallelism: false, testTimeout: 120_000, hookTimeout: 60_000 },
});
