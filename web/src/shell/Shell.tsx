import { Dialog } from '@base-ui/react/dialog';
import { Link, Outlet, useLocation, useNavigate } from '@tanstack/react-router';
import { Activity, ArrowDownUp, CalendarDays, ChartLine, Columns3, History, List, Search, Trash2, User, X } from 'lucide-react';
import { useEffect, useRef, useState, useSyncExternalStore } from 'react';
import { gathered } from '../api/paced.ts';
import { askAgain, queryClient } from '../api/queries.ts';
import * as session from '../api/session.ts';
import { follow, type Live } from '../api/stream.ts';
import { showJob } from '../jobs/state.ts';
import { outbox, retry } from '../offline/kept.ts';
import { NewVersion } from '../offline/NewVersion.tsx';
import { forget, isOfAnother } from '../offline/start.ts';
import { Waiting } from '../offline/Waiting.tsx';
import { jobChanged, redo, undo } from '../tasks/commands.ts';
import { refreshTasks, showTold, type Told } from '../tasks/known.ts';
import { useTexts } from '../texts/index.ts';
import { Palette } from './Palette.tsx';
import { switchTheme } from './preferences.ts';
import styles from './shell.module.css';
import { keysShown, listen, useActions, useAllActions } from './shortcuts.ts';
import { dismiss, toasts } from './toasts.ts';

export function Shell() {
  const t = useTexts();
  const navigate = useNavigate();
  const [open, setOpen] = useState<'palette' | 'help' | null>(null);
  const live = useLive();
  const isOperator = useSyncExternalStore(session.onChange, () => session.account()?.role === 'admin');
  useEffect(listen, []);
  const rail = useRef<HTMLElement>(null);
  const path = useLocation({ select: ({ pathname }) => pathname });
  // on a phone not all of them have room
  useEffect(() => {
    void rail.current?.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }, [path]);
  useEffect(() => {
    const look = () => {
      if (isOfAnother(session.account()?.id)) return location.reload();
      if (!session.isLoggedOut()) return;
      queryClient.clear();
      void forget();
      // whose session has expired comes back to where they were; one leaves from the page of the account
      const where = location.pathname + location.search;
      void navigate({ to: '/login', search: where.startsWith('/account') ? {} : { to: where } });
    };
    // the server may have answered before this is drawn
    look();
    return session.onChange(look);
  }, [navigate]);
  useActions([
    { id: 'palette', keys: '$mod+k', run: () => setOpen('palette') },
    { id: 'help', keys: '?', run: () => setOpen('help') },
    { id: 'list', keys: 'g l', run: () => void navigate({ to: '/list' }) },
    { id: 'board', keys: 'g b', run: () => void navigate({ to: '/board' }) },
    { id: 'calendar', keys: 'g d', run: () => void navigate({ to: '/calendar' }) },
    { id: 'insights', keys: 'g i', run: () => void navigate({ to: '/insights' }) },
    { id: 'changes', keys: 'g c', run: () => void navigate({ to: '/changes' }) },
    { id: 'trash', keys: 'g t', run: () => void navigate({ to: '/trash' }) },
    { id: 'jobs', keys: 'g e', run: () => void navigate({ to: '/jobs' }) },
    ...(isOperator ? [{ id: 'operations', keys: 'g o', run: () => void navigate({ to: '/operations' }) }] : []),
    { id: 'account', keys: 'g a', run: () => void navigate({ to: '/account' }) },
    { id: 'undo', keys: '$mod+z', run: () => void undo() },
    { id: 'redo', keys: '$mod+Shift+z', run: () => void redo() },
    { id: 'theme', run: switchTheme },
  ]);
  const views = [
    { to: '/list', text: t.list, Icon: List },
    { to: '/board', text: t.board, Icon: Columns3 },
    { to: '/calendar', text: t.calendar, Icon: CalendarDays },
    { to: '/insights', text: t.insights, Icon: ChartLine },
    { to: '/changes', text: t.changes, Icon: History },
    { to: '/trash', text: t.trash, Icon: Trash2 },
    { to: '/jobs', text: t.jobs, Icon: ArrowDownUp },
    ...(isOperator ? ([{ to: '/operations', text: t.operations, Icon: Activity }] as const) : []),
    { to: '/account', text: t.account, Icon: User },
  ] as const;
  return (
    <div className={styles.shell}>
      <nav ref={rail} className={styles.rail} aria-label={t.product}>
        <span className={styles.brand} aria-hidden>
          {t.product}
        </span>
        {views.map(({ to, text, Icon }) => (
          <Link key={to} to={to} className={styles.view} activeProps={{ 'data-active': true, 'aria-current': 'page' }}>
            <Icon size={18} aria-hidden />
            <span>{text}</span>
          </Link>
        ))}
        <button type="button" className={styles.view} data-palette onClick={() => setOpen('palette')}>
          <Search size={18} aria-hidden />
          <span>{t.palette}</span>
          <kbd>{keysShown('$mod+k')}</kbd>
        </button>
        <div className={styles.state}>
          <NewVersion />
          <Waiting />
          <p className={styles.live} data-live={live} role="status">
            {live ? t.live : t.notLive}
          </p>
        </div>
      </nav>
      <main className={styles.main}>
        <Outlet />
      </main>
      <Toasts />
      <Palette open={open === 'palette'} onClose={() => setOpen(null)} />
      <Help open={open === 'help'} onClose={() => setOpen(null)} />
    </div>
  );
}

