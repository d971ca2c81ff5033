import { infiniteQueryOptions, queryOptions } from '@tanstack/react-query';
import { api, ask, Problem } from '../api/client.ts';
import { parseMetrics } from './metrics.ts';
import type { components } from '../api/schema';

export type Readiness = components['schemas']['Readiness'];

const ASKED_EVERY_MS = 5_000;
const pageOf = (cursor: string | null) => (cursor ? { cursor } : {});
const pages = { initialPageParam: null as string | null, getNextPageParam: (page: { next_cursor: string | null }) => page.next_cursor };

export function projectionsQuery() {
  return queryOptions({
    queryKey: ['operations', 'projections'],
    queryFn: ({ signal }) => ask(api.GET('/api/v1/admin/projections', { signal })),
    refetchInterval: ASKED_EVERY_MS,
  });
}

export function parkedQuery() {
  return infiniteQueryOptions({
    queryKey: ['operations', 'parked'],
    queryFn: ({ pageParam, signal }) => ask(api.GET('/api/v1/admin/parked', { params: { query: pageOf(pageParam) }, signal })),
    ...pages,
  });
}

export function usersQuery() {
  return infiniteQueryOptions({
    queryKey: ['operations', 'users'],
    queryFn: ({ pageParam, signal }) => ask(api.GET('/api/v1/users', { params: { query: pageOf(pageParam) }, signal })),
    ...pages,
  });
}

export function auditQuery(filter: { account?: string; act?: string }) {
  return infiniteQueryOptions({
    queryKey: ['operations', 'audit', filter],
    queryFn: ({ pageParam, signal }) => ask(api.GET('/api/v1/users/audit', { params: { query: { ...filter, ...pageOf(pageParam) } }, signal })),
    ...pages,
  });
}

/** Of the process that answers; null where it tells only at an address of its own (behind the gateway, or by its settings). */
async function ofProcess(path: string, signal: AbortSignal): Promise<Response | null> {
  const answer = await fetch(path, { signal }).catch(() => {
    throw new Problem({ code: 'offline' }, 0);
  });
  return answer.status === 404 ? null : answer;
}

export function readinessQuery() {
  return queryOptions({
    queryKey: ['operations', 'readiness'],
    queryFn: async ({ signal }): Promise<Readiness | null> => (await (await ofProcess('/readyz', signal))?.json()) ?? null,
    refetchInterval: ASKED_EVERY_MS,
  });
}

export function metricsQuery() {
  return queryOptions({
    queryKey: ['operations', 'metrics'],
    queryFn: async ({ signal }) => {
      const answer = await ofProcess('/metrics', signal);
      return answer && parseMetrics(await answer.text());
    },
    refetchInterval: ASKED_EVERY_MS,
  });
}
