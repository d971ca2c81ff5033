import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useVirtualizer } from '@tanstack/react-virtual';
import { memo, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { facetsQuery, listQuery } from '../api/queries.ts';
import { useActions, type Action } from '../shell/shortcuts.ts';
import { useStable } from '../shell/stable.ts';
import { useTexts } from '../texts/index.ts';
import { Above, Beside } from './around.tsx';
import { carryOut, problemText } from './commands.ts';
import { filterOf, type View } from './filter.ts';
import { moveTo } from './moves.ts';
import { followed, NO_FOCUS, rowFrom } from './row-focus.ts';
import { SelectionBar, useSelection, type Selection } from './selection.tsx';
import { StatusIcon } from './StatusIcon.tsx';
import { TaskMenu } from './TaskMenu.tsx';
import styles from './tasks.module.css';
import { dueText } from './times.ts';
import { isOpen, isOverdue, type Task } from './values.ts';
import { ViewBar } from './ViewBar.tsx';

const route = getRouteApi('/inside/list');
/** In CSS pixels; on a touch screen rows are higher. */
const ROW_PX = matchMedia('(pointer: coarse)').matches ? 52 : 40;
/** Rows before the end at which the next page is asked for. */
const AHEAD_ROWS = 60;

export function ListPage() {
  const t = useTexts();
  const view = route.useSearch();
  const navigate = route.useNavigate();
  const list = useInfiniteQuery(listQuery(view));
  const { data: facets } = useQuery(facetsQuery(view));
  const { data, hasNextPage, isFetching, fetchNextPage } = list;
  const tasks = useMemo(() => data?.pages.flatMap((page) => page.items) ?? [], [data]);
  const total = facets?.total ?? tasks.length;
  const filter = filterOf(view);
  const selection = useSelection(tasks, JSON.stringify(filter));
  const change = (next: Partial<View>) => void navigate({ search: (now) => ({ ...now, ...next }), replace: 'q' in next });
  const toTime = useCallback((as_of: string | undefined) => void navigate({ search: (now) => ({ ...now, as_of }), replace: true }), [navigate]);
  const open = useStable((task: Task) => change({ task: task.id }));
  const pickTag = useStable((tag: string) => change({ tag }));
  const isFiltered = Object.keys(filter).length > 0;
  const { as_of: asOf } = view;
  return (
    <>
      <div className={styles.page} data-beside={view.task ? true : undefined}>
        <header className={styles.head}>
          <h1>{t.list}</h1>
          <p className={styles.total}>{facets && t.taskCount(facets.total)}</p>
        </header>
        <Above asOf={asOf} loading={list.isPlaceholderData} toTime={toTime} open={(task) => change({ task })} />
        <ViewBar view={view} change={change} />
        {list.isError && tasks.length === 0 ? (
          <div className={styles.nothing} role="alert">
            <p>{problemText(list.error)}</p>
            <button type="button" onClick={() => void list.refetch()}>
              {t.tryAgain}
            </button>
          </div>
        ) : list.isPending ? (
          <p className={styles.nothing}>{t.loading}</p>
        ) : tasks.length === 0 ? (
          <div className={styles.nothing}>
            <h2>{asOf ? t.nothingThen : isFiltered ? t.noMatches : t.noTasks}</h2>
            {!asOf && <p>{isFiltered ? t.noMatchesHint : t.noTasksHint}</p>}
          </div>
        ) : (
          <Rows
            tasks={tasks}
            total={Math.max(total, tasks.length)}
            selection={selection}
            past={asOf !== undefined}
            open={open}
            pickTag={pickTag}
            nearEnd={() => hasNextPage && !isFetching && void fetchNextPage()}
          />
        )}
        {!asOf && <SelectionBar selection={selection} total={total} filter={filter} />}
      </div>
      <Beside id={view.task} asOf={asOf} toNow={() => toTime(undefined)} close={() => change({ task: undefined })} />
    </>
  );
}

interface RowsProperties {
  tasks: Task[];
  total: number;
  selection: Selection;
  /** Of another time than now: nothing can be changed. */
  past: boolean;
  open: (task: Task) => void;
  pickTag: (tag: string) => void;
  nearEnd: () => void;
}

/** Only the rows in sight are there; a reader of the page is told how many there are. */
function Rows({ tasks, total, selection, past, open, pickTag, nearEnd }: RowsProperties) {
  const t = useTexts();
  const scroller = useRef<HTMLDivElement>(null);
  const [kept, setFocus] = useState(NO_FOCUS);
  const focus = followed(tasks, kept);
  if (focus !== kept) setFocus(focus);
  /** That Tab leads to. */
  const entry = Math.max(0, Math.min(focus.at, tasks.length - 1));
  // another function has all rows measured anew
  const keyOf = useCallback((index: number) => tasks[index]!.id, [tasks]);
  const rows = useVirtualizer({
    count: tasks.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: 12,
    getItemKey: keyOf,
  });
  const shown = rows.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last + AHEAD_ROWS >= tasks.length) nearEnd();
  });
  const toggle = useStable(selection.toggle);
  const focused = useCallback((task: Task, index: number) => setFocus({ id: task.id, at: index }), []);
  const move = (by: number) => {
    const next = rowFrom(tasks, focus, by);
    setFocus({ id: tasks[next]!.id, at: next });
    rows.scrollToIndex(next);
    // once it is drawn
    requestAnimationFrame(() => scroller.current?.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus());
  };
  // nothing is done to a task that has no focus, or is out of sight
  const withFocused = (run: (task: Task) => void) => () => {
    if (focus.id !== null && shown.some(({ index }) => index === focus.at)) run(tasks[focus.at]!);
  };
  const changing: Action[] = [
    { id: 'select', keys: 'x', run: withFocused((task) => selection.toggle(task, false)) },
    { id: 'complete', keys: 'c', run: withFocused((task) => void moveTo(task, 'completed')) },
    { id: 'start', keys: 's', run: withFocused((task) => void moveTo(task, 'in_progress')) },
    {
      id: 'delete',
      keys: 'Delete',
      run: withFocused((task) => void carryOut([{ type: 'DeleteTask', task_id: task.id }], t.deleted(1))),
    },
  ];
  useActions([
    { id: 'next', keys: 'j', run: () => move(1) },
    { id: 'previous', keys: 'k', run: () => move(-1) },
    { id: 'open', keys: 'o', run: withFocused(open) },
    ...(past ? [] : changing),
  ]);
  return (
    <div
      ref={scroller}
      className={styles.rows}
      role="grid"
      aria-label={t.list}
      aria-rowcount={total}
      aria-multiselectable
      onKeyDown={(event) => {
        const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 }[event.key];
        if (!(event.target instanceof HTMLElement) || event.target.role !== 'row') return;
        if (by !== undefined) move(by);
        else if (event.key === 'Enter') withFocused(open)();
        else if (event.key === ' ' && !past) withFocused((task) => selection.toggle(task, event.shiftKey))();
        else return;
        event.preventDefault();
      }}
      onBlur={({ relatedTarget }) => {
        // a dialog, a menu and the panel are about the task that had it; another window takes nothing away
        if (!document.hasFocus() || relatedTarget?.closest('[role=grid], [role=dialog], [role=menu], aside')) return;
        setFocus(({ at }) => ({ id: null, at }));
      }}
    >
      <div role="presentation" className={styles.all} style={{ height: rows.getTotalSize() }}>
        {shown.map(({ index, start }) => {
          const task = tasks[index]!;
          return (
            <Row
              key={task.id}
              task={task}
              index={index}
              start={start}
              chosen={selection.has(task.id)}
              overdue={isOverdue(task)}
              past={past}
              isEntry={index === entry}
              focused={focused}
              toggle={toggle}
              open={open}
              pickTag={pickTag}
            />
          );
        })}
      </div>
    </div>
  );
}

