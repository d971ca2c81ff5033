// The service worker: the files of one version of the page, and nothing of the API. `vite.config.ts` puts in which they are.
const FILES = ["/","/assets/AccountPage-Cko04Fe7.js","/assets/BoardPage-DI2Dn69X.js","/assets/CalendarPage-DHsyPVpa.css","/assets/CalendarPage-wjTpFanG.js","/assets/ChangesPage-BK6GCDgk.js","/assets/Chart-1TSyviBq.js","/assets/Chart-CnsZ1jie.css","/assets/Decisions-BDTm3soH.css","/assets/Decisions-E_tWoxAU.js","/assets/Differences-jjTSK3lb.js","/assets/InsightsPage-D96E_92H.css","/assets/InsightsPage-DojNOG5B.js","/assets/JobsPage-DKClucn9.css","/assets/JobsPage-pc-5mqDZ.js","/assets/ListPage-CWdrWuHI.js","/assets/LoginPage-DjXvLXIZ.js","/assets/OperationsPage-BXpFY6BJ.js","/assets/OperationsPage-C-rJs4j-.css","/assets/PastPanel-AmPIvEkp.js","/assets/TagInput-CjWPBvyP.js","/assets/TaskMenu-4-s2mWLC.js","/assets/TaskPanel-DQYqWSU_.js","/assets/TimeBar-DdpRLF57.js","/assets/TrashPage-CEd8XR1b.js","/assets/ViewBar-D96Y39nf.js","/assets/ViewBar-DkXQVmcR.css","/assets/account-BSUyemNp.css","/assets/account.module-CLmxvrEL.js","/assets/adapter-DsApvblS.js","/assets/around-DYFc1-Am.js","/assets/chrono-b70ZzQCn.js","/assets/de-D5AMcoCc.js","/assets/en-ClMdozPV.js","/assets/history-UhV50DbB.css","/assets/history.module-ByDG59RK.js","/assets/icon-DMHKmrcE.svg","/assets/index-CZ9blwJd.js","/assets/index-CZV9JhAA.css","/assets/rolldown-runtime-XKyaHtl9.js","/assets/shared-Ds2klj2o.js","/assets/times-DzxmhxUE.js"];
const CACHE = 'primetrade-75c4438da831';

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
