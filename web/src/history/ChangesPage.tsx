import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { Redo2, Undo2, X } from 'lucide-react';
import type { Change } from '../api/client.ts';
import { changeQuery, changesQuery, taskQuery } from '../api/queries.ts';
import { problemText, redoChange, undoChange } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, type Texts } from '../texts/index.ts';
import styles from './history.module.css';

const route = getRouteApi('/inside/changes');

/** What each request did, the latest first: all of the account's, those of one task, or a single one. Each can be undone. */
export function ChangesPage() {
  const t = useTexts();
  const { task, change } = route.useSearch();
  return (
    <div className={styles.page}>
      <header>
        <h1>{t.changes}</h1>
        <p>{t.changesHint}</p>
        {(task || change) && (
          <p className={styles.chosen}>
            {task ? <TaskName id={task} /> : <span>{t.oneChange}</span>}
            <Link to="/changes" search={{}} className={styles.clear}>
              <X size={14} aria-hidden />
              {t.allChanges}
            </Link>
          </p>
        )}
      </header>
      {change ? <One id={change} /> : <All task={task} />}
    </div>
  );
}

function TaskName({ id }: { id: string }) {
  const t = useTexts();
  const { data: task } = useQuery(taskQuery(id));
  return <span>{t.changesOf(task?.title ?? t.oneTask)}</span>;
}

function All({ task }: { task: string | undefined }) {
  const t = useTexts();
  const { data, error, isPending, hasNextPage, fetchNextPage } = useInfiniteQuery(changesQuery(task));
  const changes = data?.pages.flatMap((page) => page.items) ?? [];
  const known = new Map(changes.map((change) => [change.id, change]));
  return (
    <>
      {error && <p role="alert">{problemText(error)}</p>}
      {isPending && <p>{t.loading}</p>}
      {data && changes.length === 0 && <p className={styles.nothing}>{t.noChanges}</p>}
      <ol aria-label={t.changes}>
        {changes.map((change) => (
          <Item key={change.id} change={change} undone={known.get(change.undoes ?? '')} />
        ))}
      </ol>
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {t.loadMore}
        </button>
      )}
    </>
  );
}

function One({ id }: { id: string }) {
  const t = useTexts();
  const { data: change, error } = useQuery(changeQuery(id));
  if (error) return <p role="alert">{'status' in error && error.status === 404 ? t.changeGone : problemText(error)}</p>;
  return <ol aria-label={t.changes}>{change ? <Item change={change} undone={undefined} /> : <li>{t.loading}</li>}</ol>;
}

/** `undone`: the one that this change undoes, where it is known. */
function Item({ change, undone }: { change: Change; undone: Change | undefined }) {
  const t = useTexts();
  const { id, undoes, undone_by, occurred_at, tasks } = change;
  const text = whatItDid(change, t);
  return (
    <li data-undone={undone_by !== null || undefined}>
      <span className={styles.item}>
        <span>
          {text}
          {undone_by && <small className={styles.mark}>{t.undone}</small>}
        </span>
        <small>
          <time dateTime={occurred_at}>{timeText(occurred_at)}</time> · {t.taskCount(tasks)}
          {undoes && (
            <>
              {' · '}
              <Link to="/changes" search={{ change: undoes }}>
                {t.undoes(undone ? whatItDid(undone, t) : null)}
              </Link>
            </>
          )}
        </small>
      </span>
      {undone_by ? (
        <button type="button" aria-label={`${t.redo}: ${text}`} onClick={() => void redoChange(undone_by)}>
          <Redo2 size={16} aria-hidden />
          {t.redo}
        </button>
      ) : (
        <button type="button" aria-label={`${t.undo}: ${text}`} onClick={() => void undoChange(id)}>
          <Undo2 size={16} aria-hidden />
          {t.undo}
        </button>
      )}
    </li>
  );
}

/** Its events in words, the most frequent first. */
function whatItDid({ types }: Change, t: Texts): string {
  const counted = Object.entries(types).sort(([, a], [, b]) => b - a);
  return counted.map(([type, n]) => (n === 1 ? '' : `${n.toLocaleString(document.documentElement.lang)} × `) + (t.events[type] ?? type)).join(', ');
}
