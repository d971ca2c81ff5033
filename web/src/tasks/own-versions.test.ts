import { expect, test } from 'vitest';
import { OwnVersions } from './own-versions.ts';

test('a change on an own earlier version is one of the latest', () => {
  const own = new OwnVersions();
  expect(own.latest('a', 3)).toBe(3);
  own.made('a', 3, 4);
  own.made('a', 4, 5);
  expect([3, 4, 5].map((seen) => own.latest('a', seen))).toEqual([5, 5, 5]);
  expect(own.latest('b', 3)).toBe(3);
});

test('what somebody else has made in between is not passed over', () => {
  const own = new OwnVersions();
  own.made('a', 3, 4);
  // 5 is another one's, seen here before the next change
  own.made('a', 5, 6);
  expect(own.latest('a', 3)).toBe(3);
  expect(own.latest('a', 4)).toBe(4);
  expect(own.latest('a', 5)).toBe(6);
});
