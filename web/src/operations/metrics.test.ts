import { expect, test } from 'vitest';
import { by, parseMetrics } from './metrics.ts';

test('lines of Prometheus are read with their labels', () => {
  const metrics = parseMetrics('# TYPE problems_total counter\nproblems_total{code="not-found"} 2\nproblems_total{code="stale-version",copy="a,b"} 3\nredis_up 1\n');
  expect(metrics).toEqual([
    { name: 'problems_total', labels: { code: 'not-found' }, value: 2 },
    { name: 'problems_total', labels: { code: 'stale-version', copy: 'a,b' }, value: 3 },
    { name: 'redis_up', labels: {}, value: 1 },
  ]);
  expect(by([...metrics, metrics[0]!], 'problems_total', ({ code }) => code!)).toEqual([['not-found', 4], ['stale-version', 3]]);
});
