// One registry for shortcuts, the palette and the help.

import { useEffect, useLayoutEffect, useRef, useSyncExternalStore } from 'react';
import { matchKeyBindingPress, parseKeybinding, type KeyBindingPress } from 'tinykeys';
import { preferences } from './preferences.ts';

export interface Action {
  /** Its name is the text of this id. */
  id: string;
  /** As tinykeys writes them, `$mod` being Ctrl or ⌘; none: only in the palette. */
  keys?: string;
  run: () => void;
}

let registered: readonly Action[] = [];
const listeners = new Set<() => void>();

function change(next: readonly Action[]) {
  registered = next;
  for (const tell of listeners) tell();
}

/** Registers them while the component is shown. What comes later wins over the same id. */
export function useActions(actions: Action[]): void {
  const latest = useRef(actions);
  useLayoutEffect(() => {
    latest.current = actions;
  });
  const names = actions.map(({ id, keys }) => `${id} ${keys}`).join();
  useEffect(() => register(() => latest.current), [names]);
}

/** These ids and keys, until what is returned is called; each runs what `actions` has under its id by then. */
export function register(actions: () => readonly Action[]): () => void {
  const mine = actions().map(({ run: _, ...action }): Action => ({ ...action, run: () => actions().find(({ id }) => id === action.id)?.run() }));
  change([...registered, ...mine]);
  return () => change(registered.filter((action) => !mine.includes(action)));
}

export const allRegistered = {
  get: (): readonly Action[] => registered,
  onChange(tell: () => void): () => void {
    listeners.add(tell);
    return () => listeners.delete(tell);
  },
};

/** What can be done now, by id. */
export function useAllActions(): Action[] {
  const all = useSyncExternalStore(allRegistered.onChange, allRegistered.get);
  return [...new Map(all.map((action) => [action.id, action])).values()];
}

/** Whether keys typed there are text. */
function isText(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || target.matches('input:not([type=checkbox]), textarea, select'));
}

const isSingle = (keys: string) => !keys.includes('$mod');

/** Between two keys of a sequence, in milliseconds. */
const SEQUENCE_MS_MAX = 1_000;

/** Listens for all of them, once for the page. */
export function listen(): () => void {
  // sequences of which a part was pressed, with what is left of them
  let begun: Begun[] = [];
  let begunAt = 0;
  const handle = (event: KeyboardEvent) => {
    if (['Shift', 'Control', 'Alt', 'Meta'].includes(event.key)) return;
    const pressed = ({ left: [next] }: Begun) => next !== undefined && matchKeyBindingPress(event, next);
    const late = event.timeStamp - begunAt > SEQUENCE_MS_MAX;
    let matching = late ? [] : begun.filter(pressed);
    // a key that goes on with a sequence does nothing else
    if (matching.length === 0) matching = usable(event).filter(pressed);
    begun = matching.map(({ run, left }) => ({ run, left: left.slice(1) }));
    begunAt = event.timeStamp;
    const whole = begun.findLast(({ left }) => left.length === 0);
    if (!whole) return;
    begun = [];
    event.preventDefault();
    whole.run();
  };
  addEventListener('keydown', handle);
  return () => removeEventListener('keydown', handle);
}

interface Begun {
  run: () => void;
  left: KeyBindingPress[];
}

function usable(event: KeyboardEvent): Begun[] {
  const typing = isText(event.target);
  // keys belong to the dialog or the menu that is open
  const covered = document.querySelector('[role=dialog][data-modal], [role=menu]') !== null;
  const single = preferences.get().singleKeys && !typing && !covered;
  return registered
    .filter(({ keys }) => keys && (isSingle(keys) ? single : !typing || keys === '$mod+k'))
    .map(({ keys, run }) => ({ run, left: parseKeybinding(keys!) }));
}

/** As people read it. */
export function keysShown(keys: string): string {
  const mac = navigator.platform.startsWith('Mac');
  return keys
    .replace('$mod', mac ? '⌘' : 'Ctrl')
    .split('+')
    .map((key) => (key.length === 1 ? key.toUpperCase() : key))
    .join(mac ? '' : '+');
}
