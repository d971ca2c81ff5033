// What of Prometheus' text the pages show.

export interface Metric {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export function parseMetrics(text: string): Metric[] {
  return text.split('\n').flatMap((line) => {
    const found = /^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$/.exec(line);
    if (!found) return [];
    const labels = [...(found[2] ?? '').matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name!, value!]);
    return [{ name: found[1]!, labels: Object.fromEntries(labels) as Record<string, string>, value: Number(found[3]) }];
  });
}

/** Sums by a label, the largest first. */
export function by(metrics: Metric[], name: string, key: (labels: Record<string, string>) => string): [string, number][] {
  const sums = new Map<string, number>();
  for (const metric of metrics) {
    if (metric.name === name) sums.set(key(metric.labels), (sums.get(key(metric.labels)) ?? 0) + metric.value);
  }
  return [...sums].sort(([, a], [, b]) => b - a);
}
