import { draggable, dropTargetForElements } from '@atlaskit/pragmatic-drag-and-drop/element/adapter';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useVirtualizer, type VirtualItem } from '@tanstack/react-virtual';
import { memo, useCallback, useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import { facetsQuery, listQuery } from '../api/queries.ts';
import { useStable } from '../shell/stable.ts';
import { useTexts } from '../texts/index.ts';
import { Above, Beside } from './around.tsx';
import { columnsOf } from './columns.ts';
import { problemText } from './commands.ts';
import { BOARD_SORT_DEFAULT, type View } from './filter.ts';
import { moveTo, placeAt } from './moves.ts';
import { StatusIcon } from './StatusIcon.tsx';
import { TaskMenu } from './TaskMenu.tsx';
import styles from './tasks.module.css';
import { dueText } from './times.ts';
import { isOverdue, STATUSES, type Status, type Task } from './values.ts';
import { ViewBar } from './ViewBar.tsx';

const route = getRouteApi('/inside/board');
/** Before it is measured, in CSS pixels. */
const CARD_PX = 76;
const GAP_PX = 6;
/** Cards before the end at which the next page is asked for. */
const AHEAD_CARDS = 40;
/** For so long a card that was moved by a key keeps the focus, wherever it is drawn. */
const FOCUS_KEPT_MS = 2_000;

/** Where cards can go. */
interface Moves {
  /** Whether cards of a column stand in the order that people give them. */
  byHand: boolean;
  /** Of another time than now: none can be moved. */
  past: boolean;
  /** Before the card that is at `index` now, or after the last one. */
  place: (task: Task, status: Status, index: number) => void;
  /** The card that was moved by a key. */
  keepFocus: (task: Task) => void;
  hasFocus: (task: Task) => boolean;
}

/** Tasks by their stage; a card is moved by hand, by Alt and an arrow, or by its menu. */
export function BoardPage() {
  const t = useTexts();
  const { status: _, ...view } = route.useSearch();
  const navigate = route.useNavigate();
  const change = (next: Partial<View>) => void navigate({ search: (now) => ({ ...now, ...next }), replace: 'q' in next });
  const sort = view.sort ?? BOARD_SORT_DEFAULT;
  const byHand = sort === 'rank';
  // always as many
  const lists = STATUSES.map((status) => useInfiniteQuery(listQuery({ ...view, status, sort })));
  const known = lists.map(({ data }) => data);
  const { as_of: asOf } = view;
  const toTime = useCallback((as_of: string | undefined) => void navigate({ search: (now) => ({ ...now, as_of }), replace: true }), [navigate]);
  const fetching = lists.some(({ isFetching }) => isFetching);
  const moved = useRef<Task[]>([]);
  const keeps = fetching && moved.current.length > 0;
  const columns = useMemo(() => {
    const tasks = known.map((list) => list?.pages.flatMap(({ items }) => items) ?? []);
    const now = columnsOf(tasks, byHand, keeps ? moved.current : []);
    moved.current = now.moved;
    return now.columns;
  }, [...known, byHand, keeps]);
  const kept = useRef<{ id: string; until: number }>(undefined);
  const place = useStable((task: Task, status: Status, index: number) => {
    const others = columns[status].filter(({ id }) => id !== task.id);
    const now = columns[status].findIndex(({ id }) => id === task.id);
    const at = now >= 0 && now < index ? index - 1 : index;
    if (at !== now && at >= 0 && at <= others.length) void placeAt(task, status, others, at);
  });
  const past = asOf !== undefined;
  const moves = useMemo(
    (): Moves => ({
      byHand,
      past,
      place,
      keepFocus: ({ id }) => {
        kept.current = { id, until: Date.now() + FOCUS_KEPT_MS };
      },
      hasFocus: ({ id }) => kept.current?.id === id && Date.now() < kept.current.until,
    }),
    [byHand, past, place],
  );
  const open = useStable((task: Task) => change({ task: task.id }));
  const { data: facets } = useQuery(facetsQuery(view));
  return (
    <>
      <div className={styles.page} data-beside={view.task ? true : undefined}>
        <header className={styles.head}>
          <h1>{t.board}</h1>
        </header>
        <Above asOf={asOf} loading={lists.some(({ isPlaceholderData }) => isPlaceholderData)} toTime={toTime} open={(task) => change({ task })} />
        <ViewBar view={view} without={['status']} sortDefault={BOARD_SORT_DEFAULT} change={change} />
        <div className={styles.board}>
          {STATUSES.map((status, at) => {
            const { hasNextPage, isFetching, fetchNextPage, error } = lists[at]!;
            return (
              <Column
                key={status}
                status={status}
                tasks={columns[status]}
                count={facets?.by_status[status] ?? columns[status].length}
                error={error}
                nearEnd={() => hasNextPage && !isFetching && void fetchNextPage()}
                moves={moves}
                open={open}
              />
            );
          })}
        </div>
      </div>
      <Beside id={view.task} asOf={asOf} toNow={() => toTime(undefined)} close={() => change({ task: undefined })} />
    </>
  );
}

interface ColumnProperties {
  status: Status;
  tasks: Task[];
  count: number;
  error: Error | null;
  nearEnd: () => void;
  moves: Moves;
  open: (task: Task) => void;
}

function Column({ status, tasks, count, error, nearEnd, moves, open }: ColumnProperties) {
  const t = useTexts();
  const column = useRef<HTMLElement>(null);
  const scroller = useRef<HTMLUListElement>(null);
  // another function has all cards measured anew
  const keyOf = useCallback((index: number) => tasks[index]!.id, [tasks]);
  const cards = useVirtualizer({
    count: tasks.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => CARD_PX,
    overscan: 8,
    gap: GAP_PX,
    getItemKey: keyOf,
  });
  const shown = cards.getVirtualItems();
  const over = useDrops(column, scroller, status, moves, shown);
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last + AHEAD_CARDS >= tasks.length) nearEnd();
    // a card that was moved by a key may stand where none is drawn
    const focused = document.activeElement === document.body ? tasks.findIndex(moves.hasFocus) : -1;
    if (focused >= 0) cards.scrollToIndex(focused);
  });
  return (
    <section ref={column} className={styles.column} data-over={over !== null || undefined} aria-label={t.statuses[status]}>
      <h2>
        <StatusIcon status={status} />
        {t.statuses[status]}
        <span className={styles.count}>{count.toLocaleString(document.documentElement.lang)}</span>
      </h2>
      {error && tasks.length === 0 && <p role="alert">{problemText(error)}</p>}
      <ul ref={scroller} className={styles.cards} aria-label={t.statuses[status]} tabIndex={-1}>
        {tasks.length > 0 && <li aria-hidden role="presentation" className={styles.spacer} style={{ height: cards.getTotalSize() }} />}
        {shown.map(({ index, start }) => (
          <li
            key={tasks[index]!.id}
            ref={cards.measureElement}
            data-index={index}
            aria-setsize={count}
            aria-posinset={index + 1}
            className={styles.cardPlace}
            style={{ transform: `translateY(${start}px)` }}
          >
            <Card task={tasks[index]!} index={index} overdue={isOverdue(tasks[index]!)} moves={moves} open={open} />
          </li>
        ))}
        {over && moves.byHand && (
          <li aria-hidden role="presentation" className={styles.dropLine} style={{ transform: `translateY(${over.line}px)` }} />
        )}
      </ul>
    </section>
  );
}

