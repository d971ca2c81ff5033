import type { components } from './schema';

export type ProblemBody = Partial<Omit<components['schemas']['Problem'], 'code'>> & { code?: string };

/** An answer that is an error; without an answer the code is `offline`. */
export class Problem extends Error {
  readonly code: string;
  readonly status: number;
  readonly traceId: string | null;

  constructor(body: ProblemBody | undefined, status: number) {
    const pointed = body?.errors?.map(({ pointer, detail }) => `${pointer.slice(1)}: ${detail}`).join(' ');
    super(pointed || body?.detail || body?.title || `HTTP ${status}`);
    this.code = body?.code ?? 'unknown';
    this.status = status;
    this.traceId = body?.trace_id ?? null;
  }
}
