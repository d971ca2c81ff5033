import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { lazy, Suspense, useMemo, type ReactNode } from 'react';
import { doneQuery, facetsQuery, flowQuery, stagesQuery, statsQuery, type Stages } from '../api/queries.ts';
import { problemText } from '../tasks/commands.ts';
import type { Filter } from '../tasks/filter.ts';
import { durationText, midnight, timeZone, today } from '../tasks/times.ts';
import { PRIORITIES } from '../tasks/values.ts';
import { ViewBar } from '../tasks/ViewBar.tsx';
import { daysFrom } from '../tasks/zones.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import { doneWithin, timesBy, type Times } from './completion.ts';
import styles from './insights.module.css';
import { rangeOf, someOf, type AskedRange, type Range } from './range.ts';
import { insightTexts } from './texts.ts';

/** With the library that draws them. */
const Chart = lazy(async () => ({ default: (await import('./Chart.tsx')).Chart }));

const route = getRouteApi('/inside/insights');
const SPANS = [7, 30, 90, 365];
/** Of a burn-up: each is a question. */
const BURN_UP_DAYS_MAX = 16;
/** As many as the API counts. */
const TAGS_MAX = 50;
const SHARES = ['p50', 'p90', 'p99'] as const;

/** How the account's tasks come and go. */
export function InsightsPage() {
  const { statuses, insights, loading } = useTexts();
  const t = useTextsOf(insightTexts);
  const navigate = route.useNavigate();
  const now = today();
  const { from, to, ...filter } = route.useSearch();
  const range = rangeOf({ ...(from && { from }), ...(to && { to }) }, now);
  const days = { ...range, time_zone: timeZone() };
  const stats = useQuery(statsQuery(days));
  const flow = useQuery(flowQuery(days));
  const error = stats.error ?? flow.error;
  const isDrawn = ![stats, flow].some(({ isPending, isPlaceholderData }) => isPending || isPlaceholderData);
  const perDay = useMemo(() => {
    const { created_per_day, completed_per_day } = stats.data ?? { created_per_day: [], completed_per_day: [] };
    return {
      dates: created_per_day.map(({ date }) => date),
      series: [
        { name: t.createdTasks, colour: '--accent', values: created_per_day.map(({ count }) => count) },
        { name: statuses['completed']!, colour: '--good', values: completed_per_day.map(({ count }) => count) },
      ],
    };
  }, [stats.data, t, statuses]);
  const cumulative = useMemo(() => {
    const days = flow.data?.days ?? [];
    const stages = [
      ['pending', '--line-strong'],
      ['in_progress', '--accent'],
      ['completed', '--good'],
      ['cancelled', '--warning'],
    ] as const;
    return {
      dates: days.map(({ date }) => date),
      series: stages.map(([stage, colour]) => ({ name: statuses[stage]!, colour, values: days.map((day) => day[stage]) })),
    };
  }, [flow.data, statuses]);
  return (
    <div className={styles.page}>
      <header>
        <h1>{insights}</h1>
        <RangeBar range={range} today={now} change={(next) => void navigate({ search: { ...filter, ...next } })} />
      </header>
      {error && <p role="alert">{problemText(error)}</p>}
      {(stats.isPending || flow.isPending) && !error && <p>{loading}</p>}
      <div className={styles.charts}>
        <Suspense fallback={<Coming />}>
          {stats.data ? <Chart title={t.perDay} {...perDay} /> : stats.isPending && <Coming />}
          {flow.data ? <Chart title={t.cumulativeFlow} {...cumulative} stacked /> : flow.isPending && <Coming />}
        </Suspense>
        {stats.data && (
          <Bars
            title={t.completionTimes}
            hint={t.completionTimesHint}
            bars={SHARES.map((share) => {
              const seconds = stats.data.completion_time_seconds[share];
              return { key: share, name: t.fasterThan[share], value: seconds ?? 0, text: seconds === null ? '–' : durationText(seconds) };
            })}
          />
        )}
      </div>
      <OfThese
        filter={filter}
        range={range}
        isDrawn={isDrawn}
        isToday={range.to === now}
        flow={flow.data?.days}
        change={(next) => void navigate({ search: (before) => ({ ...before, ...next }), replace: 'q' in next })}
      />
    </div>
  );
}

