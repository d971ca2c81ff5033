import { isId } from '../tasks/ids.ts';

export const PARTS = ['projections', 'parked', 'users', 'audit', 'health'] as const;
export type Part = (typeof PARTS)[number];

/** What of an address says which part is shown. */
export function operationsSearch({ part, act, account }: Record<string, unknown>): { part?: Part; act?: string; account?: string } {
  return {
    ...((PARTS as readonly unknown[]).includes(part) && { part: part as Part }),
    ...(typeof act === 'string' && /^[a-z-]+$/.test(act) && { act }),
    ...(isId(account) && { account }),
  };
}
