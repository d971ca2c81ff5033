import type { Entry } from '../offline/outbox.ts';
import type { Texts } from '../texts/index.ts';

const NAMED_MAX = 3;

/** What of the outbox is lost when its person logs out, in words; null: nothing. */
export function lostByLeaving(entries: readonly Entry[], t: Texts): string | null {
  const unsent = entries.filter(({ kind }) => kind === 'commands' || kind === 'undo');
  const undecided = entries.flatMap((entry) => {
    if (entry.kind !== 'question') return [];
    const { title, field } = entry.question;
    return [[`“${title}”`, ...(field === 'deleted' ? [] : [t.fields[field]])].join(' – ')];
  });
  const unread = entries.flatMap((entry) => (entry.kind === 'refused' ? [entry.said] : []));
  const said = [
    ...(unsent.length > 0 ? [t.notSent(unsent.length)] : []),
    ...(undecided.length > 0 ? [t.notDecided(named(undecided))] : []),
    ...(unread.length > 0 ? [t.notRead(named(unread))] : []),
  ];
  return said.length > 0 ? said.join(' ') : null;
}

function named(all: string[]): string {
  const more = all.length - NAMED_MAX;
  return all.slice(0, NAMED_MAX).join(', ') + (more > 0 ? ` (+${more})` : '');
}
