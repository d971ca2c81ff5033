import { expect, test } from 'vitest';
import { filterOf, parseSearch, stringifySearch, toggled, viewOf } from './filter.ts';

test('an address shows the same view again', () => {
  const view = { q: 'rot & "grün" #1', status: 'pending,completed', priority: 'low,urgent', tag: 'a b,c', overdue: 'true', sort: 'due_at' };
  const address = stringifySearch(view);
  expect(address).toContain('status=pending,completed');
  expect(viewOf(parseSearch(address))).toEqual(view);
});

test('what the API would refuse is dropped', () => {
  const search = { status: 'pending,never', priority: 'x', sort: 'colour', due_after: 'soon', overdue: 'yes', task: '../..' };
  expect(viewOf(search)).toEqual({ status: 'pending' });
  expect([...viewOf({ q: '😀'.repeat(300) }).q!]).toHaveLength(200);
});

test('a filter has neither the order nor the open task', () => {
  expect(filterOf({ q: 'a', sort: 'due_at', task: 't' })).toEqual({ q: 'a' });
});

test('values are switched on and off', () => {
  expect(toggled(undefined, 'a')).toBe('a');
  expect(toggled('a,b', 'a')).toBe('b');
  expect(toggled('a', 'a')).toBeUndefined();
});
