import createClient from 'openapi-fetch';
import type { components, paths } from './schema';
import { Problem, type ProblemBody } from './problem.ts';
import * as session from './session.ts';

export { Problem };

export type HistoryItem = components['schemas']['HistoryItem'];
export type Facets = components['schemas']['Facets'];
export type Change = components['schemas']['Change'];
export type Job = components['schemas']['Job'];
/** With the access token and the last consistency token; once more where one of them is refused. */
export async function authorised(request: Request): Promise<Response> {
  const again = request.clone();
  const token = await session.accessToken();
  const answer = await send(request, token);
  if (answer.status === 401 && token !== null) {
    session.forget(token);
    return send(again, await session.accessToken());
  }
  // the log is another one: it was restored
  if (answer.status === 400 && (await codeOf(answer)) === 'invalid-consistency-token') {
    session.lastSeen.forget();
    return send(again, token);
  }
  return answer;
}

/** None where it is no problem of the server's, but of a proxy before it. */
const codeOf = (answer: Response): Promise<string | undefined> =>
  answer
    .clone()
    .json()
    .then((problem) => problem?.code)
    .catch(() => undefined);

async function send(request: Request, token: string | null): Promise<Response> {
  if (token !== null) request.headers.set('Authorization', `Bearer ${token}`);
  const seen = session.lastSeen.get();
  const asking = session.account()?.id;
  if (seen !== null) request.headers.set('Consistency-Token', seen);
  const answer = await fetch(request);
  // The answer's token stands for what was sent with the request, at least; for what came meanwhile only if it was written.
  const isLater = request.method !== 'GET' || session.lastSeen.get() === seen;
  // somebody else may be logged in by now
  if (isLater && session.account()?.id === asking) session.lastSeen.set(answer.headers.get('Consistency-Token'));
  return answer;
}

export const api = createClient<paths>({ baseUrl: location.origin, fetch: authorised });

export type Outcome<T> = { data?: T; error?: unknown; response: Response };

/** What was answered; a problem is thrown. */
export async function ask<T>(outcome: Promise<Outcome<T>>): Promise<T> {
  return (await askWhole(outcome)).data;
}

/** The same with the answer's headers. */
export async function askWhole<T>(outcome: Promise<Outcome<T>>): Promise<{ data: T; response: Response }> {
  let settled: Outcome<T>;
  try {
    settled = await outcome;
  } catch {
    throw new Problem({ code: 'offline', title: 'The server does not answer.' }, 0);
  }
  const { data, error, response } = settled;
  if (!response.ok) throw new Problem(error as ProblemBody, response.status);
  return { data: data as T, response };
}
