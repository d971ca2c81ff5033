import { getRouteApi, useNavigate } from '@tanstack/react-router';
import { useEffect, useState, type FormEvent } from 'react';
import { Problem } from '../api/client.ts';
import * as session from '../api/session.ts';
import { problemText } from '../tasks/commands.ts';
import { useTexts } from '../texts/index.ts';
import styles from './account.module.css';

const route = getRouteApi('/login');

export function LoginPage() {
  const t = useTexts();
  const navigate = useNavigate();
  const { to } = route.useSearch();
  const [isNew, setNew] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  // also when it happens in another tab
  useEffect(() => session.onChange(() => session.isLoggedIn() && void navigate({ href: to ?? '/list' })), [navigate, to]);

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const [email, password] = [String(form.get('email')), String(form.get('password'))];
    setBusy(true);
    setProblem(null);
    try {
      if (isNew) {
        await post('/api/v1/auth/register', { email, password, name: String(form.get('name')) });
        // a wrong password after this is not one of registering
        setNew(false);
      }
      session.begin(await post('/api/v1/auth/login', { email, password, session: 'cookie' }));
    } catch (error) {
      setProblem(problemText(error));
    } finally {
      setBusy(false);
    }
  }

  return (
    <main className={styles.login}>
      <form onSubmit={(event) => void submit(event)}>
        <p className={styles.brand}>{t.product}</p>
        <h1>{isNew ? t.register : t.logIn}</h1>
        {isNew && (
          <label>
            {t.name}
            <input name="name" autoComplete="name" required maxLength={100} />
          </label>
        )}
        <label>
          {t.email}
          <input name="email" type="email" autoComplete="username" required maxLength={254} />
        </label>
        <label>
          {t.password}
          <input
            name="password"
            type="password"
            autoComplete={isNew ? 'new-password' : 'current-password'}
            required
            minLength={isNew ? 8 : 1}
            maxLength={256}
          />
          {isNew && <small>{t.passwordHint}</small>}
        </label>
        {problem && (
          <p role="alert" className={styles.problem}>
            {problem}
          </p>
        )}
        <button type="submit" className={styles.main} disabled={busy}>
          {isNew ? t.register : t.logIn}
        </button>
        <p className={styles.other}>
          {isNew ? t.haveAccount : t.noAccount}{' '}
          <button type="button" onClick={() => setNew(!isNew)}>
            {isNew ? t.logIn : t.register}
          </button>
        </p>
      </form>
    </main>
  );
}

/** Without a token: there is none yet. */
async function post(path: string, body: object) {
  const answer = await fetch(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  }).catch(() => {
    throw new Problem({ code: 'offline' }, 0);
  });
  const answered = await answer.json();
  if (!answer.ok) throw new Problem(answered, answer.status);
  return answered;
}