/** A change of many tasks comes as many events. */
const GATHERED_MS = 100;

/** Shows what happens as it happens. True while events come, by whichever tab. */
function useLive(): boolean {
  const [live, setLive] = useState(true);
  useEffect(() => {
    const ending = new AbortController();
    const take = gathered<Told>(GATHERED_MS, (all) => {
      showTold(all);
      refreshTasks();
    });
    const apply = (event: Live) => {
      if (event.type === 'job') {
        showJob(event.job);
        return jobChanged(event.job);
      }
      const { id, version } = event.task;
      take({ id, version, task: event.type === 'deleted' ? null : event.task });
    };
    const connected = (is: boolean) => {
      setLive(is);
      if (!is) return;
      // what happened while it was away
      retry();
      void askAgain();
    };
    const replaced = () => {
      outbox.replaced();
      void queryClient.resetQueries();
    };
    follow({ apply, connected, missed: refreshTasks, replaced }, ending.signal);
    return () => ending.abort();
  }, []);
  return live;
}

function Toasts() {
  const t = useTexts();
  const shown = useSyncExternalStore(toasts.onChange, toasts.get);
  return (
    <div className={styles.toasts} role="status" aria-live="polite">
      {shown.map(({ id, text, action, failed }) => (
        <div key={id} className={styles.toast} data-failed={failed}>
          <span>{text}</span>
          {action && (
            <button
              type="button"
              onClick={() => {
                dismiss(id);
                action.run();
              }}
            >
              {action.text}
            </button>
          )}
          <button type="button" className={styles.icon} aria-label={t.close} onClick={() => dismiss(id)}>
            <X size={16} aria-hidden />
          </button>
        </div>
      ))}
    </div>
  );
}

function Help({ open, onClose }: { open: boolean; onClose: () => void }) {
  const t = useTexts();
  return (
    <Dialog.Root open={open} onOpenChange={(next) => !next && onClose()}>
      <Dialog.Portal>
        <Dialog.Backdrop className={styles.backdrop} />
        <Dialog.Popup className={styles.dialog} data-modal>
          <Dialog.Title className={styles.dialogTitle}>{t.shortcuts}</Dialog.Title>
          <Keys />
          <Dialog.Close className={styles.closing}>{t.close}</Dialog.Close>
        </Dialog.Popup>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

/** Only while the help is open does it follow what can be done. */
function Keys() {
  const t = useTexts();
  const actions = useAllActions();
  return (
    <dl className={styles.keys}>
      {actions
        .filter(({ keys }) => keys)
        .map(({ id, keys }) => (
          <div key={id}>
            <dt>{t.actions[id]}</dt>
            <dd>
              <kbd>{keysShown(keys!)}</kbd>
            </dd>
          </div>
        ))}
    </dl>
  );
}
