import { useInfiniteQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { historyQuery } from '../api/queries.ts';
import { toast } from '../shell/toasts.ts';
import { carryOut } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import type { Task } from '../tasks/values.ts';
import { useTexts } from '../texts/index.ts';
import { Differences, type Changes } from './Differences.tsx';
import styles from './history.module.css';
import { changesTo, fieldsAt } from './versions.ts';

/** What happened to a task, as differences. It can be made again what it was at each version. */
export function TaskHistory({ task }: { task: Task }) {
  const t = useTexts();
  const { data, hasNextPage, fetchNextPage } = useInfiniteQuery(historyQuery(task.id));
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  const restore = (version: number) => {
    const { changes, stage } = changesTo(fieldsAt(items, version), task);
    if (changes.length === 0) return toast({ text: stage ? t.asThenAlready : t.noWay, failed: !stage });
    const commands = changes.map((change) => ({ ...change, task_id: task.id }));
    void carryOut(commands, stage ? t.restoredVersion(version) : t.restoredButStage(version), { placed: task.id });
  };
  return (
    <section className={styles.history} aria-label={t.history}>
      <header>
        <h2>{t.history}</h2>
        <Link to="/changes" search={{ task: task.id }}>
          {t.changes}
        </Link>
      </header>
      <ol>
        {items.map(({ version, type, occurred_at, changes }) => (
          <li key={version}>
            <p className={styles.event}>
              <span>{t.events[type] ?? type}</span>
              <time dateTime={occurred_at}>{timeText(occurred_at)}</time>
            </p>
            {type !== 'TaskCreated' && <Differences changes={changes as Changes} />}
            {version < task.version && type !== 'TaskDeleted' && (
              <button type="button" className={styles.again} aria-label={t.restoreVersion(version)} onClick={() => restore(version)}>
                {t.restore}
              </button>
            )}
          </li>
        ))}
      </ol>
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {t.loadMore}
        </button>
      )}
    </section>
  );
}
