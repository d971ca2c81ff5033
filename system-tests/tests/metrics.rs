//! The services as a real Prometheus sees them: every rule of `deploy/prometheus` and every panel of `deploy/grafana` is
//! asked for where there is something to see.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::client::http;
use system_tests::cluster::{Cluster, free_port, temp_dir};
use system_tests::kafka::{Kafka, machine};
use system_tests::ledger::{Ledger, Load};
use system_tests::reaper;
use system_tests::redis::Redis;
use system_tests::services::{Parts, Services};
use system_tests::wait::until;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
const SOON: Duration = Duration::from_secs(60);

/// A running Prometheus; killed with the test.
struct Prometheus {
    port: u16,
    child: Child,
}

impl Prometheus {
    /// Scrapes the services each second, with the rules of `deploy/prometheus`.
    fn watch(services: &Services) -> Prometheus {
        let found = machine("need_prometheus && command -v prometheus").output().expect("bash");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let (dir, port): (PathBuf, u16) = (temp_dir("prometheus"), free_port());
        let copies = [
            ("command-api", &services.commands),
            ("query-api", &services.queries),
            ("projector", &services.projectors),
        ];
        let jobs = copies.map(|(job, copies)| {
            let targets = copies.each_ref().map(|copy| copy.address().to_string());
            json!({"job_name": job, "static_configs": [{"targets": targets}]})
        });
        // what is JSON is YAML too
        let settings = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [format!("{DEPLOY}/prometheus/rules.yml")],
            "scrape_configs": jobs,
        });
        fs::write(dir.join("prometheus.yml"), settings.to_string()).expect("a file");
        let log = fs::File::create(dir.join("log")).expect("log file");
        let mut command = Command::new(String::from_utf8_lossy(&found.stdout).trim());
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log file")).stderr(log);
        let child = command.spawn().expect("prometheus");
        reaper::kill_at_end(child.id());
        Prometheus { port, child }
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/api/v1/{path}", self.port);
        let url = reqwest::Url::parse_with_params(&url, parameters).expect("a URL");
        let answer = http().get(url).send().await.ok()?;
        answer.json::<Value>().await.ok()
    }

    /// The series that an expression gives now.
    async fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.get("query", &[("query", expression)]).await.expect("an answer");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("series").clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        reaper::gone(self.child.id());
    }
}

/// What the dashboard shows of, and the alerts judge by, things that are not always there: failures, mostly.
const MAY_BE_AWAY: [&str; 11] = [
    "status=\"5xx\"",
    "problems_total",
    "rate_limited_total",
    "requests_shed_total",
    "projector_errors_total",
    "projector_partitions_stopped",
    "command_conflicts_total",
    "commands_replayed_total",
    "event_store_checked_appends_total",
    "cache_hits_total",
    "streams_open",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_sees_what_the_alerts_and_the_dashboard_ask_for() {
    let (cluster, kafka, redis) = (Cluster::shared(), Kafka::shared(), Redis::shared());
    let services = Services::start(Parts::new(&cluster, kafka.brokers(), redis.url()).await).await;
    let prometheus = Prometheus::watch(&services);
    let ledger = Ledger::new(services.api().account().await);
    let load = Load::start(&ledger, 2);
    until("all copies are scraped", SOON, || async {
        prometheus
            .get("query", &[("query", "sum(up)")])
            .await
            .filter(|answer| answer["data"]["result"][0]["value"][1] == "6")
    })
    .await;
    ledger.progress(200).await;
    let dashboard = fs::read_to_string(format!("{DEPLOY}/grafana/primetrade.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions: Vec<String> = targets
        .map(|target| target["expr"].as_str().expect("an expression").replace("$__rate_interval", "1m"))
        .collect();
    assert!(expressions.len() > 20, "{}", expressions.len());
    for expression in &expressions {
        if MAY_BE_AWAY.iter().any(|away| expression.contains(away)) {
            prometheus.query(expression).await;
            continue;
        }
        until(expression, SOON, || async { (!prometheus.query(expression).await.is_empty()).then_some(()) }).await;
    }
    // each rule has been evaluated, and nothing is wrong
    let rules = until("the rules are evaluated", SOON, || async {
        let answer = prometheus.get("rules", &[]).await?;
        let groups = answer["data"]["groups"].as_array()?.clone();
        let rules: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_array().cloned()).flatten().collect();
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    })
    .await;
    assert!(rules.len() > 30, "{rules:?}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
    }
    load.stop().await;
    // and one that is killed is told of
    services.queries[1].kill();
    until("the copy that was killed is seen to be down", SOON, || async {
        let down = prometheus.query("ALERTS{alertname=\"CopyDown\"}").await;
        let instance = services.queries[1].address().to_string();
        down.iter().any(|alert| alert["metric"]["instance"] == instance.as_str()).then_some(())
    })
    .await;
}
