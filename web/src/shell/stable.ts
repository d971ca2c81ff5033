import { useCallback, useLayoutEffect, useRef } from 'react';

/** One function for as long as the component is there, which does what `act` of the last render does: what takes it need not be drawn anew. */
export function useStable<A extends unknown[], R>(act: (...of: A) => R): (...of: A) => R {
  const latest = useRef(act);
  useLayoutEffect(() => {
    latest.current = act;
  });
  return useCallback((...of: A) => latest.current(...of), []);
}
