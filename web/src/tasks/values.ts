import type { components } from '../api/schema';

export type Task = components['schemas']['Task'];
export type Status = Task['status'];
export type Priority = Task['priority'];

export const STATUSES: readonly Status[] = ['pending', 'in_progress', 'completed', 'cancelled'];
export const PRIORITIES: readonly Priority[] = ['low', 'medium', 'high', 'urgent'];

export const isOpen = ({ status }: Task): boolean => status === 'pending' || status === 'in_progress';

export const isOverdue = (task: Task): boolean => isOpen(task) && task.due_at !== null && Date.parse(task.due_at) < Date.now();
