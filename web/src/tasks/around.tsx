// What a view of tasks has around it, as they are now and as they were at another time.

import { Suspense } from 'react';
import { PastPanel, TimeBar } from '../history/past.ts';
import { TaskPanel } from './panel.ts';
import { QuickAdd } from './QuickAdd.tsx';

interface AboveProperties {
  /** Another time than now. */
  asOf: string | undefined;
  loading: boolean;
  toTime: (asOf: string | undefined) => void;
  open: (id: string) => void;
}

/** Where a time is looked at, its bar; else the line for a new task. */
export function Above({ asOf, loading, toTime, open }: AboveProperties) {
  if (!asOf) return <QuickAdd />;
  return (
    <Suspense>
      <TimeBar asOf={asOf} loading={loading} change={toTime} open={open} />
    </Suspense>
  );
}

interface BesideProperties {
  /** Of the task that is open. */
  id: string | undefined;
  asOf: string | undefined;
  toNow: () => void;
  close: () => void;
}

/** The task that is open. */
export function Beside({ id, asOf, toNow, close }: BesideProperties) {
  return (
    <Suspense>
      {id && asOf && <PastPanel key={id} id={id} asOf={asOf} toNow={toNow} onClose={close} />}
      {id && !asOf && <TaskPanel key={id} id={id} onClose={close} />}
    </Suspense>
  );
}
