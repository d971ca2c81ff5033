import { useSyncExternalStore } from 'react';
import { useTexts } from '../texts/index.ts';
import { newVersion } from './worker.ts';

/** The page goes on as it is until its person wants the new one. */
export function NewVersion() {
  const t = useTexts();
  const waiting = useSyncExternalStore(newVersion.onChange, newVersion.get);
  if (!waiting) return null;
  return (
    <button type="button" onClick={() => newVersion.load()}>
      {t.newVersion}
    </button>
  );
}
