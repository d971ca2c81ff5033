// The service worker: the files of one version of the page, and nothing of the API. `vite.config.ts` puts in which they are.
const FILES = ["/","/assets/AccountPage-LI44RLIe.js","/assets/BoardPage-BQQM3grN.js","/assets/CalendarPage-Cb0Ba8oO.js","/assets/CalendarPage-DHsyPVpa.css","/assets/ChangesPage-i3leQeJa.js","/assets/Chart-BDuykV-x.js","/assets/Chart-CnsZ1jie.css","/assets/Decisions-BDTm3soH.css","/assets/Decisions-DHFPZof3.js","/assets/Differences-3TNWdNl-.js","/assets/InsightsPage-BLZ3yNbz.js","/assets/InsightsPage-D96E_92H.css","/assets/JobsPage-DKClucn9.css","/assets/JobsPage-DozOUKPZ.js","/assets/ListPage-DyWZZUnH.js","/assets/LoginPage-B04Z2pIa.js","/assets/OperationsPage-C-rJs4j-.css","/assets/OperationsPage-CCbp0JgO.js","/assets/PastPanel-3GScAwRl.js","/assets/TagInput-CSRCCkdY.js","/assets/TaskMenu-yAhA-N4y.js","/assets/TaskPanel-BpCDHv3y.js","/assets/TimeBar-DbaYDXaA.js","/assets/TrashPage-fl7tpGD9.js","/assets/ViewBar-CWBcB8dy.js","/assets/ViewBar-DkXQVmcR.css","/assets/account-BSUyemNp.css","/assets/account.module-CLmxvrEL.js","/assets/adapter-DsApvblS.js","/assets/around-DDByRC2e.js","/assets/chrono-b70ZzQCn.js","/assets/de-D5AMcoCc.js","/assets/en-ClMdozPV.js","/assets/history-UhV50DbB.css","/assets/history.module-ByDG59RK.js","/assets/icon-DMHKmrcE.svg","/assets/index-CZV9JhAA.css","/assets/index-T2PyU6uv.js","/assets/rolldown-runtime-XKyaHtl9.js","/assets/shared-Ds2klj2o.js","/assets/times-BVCRMJEk.js"];
const CACHE = 'primetrade-fd33c2ac8fcf';

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
