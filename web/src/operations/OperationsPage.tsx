import { getRouteApi, Link } from '@tanstack/react-router';
import { ExternalLink } from 'lucide-react';
import { useTextsOf } from '../texts/index.ts';
import { Audit } from './Audit.tsx';
import { Health } from './Health.tsx';
import styles from './operations.module.css';
import { Parked } from './Parked.tsx';
import { PARTS, type Part } from './parts.ts';
import { Projections } from './Projections.tsx';
import { operationsTexts } from './texts.ts';
import { Users } from './Users.tsx';

const route = getRouteApi('/inside/operations');

const SHOWN: Record<Part, () => React.ReactNode> = {
  projections: () => <Projections />,
  parked: () => <Parked />,
  users: () => <Users />,
  audit: () => <Audit />,
  health: () => <Health />,
};

/** For operators: what the API tells them, and what they can do there. */
export function OperationsPage() {
  const t = useTextsOf(operationsTexts);
  const { part = 'projections' } = route.useSearch();
  return (
    <div className={styles.operations}>
      <header>
        <h1>{t.operations}</h1>
        <a href="/docs/operations.md" target="_blank" rel="noreferrer">
          {t.guide} <ExternalLink size={13} aria-hidden />
        </a>
      </header>
      <nav className={styles.parts} aria-label={t.operations}>
        {PARTS.map((name) => (
          <Link key={name} to="/operations" search={{ part: name }} aria-current={name === part ? 'page' : undefined}>
            {t.parts[name]}
          </Link>
        ))}
      </nav>
      {SHOWN[part]()}
    </div>
  );
}
