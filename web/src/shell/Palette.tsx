import { Dialog } from '@base-ui/react/dialog';
import { useState } from 'react';
import { useTexts } from '../texts/index.ts';
import styles from './shell.module.css';
import { keysShown, useAllActions, type Action } from './shortcuts.ts';

/** Everything that can be done here now, by its name. */
export function Palette({ open, onClose }: { open: boolean; onClose: () => void }) {
  const t = useTexts();
  return (
    <Dialog.Root open={open} onOpenChange={(next) => !next && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className={styles.backdrop} />
        <Dialog.Popup className={styles.palette} data-modal aria-label={t.palette}>
          <Commands onClose={onClose} />
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Commands({ onClose }: { onClose: () => void }) {
  const t = useTexts();
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const name = ({ id }: Action) => t.actions[id] ?? id;
  const words = text.toLowerCase().split(/\s+/);
  const found = useAllActions().filter(
    (action) => action.id !== 'palette' && words.every((word) => name(action).toLowerCase().includes(word)),
  );
  const run = (action: Action | undefined) => {
    if (!action) return;
    onClose();
    // after the dialog has given the focus back
    setTimeout(action.run);
  };
  const move = (by: number) => setAt((now) => Math.max(0, Math.min(found.length - 1, now + by)));
  return (
    <>
      <input
        className={styles.paletteInput}
        autoFocus
        role="combobox"
        aria-expanded
        aria-controls="commands"
        aria-activedescendant={found[at] && `command-${found[at].id}`}
        aria-label={t.paletteHint}
        placeholder={t.paletteHint}
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setAt(0);
        }}
        onKeyDown={(event) => {
          if (event.key === 'ArrowDown') move(1);
          else if (event.key === 'ArrowUp') move(-1);
          else if (event.key === 'Enter') run(found[at]);
          else return;
          event.preventDefault();
        }}
      />
      <ul id="commands" role="listbox" aria-label={t.palette} className={styles.commands}>
        {found.map((action, index) => (
          <li
            key={action.id}
            id={`command-${action.id}`}
            role="option"
            aria-selected={index === at}
            onMouseMove={() => setAt(index)}
            onClick={() => run(action)}
          >
            <span>{name(action)}</span>
            {action.keys && <kbd>{keysShown(action.keys)}</kbd>}
          </li>
        ))}
      </ul>
      {found.length === 0 && <p className={styles.nothing}>{t.nothingFound}</p>}
    </>
  );
}
