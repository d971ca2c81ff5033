import { defineConfig } from 'vitest/config';

const FOLDERS = (process.env.TESTS ?? 'browser').split(' ');

export default defineConfig({
  test: {
    include: FOLDERS.map((folder) => `${folder}/*.test.ts`),
    // one after the other: the machine has few cores, and each test opens pages of its own
    fileParallelism: false,
    testTimeout: 120_000,
    hookTimeout: 60_000,
    // as long as a page's elements are waited for: of services an answer takes longer than of one process
    expect: { poll: { timeout: 15_000 } },
  },
});