/** Where a chart will be. */
const Coming = () => <div className={styles.coming} />;

interface OfTheseProperties {
  filter: Filter;
  range: Range;
  /** What is told of all tasks is there: until then nothing else is asked that takes long. */
  isDrawn: boolean;
  /** The last day of the range goes on. */
  isToday: boolean;
  /** Of all tasks, each day. */
  flow: OnDay[] | undefined;
  change: (filter: Filter) => void;
}

type OnDay = Stages & { date: string };

/** What is told of the tasks that match a filter. */
function OfThese({ filter, range, isDrawn, isToday, flow, change }: OfTheseProperties) {
  const { statuses, priorities } = useTexts();
  const t = useTextsOf(insightTexts);
  const { data: facets } = useQuery(facetsQuery(filter));
  const isAll = Object.keys(filter).length === 0;
  const dates = someOf(range, BURN_UP_DAYS_MAX);
  const times = dates.map((date) => (isToday && date === range.to ? null : lastMoment(date)));
  const stages = useQuery({ ...stagesQuery(filter, times), enabled: !isAll && isDrawn });
  const { from, to } = range;
  const [begins, ends] = [midnight(from), midnight(daysFrom(to, 1))];
  const done = useQuery({ ...doneQuery(filter, begins), enabled: isDrawn });
  const burnUp = useMemo(() => {
    const days: OnDay[] = (isAll ? flow : stages.data?.flatMap((day, at) => (day ? [{ date: dates[at] ?? to, ...day }] : []))) ?? [];
    return {
      dates: days.map(({ date }) => date),
      series: [
        { name: t.scope, colour: '--line-strong', values: days.map((day) => day.pending + day.in_progress + day.completed) },
        { name: statuses['completed']!, colour: '--good', values: days.map((day) => day.completed) },
      ],
    };
  }, [isAll, flow, stages.data, from, to, t, statuses]);
  const within = useMemo(() => doneWithin(done.data?.tasks ?? [], begins, ends), [done.data, begins, ends]);
  const hint = done.data?.more ? t.timesHintOfMany(done.data.tasks.length.toLocaleString(document.documentElement.lang)) : t.timesHint;
  const error = stages.error ?? done.error;
  const isComing = !isDrawn || stages.isFetching;
  const isPartial = !isAll && stages.data?.includes(null);
  const byPriority = timesBy(within, ({ priority }) => [priority]);
  byPriority.sort((a, b) => PRIORITIES.findIndex((each) => each === b.key) - PRIORITIES.findIndex((each) => each === a.key));
  return (
    <>
      <h2 className={styles.part}>{t.ofThese}</h2>
      <ViewBar view={filter} without={['status', 'overdue', 'sort']} change={change} />
      {error && <p role="alert">{problemText(error)}</p>}
      <div className={styles.charts}>
        <Suspense fallback={<Coming />}>
          {burnUp.dates.length > 0 ? <Chart title={t.burnUp} hint={isPartial ? t.burnUpComing : t.burnUpHint} {...burnUp} /> : isComing && <Coming />}
        </Suspense>
        <CompletionTimes title={t.timesByPriority} hint={hint} isKnown={!done.isPending} times={byPriority} nameOf={(key) => priorities[key]} />
        <CompletionTimes title={t.timesByTag} hint={hint} isKnown={!done.isPending} times={timesBy(within, ({ tags }) => tags).slice(0, TAGS_MAX)} nameOf={(key) => <bdi>#{key}</bdi>} />
        <Bars
          title={t.byPriority}
          bars={PRIORITIES.toReversed().map((priority) => ({
            key: priority,
            name: (
              <Link to="/list" search={{ ...filter, priority }}>
                {priorities[priority]}
              </Link>
            ),
            value: facets?.by_priority[priority] ?? 0,
          }))}
        />
        <Bars
          title={t.byTag}
          bars={(facets?.by_tag ?? []).map(({ tag, count }) => ({
            key: tag,
            name: (
              <Link to="/list" search={{ ...filter, tag }}>
                <bdi>#{tag}</bdi>
              </Link>
            ),
            value: count,
          }))}
        />
      </div>
    </>
  );
}

/** Of a day; the API's times have microseconds. */
const lastMoment = (date: string): string => new Date(Date.parse(midnight(daysFrom(date, 1))) - 1).toISOString().replace('Z', '999Z');

interface CompletionTimesProperties {
  title: string;
  hint: string;
  isKnown: boolean;
  times: Times[];
  nameOf: (key: string) => ReactNode;
}

/** A table whose times are seen as well: half of the tasks, and 9 of 10. */
function CompletionTimes({ title, hint, isKnown, times, nameOf }: CompletionTimesProperties) {
  const { nothingToShow, loading } = useTexts();
  const t = useTextsOf(insightTexts);
  const most = Math.max(...times.map(({ p90 }) => p90), Number.MIN_VALUE);
  return (
    <section className={styles.figure}>
      <h2>{title}</h2>
      <p className={styles.hint}>{times.length > 0 ? hint : isKnown ? nothingToShow : loading}</p>
      {times.length > 0 && (
        <div className={styles.tablePlace} tabIndex={0} role="region" aria-label={title}>
          <table className={styles.bars}>
            <thead>
              <tr>
                <td />
                <th scope="col">{t.doneCount}</th>
                {SHARES.map((share) => (
                  <th key={share} scope="col">
                    {t.fasterThan[share]}
                  </th>
                ))}
                <td aria-hidden />
              </tr>
            </thead>
            <tbody>
              {times.map((each) => (
                <tr key={each.key}>
                  <th scope="row">{nameOf(each.key)}</th>
                  <td>{each.count.toLocaleString(document.documentElement.lang)}</td>
                  {SHARES.map((share) => (
                    <td key={share}>{durationText(each[share])}</td>
                  ))}
                  <td aria-hidden className={styles.barPlace}>
                    <div className={styles.bar} data-light style={{ width: `${(100 * each.p90) / most}%` }}>
                      <div className={styles.bar} style={{ width: `${(100 * each.p50) / (each.p90 || 1)}%` }} />
                    </div>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function RangeBar({ range, today, change }: { range: Range; today: string; change: (range: AskedRange) => void }) {
  const { from, to } = useTexts();
  const t = useTextsOf(insightTexts);
  return (
    <div className={styles.range} role="group" aria-label={t.range}>
      {SPANS.map((days) => {
        const first = daysFrom(today, 1 - days);
        return (
          <button key={days} type="button" aria-pressed={range.to === today && range.from === first} onClick={() => change({ from: first })}>
            {t.lastDays(days)}
          </button>
        );
      })}
      <label>
        <span>{from}</span>
        <input
          type="date"
          value={range.from}
          max={range.to}
          onChange={({ target }) => target.value && change({ ...range, from: target.value })}
        />
      </label>
      <label>
        <span>{to}</span>
        <input
          type="date"
          value={range.to}
          min={range.from}
          max={today}
          onChange={({ target }) => target.value && change({ ...range, to: target.value })}
        />
      </label>
    </div>
  );
}

interface BarsProperties {
  title: string;
  hint?: string;
  bars: { key: string; name: ReactNode; value: number; text?: string }[];
}

/** A table whose numbers are seen as well. */
function Bars({ title, hint, bars }: BarsProperties) {
  const t = useTexts();
  const most = Math.max(...bars.map(({ value }) => value), Number.MIN_VALUE);
  const number = (n: number) => n.toLocaleString(document.documentElement.lang);
  return (
    <section className={styles.figure} aria-label={title}>
      <h2>{title}</h2>
      {hint && <p className={styles.hint}>{hint}</p>}
      {bars.length === 0 && <p className={styles.hint}>{t.nothingToShow}</p>}
      <table className={styles.bars}>
        <tbody>
          {bars.map(({ key, name, value, text }) => (
            <tr key={key}>
              <th scope="row">{name}</th>
              <td>{text ?? number(value)}</td>
              <td aria-hidden className={styles.barPlace}>
                <div className={styles.bar} style={{ width: `${(100 * value) / most}%` }} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
