import { useQuery } from '@tanstack/react-query';
import { useState, useSyncExternalStore, type FormEvent } from 'react';
import { api, ask } from '../api/client.ts';
import { meQuery, queryClient, sessionsQuery } from '../api/queries.ts';
import { outbox } from '../offline/kept.ts';
import { leave } from '../offline/start.ts';
import { preferences, type Preferences } from '../shell/preferences.ts';
import { toast } from '../shell/toasts.ts';
import { problemText } from '../tasks/commands.ts';
import { timeText, weekdayText } from '../tasks/times.ts';
import { LANGUAGES, useTexts } from '../texts/index.ts';
import styles from './account.module.css';
import { deviceText } from './device.ts';
import { lostByLeaving } from './leaving.ts';

const TIME_ZONES = Intl.supportedValuesOf('timeZone');

/** Carries out what a form asks for, and says how it went. */
async function act(run: () => Promise<unknown>, said: string): Promise<boolean> {
  try {
    await run();
    toast({ text: said });
    return true;
  } catch (error) {
    toast({ text: problemText(error), failed: true });
    return false;
  } finally {
    void queryClient.invalidateQueries({ queryKey: ['account'] });
  }
}

export function AccountPage() {
  const t = useTexts();
  const { data: me } = useQuery(meQuery());
  const { data: sessions } = useQuery(sessionsQuery());
  const chosen = useSyncExternalStore(preferences.onChange, preferences.get);

  const rename = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const name = String(new FormData(event.currentTarget).get('name'));
    void act(() => ask(api.PATCH('/api/v1/auth/me', { body: { name } })), t.saved);
  };
  const end = (id: string) =>
    act(() => ask(api.DELETE('/api/v1/auth/sessions/{id}', { params: { path: { id } } })), t.saved);
  const logOut = async () => {
    await outbox.flush();
    const lost = lostByLeaving(outbox.get(), t);
    if (lost === null) return leave();
    toast({ text: lost, action: { text: t.logOutAnyway, run: () => void leave() }, failed: true });
  };

  return (
    <div className={styles.account}>
      <header>
        <h1>{t.account}</h1>
        <button type="button" onClick={() => void logOut()}>
          {t.logOut}
        </button>
      </header>
      <section>
        <p className={styles.who}>{me?.email}</p>
        <form key={me?.name} className={styles.inline} onSubmit={rename}>
          <label>
            {t.name}
            <input name="name" required maxLength={100} defaultValue={me?.name} autoComplete="name" />
          </label>
          <button type="submit">{t.save}</button>
        </form>
      </section>
      <section>
        <h2>{t.display}</h2>
        <div className={styles.inline}>
          <label>
            {t.theme}
            <select value={chosen.theme} onChange={(event) => preferences.set({ theme: event.target.value as Preferences['theme'] })}>
              {Object.entries(t.themes).map(([theme, text]) => (
                <option key={theme} value={theme}>
                  {text}
                </option>
              ))}
            </select>
          </label>
          <label>
            {t.languageLabel}
            <select
              value={chosen.language}
              onChange={(event) => preferences.set({ language: event.target.value as Preferences['language'] })}
            >
              {Object.entries(LANGUAGES).map(([language, { language: name }]) => (
                <option key={language} value={language}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <label>
            {t.timeZone}
            <select
              value={chosen.timeZone ?? ''}
              onChange={(event) => preferences.set({ timeZone: event.target.value || null })}
            >
              <option value="">{t.asSystem}</option>
              {TIME_ZONES.map((zone) => (
                <option key={zone} value={zone}>
                  {zone.replaceAll('_', ' ')}
                </option>
              ))}
            </select>
          </label>
          <label>
            {t.firstDay}
            <select
              value={chosen.firstDay ?? ''}
              onChange={(event) => preferences.set({ firstDay: event.target.value === '' ? null : Number(event.target.value) })}
            >
              <option value="">{t.asSystem}</option>
              {[1, 6, 0].map((day) => (
                <option key={day} value={day}>
                  {weekdayText(day)}
                </option>
              ))}
            </select>
          </label>
        </div>
        <label className={styles.switch}>
          <input
            type="checkbox"
            checked={chosen.singleKeys}
            onChange={(event) => preferences.set({ singleKeys: event.target.checked })}
          />
          {t.singleKeys}
        </label>
      </section>
      <ChangePassword />
      <section>
        <h2>{t.sessions}</h2>
        <ul className={styles.sessions}>
          {sessions?.items.map((known) => (
            <li key={known.id}>
              <span>
                <bdi title={known.user_agent ?? undefined}>{known.user_agent ? deviceText(known.user_agent) : known.address}</bdi>
                <small>
                  {known.current ? t.thisSession : t.lastSeen(timeText(known.last_seen_at))}
                  {known.address && ` · ${known.address}`}
                </small>
              </span>
              {!known.current && (
                <button type="button" onClick={() => void end(known.id)}>
                  {t.endSession}
                </button>
              )}
            </li>
          ))}
        </ul>
      </section>
    </div>
  );
}

function ChangePassword() {
  const t = useTexts();
  // another form after a success: nothing stays in its fields
  const [count, setCount] = useState(0);
  const submit = async (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const body = { current: String(form.get('current')), new: String(form.get('new')) };
    if (await act(() => ask(api.POST('/api/v1/auth/password', { body })), t.passwordChanged)) setCount(count + 1);
  };
  return (
    <section>
      <h2>{t.changePassword}</h2>
      <form key={count} className={styles.inline} onSubmit={(event) => void submit(event)}>
        <label>
          {t.currentPassword}
          <input name="current" type="password" required autoComplete="current-password" maxLength={256} />
        </label>
        <label>
          {t.newPassword}
          <input name="new" type="password" required minLength={8} maxLength={256} autoComplete="new-password" />
        </label>
        <button type="submit">{t.changePassword}</button>
      </form>
    </section>
  );
}
