// The service worker keeps the page's own files, so that it opens without a server. A new version waits until it is asked for.

const listeners = new Set<() => void>();
let waiting: ServiceWorker | null = null;

export function register(): void {
  if (!('serviceWorker' in navigator)) return;
  // with its own files only once those of this page are there
  addEventListener('load', () => {
    navigator.serviceWorker.register('/sw.js').then(watch, () => {
      // then it needs the server
    });
  });
}

function watch(registration: ServiceWorkerRegistration): void {
  const look = () => {
    // the first one replaces nobody
    waiting = navigator.serviceWorker.controller ? registration.waiting : null;
    for (const tell of listeners) tell();
  };
  look();
  registration.addEventListener('updatefound', () => registration.installing?.addEventListener('statechange', look));
  // a page that stays open hears of it too
  addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') registration.update().catch(() => {});
  });
}

export const newVersion = {
  get: () => waiting !== null,
  onChange(tell: () => void): () => void {
    listeners.add(tell);
    return () => listeners.delete(tell);
  },
  /** In all tabs: each has files of one version only. */
  load(): void {
    navigator.serviceWorker.addEventListener('controllerchange', () => location.reload(), { once: true });
    waiting?.postMessage('take-over');
  },
};
