import { useQuery } from '@tanstack/react-query';
import { X } from 'lucide-react';
import { useEffect, useRef } from 'react';
import { taskQuery } from '../api/queries.ts';
import { problemText } from '../tasks/commands.ts';
import styles from '../tasks/tasks.module.css';
import { timeText } from '../tasks/times.ts';
import { useTexts } from '../texts/index.ts';
import { Differences, type Changes } from './Differences.tsx';

interface Properties {
  id: string;
  asOf: string;
  /** Shows it as it is now, where it can be changed. */
  toNow: () => void;
  onClose: () => void;
}

/** One task beside a list of a time: how it differs from what it is now. */
export function PastPanel({ id, asOf, toNow, onClose }: Properties) {
  const t = useTexts();
  const then = useQuery(taskQuery(id, asOf));
  const now = useQuery(taskQuery(id));
  const panel = useRef<HTMLElement>(null);
  useEffect(() => panel.current?.focus(), []);
  const title = then.data?.title ?? now.data?.title ?? t.loading;
  const isGone = (error: Error | null) => error !== null && 'status' in error && error.status === 404;
  const failed = [then.error, now.error].find((error) => error && !isGone(error));
  const differences: Changes = {};
  if (then.data && now.data) {
    for (const field of Object.keys(t.fields)) {
      const [from, to] = [then.data[field as 'title'], now.data[field as 'title']];
      if (JSON.stringify(from) !== JSON.stringify(to)) differences[field] = { from, to };
    }
  }
  const isSame = then.data && now.data && Object.keys(differences).length === 0;
  return (
    <aside
      ref={panel}
      className={styles.panel}
      aria-label={title}
      tabIndex={-1}
      onKeyDown={(event) => event.key === 'Escape' && !event.defaultPrevented && onClose()}
    >
      <h1 className={styles.pastTitle}>
        <bdi>{title}</bdi>
      </h1>
      <button type="button" className={styles.panelClose} aria-label={t.close} onClick={onClose}>
        <X size={18} aria-hidden />
      </button>
      {failed && <p role="alert">{problemText(failed)}</p>}
      {isGone(then.error) && <p>{t.notThereThen(timeText(asOf))}</p>}
      {isGone(now.error) && <p>{t.taskGone}</p>}
      {isSame && <p>{t.sameAsThen(timeText(asOf))}</p>}
      {Object.keys(differences).length > 0 && (
        <section aria-label={t.thenAndNow}>
          <h2>{t.thenAndNow}</h2>
          <Differences changes={differences} />
        </section>
      )}
      {then.data?.description && (
        <p dir="auto" className={styles.pastText}>
          {then.data.description}
        </p>
      )}
      {now.data && (
        <div className={styles.panelActions}>
          <button type="button" onClick={toNow}>
            {t.openNow}
          </button>
        </div>
      )}
    </aside>
  );
}
