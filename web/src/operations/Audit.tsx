import { useInfiniteQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { problemText } from '../tasks/commands.ts';
import { timeText } from '../tasks/times.ts';
import { useTexts, useTextsOf } from '../texts/index.ts';
import styles from './operations.module.css';
import { auditQuery } from './queries.ts';
import { Table } from './Table.tsx';
import { operationsTexts } from './texts.ts';

const route = getRouteApi('/inside/operations');

/** As the API names them. */
const ACTS = [
  'account-created', 'login-succeeded', 'login-failed', 'session-refreshed', 'refresh-token-reused', 'logged-out', 'session-ended',
  'password-changed', 'password-change-refused', 'password-set', 'role-changed', 'account-disabled', 'account-enabled', 'keys-rotated',
  'api-key-created', 'api-key-revoked', 'api-key-used', 'api-key-refused', 'accounts-read', 'audit-read', 'parked-read', 'parked-retried',
];

/** Who did what; what is shown is in the address. */
export function Audit() {
  const t = useTextsOf(operationsTexts);
  const { loading, loadMore, clearFilters } = useTexts();
  const { act, account } = route.useSearch();
  const navigate = route.useNavigate();
  const { data, error, hasNextPage, fetchNextPage } = useInfiniteQuery(auditQuery({ ...(act && { act }), ...(account && { account }) }));
  const items = data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <>
      <p className={styles.hint}>{t.auditHint}</p>
      <div className={styles.filters}>
        <label>
          {t.act}
          <select value={act ?? ''} onChange={(event) => void navigate({ search: (now) => ({ ...now, act: event.target.value || undefined }) })}>
            <option value="">{t.anyAct}</option>
            {ACTS.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        {account && (
          <p>
            {t.account} <code>{account}</code>{' '}
            <button type="button" onClick={() => void navigate({ search: (now) => ({ ...now, account: undefined }) })}>
              {clearFilters}
            </button>
          </p>
        )}
      </div>
      {error && <p role="alert">{problemText(error)}</p>}
      {!data && !error && <p>{loading}</p>}
      {data && items.length === 0 && <p>{t.noAudit}</p>}
      {items.length > 0 && (
        <Table
          caption={t.parts['audit']!}
          columns={[t.time, t.act, t.account, t.actor, t.address, t.detail, t.trace]}
          rows={items.map((event) => ({
            key: event.id,
            cells: [
              timeText(event.occurred_at),
              event.act,
              <code>{event.account_id ?? '–'}</code>,
              event.actor.id === null ? event.actor.type : event.actor.id === event.account_id ? '=' : <code>{event.actor.id}</code>,
              event.client_address ?? '–',
              <bdi>{event.detail ?? '–'}</bdi>,
              <code>{event.trace_id ?? '–'}</code>,
            ],
          }))}
        />
      )}
      {hasNextPage && (
        <button type="button" onClick={() => void fetchNextPage()}>
          {loadMore}
        </button>
      )}
    </>
  );
}
