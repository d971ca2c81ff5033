import { Link } from '@tanstack/react-router';
import { useTexts } from '../texts/index.ts';
import styles from './shell.module.css';

export function Missing() {
  const t = useTexts();
  return (
    <main className={styles.missing}>
      <h1>{t.notFound}</h1>
      <Link to="/list">{t.list}</Link>
    </main>
  );
}