interface RowProperties {
  task: Task;
  index: number;
  /** From the top, in CSS pixels. */
  start: number;
  chosen: boolean;
  overdue: boolean;
  past: boolean;
  /** Whether Tab leads to it. */
  isEntry: boolean;
  focused: (task: Task, index: number) => void;
  toggle: (task: Task, range: boolean) => void;
  open: (task: Task) => void;
  pickTag: (tag: string) => void;
}

/** Drawn anew only where it has changed, not whenever the list is scrolled. */
const Row = memo(function Row({ task, index, start, chosen, overdue, past, isEntry, focused, toggle, open, pickTag }: RowProperties) {
  const t = useTexts();
  return (
    <div
      role="row"
      aria-rowindex={index + 1}
      aria-selected={chosen}
      tabIndex={isEntry ? 0 : -1}
      data-index={index}
      data-status={task.status}
      className={styles.row}
      style={{ transform: `translateY(${start}px)`, height: ROW_PX }}
      onFocus={() => focused(task, index)}
    >
      <span role="gridcell" className={styles.check}>
        {!past && (
          <input
            type="checkbox"
            tabIndex={-1}
            checked={chosen}
            aria-label={t.selectTask(task.title)}
            onChange={() => {}}
            onClick={(event) => toggle(task, event.shiftKey)}
          />
        )}
      </span>
      <span role="gridcell" className={styles.stage}>
        <button
          type="button"
          tabIndex={-1}
          className={styles.icon}
          disabled={past}
          aria-label={`${task.title}: ${t.statuses[task.status]}`}
          title={isOpen(task) ? t.stageVerbs['completed'] : t.stageVerbs['pending']}
          onClick={() => void moveTo(task, isOpen(task) ? 'completed' : 'pending')}
        >
          <StatusIcon status={task.status} />
        </button>
      </span>
      <span role="gridcell" className={styles.titleCell}>
        <button type="button" tabIndex={-1} className={styles.title} onClick={() => open(task)}>
          <bdi>{task.title}</bdi>
        </button>
      </span>
      <span role="gridcell" className={styles.tagsCell}>
        {task.tags.slice(0, 3).map((tag) => (
          <button key={tag} type="button" tabIndex={-1} className={styles.chip} onClick={() => pickTag(tag)}>
            <bdi>#{tag}</bdi>
          </button>
        ))}
        {task.tags.length > 3 && <span className={styles.count}>+{task.tags.length - 3}</span>}
      </span>
      <span role="gridcell" className={styles.priority} data-priority={task.priority}>
        {task.priority !== 'medium' && t.priorities[task.priority]}
      </span>
      <span role="gridcell" className={styles.due} data-overdue={overdue || undefined}>
        {task.due_at && (
          <time dateTime={task.due_at} title={overdue ? t.overdue : undefined}>
            {dueText(task.due_at)}
          </time>
        )}
      </span>
      <span role="gridcell" className={styles.menuCell}>
        {!past && <TaskMenu task={task} tabIndex={-1} />}
      </span>
    </div>
  );
});
