import { expect, test, vi } from 'vitest';
import { allRegistered, register } from './shortcuts.ts';

vi.mock('./preferences.ts', () => ({ preferences: { get: () => ({ singleKeys: true }) } }));

test('what is registered does what it means by then, and nobody is told of each drawing', () => {
  const ran: string[] = [];
  let actions = [{ id: 'open', keys: 'o', run: () => ran.push('first') }];
  const unregister = register(() => actions);
  const told = vi.fn();
  const stop = allRegistered.onChange(told);
  actions = [{ id: 'open', keys: 'o', run: () => ran.push('second') }];
  expect(allRegistered.get()).toMatchObject([{ id: 'open', keys: 'o' }]);
  allRegistered.get()[0]!.run();
  expect(ran).toEqual(['second']);
  expect(told).not.toHaveBeenCalled();
  unregister();
  expect(allRegistered.get()).toEqual([]);
  expect(told).toHaveBeenCalledTimes(1);
  stop();
});
