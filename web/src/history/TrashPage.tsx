import { useInfiniteQuery } from '@tanstack/react-query';
import { Undo2 } from 'lucide-react';
import { trashQuery } from '../api/queries.ts';
import { problemText, restore } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts } from '../texts/index.ts';
import styles from './history.module.css';

/** Deleted tasks, each of which can come back. */
export function TrashPage() {
  const t = useTexts();
  const { data, error, isPending, hasNextPage, fetchNextPage } = useInfiniteQuery(trashQuery());
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <div className={styles.page}>
      <header>
        <h1>{t.trash}</h1>
        <p>{t.trashHint}</p>
      </header>
      {error && <p role="alert">{problemText(error)}</p>}
      {isPending && <p>{t.loading}</p>}
      {data && items.length === 0 && <p className={styles.nothing}>{t.trashEmpty}</p>}
      <ul>
        {items.map((task) => (
          <li key={task.id}>
            <span className={styles.item}>
              <bdi>{task.title}</bdi>
              <small>{t.deletedAt(timeText(task.deleted_at))}</small>
            </span>
            <button type="button" aria-label={`${t.restore}: ${task.title}`} onClick={() => void restore(task)}>
              <Undo2 size={16} aria-hidden />
              {t.restore}
            </button>
          </li>
        ))}
      </ul>
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {t.loadMore}
        </button>
      )}
    </div>
  );
}
