/** Takes what comes, and acts on all of it at once so long after the first of it. */
export function gathered<T>(ms: number, act: (all: T[]) => void): (one: T) => void {
  let all: T[] = [];
  return (one) => {
    all.push(one);
    if (all.length > 1) return;
    setTimeout(() => {
      const gathered = all;
      all = [];
      act(gathered);
    }, ms);
  };
}

/** Acts so long after it was wanted first, once for all who want it until then; for those who want it while it acts, once more. */
export function throttled(ms: number, act: () => Promise<unknown>): () => void {
  let busy = false;
  let again = false;
  const run = async () => {
    again = false;
    await act().catch(() => {});
    busy = false;
    if (again) want();
  };
  const want = () => {
    again = busy;
    if (busy) return;
    busy = true;
    setTimeout(() => void run(), ms);
  };
  return want;
}
