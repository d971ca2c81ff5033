// The order that people give by hand. A rank is a text of the digits below, compared as bytes: read it as a fraction, and there
// is room between any two. Tasks without one come last.

import type { Task } from './values.ts';

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
/** Of the API. */
const RANK_LENGTH_MAX = 64;

export type Ranked = Pick<Task, 'id' | 'rank'>;

/** As the API orders them. */
export function byRank(a: Ranked, b: Ranked): number {
  if (a.rank !== b.rank) {
    if (a.rank === null) return 1;
    if (b.rank === null) return -1;
    return a.rank < b.rank ? -1 : 1;
  }
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/**
 * The ranks to give so that `moved` stands at `index` of the others, which are in order: its own, and those of others where
 * they have none yet, or where there is no room.
 */
export function ranksFor(moved: string, others: readonly Ranked[], index: number): { id: string; rank: string }[] {
  // of these, those before the moved one and those after it get a new one
  let from = index;
  let to = index;
  while (from > 0 && others[from - 1]!.rank === null) from--;
  for (let more = 1; ; more *= 2) {
    const low = from > 0 ? others[from - 1]!.rank : '';
    const high = others[to]?.rank ?? null;
    if (low !== null && (high === null || low < high)) {
      const ids = [...others.slice(from, index).map(({ id }) => id), moved, ...others.slice(index, to).map(({ id }) => id)];
      const ranks = between(low, high, ids.length);
      // from the first to the last there is always room
      const all = from === 0 && to === others.length;
      if (all || ranks.every(({ length }) => length <= RANK_LENGTH_MAX)) return ids.map((id, at) => ({ id, rank: ranks[at]! }));
    }
    from = Math.max(0, from - more);
    to = Math.min(others.length, to + more);
  }
}

/** So many between two ranks, in order; `''` is before all of them, null after. */
function between(low: string, high: string | null, count: number): string[] {
  if (count === 0) return [];
  const middle = middleOf(low, high);
  const before = Math.floor((count - 1) / 2);
  return [...between(low, middle, before), middle, ...between(middle, high, count - 1 - before)];
}

/** About half-way between, and as short as that can be. */
function middleOf(low: string, high: string | null): string {
  let middle = '';
  for (let at = 0; ; at++) {
    const floor = DIGITS.indexOf(low[at] ?? '0');
    const ceiling = high === null ? DIGITS.length : DIGITS.indexOf(high[at] ?? '0');
    const digit = Math.floor((floor + ceiling) / 2);
    if (digit > floor) return middle + DIGITS[digit];
    middle += DIGITS[floor];
    // below the ceiling now: whatever follows stays below it
    if (floor < ceiling) high = null;
  }
}
