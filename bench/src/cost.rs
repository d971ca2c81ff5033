//! What an event costs: bytes of write-ahead log and on disk, and time of the processor by process.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use sqlx::PgPool;
use system_tests::process::Process;

use crate::report::rounded;

/// What Linux counts the time of a process in, microseconds.
const TICK_US: f64 = 10_000.0;
/// Smaller relations and kinds of records are not listed, bytes an event.
const LISTED_BYTES_MIN: f64 = 1.0;

/// How far all counters are.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Where the write-ahead log ends.
    lsn: String,
    wal_bytes: i64,
    /// Bytes of each table (with what is toasted) and each index.
    relations: BTreeMap<String, i64>,
    /// By process: what it is, and its time in microseconds.
    processes: BTreeMap<u32, (String, f64)>,
}

/// What each event took between two readings.
#[derive(Clone, Debug)]
pub struct Cost {
    /// Events that were stored.
    pub events: i64,
    /// Of write-ahead log, an event.
    pub wal_bytes: f64,
    /// By which tables and indexes have grown, an event.
    pub disk_bytes: f64,
    /// Of the processor, by what the processes are; the most first.
    cpu_us: Vec<(String, f64)>,
    /// Tables and indexes; the most first.
    relations: Vec<(String, f64)>,
    /// Kinds of records in the write-ahead log, with their number and bytes an event, and of those the bytes of page images.
    records: Vec<(String, f64, f64, f64)>,
}

impl Reading {
    /// Of the database that a server works on, and of the processes.
    pub async fn of(pool: &PgPool, server: &Process) -> Reading {
        let (lsn, wal_bytes): (String, i64) =
            sqlx::query_as("select pg_current_wal_lsn()::text, (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
                .fetch_one(pool)
                .await
                .expect("the end of the log");
        let relations: Vec<(String, i64)> = sqlx::query_as(
            "select n.nspname || '.' || c.relname,
                 case c.relkind when 'i' then pg_relation_size(c.oid) else pg_table_size(c.oid) end
             from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
             where c.relkind in ('r', 'i') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
        )
        .fetch_all(pool)
        .await
        .expect("sizes");
        let backends: Vec<(i32, String)> = sqlx::query_as(
            "select pid, coalesce(nullif(application_name, ''), backend_type) || ', in Postgres' from pg_stat_activity
             where pid <> pg_backend_pid() and (datname is null or datname = current_database())",
        )
        .fetch_all(pool)
        .await
        .expect("backends");
        let mut processes = BTreeMap::from([
            (std::process::id(), ("load generator".to_owned(), cpu_us(std::process::id(), true))),
            (server.pid(), ("server".to_owned(), cpu_us(server.pid(), false))),
        ]);
        for (pid, name) in backends {
            let pid = u32::try_from(pid).expect("a process id");
            processes.insert(pid, (name, cpu_us(pid, false)));
        }
        Reading { lsn, wal_bytes, relations: relations.into_iter().collect(), processes }
    }

    /// What was spent since on so many events. A process that has ended meanwhile is not counted.
    pub fn spent(&self, now: &Reading, events: i64) -> Cost {
        let each = |spent: f64| spent / events.max(1) as f64;
        let mut by_name: BTreeMap<String, f64> = BTreeMap::new();
        for (pid, (name, us)) in &now.processes {
            let before = self.processes.get(pid).filter(|(was, _)| was == name).map_or(0.0, |(_, us)| *us);
            *by_name.entry(name.clone()).or_default() += each(us - before);
        }
        let grown = now.relations.iter().map(|(name, bytes)| {
            let before = self.relations.get(name).copied().unwrap_or(0);
            (name.clone(), each((bytes - before) as f64))
        });
        let relations: Vec<(String, f64)> = grown.collect();
        let mut cost = Cost {
            events,
            wal_bytes: each((now.wal_bytes - self.wal_bytes) as f64),
            disk_bytes: relations.iter().map(|(_, bytes)| bytes).sum(),
            cpu_us: by_name.into_iter().filter(|(_, us)| *us >= 0.05).collect(),
            relations: relations.into_iter().filter(|(_, bytes)| *bytes >= LISTED_BYTES_MIN).collect(),
            records: Vec::new(),
        };
        cost.cpu_us.sort_by(|a, b| b.1.total_cmp(&a.1));
        cost.relations.sort_by(|a, b| b.1.total_cmp(&a.1));
        cost
    }

    /// [`Reading::spent`], and which records the write-ahead log is made of, as far as it is still there. Reads all of it.
    pub async fn spent_on_records(&self, now: &Reading, events: i64, pool: &PgPool) -> Cost {
        let mut cost = self.spent(now, events);
        let there = sqlx::query("create extension if not exists pg_walinspect").execute(pool).await;
        let records: Result<Vec<(String, i64, i64, i64)>, sqlx::Error> = sqlx::query_as(
            "select \"resource_manager/record_type\", count, combined_size, fpi_size
             from pg_get_wal_stats($1::text::pg_lsn, $2::text::pg_lsn, true)
             where count > 0 order by combined_size desc",
        )
        .bind(&self.lsn)
        .bind(&now.lsn)
        .fetch_all(pool)
        .await;
        // Postgres 14 has no such function, and a checkpoint may have removed the beginning.
        if let (Ok(_), Ok(records)) = (there, records) {
            let each = |spent: i64| spent as f64 / events.max(1) as f64;
            let records =
                records.into_iter().map(|(kind, n, bytes, images)| (kind, each(n), each(bytes), each(images)));
            cost.records = records.filter(|(_, _, bytes, _)| *bytes >= LISTED_BYTES_MIN).collect();
        }
        cost
    }
}

impl Cost {
    /// In one line.
    pub fn line(&self) -> String {
        let cpu: Vec<String> = self.cpu_us.iter().map(|(name, us)| format!("{name} {}", rounded(*us))).collect();
        format!(
            "an event: {} B of log, {} B on disk; µs: {}",
            rounded(self.wal_bytes),
            rounded(self.disk_bytes),
            cpu.join("; ")
        )
    }

    /// The same, then relations and kinds of records, a line each.
    pub fn table(&self) -> Vec<String> {
        let relations = self.relations.iter().map(|(name, bytes)| format!("{:>10} B on disk  {name}", rounded(*bytes)));
        let records = self.records.iter().map(|(kind, n, bytes, images)| {
            let of_images =
                if *images >= LISTED_BYTES_MIN { format!(", {} B of images", rounded(*images)) } else { String::new() };
            format!("{:>10} B of log   {kind}, {} records{of_images}", rounded(*bytes), rounded(*n))
        });
        std::iter::once(self.line()).chain(relations).chain(records).collect()
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        let records: Vec<Value> = self
            .records
            .iter()
            .map(|(kind, n, bytes, images)| json!({"kind": kind, "records": n, "bytes": bytes, "image_bytes": images}))
            .collect();
        let by_name =
            |named: &[(String, f64)]| Value::Object(named.iter().map(|(name, n)| (name.clone(), json!(n))).collect());
        json!({
            "events": self.events,
            "wal_bytes": self.wal_bytes,
            "disk_bytes": self.disk_bytes,
            "cpu_us": by_name(&self.cpu_us),
            "relations": by_name(&self.relations),
            "records": records,
        })
    }
}

/// What a process has taken of the processor, microseconds; with the children that it has waited for. Zero: it is gone.
fn cpu_us(pid: u32, with_children: bool) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have anything in it. After it: state, then numbers; utime is the 14th field of all.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = rest.split_whitespace().skip(11).take(if with_children { 4 } else { 2 });
    times.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * TICK_US
}
