import { Plus } from 'lucide-react';
import { useEffect, useRef, useState } from 'react';
import { preferences } from '../shell/preferences.ts';
import { useActions } from '../shell/shortcuts.ts';
import { useTexts } from '../texts/index.ts';
import { carryOut } from './commands.ts';
import { uuid } from './ids.ts';
import { loadDates, parseQuickAdd, type FindDate } from './quick-add.ts';
import styles from './tasks.module.css';
import { dueText, inputTime, timeOfInput } from './times.ts';

/** Of the API. */
const TITLE_LENGTH_MAX = 200;

/** It knows this machine's time zone only: what is the clock there is the one here for as long as it looks. */
function inTimeZone(find: FindDate): FindDate {
  return (text, now) => {
    const found = find(text, new Date(inputTime(now.toISOString())));
    if (!found) return null;
    const { date } = found;
    const wall = new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
    return { ...found, date: timeOfInput(wall) };
  };
}

export function QuickAdd() {
  const t = useTexts();
  const [text, setText] = useState('');
  const [findDate, setFindDate] = useState<FindDate | null>(null);
  const input = useRef<HTMLInputElement>(null);
  const { language } = preferences.get();
  useActions([{ id: 'add', keys: 'n', run: () => input.current?.focus() }]);
  const wanted = text !== '';
  useEffect(() => {
    let current = true;
    // without it a date stays in the title
    if (wanted) loadDates(language).then((find) => current && setFindDate(() => inTimeZone(find)), () => {});
    return () => {
      current = false;
    };
  }, [wanted, language]);
  const task = parseQuickAdd(text, new Date(), findDate);

  async function add() {
    if (task.title === '') return;
    setText('');
    // who types faster than it loads waits for it
    const find = findDate ?? (await loadDates(language).then(inTimeZone, () => null));
    const { title, tags, priority, due_at } = parseQuickAdd(text, new Date(), find);
    const command = {
      type: 'CreateTask' as const,
      task_id: uuid(),
      title,
      ...(tags.length > 0 && { tags }),
      ...(priority && { priority }),
      ...(due_at && { due_at }),
    };
    // what was refused can be mended
    if (!(await carryOut([command], t.created(title)))) setText((now) => now || text);
  }

  return (
    <form
      className={styles.quickAdd}
      onSubmit={(event) => {
        event.preventDefault();
        void add();
      }}
    >
      <Plus size={18} aria-hidden />
      <input
        ref={input}
        aria-label={t.addTask}
        placeholder={`${t.addTask}: ${t.addHint}`}
        value={text}
        maxLength={2 * TITLE_LENGTH_MAX}
        autoComplete="off"
        onChange={(event) => setText(event.target.value)}
      />
      <span className={styles.parsed} aria-live="polite">
        {task.chips.map(({ kind, text }) => (
          <span key={`${kind} ${text}`} className={styles.chip} data-kind={kind}>
            {kind === 'due' && task.due_at ? dueText(task.due_at) : kind === 'priority' ? t.priorities[text] : `#${text}`}
          </span>
        ))}
      </span>
      {text !== '' && (
        <button type="submit" className={styles.addButton}>
          {t.add}
        </button>
      )}
    </form>
  );
}
