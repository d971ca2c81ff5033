// What only those load who look at another time.

import { lazy } from 'react';

export const TimeBar = lazy(async () => ({ default: (await import('./TimeBar.tsx')).TimeBar }));
export const PastPanel = lazy(async () => ({ default: (await import('./PastPanel.tsx')).PastPanel }));
