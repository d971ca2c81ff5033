import { X } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { useActions } from '../shell/shortcuts.ts';
import { useTexts } from '../texts/index.ts';
import { BATCH_MAX, carryOut, changeAll } from './commands.ts';
import type { Filter } from './filter.ts';
import type { Change } from './shown.ts';
import { TagInput } from './TagInput.tsx';
import styles from './tasks.module.css';
import { PRIORITIES, type Priority, type Task } from './values.ts';

export interface Selection {
  /** All that match, loaded or not. */
  all: boolean;
  ids: ReadonlySet<string>;
  has: (id: string) => boolean;
  /** With `range`: all from the last one to this one. */
  toggle: (task: Task, range: boolean) => void;
  selectAll: () => void;
  clear: () => void;
}

/** Of these tasks; another filter is another selection. */
export function useSelection(tasks: Task[], filter: string): Selection {
  const [ids, setIds] = useState<ReadonlySet<string>>(new Set());
  const [all, setAll] = useState(false);
  const last = useRef<string | null>(null);
  const clear = () => {
    setIds(new Set());
    setAll(false);
    last.current = null;
  };
  useEffect(clear, [filter]);
  const toggle = (task: Task, range: boolean) => {
    const next = new Set(all ? tasks.map(({ id }) => id) : ids);
    const from = range ? tasks.findIndex(({ id }) => id === last.current) : -1;
    const to = tasks.indexOf(task);
    if (from >= 0) for (const { id } of tasks.slice(Math.min(from, to), Math.max(from, to) + 1)) next.add(id);
    else if (!next.delete(task.id)) next.add(task.id);
    last.current = task.id;
    setAll(false);
    setIds(next);
  };
  return { all, ids, has: (id) => all || ids.has(id), toggle, selectAll: () => setAll(true), clear };
}

/** What can be done with the selected tasks, by one command. */
export function SelectionBar({ selection, total, filter }: { selection: Selection; total: number; filter: Filter }) {
  const t = useTexts();
  useActions([{ id: 'selectAll', keys: 'a', run: selection.selectAll }]);
  const { all, ids, clear } = selection;
  if (!all && ids.size === 0) return null;
  const number = (n: number) => n.toLocaleString(document.documentElement.lang);
  const tooMany = !all && ids.size > BATCH_MAX;

  const change = (change: Change, said: (n: number) => string = t.changed) => {
    clear();
    if (all) return void changeAll(filter, change);
    void carryOut([...ids].map((task_id) => ({ ...change, task_id })), said(ids.size));
  };
  return (
    <div className={styles.selection} role="region" aria-label={t.selected(number(all ? total : ids.size))}>
      <strong>{t.selected(number(all ? total : ids.size))}</strong>
      {!all && ids.size < total && (
        <button type="button" className={styles.quiet} onClick={selection.selectAll}>
          {t.selectAll(number(total))}
        </button>
      )}
      {tooMany ? (
        <span role="alert">{t.tooMany}</span>
      ) : (
        <span className={styles.selectionActions}>
          <button type="button" onClick={() => change({ type: 'CompleteTask' })}>
            {t.stageVerbs['completed']}
          </button>
          <button type="button" onClick={() => change({ type: 'StartTask' })}>
            {t.stageVerbs['in_progress']}
          </button>
          <button type="button" onClick={() => change({ type: 'ReopenTask' })}>
            {t.stageVerbs['pending']}
          </button>
          <select
            aria-label={t.priority}
            value=""
            onChange={(event) => change({ type: 'ReprioritizeTask', priority: event.target.value as Priority })}
          >
            <option value="" disabled>
              {t.priority}
            </option>
            {PRIORITIES.map((priority) => (
              <option key={priority} value={priority}>
                {t.priorities[priority]}
              </option>
            ))}
          </select>
          <TagInput add={(tag) => change({ type: 'TagTask', tags: [tag] })} />
          <button type="button" data-danger onClick={() => change({ type: 'DeleteTask' }, t.deleted)}>
            {t.delete}
          </button>
        </span>
      )}
      <button type="button" className={styles.icon} aria-label={t.clearSelection} onClick={clear}>
        <X size={16} aria-hidden />
      </button>
    </div>
  );
}