/** Where a card that is held over the column would go, and how far from the top of the cards that is shown; null: none is. */
function useDrops(
  column: React.RefObject<HTMLElement | null>,
  scroller: React.RefObject<HTMLElement | null>,
  status: Status,
  moves: Moves,
  shown: VirtualItem[],
): { index: number; line: number } | null {
  const [over, setOver] = useState<{ index: number; line: number } | null>(null);
  const latest = useRef({ moves, shown });
  latest.current = { moves, shown };
  useEffect(() => {
    const placeAt = (clientY: number) => {
      const { top } = scroller.current!.getBoundingClientRect();
      const y = clientY - top + scroller.current!.scrollTop;
      const items = latest.current.shown;
      const next = items.find(({ start, size }) => y < start + size / 2);
      const end = items.at(-1);
      return next ? { index: next.index, line: next.start - GAP_PX / 2 } : { index: (end?.index ?? -1) + 1, line: (end?.end ?? 0) + GAP_PX / 2 };
    };
    const hold = (clientY: number) => {
      const next = placeAt(clientY);
      setOver((now) => (now?.index === next.index && now.line === next.line ? now : next));
    };
    return dropTargetForElements({
      element: column.current!,
      canDrop: ({ source }) => latest.current.moves.byHand || (source.data['task'] as Task | undefined)?.status !== status,
      onDragEnter: ({ location }) => hold(location.current.input.clientY),
      onDrag: ({ location }) => hold(location.current.input.clientY),
      onDragLeave: () => setOver(null),
      onDrop: ({ source, location }) => {
        setOver(null);
        const task = source.data['task'] as Task;
        const { moves } = latest.current;
        if (moves.byHand) moves.place(task, status, placeAt(location.current.input.clientY).index);
        else void moveTo(task, status);
      },
    });
  }, [column, scroller, status]);
  return over;
}

