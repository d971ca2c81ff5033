import { expect, test } from 'vitest';
import type { Task } from '../tasks/values.ts';
import { answer, arrivedPages, arrivedTask, type Page } from './arrived.ts';

const task = (id: string, version = 1, title = id) => ({ id, version, title }) as Task;
const page = (next_cursor: string | null, ...items: Task[]): Page => ({ items, next_cursor });
const asIs = (pages: Task[][]) => pages;

test('a page that arrives leaves those before it as they are by then', () => {
  const then = { pages: [page('1', task('a'), task('b'))], pageParams: [null] };
  const now = { pages: [page('1', task('a', 2, 'changed meanwhile'))], pageParams: [null] };
  const arrived = { pages: [...then.pages, answer(page(null, task('c')))], pageParams: [null, '1'] };
  const shown = arrivedPages(now, arrived, asIs);
  expect(shown.pages[0]).toBe(now.pages[0]);
  expect(shown.pages[1]!.items).toEqual([task('c')]);
  expect(shown.pageParams).toEqual([null, '1']);
});

test('of a task the later version stays, else what was answered counts', () => {
  const now = { pages: [page(null, task('a', 5, 'told since'), task('b', 2, 'mine, refused'))], pageParams: [null] };
  const arrived = { pages: [answer(page(null, task('a', 4), task('b', 2), task('c')))], pageParams: [null] };
  expect(arrivedPages(now, arrived, asIs).pages[0]!.items).toEqual([task('a', 5, 'told since'), task('b', 2), task('c')]);
});

test('what waits is laid over what arrives, and what has not changed is the same', () => {
  const now = { pages: [page('1', task('a')), page(null, task('b'))], pageParams: [null, '1'] };
  const arrived = { pages: [answer(page('1', task('a'))), answer(page(null, task('b')))], pageParams: [null, '1'] };
  expect(arrivedPages(now, arrived, asIs)).toBe(now);
  const again = { pages: [answer(page('1', task('a'))), answer(page(null, task('b')))], pageParams: [null, '1'] };
  const shown = arrivedPages(now, again, ([first, second]) => [[task('new'), ...first!], second!]);
  expect(shown.pages.map(({ items }) => items.map(({ id }) => id))).toEqual([['new', 'a'], ['b']]);
  expect(shown.pages[1]).toBe(now.pages[1]);
});

test('what is no answer is shown as it is', () => {
  const now = { pages: [page(null, task('a', 3))], pageParams: [null] };
  const set = { pages: [page(null, task('a', 2, 'set'))], pageParams: [null] };
  expect(arrivedPages(now, set, () => [])).toEqual(set);
  expect(arrivedPages(undefined, set, () => [])).toEqual(set);
});

test('one task', () => {
  expect(arrivedTask(task('a', 3), task('a', 2), (known) => known)).toEqual(task('a', 3));
  expect(arrivedTask(task('a', 3, 'shown'), task('a', 3), (known) => ({ ...known, title: `${known.title}!` })).title).toBe('a!');
  expect(arrivedTask(undefined, task('a'), (known) => known)).toEqual(task('a'));
});
