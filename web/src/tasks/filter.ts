// Which tasks, in which order: all of it is in the address.

import { isId } from './ids.ts';
import { PRIORITIES, STATUSES } from './values.ts';

export interface Filter {
  q?: string;
  status?: string;
  priority?: string;
  tag?: string;
  overdue?: string;
  due_after?: string;
  due_before?: string;
}

export interface View extends Filter {
  sort?: string;
  /** Looks at that time instead of now. */
  as_of?: string;
  /** The one that is open beside the list. */
  task?: string;
}

export const SORTS = ['-created_at', 'created_at', 'due_at', '-priority', '-updated_at', 'title', 'rank'] as const;
export const SORT_DEFAULT = '-created_at';
/** By hand. */
export const BOARD_SORT_DEFAULT = 'rank';
const FILTERS = ['q', 'status', 'priority', 'tag', 'overdue', 'due_after', 'due_before'] as const;
const Q_LENGTH_MAX = 200;

/** What of an address is a view; the rest of it is dropped, so that a bad link still shows something. */
export function viewOf(search: Record<string, unknown>, sortDefault: string = SORT_DEFAULT): View {
  const view: View = {};
  const text = (name: string) => (typeof search[name] === 'string' && search[name] !== '' ? search[name] : undefined);
  const q = text('q');
  if (q) view.q = [...q].slice(0, Q_LENGTH_MAX).join('');
  const status = listOf(text('status'), STATUSES);
  if (status) view.status = status;
  const priority = listOf(text('priority'), PRIORITIES);
  if (priority) view.priority = priority;
  const tag = text('tag');
  if (tag) view.tag = tag;
  if (text('overdue') === 'true') view.overdue = 'true';
  for (const name of ['due_after', 'due_before'] as const) {
    const time = text(name);
    if (time && !Number.isNaN(Date.parse(time))) view[name] = time;
  }
  const sort = text('sort');
  if (sort && sort !== sortDefault && (SORTS as readonly string[]).includes(sort)) view.sort = sort;
  const asOf = text('as_of');
  // of the future nothing is known
  if (asOf && Date.parse(asOf) <= Date.now()) view.as_of = asOf;
  const task = text('task');
  if (isId(task)) view.task = task;
  return view;
}

function listOf(text: string | undefined, known: readonly string[]): string | undefined {
  const wanted = text?.split(',') ?? [];
  return known.filter((value) => wanted.includes(value)).join(',') || undefined;
}

export function filterOf(view: View): Filter {
  return Object.fromEntries(FILTERS.flatMap((name) => (view[name] ? [[name, view[name]]] : []))) as Filter;
}

/** With or without one value of a list. */
export function toggled(list: string | undefined, value: string): string | undefined {
  const values = list ? list.split(',') : [];
  const next = values.includes(value) ? values.filter((other) => other !== value) : [...values, value];
  return next.join(',') || undefined;
}

export function parseSearch(text: string): Record<string, string> {
  return Object.fromEntries(new URLSearchParams(text));
}

export function stringifySearch(search: Record<string, unknown>): string {
  const entries = Object.entries(search).filter(([, value]) => value !== undefined && value !== '');
  const text = new URLSearchParams(entries.map(([name, value]) => [name, String(value)])).toString();
  // a comma needs no escape in a query
  return text ? `?${text.replaceAll('%2C', ',')}` : '';
}
