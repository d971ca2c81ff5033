// An answer meets what is shown by the time it arrives: what happened after it was asked for stays.

import { replaceEqualDeep } from '@tanstack/react-query';
import type { Task } from '../tasks/values.ts';

export interface Page {
  items: Task[];
  next_cursor: string | null;
}

interface Pages {
  pages: Page[];
  /** Of each page what it was asked for by; none: all of them came together. */
  pageParams?: unknown[];
}

/** Pages as the server gave them, until they are shown. */
const answers = new WeakSet<Page>();

export function answer(page: Page): Page {
  answers.add(page);
  return page;
}

/**
 * The pages to show. Who asks for the next page brings those along that were shown then: in their place those of now stay. Of a
 * task that was told of in a later version than the answer has that one stays. `overlay`: with what the server has not told of, also
 * of tasks that were shown and did not arrive. What is no answer is shown as it is.
 */
export function arrivedPages(shown: Pages | undefined, arrived: Pages, overlay: (pages: Task[][], shown: Task[]) => Task[][]): Pages {
  if (!arrived.pages.some((page) => answers.has(page))) return replaceEqualDeep(shown, arrived);
  const later = laterThan(arrived.pages.filter((page) => answers.has(page)), shown?.pages ?? []);
  const shownBy = new Map(shown?.pages.map((page, at) => [shown.pageParams?.[at], page]));
  const pages = arrived.pages.map((page, at) => {
    if (!answers.delete(page)) return shownBy.get(arrived.pageParams?.[at]) ?? page;
    return { ...page, items: page.items.map((task) => later.get(task.id) ?? task) };
  });
  const items = overlay(pages.map((page) => page.items), shown?.pages.flatMap((page) => page.items) ?? []);
  return replaceEqualDeep(shown, { ...arrived, pages: pages.map((page, at) => (items[at] === page.items ? page : { ...page, items: items[at]! })) });
}

/** Of the tasks that arrive those that are shown in a later version. */
function laterThan(arrived: Page[], shown: Page[]): Map<string, Task> {
  const versions = new Map(arrived.flatMap(({ items }) => items).map(({ id, version }) => [id, version]));
  const later = new Map<string, Task>();
  for (const { items } of shown) for (const task of items) if (task.version > (versions.get(task.id) ?? Infinity)) later.set(task.id, task);
  return later;
}

/** The same of one task. */
export function arrivedTask(shown: Task | undefined, arrived: Task, overlay: (task: Task) => Task): Task {
  return replaceEqualDeep(shown, overlay(shown && shown.version > arrived.version ? shown : arrived));
}
