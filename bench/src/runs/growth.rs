//! The same runs with a large store, and what is left of the speed of an empty one.

use std::sync::Arc;
use std::time::Instant;

use system_tests::cluster::pool;
use system_tests::server::Server;

use super::{Bench, GROWTH_LOSS_MAX, SOME_CONNECTIONS, head, mebibytes, next_run};
use crate::load::{batches, lives, task_id};
use crate::report::rounded;

impl Bench<'_> {
    /// The same once more with a large store.
    pub(super) async fn grown(&mut self) {
        let database = self.cluster.create_database().await;
        let url = self.cluster.url(&database);
        let server = self.server_on(&url, true).await;
        self.report.part("Growth: the store is filled");
        let started = Instant::now();
        let filled = pool(&url).await;
        while head(&filled).await < self.plan.grown_events {
            let account = Arc::new(server.api().account().await);
            let run = next_run();
            batches(&account, &lives((0..50_000).map(|n| task_id(run, 0, n)))).await;
        }
        let events = head(&filled).await as f64;
        self.report.note(
            "grown_events",
            "events in the store",
            events,
            "",
            format!("filled in {} s", rounded(started.elapsed().as_secs_f64())),
        );
        filled.close().await;
        let account = Arc::new(server.api().account().await);
        self.report.part("Growth: append path, projector held");
        self.append(&server, &account, "_grown").await;
        self.bulk(&server, &account, "_grown").await;
        self.report.part("Growth: rebuild");
        self.rebuild(&server, "_grown").await;
        server.kill();
        self.report.part("Growth: command to visible");
        let live = self.server_on(&url, false).await;
        live.caught_up().await;
        self.visible(&live, "_grown").await;
        self.memory(&live).await;
        self.compare_growth();
    }

    /// With a million tasks, and again after as much work as before.
    async fn memory(&mut self, server: &Server) {
        self.report.part("Memory of the process, Postgres apart");
        let account = server.api().account().await;
        let mut seen = Vec::new();
        for _ in 0..3 {
            self.writes(server, "create.lua", SOME_CONNECTIONS, &account.token, vec![]).await;
            server.caught_up().await;
            seen.push(mebibytes(server));
        }
        let (first, last) = (seen[0], seen[2]);
        let beside = format!("{} MiB two rounds of load before", rounded(first));
        let met = last < 150.0 && last <= first * 1.1 + 5.0;
        self.report.target(
            "memory_grown",
            "memory with a million tasks",
            (last, "MiB"),
            beside,
            "< 150 MB, and flat",
            met,
        );
    }

    fn compare_growth(&mut self) {
        self.report.part("Growth: what is left of the speed of an empty store");
        for key in [
            "create_256",
            "create_64",
            "create_1",
            "complete_256",
            "complete_64",
            "duplicates_64",
            "batch",
            "import",
            "rebuild",
        ] {
            if let (Some(before), Some(after)) = (self.report.get(key), self.report.get(&format!("{key}_grown"))) {
                let ratio = after / before;
                let beside = format!("{} → {}", rounded(before), rounded(after));
                self.report.target(
                    &format!("growth_{key}"),
                    key,
                    (ratio * 100.0, "%"),
                    beside,
                    "≥ 80 %",
                    ratio >= 1.0 - GROWTH_LOSS_MAX,
                );
            }
        }
        if let (Some(before), Some(after)) = (self.report.get("visible_p50"), self.report.get("visible_p50_grown")) {
            let beside = format!("{} → {} ms", rounded(before), rounded(after));
            self.report.target(
                "growth_visible",
                "command to visible, p50",
                (before / after * 100.0, "%"),
                beside,
                "≥ 80 %",
                before / after >= 1.0 - GROWTH_LOSS_MAX,
            );
        }
    }
}
