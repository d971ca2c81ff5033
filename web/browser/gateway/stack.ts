// The services behind their gateway, as the variables of `bin/stack` name them.

import { execFile } from 'node:child_process';
import { existsSync, linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { url } from '../pages.ts';

const { STACK_DIR: folder = '', STACK_BIN: programs = '' } = process.env;
// of the tests, and no setting of the services
const { PRIMETRADE_URL: _, ...environment } = process.env;

export async function stack(...what: string[]): Promise<void> {
  await promisify(execFile)('bin/stack', what, { cwd: '..', env: environment });
}

/** kill -9 of parts; `stack('up')` starts them again. */
export function kill(...parts: string[]): void {
  for (const part of parts) process.kill(Number(readFileSync(`${folder}/${part}/pid`, 'utf8').split('\n')[0]), 'SIGKILL');
}

/** The names of all files of the page, as its service worker knows them. */
export function filesOf(worker: string): string[] {
  return [...worker.matchAll(/"\/(assets\/[\w.-]+)"/g)].map(([, file]) => file!);
}

export const worker = async (): Promise<string> => (await fetch(`${url}/sw.js`)).text();

export const TITLE = 'PrimeTrade';
/** Of as many letters. */
export const NEW_TITLE = 'NewVersion';

const queryApi = `${programs}/query-api`;
/** What was there before, as long as a newer version is in its place. */
const replaced = `${queryApi}.replaced`;

/**
 * Puts a newer version in the place of the program of query-api: the same one, but for a page with another title, whose files
 * have other names. What runs is what it was until it is started anew.
 */
export async function installNewVersion(): Promise<void> {
  const program = readFileSync(queryApi);
  const text = await worker();
  const changes = [[`<title>${TITLE}`, `<title>${NEW_TITLE}`]];
  for (const name of [...filesOf(text), /primetrade-\w{12}/.exec(text)![0]]) changes.push([name.replace('assets/', ''), renamed(name)]);
  for (const [from, to] of changes) {
    for (let at = program.indexOf(from!); at >= 0; at = program.indexOf(from!, at + 1)) program.write(to!, at);
  }
  writeFileSync(`${queryApi}.new`, program, { mode: 0o755 });
  renameSync(queryApi, replaced);
  renameSync(`${queryApi}.new`, queryApi);
}

/** Where a newer version is in its place, the program of query-api is put back, and both copies run it again. */
export async function putBackOldVersion(): Promise<void> {
  if (!existsSync(replaced)) return;
  rmSync(`${queryApi}.old`, { force: true });
  linkSync(replaced, `${queryApi}.old`);
  renameSync(`${queryApi}.old`, queryApi);
  await stack('restart', 'query-api-1', 'query-api-2');
  // only now: should the restart fail, this is done again
  rmSync(replaced);
}

/** With another last letter before the ending. */
export function renamed(name: string): string {
  return name.replace('assets/', '').replace(/(.)(\.\w+)?$/, (_, letter: string, ending = '') => (letter === 'Q' ? 'q' : 'Q') + ending);
}
