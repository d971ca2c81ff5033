// The service worker: the files of one version of the page, and nothing of the API. `vite.config.ts` puts in which they are.
const FILES = ["/","/assets/AccountPage-Dn4vgAd4.js","/assets/BoardPage-CuTEtkQF.js","/assets/CalendarPage-BIhgBQgu.js","/assets/CalendarPage-DHsyPVpa.css","/assets/ChangesPage-j8_w6NYT.js","/assets/Chart-CnsZ1jie.css","/assets/Chart-DeQqofgh.js","/assets/Decisions-BDTm3soH.css","/assets/Decisions-DyYjMlfX.js","/assets/Differences-CLtEIBc1.js","/assets/InsightsPage-D96E_92H.css","/assets/InsightsPage-DMzxZWEC.js","/assets/JobsPage-B9HxV3mU.js","/assets/JobsPage-DKClucn9.css","/assets/ListPage-Ck3sDvbn.js","/assets/LoginPage-DFAmVbKi.js","/assets/OperationsPage-C-rJs4j-.css","/assets/OperationsPage-CXPUEz2Z.js","/assets/PastPanel-CyZN6hlA.js","/assets/TagInput-Cc2Ey_Ej.js","/assets/TaskMenu-Cj58td52.js","/assets/TaskPanel-B0y1aUEH.js","/assets/TimeBar-3oi9ktvs.js","/assets/TrashPage-DjXSQXE_.js","/assets/ViewBar-DkXQVmcR.css","/assets/ViewBar-uoPyHVp3.js","/assets/account-BSUyemNp.css","/assets/account.module-CLmxvrEL.js","/assets/adapter-DsApvblS.js","/assets/around-DeT_vi5W.js","/assets/chrono-b70ZzQCn.js","/assets/de-D5AMcoCc.js","/assets/en-ClMdozPV.js","/assets/history-UhV50DbB.css","/assets/history.module-ByDG59RK.js","/assets/icon-DMHKmrcE.svg","/assets/index-CNyqps8I.js","/assets/index-CZV9JhAA.css","/assets/rolldown-runtime-XKyaHtl9.js","/assets/shared-Ds2klj2o.js","/assets/times-DjSSs8Q4.js"];
const CACHE = 'primetrade-3fa976a069d2';

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
