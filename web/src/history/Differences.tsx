import { timeText } from '../tasks/times.ts';
import { useTexts } from '../texts/index.ts';
import styles from './history.module.css';

export type Changes = Record<string, { from?: unknown; to?: unknown }>;

/** By field: what it was and what it became. */
export function Differences({ changes }: { changes: Changes }) {
  const t = useTexts();
  const shown = Object.entries(changes).filter(([field]) => field in t.fields);
  const value = (field: string, value: unknown): string => {
    if (value === null || value === undefined || value === '') return t.empty;
    if (Array.isArray(value)) return value.length > 0 ? value.map((tag) => `#${tag}`).join(' ') : t.empty;
    const text = String(value);
    if (field === 'status') return t.statuses[text] ?? text;
    if (field === 'priority') return t.priorities[text] ?? text;
    if (field === 'due_at') return timeText(text);
    return text;
  };
  return (
    <ul className={styles.differences}>
      {shown.map(([field, { from, to }]) => (
        <li key={field}>
          <span className={styles.name}>{t.fields[field]}</span>
          <del>
            <bdi>{value(field, from)}</bdi>
          </del>
          <ins>
            <bdi>{value(field, to)}</bdi>
          </ins>
        </li>
      ))}
    </ul>
  );
}
