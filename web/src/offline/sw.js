// The service worker: the files of one version of the page, and nothing of the API. `vite.config.ts` puts in which they are.
const FILES = ['FILES'];
const CACHE = 'primetrade-VERSION';

/** First segments of paths that are not the page's; as in `query-api/src/dashboard.rs`. */
const NOT_VIEWS = ['api', 'assets', 'docs', 'problems', 'openapi.json', '.well-known', 'livez', 'readyz', 'metrics', 'sw.js'];

addEventListener('install', (event) => {
  // the page itself as the server has it now
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: file === '/' ? 'reload' : 'default' })))));
});

addEventListener('activate', (event) => {
  const clean = async () => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name.startsWith('primetrade-') && name !== CACHE).map((name) => caches.delete(name)));
    await clients.claim();
  };
  event.waitUntil(clean());
});

addEventListener('message', ({ data }) => {
  if (data === 'take-over') skipWaiting();
});

addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  const first = url.pathname.split('/')[1];
  const isView = request.mode === 'navigate' && !NOT_VIEWS.includes(first);
  if (!isView && first !== 'assets') return;
  event.respondWith(
    caches
      .open(CACHE)
      .then((cache) => cache.match(isView ? '/' : url.pathname))
      .then((kept) => kept ?? fetch(request)),
  );
});
