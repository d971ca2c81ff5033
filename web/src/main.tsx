import { CSPProvider } from '@base-ui/react/csp-provider';
import { QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { queryClient } from './api/queries.ts';
import { register } from './offline/worker.ts';
import { router } from './routes.tsx';
import './shell/preferences.ts';
import './base.css';

// A file of an older version is gone: the page of now names those of now. Not again and again, should it be gone too.
addEventListener('vite:preloadError', (event) => {
  const reloadedAt = Number(sessionStorage.getItem('reloaded') ?? 0);
  if (Date.now() - reloadedAt < 10_000) return;
  event.preventDefault();
  sessionStorage.setItem('reloaded', String(Date.now()));
  location.reload();
});

register();

// its module comes while it is looked who is logged in
const [view] = router.getMatchedRoutes(location.pathname === '/' ? '/list' : location.pathname);
for (const route of view) void router.loadRouteChunk(route);

createRoot(document.getElementById('app')!).render(
  <StrictMode>
    <CSPProvider disableStyleElements>
      <QueryClientProvider client={queryClient}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </CSPProvider>
  </StrictMode>,
);
