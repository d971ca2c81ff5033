import { useInfiniteQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { api, ask } from '../api/client.ts';
import { queryClient } from '../api/queries.ts';
import { toast } from '../shell/toasts.ts';
import { problemText } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import styles from './operations.module.css';
import { usersQuery } from './queries.ts';
import { Table } from './Table.tsx';
import { operationsTexts } from './texts.ts';

/** Accounts and their roles. */
export function Users() {
  const t = useTextsOf(operationsTexts);
  const { loading, loadMore, saved } = useTexts();
  const { data, error, hasNextPage, fetchNextPage } = useInfiniteQuery(usersQuery());
  if (!data) return error ? <p role="alert">{problemText(error)}</p> : <p>{loading}</p>;
  const patch = async (id: string, body: { role?: 'user' | 'admin'; disabled?: boolean }) => {
    try {
      await ask(api.PATCH('/api/v1/users/{id}', { params: { path: { id } }, body }));
      toast({ text: saved });
    } catch (error) {
      toast({ text: problemText(error), failed: true });
    } finally {
      void queryClient.invalidateQueries({ queryKey: ['operations', 'users'] });
    }
  };
  return (
    <>
      <p className={styles.hint}>{t.usersHint}</p>
      <Table
        caption={t.parts['users']!}
        columns={[t.email, t.personName, t.role, t.created, t.disabled]}
        rows={data.pages
          .flatMap((page) => page.items)
          .map(({ id, email, name, role, disabled, created_at }) => ({
            key: id,
            cells: [
              <Link to="/operations" search={{ part: 'audit', account: id }}>
                <bdi>{email}</bdi>
              </Link>,
              <bdi>{name}</bdi>,
              <select
                aria-label={t.roleOf(email)}
                value={role}
                onChange={(event) => void patch(id, { role: event.target.value as typeof role })}
              >
                {(['user', 'admin'] as const).map((value) => (
                  <option key={value} value={value}>
                    {t.roles[value]}
                  </option>
                ))}
              </select>,
              timeText(created_at),
              <button
                type="button"
                aria-label={disabled ? t.enableOf(email) : t.disableOf(email)}
                data-danger={!disabled || undefined}
                onClick={() => void patch(id, { disabled: !disabled })}
              >
                {disabled ? t.enable : t.disable}
              </button>,
            ],
          }))}
      />
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {loadMore}
        </button>
      )}
    </>
  );
}
