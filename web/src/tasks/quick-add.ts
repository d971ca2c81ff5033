// One line of text as a task: `buy milk tomorrow 5pm #home !high`.

import { tagOf } from './tags.ts';
import type { Priority } from './values.ts';

/** A stretch of the text that is not part of the title. */
export interface Chip {
  kind: 'tag' | 'priority' | 'due';
  text: string;
}

export interface QuickTask {
  title: string;
  tags: string[];
  priority: Priority | null;
  due_at: string | null;
  chips: Chip[];
}

/** Finds a date in a text, as chrono does. */
export type FindDate = (text: string, now: Date) => { from: number; to: number; date: Date } | null;

const WORDS: Record<string, Priority> = { low: 'low', medium: 'medium', high: 'high', urgent: 'urgent' };
const TAG = /(?:^|\s)#([^\s#,]{1,50})/gu;
const PRIORITY = /(?:^|\s)!(low|medium|high|urgent)(?=\s|$)/giu;

export function parseQuickAdd(text: string, now: Date, findDate: FindDate | null): QuickTask {
  const chips: Chip[] = [];
  const tags: string[] = [];
  let priority: Priority | null = null;
  let rest = text.replace(TAG, (_, typed: string) => {
    const tag = tagOf(typed);
    if (!tags.includes(tag)) tags.push(tag);
    return ' ';
  });
  rest = rest.replace(PRIORITY, (_, word: string) => {
    priority = WORDS[word.toLowerCase()] ?? null;
    return ' ';
  });
  const found = findDate?.(rest, now) ?? null;
  // a title is needed: a line that is nothing but a date is one
  const dated = found !== null && tidy(rest.slice(0, found.from) + ' ' + rest.slice(found.to)) !== '' ? found : null;
  if (dated) {
    chips.push({ kind: 'due', text: rest.slice(dated.from, dated.to).trim() });
    rest = `${rest.slice(0, dated.from)} ${rest.slice(dated.to)}`;
  }
  if (priority !== null) chips.push({ kind: 'priority', text: priority });
  chips.push(...tags.map((tag): Chip => ({ kind: 'tag', text: tag })));
  return { title: tidy(rest), tags, priority, due_at: dated?.date.toISOString() ?? null, chips };
}

const tidy = (text: string) => text.replace(/\s+/gu, ' ').trim();

/** The library is large, and needed only by who writes. */
export async function loadDates(language: string): Promise<FindDate> {
  const chrono = language === 'de' ? await import('chrono-node/de') : await import('chrono-node/en');
  return (text, now) => {
    const first = chrono.parse(text, now, { forwardDate: true })[0];
    return first ? { from: first.index, to: first.index + first.text.length, date: first.start.date() } : null;
  };
}
