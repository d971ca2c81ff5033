import { expect, test } from 'vitest';
import { byRank, ranksFor, type Ranked } from './ranks.ts';

const named = (...ranks: (string | null)[]): Ranked[] => ranks.map((rank, at) => ({ id: `t${String(at).padStart(5, '0')}`, rank }));

/** All of them as they stand after the move, and how many ranks were given. */
function moved(others: Ranked[], index: number): { ids: string[]; given: number; longest: number } {
  const given = new Map(ranksFor('new', others, index).map(({ id, rank }) => [id, rank]));
  const all = [...others, { id: 'new', rank: null }].map((task) => ({ ...task, rank: given.get(task.id) ?? task.rank }));
  for (const rank of given.values()) expect(rank).toMatch(/^[0-9A-Za-z]*[1-9A-Za-z]$/);
  const longest = Math.max(...[...given.values()].map(({ length }) => length));
  return { ids: all.sort(byRank).map(({ id }) => id), given: given.size, longest };
}

function expected(others: Ranked[], index: number): string[] {
  return others.map(({ id }) => id).toSpliced(index, 0, 'new');
}

test('between two that have a rank only the moved one gets one', () => {
  for (const others of [named(), named('V'), named('1', '2'), named('0001', '0002', 'z', 'zz', 'zzz'), named('A', 'A1', 'B', null)]) {
    for (let index = 0; index <= others.filter(({ rank }) => rank !== null).length; index++) {
      const { ids, given } = moved(others, index);
      expect(ids).toEqual(expected(others, index));
      expect(given).toBe(1);
    }
  }
});

test('those before it that have no rank get one, those after it keep none', () => {
  const others = named('V', null, null, null, null);
  for (let index = 1; index <= 5; index++) {
    const { ids, given } = moved(others, index);
    expect(ids).toEqual(expected(others, index));
    expect(given).toBe(index);
  }
});

test('equal ranks and such as leave no room are renumbered, no more than needed', () => {
  const equal = named('A', 'B', 'B', 'B', 'C');
  for (let index = 0; index <= 5; index++) expect(moved(equal, index).ids).toEqual(expected(equal, index));
  const full = named('A', `B${'0'.repeat(62)}1`, `B${'0'.repeat(62)}2`, 'C', 'D', 'E', 'F', 'G');
  const { ids, given, longest } = moved(full, 2);
  expect(ids).toEqual(expected(full, 2));
  expect(given).toBeLessThan(5);
  expect(longest).toBeLessThanOrEqual(64);
});

test('a long column without ranks gets short ones', () => {
  const others = named(...Array.from({ length: 9_999 }, () => null));
  const { ids, longest } = moved(others, 9_999);
  expect(ids).toEqual(expected(others, 9_999));
  expect(longest).toBeLessThanOrEqual(4);
});

test('whatever is moved again and again stands where it was put, with ranks that the API takes', () => {
  let random = 1;
  const next = (below: number) => (random = (random * 48_271) % 2_147_483_647) % below;
  for (const place of [() => 0, (n: number) => n, (n: number) => Math.min(1, n), (n: number) => next(n + 1)]) {
    let tasks: Ranked[] = [];
    for (let n = 0; n < 450; n++) {
      const index = place(tasks.length);
      const id = `m${n}`;
      const given = new Map(ranksFor(id, tasks, index).map(({ id, rank }) => [id, rank]));
      const order = tasks.toSpliced(index, 0, { id, rank: null }).map((task) => ({ ...task, rank: given.get(task.id) ?? task.rank }));
      tasks = order.toSorted(byRank);
      expect(tasks).toEqual(order);
      expect(Math.max(...tasks.map(({ rank }) => rank?.length ?? 0))).toBeLessThanOrEqual(64);
    }
  }
});
