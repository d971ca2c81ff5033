import { Menu } from '@base-ui/react/menu';
import { Ellipsis } from 'lucide-react';
import { useCallback, useRef, useState, type RefObject } from 'react';
import { useTexts } from '../texts/index.ts';
import { carryOut } from './commands.ts';
import { moveTo } from './moves.ts';
import { StatusIcon } from './StatusIcon.tsx';
import styles from './tasks.module.css';
import { STATUSES, type Task } from './values.ts';
import { stageChanges } from './shown.ts';

interface Place {
  text: string;
  run: () => void;
}

interface Properties {
  task: Task;
  /** Where it can be put. */
  places?: Place[];
  /** Of the button. */
  tabIndex?: number;
}

/** What can be done with one task. There is a button for each task, so the menu itself is made when it is opened. */
export function TaskMenu({ task, places = [], tabIndex }: Properties) {
  const t = useTexts();
  const button = useRef<HTMLButtonElement>(null);
  const [open, setOpen] = useState<boolean | null>(null);
  const byKey = useRef(false);
  const name = `${t.more}: ${task.title}`;
  return (
    <>
      <button
        ref={button}
        type="button"
        tabIndex={tabIndex}
        className={styles.icon}
        aria-label={name}
        aria-haspopup="menu"
        aria-expanded={open === true}
        // the focus stays in the menu: it would close, and be opened again by the same click
        onMouseDown={(event) => open && event.preventDefault()}
        onClick={({ detail }) => {
          byKey.current = detail === 0;
          setOpen(!open);
        }}
        onKeyDown={(event) => {
          if (event.key !== 'ArrowDown' || event.altKey) return;
          event.preventDefault();
          byKey.current = true;
          setOpen(true);
        }}
      >
        <Ellipsis size={16} aria-hidden />
      </button>
      {open !== null && <Commands task={task} places={places} name={name} button={button} open={open} byKey={byKey} setOpen={setOpen} />}
    </>
  );
}

interface CommandsProperties {
  task: Task;
  places: Place[];
  name: string;
  button: RefObject<HTMLButtonElement | null>;
  open: boolean;
  /** Whether it was opened by a key: then the first command has the focus. */
  byKey: RefObject<boolean>;
  setOpen: (open: boolean) => void;
}

function Commands({ task, places, name, button, open, byKey, setOpen }: CommandsProperties) {
  const t = useTexts();
  const stages = STATUSES.filter((status) => (stageChanges(task.status, status)?.length ?? 0) > 0);
  const appeared = useCallback(
    (popup: HTMLElement | null) => {
      if (popup && byKey.current) requestAnimationFrame(() => popup.querySelector<HTMLElement>('[role=menuitem]')?.focus());
    },
    [byKey],
  );
  return (
    <Menu.Root
      modal={false}
      open={open}
      onOpenChange={(next, { reason, event, cancel }) => {
        // the click that follows closes it
        if (reason === 'outside-press' && button.current?.contains(event.target as Node)) cancel();
        else setOpen(next);
      }}
    >
      <Menu.Portal>
        <Menu.Positioner anchor={button} sideOffset={4} align="end" className={styles.positioner}>
          <Menu.Popup ref={appeared} className={styles.menu} aria-label={name} finalFocus={button}>
            {stages.map((status) => (
              <Menu.Item key={status} className={styles.menuItem} onClick={() => void moveTo(task, status)}>
                <StatusIcon status={status} />
                <span className={styles.menuText}>{t.moveTo(t.statuses[status]!)}</span>
              </Menu.Item>
            ))}
            {places.map(({ text, run }) => (
              <Menu.Item key={text} className={styles.menuItem} onClick={run}>
                <span className={styles.menuText}>{text}</span>
              </Menu.Item>
            ))}
            <Menu.Separator className={styles.separator} />
            <Menu.Item
              className={styles.menuItem}
              data-danger
              onClick={() => void carryOut([{ type: 'DeleteTask', task_id: task.id }], t.deleted(1))}
            >
              <span className={styles.menuText}>{t.delete}</span>
            </Menu.Item>
          </Menu.Popup>
        </Menu.Positioner>
      </Menu.Portal>
    </Menu.Root>
  );
}
