//! What is measured, in order.

mod growth;
mod lists;
mod overload;
mod past;
mod search;
mod services;
mod streams;

use std::fs;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgPool;
use system_tests::client::Account;
use system_tests::cluster::{Cluster, free_port, pool};
use system_tests::reaper;
use system_tests::server::{Config, Server};
use system_tests::wait::until;

use crate::cost::Reading;
use crate::load::{BATCH, batches, command_to_visible, creates, lives, task_id};
use crate::machine;
use crate::plan::Plan;
use crate::report::{Report, rounded, say};
use crate::wrk::{Measured, Run};

const MANY_CONNECTIONS: u32 = 256;
const SOME_CONNECTIONS: u32 = 64;
/// What an event may take with all read models.
const WAL_BYTES_MAX: f64 = 1_400.0;
const DISK_BYTES_MAX: f64 = 900.0;
/// What a grown store may lose.
const GROWTH_LOSS_MAX: f64 = 0.2;

/// A number that is part of keys and ids, another for each run of the load generator.
fn next_run() -> u32 {
    static RUN: AtomicU32 = AtomicU32::new(1);
    RUN.fetch_add(1, Ordering::Relaxed)
}

struct Bench<'a> {
    plan: &'a Plan,
    report: Report,
    cluster: Arc<Cluster>,
    baselines: Baselines,
}

/// What the empty handler, Postgres and the disk came to.
#[derive(Clone, Debug, Default)]
struct Baselines {
    handler_url: String,
    fsync_ms: f64,
}

/// Runs everything that the plan asks for; gives whether every target was met.
pub async fn all(plan: &Plan) -> bool {
    let cluster = Cluster::shared();
    let mut bench = Bench { plan, report: Report::default(), cluster, baselines: Baselines::default() };
    let about = about(&bench.cluster).await;
    say(&about.to_string());
    bench.machine();
    let page = bench.page_of_50().await;
    let _handler = bench.handler(&page);
    bench.empty_handlers();
    if plan.has("append") || plan.has("bulk") || plan.has("snapshot") {
        bench.held().await;
    }
    if plan.has("projector") || plan.has("lists") || plan.has("visible") {
        bench.live().await;
    }
    if plan.has("search") {
        bench.search().await;
    }
    if plan.has("past") {
        bench.past().await;
    }
    if plan.has("overload") {
        bench.overload().await;
    }
    if plan.has("streams") {
        bench.streams().await;
    }
    if plan.has("services") {
        bench.services().await;
    }
    if plan.has("gateway") {
        bench.visible_through_services().await;
    }
    if plan.growth {
        bench.grown().await;
    }
    bench.report.finish(&plan.json, &about)
}

async fn about(cluster: &Cluster) -> Value {
    let pool = pool(&cluster.url("postgres")).await;
    let postgres: String = sqlx::query_scalar("select version()").fetch_one(&pool).await.expect("version");
    pool.close().await;
    let first_line = |file: &str, start: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        line.split(':').next_back().unwrap_or_default().trim().to_owned()
    };
    json!({
        "at": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": first_line("/proc/cpuinfo", "model name"),
        "memory": first_line("/proc/meminfo", "MemTotal"),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "postgres": postgres.split(" on ").next(),
    })
}

/// A process that ends with this one.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        reaper::gone(self.0.id());
    }
}

