import { draggable, dropTargetForElements } from '@atlaskit/pragmatic-drag-and-drop/element/adapter';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { ChevronLeft, ChevronRight } from 'lucide-react';
import { Suspense, useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import { dueQuery } from '../api/queries.ts';
import { useActions } from '../shell/shortcuts.ts';
import { carryOut, problemText } from '../tasks/commands.ts';
import { filterOf, type View } from '../tasks/filter.ts';
import { TaskPanel } from '../tasks/panel.ts';
import { QuickAdd } from '../tasks/QuickAdd.tsx';
import { StatusIcon } from '../tasks/StatusIcon.tsx';
import { TaskMenu } from '../tasks/TaskMenu.tsx';
import tasksStyles from '../tasks/tasks.module.css';
import { dateOf, dateText, firstDay, inputTime, midnight, monthText, timeOfInput, timeZone, today, weekdayText } from '../tasks/times.ts';
import type { Task } from '../tasks/values.ts';
import { ViewBar } from '../tasks/ViewBar.tsx';
import { daysFrom } from '../tasks/zones.ts';
import { texts, useTexts } from '../texts/index.ts';
import styles from './calendar.module.css';
import { monthsFrom, weeksOf } from './month.ts';

const route = getRouteApi('/inside/calendar');
/** Of a day; the others are in the list. */
const SHOWN_MAX = 4;

/** A month of tasks by their due dates; a task is moved to another day by hand, by Alt and an arrow, or by its menu. */
export function CalendarPage() {
  const t = useTexts();
  const { month: asked, ...view } = route.useSearch();
  const navigate = route.useNavigate();
  const now = today();
  const month = asked ?? now.slice(0, 7);
  const change = (next: Partial<View & { month: string }>) =>
    void navigate({ search: (search) => ({ ...search, ...next }), replace: 'q' in next });
  const go = (months: number) => change({ month: monthsFrom(month, months) });
  useActions([
    { id: 'nextMonth', keys: 'j', run: () => go(1) },
    { id: 'previousMonth', keys: 'k', run: () => go(-1) },
    { id: 'thisMonth', keys: 't', run: () => change({ month: undefined }) },
  ]);
  const weeks = weeksOf(month, firstDay());
  const from = midnight(weeks[0]![0]!);
  const to = midnight(daysFrom(weeks.at(-1)![6]!, 1));
  const { data, error, isPending } = useQuery(dueQuery({ ...filterOf(view), due_after: from, due_before: to }));
  const zone = timeZone();
  const byDay = useMemo(() => {
    // what was moved here or away and waits for the server stands where it was in the list
    const due = data?.pages.flatMap(({ items }) => items).filter(({ due_at }) => due_at !== null) ?? [];
    due.sort((a, b) => Date.parse(a.due_at!) - Date.parse(b.due_at!));
    return Map.groupBy(due, (task) => dateOf(task.due_at!));
  }, [data, zone]);
  return (
    <>
      <div className={tasksStyles.page} data-beside={view.task ? true : undefined}>
        <header className={styles.head}>
          <h1>{monthText(month)}</h1>
          <div role="group" aria-label={t.month}>
            <button type="button" aria-label={t.previousMonth} onClick={() => go(-1)}>
              <ChevronLeft size={16} aria-hidden />
            </button>
            <button type="button" onClick={() => change({ month: undefined })}>
              {t.today}
            </button>
            <button type="button" aria-label={t.nextMonth} onClick={() => go(1)}>
              <ChevronRight size={16} aria-hidden />
            </button>
          </div>
        </header>
        <QuickAdd />
        <ViewBar view={view} without={['due', 'sort']} change={change} />
        {error && <p role="alert">{problemText(error)}</p>}
        {isPending && <p>{t.loading}</p>}
        {data && byDay.size === 0 && <p className={styles.nothing}>{t.nothingToShow}</p>}
        {data?.pages.at(-1)!.next_cursor && <p role="status">{t.tooManyDue}</p>}
        <div className={styles.month} role="table" aria-label={monthText(month)}>
          <div role="row" className={styles.weekdays}>
            {weeks[0]!.map((date) => (
              <span key={date} role="columnheader">
                {weekdayText(new Date(date).getUTCDay(), true)}
              </span>
            ))}
          </div>
          {weeks.map((week) => (
            <div
              key={week[0]}
              role="row"
              className={styles.week}
              data-empty={week.every((date) => !date.startsWith(month) || (date !== now && !byDay.has(date))) || undefined}
            >
              {week.map((date) => (
                <Day
                  key={date}
                  date={date}
                  isToday={date === now}
                  isOther={!date.startsWith(month)}
                  tasks={byDay.get(date) ?? []}
                  view={view}
                  open={(task) => change({ task: task.id })}
                />
              ))}
            </div>
          ))}
        </div>
      </div>
      <Suspense>
        {view.task && <TaskPanel key={view.task} id={view.task} onClose={() => change({ task: undefined })} />}
      </Suspense>
    </>
  );
}

/** At the same time of another day. */
function moveTo(task: Task, date: string) {
  const time = inputTime(task.due_at).slice(10);
  if (dateOf(task.due_at!) === date) return;
  const due_at = timeOfInput(date + time).toISOString();
  void carryOut([{ type: 'ScheduleTask', task_id: task.id, due_at }], texts().movedTo(task.title, dateText(date)));
}

interface DayProperties {
  date: string;
  isToday: boolean;
  /** Of the month before or after. */
  isOther: boolean;
  tasks: Task[];
  view: View;
  open: (task: Task) => void;
}

function Day({ date, isToday, isOther, tasks, view, open }: DayProperties) {
  const t = useTexts();
  const day = useRef<HTMLDivElement>(null);
  const [over, setOver] = useState(false);
  useEffect(
    () =>
      dropTargetForElements({
        element: day.current!,
        onDragEnter: () => setOver(true),
        onDragLeave: () => setOver(false),
        onDrop: ({ source }) => {
          setOver(false);
          moveTo(source.data['task'] as Task, date);
        },
      }),
    [date],
  );
  const { task: _, sort: __, ...filter } = view;
  const left = tasks.length - SHOWN_MAX;
  return (
    <div
      ref={day}
      role="cell"
      className={styles.day}
      data-over={over || undefined}
      data-other={isOther || undefined}
      data-empty={tasks.length === 0 || undefined}
      aria-current={isToday ? 'date' : undefined}
    >
      <time dateTime={date}>
        <span className={styles.number} aria-hidden>
          {Number(date.slice(8))}
        </span>
        <span className={styles.name}>{dateText(date)}</span>
      </time>
      <ul>
        {tasks.slice(0, SHOWN_MAX).map((task) => (
          <Due key={task.id} task={task} date={date} open={open} />
        ))}
      </ul>
      {left > 0 && (
        <Link to="/list" search={{ ...filter, due_after: midnight(date), due_before: midnight(daysFrom(date, 1)) }}>
          {t.moreDue(left)}
        </Link>
      )}
    </div>
  );
}

function Due({ task, date, open }: { task: Task; date: string; open: (task: Task) => void }) {
  const t = useTexts();
  const item = useRef<HTMLLIElement>(null);
  useEffect(() => draggable({ element: item.current!, getInitialData: () => ({ task }) }), [task]);
  const move = (event: KeyboardEvent) => {
    const days = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 7, ArrowUp: -7 }[event.key];
    if (!event.altKey || days === undefined) return;
    event.preventDefault();
    moveTo(task, daysFrom(date, days));
  };
  const places = ([[t.dayLater, 1], [t.dayEarlier, -1], [t.weekLater, 7], [t.weekEarlier, -7]] as const).map(([text, days]) => ({
    text,
    run: () => moveTo(task, daysFrom(date, days)),
  }));
  return (
    <li ref={item} className={styles.due} data-status={task.status} onKeyDown={move}>
      <button
        type="button"
        title={task.title}
        aria-keyshortcuts="Alt+ArrowRight Alt+ArrowLeft Alt+ArrowUp Alt+ArrowDown"
        onClick={() => open(task)}
      >
        <StatusIcon status={task.status} />
        <small>{inputTime(task.due_at).slice(11)}</small>
        <bdi>{task.title}</bdi>
      </button>
      <span className={styles.menu}>
        <TaskMenu task={task} places={places} />
      </span>
    </li>
  );
}
