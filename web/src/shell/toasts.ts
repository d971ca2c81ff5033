export interface Toast {
  text: string;
  action?: { text: string; run: () => void };
  failed?: boolean;
}

type Shown = Toast & { id: number };

const SHOWN_MS = 8_000;
/** At once; more than these wait for their turn. */
const SHOWN_MAX = 4;

const listeners = new Set<() => void>();
/** Of the shown ones, by id. */
const timers = new Map<number, ReturnType<typeof setTimeout>>();
let all: readonly Shown[] = [];
let shown: readonly Shown[] = [];
let lastId = 0;

/** Shows a message for a while, in place of the last one. One of a failure stays for its time whatever follows; the same twice is one. */
export function toast(next: Toast): void {
  const failures = all.filter(({ failed, text }) => failed && text !== next.text);
  const added = { ...next, id: ++lastId };
  show(next.failed ? [...failures, added] : [added, ...failures]);
}

export function dismiss(id: number): void {
  show(all.filter((known) => known.id !== id));
}

function show(next: readonly Shown[]) {
  all = next;
  shown = all.slice(0, SHOWN_MAX);
  for (const [id, timer] of timers) {
    if (shown.some((known) => known.id === id)) continue;
    clearTimeout(timer);
    timers.delete(id);
  }
  for (const { id, failed } of shown) {
    if (!timers.has(id)) timers.set(id, setTimeout(() => dismiss(id), failed ? 2 * SHOWN_MS : SHOWN_MS));
  }
  for (const tell of listeners) tell();
}

export const toasts = {
  get: (): readonly Shown[] => shown,
  onChange(tell: () => void): () => void {
    listeners.add(tell);
    return () => listeners.delete(tell);
  },
};
