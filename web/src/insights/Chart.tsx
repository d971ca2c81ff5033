import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import { preferences } from '../shell/preferences.ts';
import { dateText } from '../tasks/times.ts';
import { useTextsOf } from '../texts/index.ts';
import styles from './insights.module.css';
import { insightTexts } from './texts.ts';

export interface Series {
  name: string;
  /** A custom property. */
  colour: string;
  values: number[];
}

interface Properties {
  title: string;
  hint?: string;
  /** Of each value. */
  dates: string[];
  series: Series[];
  /** One on top of the other, the last at the bottom. */
  stacked?: boolean;
}

const HEIGHT_PX = 220;
const DAY_S = 86_400;

/** Numbers by day as lines, or as areas that add up; and the same as a table. */
export function Chart({ title, hint, dates, series, stacked = false }: Properties) {
  const t = useTextsOf(insightTexts);
  const [at, setAt] = useState<number | null>(null);
  const number = (n: number | undefined) => (n ?? 0).toLocaleString(document.documentElement.lang);
  const shown = at === null ? null : dates[at];
  return (
    <figure className={styles.figure}>
      <figcaption>
        <h2>{title}</h2>
        <ul className={styles.legend}>
          {series.map(({ name, colour, values }) => (
            <li key={name}>
              <span className={styles.key} style={{ background: `var(${colour})` }} />
              {name}
              {at !== null && <b>{number(values[at])}</b>}
            </li>
          ))}
          {shown && <li>{dateText(shown)}</li>}
        </ul>
      </figcaption>
      {hint && <p className={styles.hint}>{hint}</p>}
      <Plot dates={dates} series={series} stacked={stacked} point={setAt} />
      <details>
        <summary>{t.asTable}</summary>
        <div className={styles.tablePlace} tabIndex={0} role="region" aria-label={title}>
          <table>
            <thead>
              <tr>
                <th scope="col">{t.day}</th>
                {series.map(({ name }) => (
                  <th key={name} scope="col">
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {dates.map((date, index) => (
                <tr key={date}>
                  <th scope="row">{dateText(date)}</th>
                  {series.map(({ name, values }) => (
                    <td key={name}>{number(values[index])}</td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}

interface PlotProperties extends Required<Omit<Properties, 'title' | 'hint'>> {
  /** The day under the pointer. */
  point: (index: number | null) => void;
}

/** Those who don't see it have the table. */
function Plot({ dates, series, stacked, point }: PlotProperties) {
  const place = useRef<HTMLDivElement>(null);
  const dark = useDark();
  const { language } = useSyncExternalStore(preferences.onChange, preferences.get);
  useEffect(() => {
    const element = place.current!;
    const colour = (name: string) => {
      element.style.color = `var(${name})`;
      return getComputedStyle(element).color;
    };
    const [text, line] = [colour('--soft'), colour('--line')];
    const axis = { stroke: text, font: '12px system-ui', grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { y: false, points: { show: !stacked }, drag: { x: false, y: false } },
        scales: { x: { time: false }, y: { range: (_, __, most) => [0, Math.max(most, 4) * 1.05] } },
        axes: [
          {
            ...axis,
            space: 70,
            incrs: [1, 2, 7, 14, 28, 56, 91].map((days) => days * DAY_S),
            values: (_, splits) => splits.map((at) => dateText(new Date(at * 1000).toISOString().slice(0, 10), true)),
          },
          { ...axis, size: 54, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6] },
        ],
        series: [
          {},
          ...series.map(({ name, colour: property }) => {
            const stroke = colour(property);
            return { label: name, stroke, width: stacked ? 0 : 2, points: { show: dates.length === 1 }, ...(stacked && { fill: stroke }) };
          }),
        ],
        hooks: { setCursor: [({ cursor: { idx } }) => point(idx ?? null)] },
      },
      [dates.map((date) => Date.parse(date) / 1000), ...(stacked ? sums(series) : series.map(({ values }) => values))],
      element,
    );
    const watch = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT_PX }));
    watch.observe(element);
    return () => {
      watch.disconnect();
      plot.destroy();
    };
  }, [dates, series, stacked, dark, language, point]);
  return <div ref={place} className={styles.plot} aria-hidden />;
}

/** Of each series and all below it: the first is drawn first, and the others over it. */
function sums(series: Series[]): number[][] {
  return series.map((_, from) => series[0]!.values.map((_, day) => series.slice(from).reduce((sum, { values }) => sum + values[day]!, 0)));
}

function useDark(): boolean {
  const { theme } = useSyncExternalStore(preferences.onChange, preferences.get);
  const system = useSyncExternalStore(
    (tell) => {
      const query = matchMedia('(prefers-color-scheme: dark)');
      query.addEventListener('change', tell);
      return () => query.removeEventListener('change', tell);
    },
    () => matchMedia('(prefers-color-scheme: dark)').matches,
  );
  return theme === 'system' ? system : theme === 'dark';
}
