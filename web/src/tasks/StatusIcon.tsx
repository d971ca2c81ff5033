import { Circle, CircleCheck, CircleDot, CircleSlash } from 'lucide-react';
import styles from './tasks.module.css';
import type { Status } from './values.ts';

const ICONS = { pending: Circle, in_progress: CircleDot, completed: CircleCheck, cancelled: CircleSlash };

export function StatusIcon({ status }: { status: Status }) {
  const Icon = ICONS[status];
  return <Icon size={17} aria-hidden className={styles.statusIcon} data-status={status} />;
}
