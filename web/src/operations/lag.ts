// How far the read models were behind the log over the last minutes. The server tells only of now.

export interface Sample {
  /** In milliseconds. */
  at: number;
  events: number;
  seconds: number;
}

export const KEPT_MS = 10 * 60_000;

/** With one more, without what is too old. */
export function sampled(samples: readonly Sample[], next: Sample): Sample[] {
  return [...samples.filter(({ at }) => at > next.at - KEPT_MS && at < next.at), next];
}

/** The line of a chart: now is at its right edge, the largest value at its top. */
export function line(samples: readonly Sample[], value: (sample: Sample) => number, width: number, height: number): string {
  const now = samples.at(-1)?.at ?? 0;
  const from = Math.min(samples[0]?.at ?? 0, now - 60_000);
  const most = Math.max(1, ...samples.map(value));
  const round = (n: number) => Math.round(n * 10) / 10;
  return samples.map((sample) => `${round(((sample.at - from) / (now - from)) * width)},${round(height - (value(sample) / most) * height)}`).join(' ');
}
