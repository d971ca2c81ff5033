import { useInfiniteQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, ask, authorised, type Job } from '../api/client.ts';
import { queryClient } from '../api/queries.ts';
import { toast } from '../shell/toasts.ts';
import { problemText, undoChange } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import styles from './jobs.module.css';
import { hasEnded, jobErrorsQuery, jobsQuery } from './state.ts';
import { jobTexts } from './texts.ts';

const number = (n: number) => n.toLocaleString(document.documentElement.lang);

export function JobList() {
  const t = useTextsOf(jobTexts);
  const { loading, loadMore } = useTexts();
  const { data, error, isPending, hasNextPage, fetchNextPage } = useInfiniteQuery(jobsQuery());
  const jobs = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <section aria-label={t.history}>
      <h2>{t.history}</h2>
      {error && jobs.length === 0 && <p role="alert">{problemText(error)}</p>}
      {isPending && <p>{loading}</p>}
      {data && jobs.length === 0 && <p className={styles.hint}>{t.noJobs}</p>}
      <ul className={styles.list}>
        {jobs.map((job) => (
          <JobItem key={job.id} job={job} />
        ))}
      </ul>
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {loadMore}
        </button>
      )}
    </section>
  );
}

function JobItem({ job }: { job: Job }) {
  const t = useTextsOf(jobTexts);
  const [open, setOpen] = useState(false);
  const kind = t.kinds[job.kind] ?? job.kind;
  const name = job.dry_run ? t.checkOf(kind) : kind;
  const ended = hasEnded(job);
  const act = async (run: () => Promise<unknown>, said: string) => {
    try {
      await run();
      toast({ text: said });
    } catch (error) {
      toast({ text: problemText(error), failed: true });
    } finally {
      void queryClient.invalidateQueries({ queryKey: ['jobs'] });
    }
  };
  const remove = (said: string) => void act(() => ask(api.DELETE('/api/v1/jobs/{id}', { params: { path: { id: job.id } } })), said);
  return (
    <li data-state={job.state}>
      <div className={styles.job}>
        <span className={styles.what}>
          <strong>{name}</strong>
          <small>
            <time dateTime={job.created_at}>{timeText(job.created_at)}</time>
            {job.expires_at && ended && ` · ${t.until(timeText(job.expires_at))}`}
          </small>
        </span>
        <span className={styles.state}>
          {!ended && (
            <progress aria-label={name} {...(job.total !== null && { value: job.done, max: Math.max(job.total, 1) })} />
          )}
          <span>
            {t.states[job.state]}
            {!ended && job.total !== null && `, ${t.progress(number(job.done), number(job.total))}`}
          </span>
          {job.done > 0 && <small>{t.counts(number(job.succeeded), number(job.failed))}</small>}
          {job.problem && <small>{job.problem.detail ?? job.problem.title}</small>}
        </span>
        <span className={styles.actions}>
          {!ended && (
            <button type="button" onClick={() => remove(t.cancelled)}>
              {t.cancel}
            </button>
          )}
          {job.failed > 0 && (
            <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
              {open ? t.hideErrors : t.showErrors}
            </button>
          )}
          {job.change_id && job.succeeded > 0 && ended && !job.dry_run && (
            <button type="button" onClick={() => void undoChange(job.change_id!)}>
              {t.undo}
            </button>
          )}
          {job.result && (
            <>
              <button type="button" onClick={() => void download(job).catch((error: unknown) => toast({ text: problemText(error), failed: true }))}>
                {t.download}
              </button>
              <button type="button" onClick={() => remove(t.dropped)}>
                {t.drop}
              </button>
            </>
          )}
        </span>
      </div>
      {open && <Errors id={job.id} />}
    </li>
  );
}

function Errors({ id }: { id: string }) {
  const t = useTextsOf(jobTexts);
  const { loading, loadMore } = useTexts();
  const { data, isPending, hasNextPage, fetchNextPage } = useInfiniteQuery(jobErrorsQuery(id));
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      {isPending && <p>{loading}</p>}
      <ol className={styles.errors}>
        {items.map(({ line, task_id, problem }, index) => (
          <li key={index}>
            <span>{line === null ? <code>{task_id}</code> : t.line(line)}</span>
            <span>{problem.errors?.map(({ pointer, detail }) => `${pointer.slice(1)}: ${detail}`).join(' ') || problem.detail || problem.title}</span>
          </li>
        ))}
      </ol>
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {loadMore}
        </button>
      )}
    </>
  );
}

const ENDINGS: Record<string, string> = { 'text/csv': 'csv', 'application/x-ndjson': 'ndjson', 'text/calendar': 'ics' };

/** A link would be without the access token. */
async function download({ result, created_at }: Job): Promise<void> {
  const answer = await authorised(new Request(result!.href));
  const file = await ask(Promise.resolve({ response: answer, ...(answer.ok ? { data: await answer.blob() } : { error: await answer.json() }) }));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = `primetrade-${created_at.slice(0, 10)}.${ENDINGS[result!.media_type.split(';')[0]!] ?? 'txt'}`;
  link.click();
  // once the browser has taken it
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
