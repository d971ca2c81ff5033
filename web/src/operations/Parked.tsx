import { useInfiniteQuery } from '@tanstack/react-query';
import { api, ask } from '../api/client.ts';
import { queryClient } from '../api/queries.ts';
import { toast } from '../shell/toasts.ts';
import { problemText } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import styles from './operations.module.css';
import { parkedQuery } from './queries.ts';
import { Table } from './Table.tsx';
import { operationsTexts } from './texts.ts';

/** Events that could not be applied, by their reason. */
export function Parked() {
  const t = useTextsOf(operationsTexts);
  const { loading, loadMore } = useTexts();
  const { data, error, hasNextPage, fetchNextPage } = useInfiniteQuery(parkedQuery());
  if (!data) return error ? <p role="alert">{problemText(error)}</p> : <p>{loading}</p>;
  const items = data.pages.flatMap((page) => page.items);
  const retry = async (ids: string[]) => {
    try {
      for (const id of ids) await ask(api.POST('/api/v1/admin/parked/{id}/retry', { params: { path: { id } } }));
      toast({ text: t.retried(ids.length) });
    } catch (error) {
      toast({ text: problemText(error), failed: true });
    } finally {
      void queryClient.invalidateQueries({ queryKey: ['operations', 'parked'] });
    }
  };
  return (
    <>
      <p className={styles.hint}>{t.parkedHint}</p>
      {items.length === 0 && <p>{t.noParked}</p>}
      {[...Map.groupBy(items, ({ reason }) => reason)].map(([reason, events]) => (
        <section key={reason}>
          <div className={styles.reason}>
            <h2>{reason}</h2>
            <button type="button" onClick={() => void retry(events.map(({ id }) => id))}>
              {t.retryAll(events.length)}
            </button>
          </div>
          <Table
            caption={reason}
            columns={[t.type, t.task, t.version, t.position, t.waiting, t.parkedAt, t.retry]}
            rows={events.map((event) => ({
              key: event.id,
              cells: [
                event.type ?? `${event.topic} ${event.partition}:${event.offset}`,
                <code>{event.task_id ?? '–'}</code>,
                event.version ?? '–',
                event.position ?? '–',
                event.waiting,
                timeText(event.parked_at),
                event.retrying ? (
                  t.retrying
                ) : (
                  <button type="button" onClick={() => void retry([event.id])}>
                    {t.retry}
                  </button>
                ),
              ],
            }))}
          />
        </section>
      ))}
      {hasNextPage && (
        <p className={styles.hint}>
          {t.moreParked}{' '}
          <button type="button" onClick={() => void fetchNextPage()}>
            {loadMore}
          </button>
        </p>
      )}
    </>
  );
}
