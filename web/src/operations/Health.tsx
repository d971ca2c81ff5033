import { useQuery } from '@tanstack/react-query';
import { problemText } from '../tasks/commands.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import { by, type Metric } from './metrics.ts';
import styles from './operations.module.css';
import { metricsQuery, readinessQuery } from './queries.ts';
import { number, Table } from './Table.tsx';
import { operationsTexts } from './texts.ts';

/** What the process tells of itself. */
export function Health() {
  const t = useTextsOf(operationsTexts);
  const { loading } = useTexts();
  const { data: readiness, error } = useQuery(readinessQuery());
  const { data: metrics } = useQuery(metricsQuery());
  if (readiness === undefined) return error ? <p role="alert">{problemText(error)}</p> : <p>{loading}</p>;
  return (
    <>
      <section>
        <h2>{t.checks}</h2>
        {readiness === null ? (
          <p className={styles.hint}>{t.ownAddress}</p>
        ) : (
          <Table
            caption={t.checks}
            columns={[t.check, t.state, t.detail]}
            rows={Object.entries(readiness.checks).map(([name, { status, detail }]) => ({
              key: name,
              cells: [name, <span data-status={status}>{t.statuses[status]}</span>, detail],
            }))}
          />
        )}
      </section>
      {metrics && <Numbers metrics={metrics} />}
    </>
  );
}

function Numbers({ metrics }: { metrics: Metric[] }) {
  const t = useTextsOf(operationsTexts);
  const problems = by(metrics, 'problems_total', ({ code }) => code ?? '');
  const cache = ({ layer, kind }: Record<string, string>) => `${layer}, ${kind}`;
  const hits = new Map(by(metrics, 'cache_hits_total', cache));
  const misses = new Map(by(metrics, 'cache_misses_total', cache));
  const caches = [...new Set([...hits.keys(), ...misses.keys()])].sort();
  return (
    <>
      <section>
        <h2>{t.problems}</h2>
        {problems.length === 0 ? (
          <p className={styles.hint}>{t.noProblems}</p>
        ) : (
          <Table
            caption={t.problems}
            columns={[t.code, t.number]}
            rows={problems.map(([code, count]) => ({ key: code, cells: [<a href={`/problems/${code}`}>{code}</a>, number(count)] }))}
          />
        )}
      </section>
      {caches.length > 0 && (
        <section>
          <h2>{t.caches}</h2>
          <Table
            caption={t.caches}
            columns={[t.layer, t.hits, t.number, t.rate]}
            rows={caches.map((name) => {
              const found = hits.get(name) ?? 0;
              const all = found + (misses.get(name) ?? 0);
              return { key: name, cells: [name, number(found), number(all), all > 0 ? `${number((100 * found) / all)} %` : '–'] };
            })}
          />
        </section>
      )}
    </>
  );
}