interface CardProperties {
  task: Task;
  index: number;
  overdue: boolean;
  moves: Moves;
  open: (task: Task) => void;
}

/** Drawn anew only where it has changed, not whenever its column is scrolled. */
const Card = memo(function Card({ task, index, overdue, moves, open }: CardProperties) {
  const t = useTexts();
  const card = useRef<HTMLDivElement>(null);
  const title = useRef<HTMLButtonElement>(null);
  const [dragged, setDragged] = useState(false);
  useEffect(
    () =>
      draggable({
        element: card.current!,
        canDrag: () => !moves.past,
        getInitialData: () => ({ task }),
        onDragStart: () => setDragged(true),
        onDrop: () => setDragged(false),
      }),
    [task, moves.past],
  );
  // drawn anew somewhere else, it has lost the focus
  useEffect(() => {
    if (document.activeElement === document.body && moves.hasFocus(task)) title.current?.focus();
  });
  const up = () => moves.place(task, task.status, index - 1);
  const down = () => moves.place(task, task.status, index + 2);
  const move = (event: KeyboardEvent) => {
    if (moves.past || !event.altKey || !event.key.startsWith('Arrow')) return;
    event.preventDefault();
    moves.keepFocus(task);
    const beside = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const to = beside === undefined ? undefined : STATUSES[STATUSES.indexOf(task.status) + beside];
    if (to) void moveTo(task, to);
    else if (moves.byHand && event.key === 'ArrowUp') up();
    else if (moves.byHand && event.key === 'ArrowDown') down();
  };
  const places = [
    { text: t.moveUp, run: up },
    { text: t.moveDown, run: down },
    { text: t.moveToTop, run: () => moves.place(task, task.status, 0) },
  ];
  return (
    <div ref={card} className={styles.card} data-dragged={dragged || undefined} data-status={task.status} onKeyDown={move}>
      <div className={styles.cardHead}>
        <button
          ref={title}
          type="button"
          className={styles.title}
          aria-keyshortcuts={`Alt+ArrowRight Alt+ArrowLeft${moves.byHand ? ' Alt+ArrowUp Alt+ArrowDown' : ''}`}
          onClick={() => open(task)}
        >
          <bdi>{task.title}</bdi>
        </button>
        {!moves.past && <TaskMenu task={task} {...(moves.byHand && { places })} />}
      </div>
      <p className={styles.cardFoot}>
        {task.priority !== 'medium' && (
          <span className={styles.priority} data-priority={task.priority}>
            {t.priorities[task.priority]}
          </span>
        )}
        {task.due_at && (
          <time dateTime={task.due_at} className={styles.due} data-overdue={overdue || undefined}>
            {dueText(task.due_at)}
          </time>
        )}
        {task.tags.slice(0, 3).map((tag) => (
          <bdi key={tag}>#{tag}</bdi>
        ))}
      </p>
    </div>
  );
});
