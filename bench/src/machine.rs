//! What the machine itself can do: its fsync, and Postgres with one row a transaction.

use std::fs;
use std::process::{Command, Stdio};

use system_tests::cluster::{Cluster, unprivileged};

/// Time of one durable write of 8 kB, as Postgres would make it, in milliseconds.
pub fn fsync_ms(cluster: &Cluster) -> f64 {
    let output = unprivileged(&cluster.bin("pg_test_fsync"))
        .args(["-s", "2", "-f"])
        .arg(cluster.dir().join("data/pg_test_fsync.out"))
        .stderr(Stdio::null())
        .output()
        .expect("pg_test_fsync");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "fdatasync   1234.567 ops/sec     810 usecs/op", the first of them: one write of 8 kB
    let line = text.lines().find(|line| line.trim_start().starts_with("fdatasync"));
    let micros = line.and_then(|line| line.split_whitespace().rev().nth(1)?.parse::<f64>().ok());
    micros.unwrap_or_else(|| panic!("pg_test_fsync: {text}")) / 1_000.0
}

/// Transactions a second of pgbench, each of which inserts one row as wide as an event.
pub fn pgbench_per_second(cluster: &Cluster, clients: u32, seconds: u64) -> f64 {
    let url = cluster.url("postgres");
    let psql = Command::new(cluster.bin("psql"))
        .args(["-q", &url, "-c"])
        .arg(
            "create table if not exists one_row (position bigserial primary key, owner_id uuid, task_id uuid, \
             version bigint, event_id uuid, at timestamptz, data text, unique (owner_id, task_id, version))",
        )
        .stderr(Stdio::null())
        .status();
    assert!(psql.is_ok_and(|status| status.success()), "psql");
    let script = cluster.dir().join("one_row.sql");
    fs::write(
        &script,
        "insert into one_row (owner_id, task_id, version, event_id, at, data) values (gen_random_uuid(), gen_random_uuid(), \
         1, gen_random_uuid(), now(), '{\"title\":\"Task of the benchmark\",\"priority\":\"high\",\"tags\":[\"bench\",\"t1\"]}');\n",
    )
    .expect("script");
    let output = Command::new(cluster.bin("pgbench"))
        .args(["-n", "-M", "prepared", "-c", &clients.to_string(), "-j", &clients.min(2).to_string()])
        .args(["-T", &seconds.to_string(), "-f"])
        .arg(&script)
        .arg(&url)
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    tps.unwrap_or_else(|| panic!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr)))
}
