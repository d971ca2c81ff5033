import { useQuery } from '@tanstack/react-query';
import { X } from 'lucide-react';
import { useEffect, useRef, useState, type FocusEvent, type KeyboardEvent } from 'react';
import { taskQuery } from '../api/queries.ts';
import { TaskHistory } from '../history/TaskHistory.tsx';
import { useTexts } from '../texts/index.ts';
import { carryOut, problemText } from './commands.ts';
import { moveTo } from './moves.ts';
import { stageChanges, type Change } from './shown.ts';
import { StatusIcon } from './StatusIcon.tsx';
import { TagInput } from './TagInput.tsx';
import styles from './tasks.module.css';
import { inputTime, timeOfInput } from './times.ts';
import { PRIORITIES, STATUSES, type Priority, type Task } from './values.ts';

/** One task beside the list: every field can be changed in place. */
export function TaskPanel({ id, onClose }: { id: string; onClose: () => void }) {
  const t = useTexts();
  const { data: task, error } = useQuery(taskQuery(id));
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    panel.current?.focus();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <aside
      ref={panel}
      className={styles.panel}
      aria-label={task?.title ?? t.loading}
      tabIndex={-1}
      onKeyDown={(event) => event.key === 'Escape' && !event.defaultPrevented && onClose()}
    >
      <h1 className={styles.hidden}>{task?.title}</h1>
      <button type="button" className={styles.panelClose} aria-label={t.close} onClick={onClose}>
        <X size={18} aria-hidden />
      </button>
      {error && <p role="alert">{error && 'status' in error && error.status === 404 ? t.taskGone : problemText(error)}</p>}
      {!task && !error && <p>{t.loading}</p>}
      {task && <Fields task={task} onClose={onClose} />}
    </aside>
  );
}

function Fields({ task, onClose }: { task: Task; onClose: () => void }) {
  const t = useTexts();
  // `seen`: as it was when the writing began; what somebody else has changed since is not written over
  const change = (change: Change, seen?: Task) => void carryOut([{ ...change, task_id: task.id }], t.changed(1), { seen });
  return (
    <>
      <Text
        label={t.title}
        task={task}
        valueOf={({ title }) => title}
        lengthMax={200}
        save={(title, seen) => title.trim() && change({ type: 'RenameTask', title }, seen)}
      />
      <div className={styles.stages} role="group" aria-label={t.status}>
        {STATUSES.map((status) => (
          <button
            key={status}
            type="button"
            aria-pressed={task.status === status}
            disabled={stageChanges(task.status, status) === null}
            onClick={() => void moveTo(task, status)}
          >
            <StatusIcon status={status} />
            {t.statuses[status]}
          </button>
        ))}
      </div>
      <div className={styles.pair}>
        <label className={styles.field}>
          <span>{t.priority}</span>
          <select
            value={task.priority}
            onChange={(event) => change({ type: 'ReprioritizeTask', priority: event.target.value as Priority })}
          >
            {PRIORITIES.map((priority) => (
              <option key={priority} value={priority}>
                {t.priorities[priority]}
              </option>
            ))}
          </select>
        </label>
        <Due task={task} save={(due_at, seen) => change({ type: 'ScheduleTask', due_at }, seen)} />
      </div>
      <div className={styles.field} role="group" aria-label={t.tags}>
        <span>{t.tags}</span>
        <div className={styles.tagList}>
          {task.tags.map((name) => (
            <span key={name} className={styles.chip}>
              <bdi>#{name}</bdi>
              <button type="button" aria-label={t.removeTag(name)} onClick={() => change({ type: 'UntagTask', tags: [name] })}>
                <X size={12} aria-hidden />
              </button>
            </span>
          ))}
          <TagInput add={(tag) => change({ type: 'TagTask', tags: [tag] })} />
        </div>
      </div>
      <Text
        label={t.description}
        task={task}
        valueOf={({ description }) => description ?? ''}
        lengthMax={10_000}
        long
        save={(text, seen) => change({ type: 'DescribeTask', description: text || null }, seen)}
      />
      <div className={styles.panelActions}>
        <button
          type="button"
          data-danger
          onClick={() => {
            onClose();
            void carryOut([{ type: 'DeleteTask', task_id: task.id }], t.deleted(1));
          }}
        >
          {t.delete}
        </button>
      </div>
      <TaskHistory task={task} />
    </>
  );
}

interface TextProperties {
  label: string;
  task: Task;
  valueOf: (task: Task) => string;
  /** Of the API. */
  lengthMax: number;
  long?: boolean;
  /** `seen`: the task as it was when the writing began. */
  save: (text: string, seen: Task) => void;
}

/** Saved when it is left; Escape brings back what was there. What is being written stays, whatever others change meanwhile. */
function Text({ label, task, valueOf, lengthMax, long, save }: TextProperties) {
  const [draft, setDraft] = useState<{ text: string; seen: Task } | null>(null);
  const properties = {
    value: draft?.text ?? valueOf(task),
    maxLength: lengthMax,
    'aria-label': label,
    dir: 'auto' as const,
    onChange: (event: { target: { value: string } }) => setDraft({ text: event.target.value, seen: draft?.seen ?? task }),
    onBlur: () => {
      if (draft && draft.text !== valueOf(draft.seen)) save(draft.text, draft.seen);
      setDraft(null);
    },
  };
  const escape = (event: KeyboardEvent) => {
    if (event.key !== 'Escape' || !draft) return;
    event.preventDefault();
    setDraft(null);
  };
  if (!long) {
    return (
      <input
        {...properties}
        className={styles.titleInput}
        onKeyDown={(event) => (event.key === 'Enter' ? event.currentTarget.blur() : escape(event))}
      />
    );
  }
  return (
    <label className={styles.field}>
      <span>{label}</span>
      <textarea {...properties} rows={5} onKeyDown={escape} />
    </label>
  );
}

/** Saved when it is left, as a text is; what is no date yet stays, and it is said that it is not saved. */
function Due({ task, save }: { task: Task; save: (due: string | null, seen: Task) => void }) {
  const t = useTexts();
  const [draft, setDraft] = useState<{ text: string; seen: Task } | null>(null);
  const [isPartial, setPartial] = useState(false);
  const text = draft?.text ?? inputTime(task.due_at);
  const leave = ({ currentTarget: { validity } }: FocusEvent<HTMLInputElement>) => {
    setPartial(validity.badInput);
    if (!draft || validity.badInput) return;
    if (text !== inputTime(draft.seen.due_at)) save(text ? timeOfInput(text).toISOString() : null, draft.seen);
    setDraft(null);
  };
  const bringBack = (event: KeyboardEvent<HTMLInputElement>) => {
    const input = event.currentTarget;
    if (event.key !== 'Escape' || !draft || (text === inputTime(draft.seen.due_at) && !input.validity.badInput)) return;
    event.preventDefault();
    // what is no date yet is nothing that React knows of
    input.value = inputTime(task.due_at);
    setPartial(false);
    setDraft({ text: input.value, seen: task });
  };
  return (
    <label className={styles.field}>
      <span>{t.due}</span>
      <input
        type="datetime-local"
        value={text}
        max="9999-12-31T23:59"
        aria-invalid={isPartial}
        onFocus={() => setDraft((now) => now ?? { text, seen: task })}
        onChange={({ target }) => setDraft({ text: target.value, seen: draft?.seen ?? task })}
        onKeyDown={bringBack}
        onBlur={leave}
      />
      {isPartial && (
        <span role="alert" className={styles.wrong}>
          {t.partialDue}
        </span>
      )}
    </label>
  );
}
