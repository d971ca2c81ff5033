import { expect, test } from 'vitest';
import { loadDates, parseQuickAdd } from './quick-add.ts';

const NOW = new Date(2026, 5, 10, 9, 0);

test('a line has a title, a date, tags and a priority', async () => {
  const task = parseQuickAdd('buy milk tomorrow 5pm #home !high #Shop', NOW, await loadDates('en'));
  expect(task).toMatchObject({ title: 'buy milk', tags: ['home', 'shop'], priority: 'high' });
  expect(new Date(task.due_at!)).toEqual(new Date(2026, 5, 11, 17, 0));
  expect(task.chips.map(({ kind }) => kind)).toEqual(['due', 'priority', 'tag', 'tag']);
});

test('what is no mark stays in the title', async () => {
  const dates = await loadDates('en');
  for (const title of ['C# and a#b', 'wow! !wow', '!highest peak', '#']) {
    expect(parseQuickAdd(title, NOW, dates)).toMatchObject({ title, tags: [], priority: null, due_at: null });
  }
});

test('a line that is only a date is a title', async () => {
  expect(parseQuickAdd('tomorrow', NOW, await loadDates('en'))).toMatchObject({ title: 'tomorrow', due_at: null });
});

test('German dates', async () => {
  const task = parseQuickAdd('Milch kaufen morgen um 17 Uhr', NOW, await loadDates('de'));
  expect(task.title).toBe('Milch kaufen');
  expect(new Date(task.due_at!)).toEqual(new Date(2026, 5, 11, 17, 0));
});

test('without the library the text is the title', () => {
  expect(parseQuickAdd('buy milk tomorrow #home', NOW, null)).toMatchObject({ title: 'buy milk tomorrow', tags: ['home'] });
});
