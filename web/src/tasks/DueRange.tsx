import { useRef } from 'react';
import { useTexts } from '../texts/index.ts';
import type { Filter } from './filter.ts';
import styles from './tasks.module.css';
import { dateOf, dateText, midnight } from './times.ts';
import { daysFrom } from './zones.ts';

const DAY_MS = 86_400_000;

type Due = Pick<Filter, 'due_after' | 'due_before'>;

interface Properties {
  due: Due;
  /** Due in the next 24 hours. */
  soon: number | undefined;
  change: (due: { [name in keyof Due]: string | undefined }) => void;
}

/** From one day to another, both included; it closes when it is left. */
export function DueRange({ due: { due_after, due_before }, soon, change }: Properties) {
  const t = useTexts();
  const place = useRef<HTMLDetailsElement>(null);
  const from = due_after ? dateOf(due_after) : '';
  const until = due_before ? dateOf(new Date(Date.parse(due_before) - 1)) : '';
  const isChosen = from !== '' || until !== '';
  const text = (date: string) => (date ? dateText(date, true) : '…');
  const close = () => {
    if (place.current) place.current.open = false;
  };
  const inOneDay = () => {
    const now = Date.now();
    change({ due_after: new Date(now).toISOString(), due_before: new Date(now + DAY_MS).toISOString() });
  };
  return (
    <details
      ref={place}
      className={styles.dueRange}
      onBlur={({ currentTarget, relatedTarget }) => !currentTarget.contains(relatedTarget) && close()}
      onKeyDown={(event) => {
        if (event.key !== 'Escape') return;
        close();
        place.current?.querySelector('summary')?.focus();
      }}
    >
      <summary className={styles.filter} data-chosen={isChosen || undefined}>
        {isChosen ? `${t.due}: ${text(from)} – ${text(until)}` : t.due}
      </summary>
      <div className={styles.duePopup} tabIndex={-1}>
        <label className={styles.field}>
          <span>{t.dueFrom}</span>
          <input
            type="date"
            value={from}
            max={until || '9999-12-30'}
            onChange={({ target }) => change({ due_after: target.value ? midnight(target.value) : undefined, due_before })}
          />
        </label>
        <label className={styles.field}>
          <span>{t.dueUntil}</span>
          <input
            type="date"
            value={until}
            min={from}
            max="9999-12-30"
            onChange={({ target }) => change({ due_after, due_before: target.value ? midnight(daysFrom(target.value, 1)) : undefined })}
          />
        </label>
        <button type="button" onClick={inOneDay}>
          {t.dueSoon}
          <span className={styles.count}>{soon}</span>
        </button>
      </div>
    </details>
  );
}
