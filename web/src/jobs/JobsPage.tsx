import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useState, type FormEvent } from 'react';
import { api, ask } from '../api/client.ts';
import { facetsQuery } from '../api/queries.ts';
import { toast } from '../shell/toasts.ts';
import { again, problemText } from '../tasks/commands.ts';
import { filterOf, type View } from '../tasks/filter.ts';
import { uuid } from '../tasks/ids.ts';
import { ViewBar } from '../tasks/ViewBar.tsx';
import { useTextsOf } from '../texts/index.ts';
import { ImportForm } from './ImportForm.tsx';
import { JobList } from './JobList.tsx';
import styles from './jobs.module.css';
import { showJob } from './state.ts';
import { jobTexts } from './texts.ts';

const route = getRouteApi('/inside/jobs');

/** Tasks from and to files, and what the account has under way. */
export function JobsPage() {
  const t = useTextsOf(jobTexts);
  return (
    <div className={styles.jobs}>
      <h1>{t.jobs}</h1>
      <ImportForm />
      <ExportForm />
      <JobList />
    </div>
  );
}

/** What it exports is in the address: a view of the list leads here with its filters. */
function ExportForm() {
  const t = useTextsOf(jobTexts);
  const view = route.useSearch();
  const navigate = route.useNavigate();
  const [format, setFormat] = useState('csv');
  const [busy, setBusy] = useState(false);
  const { data: facets } = useQuery(facetsQuery(view));
  const change = (next: Partial<View>) => void navigate({ search: (now) => ({ ...now, ...next }), replace: 'q' in next });

  async function submit(event: FormEvent) {
    event.preventDefault();
    setBusy(true);
    const params = { header: { 'Idempotency-Key': uuid() } };
    const body = { format, filter: filterOf(view) };
    try {
      showJob(await again(() => ask(api.POST('/api/v1/exports', { body: body as never, params: params as never }))));
      toast({ text: t.started });
    } catch (error) {
      toast({ text: problemText(error), failed: true });
    } finally {
      setBusy(false);
    }
  }

  return (
    <section aria-label={t.export}>
      <h2>{t.export}</h2>
      <p className={styles.hint}>{t.exportHint}</p>
      <ViewBar view={view} without={['sort']} change={change} />
      <form className={styles.inline} onSubmit={(event) => void submit(event)}>
        <label>
          {t.format}
          <select value={format} onChange={(event) => setFormat(event.target.value)}>
            {Object.entries(t.formats).map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <button type="submit" disabled={busy}>
          {facets ? t.exportCount(facets.total) : t.export}
        </button>
      </form>
    </section>
  );
}