impl Bench<'_> {
    fn machine(&mut self) {
        self.report.part("The machine");
        self.baselines.fsync_ms = machine::fsync_ms(&self.cluster);
        self.report.note("fsync", "fdatasync of 8 kB", self.baselines.fsync_ms, "ms", String::new());
        for clients in [1, SOME_CONNECTIONS] {
            let tps = machine::pgbench_per_second(&self.cluster, clients, self.plan.seconds);
            let name = format!("pgbench, one row a transaction, {clients} clients");
            self.report.note(&format!("pgbench_{clients}"), &name, tps, "/s", String::new());
        }
    }

    /// The bytes of a list of 50, from a server that is only there for that.
    async fn page_of_50(&self) -> Vec<u8> {
        let server = self.server(false).await;
        let account = Arc::new(server.api().account().await);
        let run = next_run();
        batches(&account, &creates((0..60).map(|n| task_id(run, 0, n)))).await;
        server.caught_up().await;
        account.read("/api/v1/tasks?limit=50").await.expect(200).body
    }

    fn handler(&mut self, page: &[u8]) -> Helper {
        let file = self.cluster.dir().join("page.json");
        // the folder belongs to Postgres' user; root and that user can both write it
        let file =
            if fs::write(&file, page).is_ok() { file } else { std::env::temp_dir().join("primetrade-page.json") };
        fs::write(&file, page).expect("page");
        let port = free_port();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .arg("handler")
            .arg(port.to_string())
            .arg(&file)
            .spawn()
            .expect("handler");
        reaper::kill_at_end(child.id());
        system_tests::wait::until_blocking("the handler listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        self.baselines.handler_url = format!("http://127.0.0.1:{port}");
        Helper(child)
    }

    fn empty_handlers(&mut self) {
        self.report.part("Empty handlers of the same axum, same load generator, same scripts");
        for connections in [1, SOME_CONNECTIONS, MANY_CONNECTIONS] {
            let post = self.wrk("create.lua", &self.baselines.handler_url, connections, "x", vec![]);
            self.report.note(
                &format!("empty_post_{connections}"),
                &format!("empty POST, {connections} connections"),
                post.per_second,
                "/s",
                latency(&post),
            );
        }
        for (key, path) in [("empty_get_64", "/"), ("same_bytes_64", "/bytes")] {
            let variables = vec![("BENCH_PATH", path.to_owned())];
            let get = self.wrk("get.lua", &self.baselines.handler_url, SOME_CONNECTIONS, "x", variables);
            self.report.note(
                key,
                &format!("GET {path}, {SOME_CONNECTIONS} connections"),
                get.per_second,
                "/s",
                latency(&get),
            );
        }
    }

    async fn server(&self, held: bool) -> Server {
        let database = self.cluster.create_database().await;
        self.server_on(&self.cluster.url(&database), held).await
    }

    async fn server_on(&self, url: &str, held: bool) -> Server {
        let config = Config::new(url).variable("PRIMETRADE_LOG", "warn");
        Server::start(if held { config.flag("--hold-projector") } else { config }).await
    }

    fn wrk(&self, script: &str, url: &str, connections: u32, token: &str, more: Vec<(&str, String)>) -> Measured {
        let mut variables = vec![("BENCH_TOKEN", token.to_owned()), ("BENCH_RUN", next_run().to_string())];
        // a later one of the same name wins
        variables.extend(more);
        Run { script, url, connections, seconds: self.plan.seconds, variables }.measure()
    }

    /// A run of creates or completes against the server; no 2xx is without its row. What an event cost until the last answer
    /// belongs to the figure that comes next.
    async fn writes(
        &mut self,
        server: &Server,
        script: &str,
        connections: u32,
        token: &str,
        more: Vec<(&str, String)>,
    ) -> Measured {
        let exact = !more.iter().any(|(name, _)| *name == "BENCH_DUPLICATES");
        let pool = pool(server.database_url()).await;
        let before = head(&pool).await;
        let begun = Reading::of(&pool, server).await;
        let measured = self.wrk(script, server.api().base(), connections, token, more);
        let ended = Reading::of(&pool, server).await;
        let stored = head(&pool).await - before;
        pool.close().await;
        let cost = begun.spent(&ended, stored);
        self.report.details(vec![cost.line()], cost.to_json());
        assert_eq!(measured.bad, 0, "{script}: answers of 400 and above");
        let requests = i64::try_from(measured.requests).expect("requests");
        if exact {
            // wrk stops listening at the end: what was under way then may be stored as well
            assert!(
                (requests..=requests + i64::from(connections)).contains(&stored),
                "{requests} answers, {stored} rows"
            );
        }
        measured
    }

    /// Of the append path, with the projector held.
    async fn held(&mut self) {
        let server = self.server(true).await;
        let account = Arc::new(server.api().account().await);
        if self.plan.has("append") {
            self.report.part("Append path, projector held");
            self.append(&server, &account, "").await;
        }
        if self.plan.has("snapshot") {
            self.snapshot(&server, &account).await;
        }
        if self.plan.has("bulk") {
            self.report.part("Bulk, projector held");
            self.bulk(&server, &account, "").await;
            self.rebuild(&server, "").await;
        }
        self.report.note("memory_held", "memory of the process", mebibytes(&server), "MiB", String::new());
    }

    async fn append(&mut self, server: &Server, account: &Account, suffix: &str) {
        // connections, plans and caches are warm, as they are in a server that runs
        self.writes(server, "create.lua", SOME_CONNECTIONS, &account.token, vec![]).await;
        for (connections, share) in [(MANY_CONNECTIONS, 0.45), (SOME_CONNECTIONS, 0.35), (1, 0.0)] {
            let creates = self.writes(server, "create.lua", connections, &account.token, vec![]).await;
            self.create_figure(&creates, connections, share, suffix);
        }
        for connections in [MANY_CONNECTIONS, SOME_CONNECTIONS] {
            let create = self.report.get(&format!("create_{connections}{suffix}")).unwrap_or(f64::NAN);
            let completes = self.completes(server, account, connections, create).await;
            let ratio = completes.per_second / create;
            self.report.target(
                &format!("complete_{connections}{suffix}"),
                &format!("completes, {connections} connections"),
                (completes.per_second, "/s"),
                format!("{} of the creates, {}", percent(ratio), latency(&completes)),
                "≥ 75 % of the creates",
                ratio >= 0.75,
            );
            let twentieth = vec![("BENCH_DUPLICATES", "20".to_owned())];
            let duplicates = self.writes(server, "create.lua", connections, &account.token, twentieth).await;
            let mut said = self.cluster.errors(server.database_url());
            said.retain(|line| line.contains("duplicate key"));
            assert!(said.is_empty(), "{} errors in the log of Postgres: {:?}", said.len(), said.first());
            let ratio = duplicates.per_second / create;
            self.report.target(
                &format!("duplicates_{connections}{suffix}"),
                &format!("creates, 5 % duplicates, {connections} connections"),
                (duplicates.per_second, "/s"),
                format!("{} of the creates, {}", percent(ratio), latency(&duplicates)),
                "≥ 2/3 of the creates",
                ratio >= 2.0 / 3.0,
            );
        }
    }

    fn create_figure(&mut self, creates: &Measured, connections: u32, share: f64, suffix: &str) {
        let empty = self.report.get(&format!("empty_post_{connections}")).unwrap_or(f64::NAN);
        let ratio = creates.per_second / empty;
        let beside = format!("{} of an empty POST, {}", percent(ratio), latency(creates));
        let key = format!("create_{connections}{suffix}");
        let name = format!("creates, {connections} connections");
        let value = (creates.per_second, "/s");
        if connections == 1 {
            let over = creates.p50_ms - self.baselines.fsync_ms;
            let beside = format!("p50 {} ms, {} ms over the fsync", rounded(creates.p50_ms), rounded(over));
            self.report.target(&key, &name, value, beside, "p50 ≤ fsync + 0.4 ms", over <= 0.4);
        } else {
            let p99_ms_max = if connections == MANY_CONNECTIONS { 20.0 } else { f64::INFINITY };
            let target = if p99_ms_max.is_finite() {
                format!("≥ {} of it, p99 ≤ 20 ms", percent(share))
            } else {
                format!("≥ {} of it", percent(share))
            };
            self.report.target(&key, &name, value, beside, &target, ratio >= share && creates.p99_ms <= p99_ms_max);
        }
    }

    /// Completes of tasks that are made just before, as many as could be needed.
    async fn completes(&mut self, server: &Server, account: &Account, connections: u32, per_second: f64) -> Measured {
        let run = next_run();
        let threads = connections.min(2);
        // both threads get what one could use alone if the other had none
        let each = (per_second * self.plan.seconds as f64 * 0.9) as usize + 2_000;
        let ids = (0..threads).flat_map(|thread| (1..=each).map(move |n| task_id(run, thread, n)));
        batches(&Arc::new(account.at(server.api())), &creates(ids)).await;
        self.writes(server, "complete.lua", connections, &account.token, vec![("BENCH_RUN", run.to_string())]).await
    }

    /// Creates while somebody holds a snapshot.
    async fn snapshot(&mut self, server: &Server, account: &Account) {
        self.report.part("While somebody holds a snapshot open");
        let before = self.writes(server, "create.lua", SOME_CONNECTIONS, &account.token, vec![]).await;
        let holder = pool(server.database_url()).await;
        let mut snapshot = holder.begin().await.expect("transaction");
        sqlx::query("set transaction isolation level repeatable read").execute(&mut *snapshot).await.expect("set");
        head(&holder).await;
        sqlx::query("select count(*) from event_store.head").execute(&mut *snapshot).await.expect("snapshot");
        let started = Instant::now();
        let mut last = before;
        let mut aged = 0.0;
        while started.elapsed().as_secs() < self.plan.snapshot_seconds {
            last = self.writes(server, "create.lua", SOME_CONNECTIONS, &account.token, vec![]).await;
            aged = started.elapsed().as_secs_f64();
        }
        snapshot.rollback().await.expect("rollback");
        holder.close().await;
        let ratio = last.per_second / before.per_second;
        let beside = format!("{} of {} /s before, after {aged:.0} s", percent(ratio), rounded(before.per_second));
        let value = (last.per_second, "/s");
        self.report.target(
            "snapshot",
            "creates, 64 connections, snapshot open",
            value,
            beside,
            "≥ 80 % of before",
            ratio >= 1.0 - GROWTH_LOSS_MAX,
        );
    }

    async fn bulk(&mut self, server: &Server, account: &Arc<Account>, suffix: &str) {
        let run = next_run();
        let commands = lives((0..self.plan.bulk_commands / 5).map(|n| task_id(run, 0, n)));
        let pool = pool(server.database_url()).await;
        let begun = Reading::of(&pool, server).await;
        let seconds = batches(account, &commands).await;
        let ended = Reading::of(&pool, server).await;
        pool.close().await;
        let cost = begun.spent(&ended, i64::try_from(commands.len()).expect("commands"));
        self.report.details(vec![cost.line()], cost.to_json());
        let per_second = commands.len() as f64 / seconds;
        self.report.target(
            &format!("batch{suffix}"),
            "batch endpoint",
            (per_second, "events/s"),
            format!("{} events in {} s, {BATCH} a batch", rounded(commands.len() as f64), rounded(seconds)),
            "≥ 50,000",
            per_second >= 50_000.0,
        );
        let run = next_run();
        let mut lines = lives((0..self.plan.bulk_commands / 5).map(|n| task_id(run, 0, n))).join("\n");
        lines.push('\n');
        let file = server.dir().join("import.ndjson");
        fs::write(&file, lines).expect("import file");
        let arguments = ["import", file.to_str().expect("path"), "--owner", &account.email, "--json"];
        let report = server.cli(&arguments).await.expect(0).json();
        let (events, seconds) = (float(&report, "events"), float(&report, "seconds"));
        let beside = format!("{} events in {} s", rounded(events), rounded(seconds));
        let value = (events / seconds, "events/s");
        self.report.target(
            &format!("import{suffix}"),
            "import",
            value,
            beside,
            "≥ 50,000",
            events / seconds >= 50_000.0,
        );
        let _ = fs::remove_file(&file);
    }

    /// Read, fold and COPY; indexes and comparison apart.
    async fn rebuild(&mut self, server: &Server, suffix: &str) {
        let report = server.cli(&["rebuild", "--json"]).await.expect(0).json();
        let events = float(&report, "events");
        let copy =
            report["copy_seconds"].as_f64().or(report["fill_seconds"].as_f64()).unwrap_or(float(&report, "seconds"));
        let part = |name: &str| report[name].as_f64().map_or("?".to_owned(), rounded);
        let beside = format!(
            "{} events in {} s; indexes {} s, comparison {} s",
            rounded(events),
            rounded(copy),
            part("index_seconds"),
            part("compare_seconds")
        );
        let value = (events / copy, "events/s");
        self.report.target(
            &format!("rebuild{suffix}"),
            "rebuild: read, fold, COPY",
            value,
            beside,
            "≥ 100,000",
            events / copy >= 100_000.0,
        );
    }

    /// With the projector working.
    async fn live(&mut self) {
        let server = self.server(false).await;
        if self.plan.has("projector") {
            self.report.part("With the projector working");
            self.with_projector(&server).await;
        }
        if self.plan.has("lists") {
            self.report.part("Queries");
            self.lists(&server).await;
        }
        if self.plan.has("visible") {
            self.report.part("Command to visible in a query, open loop");
            self.visible(&server, "").await;
        }
        self.report.note("memory_live", "memory of the process", mebibytes(&server), "MiB", String::new());
    }

    async fn with_projector(&mut self, server: &Server) {
        let account = server.api().account().await;
        for connections in [MANY_CONNECTIONS, SOME_CONNECTIONS] {
            let creates = self.writes(server, "create.lua", connections, &account.token, vec![]).await;
            let started = Instant::now();
            server.caught_up().await;
            let name = format!("creates, {connections} connections");
            let beside = format!("{}; lag 0 after {} s", latency(&creates), rounded(started.elapsed().as_secs_f64()));
            self.report.note(&format!("projector_create_{connections}"), &name, creates.per_second, "/s", beside);
        }
        self.cost_of_creates(server, &account).await;
    }

    /// What a create costs until it can be read: title of 40 characters, description of 50.
    async fn cost_of_creates(&mut self, server: &Server, account: &Account) {
        let pool = pool(server.database_url()).await;
        let before = head(&pool).await;
        let begun = Reading::of(&pool, server).await;
        let texts = vec![("BENCH_LONG", "1".to_owned())];
        self.writes(server, "create.lua", MANY_CONNECTIONS, &account.token, texts).await;
        server.caught_up().await;
        let ended = Reading::of(&pool, server).await;
        let events = head(&pool).await - before;
        let cost = begun.spent_on_records(&ended, events, &pool).await;
        pool.close().await;
        self.report.details(cost.table(), cost.to_json());
        let wal = (cost.wal_bytes, "B");
        let beside = format!("{} creates, 256 connections, until lag 0", rounded(events as f64));
        let met = cost.wal_bytes <= WAL_BYTES_MAX;
        self.report.target("event_wal", "write-ahead log, an event", wal, beside, "≤ 1,400 B", met);
        let disk = (cost.disk_bytes, "B");
        let met = cost.disk_bytes <= DISK_BYTES_MAX;
        self.report.target("event_disk", "disk, an event", disk, String::new(), "≤ 900 B", met);
    }

    async fn visible(&mut self, server: &Server, suffix: &str) {
        let mut accounts = Vec::new();
        for _ in 0..8 {
            accounts.push(server.api().account().await);
        }
        let (times, failed) = command_to_visible(accounts, 1_000, self.plan.visible_seconds).await;
        let (p50, p99) = (times.percentile(50.0), times.percentile(99.0));
        let beside = format!("p99 {} ms, {} commands, {failed} refused", rounded(p99), rounded(times.len() as f64));
        let met = p50 <= 10.0 && p99 <= 50.0 && failed == 0;
        self.report.target(
            &format!("visible_p50{suffix}"),
            "1,000 commands/s",
            (p50, "ms p50"),
            beside,
            "p50 ≤ 10, p99 ≤ 50 ms",
            met,
        );
        self.report.note(&format!("visible_p99{suffix}"), "1,000 commands/s", p99, "ms p99", String::new());
    }
}

/// The head of the log once nothing of an earlier run is under way any more: it has stood still for a moment.
async fn head(pool: &PgPool) -> i64 {
    const STILL_MS: u64 = 200;
    let mut before = None;
    loop {
        let now = until("the head", Duration::from_secs(10), || async {
            sqlx::query_scalar::<_, i64>("select sum(position)::bigint from event_store.head")
                .fetch_one(pool)
                .await
                .ok()
        })
        .await;
        if before == Some(now) {
            return now;
        }
        before = Some(now);
        tokio::time::sleep(Duration::from_millis(STILL_MS)).await;
    }
}

fn latency(measured: &Measured) -> String {
    format!("p50 {} p99 {} ms", rounded(measured.p50_ms), rounded(measured.p99_ms))
}

fn percent(ratio: f64) -> String {
    format!("{:.0} %", ratio * 100.0)
}

fn mebibytes(server: &Server) -> f64 {
    server.resident_bytes() as f64 / (1024.0 * 1024.0)
}

fn float(object: &Value, field: &str) -> f64 {
    object[field].as_f64().unwrap_or_else(|| panic!("{field} in {object}"))
}
