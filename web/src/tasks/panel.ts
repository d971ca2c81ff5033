import { lazy } from 'react';

/** Loaded when a task is opened. */
export const TaskPanel = lazy(async () => ({ default: (await import('./TaskPanel.tsx')).TaskPanel }));
