import { lazy, Suspense, useEffect, useRef, useState, useSyncExternalStore } from 'react';
import styles from '../shell/shell.module.css';
import { useTexts } from '../texts/index.ts';
import { outbox } from './kept.ts';
import type { Asked, Refused } from './outbox.ts';

const Decisions = lazy(() => import('./Decisions.tsx'));

/** What waits for the server, and what waits for the person. */
export function Waiting() {
  const t = useTexts();
  const entries = useSyncExternalStore(outbox.onChange, outbox.get);
  const queue = entries.filter((entry) => entry.kind === 'commands' || entry.kind === 'undo');
  // what is just being sent is no news
  const waiting = queue.some(({ tries }) => tries > 0) ? queue.length : 0;
  const toDecide = entries.filter((entry): entry is Asked | Refused => entry.kind === 'question' || entry.kind === 'refused');
  const [open, setOpen] = useState(false);
  const seen = useRef(0);
  useEffect(() => {
    // a question is asked once by itself, and then it waits
    if (toDecide.length > seen.current && document.visibilityState === 'visible') setOpen(true);
    if (toDecide.length === 0) setOpen(false);
    seen.current = toDecide.length;
  }, [toDecide.length]);
  return (
    <>
      <p className={styles.waiting} role="status">
        {waiting > 0 && t.waiting(waiting)}
      </p>
      {toDecide.length > 0 && (
        <button type="button" onClick={() => setOpen(true)}>
          {t.toDecide(toDecide.length)}
        </button>
      )}
      <Suspense>{open && <Decisions entries={toDecide} onClose={() => setOpen(false)} />}</Suspense>
    </>
  );
}
