import { defineConfig } from 'vitest/config';

const FOLDERS = (process.env.TESTS ?? 'browser').split(' ');

// One after the other: the machine has few cores, and each test opens pages of its own.
export default defineConfig({
  test: { include: FOLDERS.map((folder) => `${folder}/*.test.ts`), fileParallelism: false, testTimeout: 120_000, hookTimeout: 60_000 },
});
