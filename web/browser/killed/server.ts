// One process, which somebody else keeps running: its number is in `pid` of the folder SERVER_DIR; where it is to be started
// again, on the same data and port, there is a file `wanted`, which is removed once it answers.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

const { SERVER_DIR: folder = '' } = process.env;
const wanted = `${folder}/wanted`;
const START_MS_MAX = 90_000;

/** kill -9. */
export function kill(): void {
  process.kill(Number(readFileSync(`${folder}/pid`, 'utf8')), 'SIGKILL');
}

/** Also where it runs: then it is another one afterwards. */
export async function startAgain(): Promise<void> {
  writeFileSync(wanted, '');
  const until = Date.now() + START_MS_MAX;
  while (existsSync(wanted)) {
    if (Date.now() > until) throw new Error(`the server has not been started again in ${START_MS_MAX} ms`);
    await pause(20);
  }
}
