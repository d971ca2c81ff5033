import { useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { problemText } from '../tasks/commands.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import { line, sampled, type Sample } from './lag.ts';
import styles from './operations.module.css';
import { projectionsQuery } from './queries.ts';
import { number, Table } from './Table.tsx';
import { operationsTexts } from './texts.ts';

/** The guide is a text: its paragraph is found by its first words. */
const REBUILD_GUIDE = '/docs/operations.md#:~:text=**A%20rebuild.**';

/** How far the read models are, and their rebuild. */
export function Projections() {
  const t = useTextsOf(operationsTexts);
  const { loading } = useTexts();
  const { data, error, dataUpdatedAt } = useQuery(projectionsQuery());
  const [samples, setSamples] = useState<Sample[]>([]);
  useEffect(() => {
    if (!data) return;
    const events = Math.max(0, ...data.items.map(({ lag_events }) => lag_events));
    const seconds = Math.max(0, ...data.items.map(({ lag_seconds }) => lag_seconds));
    setSamples((known) => sampled(known, { at: dataUpdatedAt, events, seconds }));
  }, [data, dataUpdatedAt]);
  if (!data) return error ? <p role="alert">{problemText(error)}</p> : <p>{loading}</p>;
  // a projector of an older version does not tell of it
  const relay = data.relay ?? [];
  const rebuilds = data.items.flatMap(({ name, shard, rebuild }) => (rebuild ? [{ key: `${name} ${shard}`, ...rebuild }] : []));
  return (
    <>
      {error && <p role="alert">{problemText(error)}</p>}
      <section>
        <h2>{t.lag}</h2>
        <Lag samples={samples} />
      </section>
      <section>
        <h2>{t.parts['projections']}</h2>
        <Table
          caption={t.parts['projections']!}
          columns={[t.name, t.shard, t.generation, t.state, t.feed, t.position, t.events, t.seconds, t.parkedEvents]}
          rows={data.items.map((item) => ({
            key: `${item.name} ${item.shard}`,
            cells: [
              item.name,
              item.shard,
              item.generation,
              t.states[item.state],
              t.feeds[item.feed],
              number(item.position),
              number(item.lag_events),
              number(item.lag_seconds),
              number(item.parked_events),
            ],
          }))}
        />
        {data.unreadable_messages > 0 && <p role="alert">{t.unreadable(data.unreadable_messages)}</p>}
      </section>
      <section>
        <h2>{t.rebuild}</h2>
        {rebuilds.map(({ key, generation, phase, events_done, events_total, events_per_second, seconds_left, running }) => (
          <div key={key} className={styles.rebuild}>
            <p>{t.rebuildOf(generation, t.phases[phase] ?? phase)}</p>
            <progress aria-label={t.rebuildOf(generation, t.phases[phase] ?? phase)} value={events_done} max={Math.max(events_total, 1)} />
            <p className={styles.hint}>
              {running ? t.rebuildProgress(number(events_done), number(events_total), number(events_per_second)) : t.rebuildStopped}
              {running && seconds_left !== null && `, ${t.secondsLeft(number(seconds_left))}`}
            </p>
          </div>
        ))}
        {rebuilds.length === 0 && data.items[0] && <p className={styles.hint}>{t.noRebuild(data.items[0].generation)}</p>}
        <p className={styles.hint}>{t.onServer}</p>
        <dl className={styles.commands}>
          {[
            ['primetrade doctor', t.rebuildCompare],
            ['primetrade rebuild', t.rebuildStart],
            ['primetrade rebuild --expect-same', t.rebuildSame],
            ['primetrade rebuild --back', t.rebuildBack],
          ].map(([command, does]) => (
            <div key={command}>
              <dt>
                <code>{command}</code>
              </dt>
              <dd>{does}</dd>
            </div>
          ))}
        </dl>
        <p>
          <a href={REBUILD_GUIDE} target="_blank" rel="noreferrer">
            {t.rebuildGuide}
          </a>
        </p>
      </section>
      <section>
        <h2>{t.relay}</h2>
        <p className={styles.hint}>{relay.length === 0 ? t.noRelay : t.relayHint}</p>
        {relay.length > 0 && (
          <Table
            caption={t.relay}
            columns={[t.topic, t.shard, t.publication, t.position, t.events, t.seconds]}
            rows={relay.map(({ topic, shard, publication, position, lag_events, lag_seconds }) => ({
              key: String(shard),
              cells: [topic, shard, publication, number(position), number(lag_events), number(lag_seconds)],
            }))}
          />
        )}
      </section>
      <section>
        <h2>{t.partitions}</h2>
        {data.partitions.length === 0 ? (
          <p className={styles.hint}>{t.noPartitions}</p>
        ) : (
          <Table
            caption={t.partitions}
            columns={[t.topic, t.partition, t.offset, t.publication, t.trouble]}
            rows={data.partitions.map(({ topic, partition, next_offset, publication, trouble }) => ({
              key: `${topic} ${partition}`,
              cells: [topic, partition, next_offset === null ? '–' : number(next_offset), publication, trouble ?? t.none],
            }))}
          />
        )}
      </section>
    </>
  );
}

const [WIDTH, HEIGHT] = [600, 90];

function Lag({ samples }: { samples: Sample[] }) {
  const t = useTextsOf(operationsTexts);
  const now = samples.at(-1);
  if (!now) return null;
  const most = Math.max(...samples.map(({ events }) => events));
  const said = t.lagSaid(number(now.events), number(now.seconds), number(most));
  return (
    <>
      <p>{said}</p>
      <svg className={styles.chart} viewBox={`0 -4 ${WIDTH} ${HEIGHT + 8}`} preserveAspectRatio="none" role="img" aria-label={said}>
        <line x1="0" x2={WIDTH} y1={HEIGHT} y2={HEIGHT} />
        <polyline points={line(samples, ({ events }) => events, WIDTH, HEIGHT)} />
      </svg>
      <p className={styles.hint}>{t.lagHint}</p>
      <details>
        <summary>{t.asTable}</summary>
        <Table
          caption={t.lag}
          columns={[t.time, t.events, t.seconds]}
          rows={samples.toReversed().map(({ at, events, seconds }) => ({
            key: String(at),
            cells: [new Date(at).toLocaleTimeString(document.documentElement.lang), number(events), number(seconds)],
          }))}
        />
      </details>
    </>
  );
}
