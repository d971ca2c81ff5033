import type { QueryKey } from '@tanstack/react-query';
import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  Outlet,
  redirect,
} from '@tanstack/react-router';
import { facetsQuery, listQuery, taskQuery } from './api/queries.ts';
import { isMonth } from './calendar/month.ts';
import { askedRangeOf, type AskedRange } from './insights/range.ts';
import { showSeen } from './offline/seen.ts';
import { enter } from './offline/start.ts';
import { operationsSearch } from './operations/parts.ts';
import { Missing } from './shell/Missing.tsx';
import { Shell } from './shell/Shell.tsx';
import { BOARD_SORT_DEFAULT, filterOf, parseSearch, stringifySearch, viewOf, type Filter, type View } from './tasks/filter.ts';
import { isId } from './tasks/ids.ts';
import { STATUSES } from './tasks/values.ts';

const root = createRootRoute({ component: Outlet, notFoundComponent: Missing });

const login = createRoute({
  getParentRoute: () => root,
  path: '/login',
  validateSearch: ({ to }): { to?: string } => (typeof to === 'string' && /^\/(?![/\\])/.test(to) ? { to } : {}),
  component: lazyRouteComponent(() => import('./account/LoginPage.tsx'), 'LoginPage'),
});

/** All that needs an account. */
const inside = createRoute({
  getParentRoute: () => root,
  id: 'inside',
  component: Shell,
  beforeLoad: async ({ location }) => {
    if (!(await enter())) throw redirect({ to: '/login', search: { to: location.href } });
  },
});

const home = createRoute({
  getParentRoute: () => root,
  path: '/',
  beforeLoad: () => {
    throw redirect({ to: '/list' });
  },
});

/** What a view of tasks shows. */
function keysOf(view: View, lists: { queryKey: QueryKey }[]): QueryKey[] {
  return [...lists, facetsQuery(view), ...(view.task ? [taskQuery(view.task)] : [])].map(({ queryKey }) => queryKey);
}

const list = createRoute({
  getParentRoute: () => inside,
  path: '/list',
  validateSearch: (search) => viewOf(search),
  beforeLoad: ({ search }) => showSeen(keysOf(search, [listQuery(search)])),
  component: lazyRouteComponent(() => import('./tasks/ListPage.tsx'), 'ListPage'),
});

const board = createRoute({
  getParentRoute: () => inside,
  path: '/board',
  validateSearch: (search) => viewOf(search, BOARD_SORT_DEFAULT),
  beforeLoad: ({ search: { status: _, sort = BOARD_SORT_DEFAULT, ...view } }) =>
    showSeen(keysOf(view, STATUSES.map((status) => listQuery({ ...view, status, sort })))),
  component: lazyRouteComponent(() => import('./tasks/BoardPage.tsx'), 'BoardPage'),
});

const calendar = createRoute({
  getParentRoute: () => inside,
  path: '/calendar',
  validateSearch: (search): View & { month?: string } => {
    const { due_after: _, due_before: __, as_of: ___, ...view } = viewOf(search);
    return { ...view, ...(isMonth(search['month']) && { month: search['month'] }) };
  },
  component: lazyRouteComponent(() => import('./calendar/CalendarPage.tsx'), 'CalendarPage'),
});

const insights = createRoute({
  getParentRoute: () => inside,
  path: '/insights',
  validateSearch: (search): AskedRange & Filter => {
    const { status: _, overdue: __, ...filter } = filterOf(viewOf(search));
    return { ...askedRangeOf(search), ...filter };
  },
  component: lazyRouteComponent(() => import('./insights/InsightsPage.tsx'), 'InsightsPage'),
});

const changes = createRoute({
  getParentRoute: () => inside,
  path: '/changes',
  validateSearch: ({ task, change }): { task?: string; change?: string } => ({
    ...(isId(task) && { task }),
    ...(isId(change) && { change }),
  }),
  component: lazyRouteComponent(() => import('./history/ChangesPage.tsx'), 'ChangesPage'),
});

const trash = createRoute({
  getParentRoute: () => inside,
  path: '/trash',
  component: lazyRouteComponent(() => import('./history/TrashPage.tsx'), 'TrashPage'),
});

const jobs = createRoute({
  getParentRoute: () => inside,
  path: '/jobs',
  validateSearch: viewOf,
  component: lazyRouteComponent(() => import('./jobs/JobsPage.tsx'), 'JobsPage'),
});

const operations = createRoute({
  getParentRoute: () => inside,
  path: '/operations',
  validateSearch: operationsSearch,
  component: lazyRouteComponent(() => import('./operations/OperationsPage.tsx'), 'OperationsPage'),
});

const account = createRoute({
  getParentRoute: () => inside,
  path: '/account',
  component: lazyRouteComponent(() => import('./account/AccountPage.tsx'), 'AccountPage'),
});

export const router = createRouter({
  routeTree: root.addChildren([home, login, inside.addChildren([list, board, calendar, insights, changes, trash, jobs, operations, account])]),
  parseSearch,
  stringifySearch,
  scrollRestoration: false,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
