import { useQuery } from '@tanstack/react-query';
import { Pause, Play, X } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { firstTaskQuery, sinceQuery } from '../api/queries.ts';
import { timeText } from '../tasks/times.ts';
import type { Task } from '../tasks/values.ts';
import { useTexts } from '../texts/index.ts';
import styles from './history.module.css';

const STEPS = 200;
const PLAY_STEPS = 30;
/** At least so long each step of a play is shown. */
const PLAY_STEP_MS = 600;
/** After the slider was moved last. */
const ASK_AFTER_MS = 150;

interface Properties {
  /** The time that is looked at. */
  asOf: string;
  /** Whether what is shown is still that of the step before. */
  loading: boolean;
  change: (asOf: string | undefined) => void;
  open: (task: string) => void;
}

/** Leads a list or the board through time. */
export function TimeBar({ asOf, loading, change, open }: Properties) {
  const t = useTexts();
  // while it is shown, the end stays where it was
  const [end] = useState(Date.now);
  const { data: first } = useQuery(firstTaskQuery());
  const at = Date.parse(asOf);
  // its time has microseconds: the next millisecond has it
  const start = Math.min(first ? Date.parse(first.created_at) + 1 : at, at, end - 1);
  const [moved, setMoved] = useState<number | null>(null);
  const [playing, setPlaying] = useState(false);
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  const goTo = (time: number, afterMs: number) => {
    setMoved(time);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      change(new Date(time).toISOString());
      setMoved(null);
    }, afterMs);
  };
  useEffect(() => {
    if (!playing || loading) return;
    if (at >= end) return setPlaying(false);
    const next = setTimeout(() => change(new Date(Math.min(end, at + (end - start) / PLAY_STEPS)).toISOString()), PLAY_STEP_MS);
    return () => clearTimeout(next);
  }, [playing, loading, at, start, end, change]);
  const shown = moved ?? at;
  const play = () => {
    clearTimeout(timer.current);
    setMoved(null);
    // from the beginning, where there is nothing left; else from where the slider is, also where that was not asked for yet
    if (!playing && shown >= end) change(new Date(start).toISOString());
    else if (moved !== null) change(new Date(moved).toISOString());
    setPlaying(!playing);
  };
  return (
    <section className={styles.time} aria-label={t.timeTravel}>
      <button type="button" aria-label={playing ? t.pause : t.play} onClick={play}>
        {playing ? <Pause size={16} aria-hidden /> : <Play size={16} aria-hidden />}
      </button>
      <input
        type="range"
        aria-label={t.timeTravel}
        aria-valuetext={timeText(new Date(shown).toISOString())}
        min={start}
        max={end}
        step={Math.max(1, Math.round((end - start) / STEPS))}
        value={shown}
        onChange={({ target }) => {
          setPlaying(false);
          goTo(Number(target.value), ASK_AFTER_MS);
        }}
      />
      <time dateTime={asOf}>{timeText(new Date(shown).toISOString())}</time>
      <Since asOf={asOf} open={open} />
      <button type="button" onClick={() => change(undefined)}>
        <X size={16} aria-hidden />
        {t.backToNow}
      </button>
    </section>
  );
}

/** Which tasks are not what they were then. */
function Since({ asOf, open }: { asOf: string; open: (task: string) => void }) {
  const t = useTexts();
  const { data } = useQuery(sinceQuery(asOf));
  if (!data) return null;
  const count = `${data.tasks.length.toLocaleString(document.documentElement.lang)}${data.more ? '+' : ''}`;
  return (
    <details className={styles.since}>
      <summary>{t.changedSince(count)}</summary>
      <ul>
        {data.tasks.map((task: Pick<Task, 'id' | 'title'> & { deleted_at?: string; created_at: string }) => (
          <li key={task.id}>
            <button type="button" onClick={() => open(task.id)}>
              <bdi>{task.title}</bdi>
            </button>
            <small>{task.deleted_at ? t.events['TaskDeleted'] : Date.parse(task.created_at) > Date.parse(asOf) ? t.events['TaskCreated'] : t.changedMark}</small>
          </li>
        ))}
      </ul>
    </details>
  );
}
