// The account's jobs, as the server tells of them.

import { infiniteQueryOptions } from '@tanstack/react-query';
import { api, ask, type Job } from '../api/client.ts';
import { isShort, queryClient } from '../api/queries.ts';

interface Page {
  items: Job[];
  next_cursor: string | null;
}

/** Where the stream does not tell, in milliseconds. */
const ASKED_EVERY_MS = 3_000;

export const hasEnded = ({ state }: Job) => state !== 'queued' && state !== 'running';

export function jobsQuery() {
  return infiniteQueryOptions({
    queryKey: ['jobs', 'list'],
    queryFn: ({ pageParam, signal }): Promise<Page> =>
      ask(api.GET('/api/v1/jobs', { params: { query: pageParam ? { cursor: pageParam } : {} }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    refetchInterval: (query) => (isShort(query) && query.state.data?.pages.some(({ items }) => !items.every(hasEnded)) ? ASKED_EVERY_MS : false),
  });
}

export function jobErrorsQuery(id: string) {
  return infiniteQueryOptions({
    queryKey: ['jobs', 'errors', id],
    queryFn: ({ pageParam, signal }) =>
      ask(api.GET('/api/v1/jobs/{id}/errors', { params: { path: { id }, query: pageParam ? { cursor: pageParam } : {} }, signal })),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}

/** Shows a job as it is now; one that is new is the first. */
export function showJob(job: Job): void {
  queryClient.setQueryData(jobsQuery().queryKey, (data) => {
    const [first, ...others] = data?.pages ?? [];
    if (!data || !first) return data;
    const isNew = !data.pages.some(({ items }) => items.some(({ id }) => id === job.id));
    if (isNew) return { ...data, pages: [{ ...first, items: [job, ...first.items] }, ...others] };
    const pages = data.pages.map((page) => ({
      ...page,
      // what was asked for may come after what the stream told
      items: page.items.map((known) => (known.id === job.id && !(hasEnded(known) && !hasEnded(job)) ? job : known)),
    }));
    return { ...data, pages };
  });
}
