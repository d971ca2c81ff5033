//! Lists: from the cache, unchanged, and never asked for before.

use std::sync::Arc;

use system_tests::client::Account;
use system_tests::server::Server;

use super::{Bench, GROWTH_LOSS_MAX, SOME_CONNECTIONS, latency, next_run, percent};
use crate::load::{batches, creates, first_pages, task_id};
use crate::report::rounded;

impl Bench<'_> {
    pub(super) async fn lists(&mut self, server: &Server) {
        let few = server.api().account().await;
        let many = Arc::new(server.api().account().await);
        for (account, tasks) in [(&Arc::new(few.at(server.api())), 100), (&many, self.plan.many_tasks)] {
            let run = next_run();
            batches(account, &creates((0..tasks).map(|n| task_id(run, 0, n)))).await;
        }
        server.caught_up().await;
        let path = "/api/v1/tasks?limit=50";
        let ask = |account: &Account, etag: Option<&str>| {
            let variables = vec![("BENCH_PATH", path.to_owned()), ("BENCH_ETAG", etag.unwrap_or_default().to_owned())];
            self.wrk("get.lua", server.api().base(), SOME_CONNECTIONS, &account.token, variables)
        };
        let cached = ask(&many, None);
        let etag = many.request("GET", path).send().await.expect(200).must("ETag").to_owned();
        let unchanged = ask(&many, Some(&etag));
        let (bytes, empty) =
            (self.report.get("same_bytes_64").unwrap_or(f64::NAN), self.report.get("empty_get_64").unwrap_or(f64::NAN));
        let ratio = cached.per_second / bytes;
        let beside = format!("{} of a handler of the same bytes, {}", percent(ratio), latency(&cached));
        self.report.target(
            "list_cached",
            "list of 50 from the cache, 64 connections",
            (cached.per_second, "/s"),
            beside,
            "≥ 50 %",
            ratio >= 0.5,
        );
        let ratio = unchanged.per_second / empty;
        let beside = format!("{} of an empty GET, {}", percent(ratio), latency(&unchanged));
        self.report.target(
            "list_304",
            "304, 64 connections",
            (unchanged.per_second, "/s"),
            beside,
            "≥ 75 %",
            ratio >= 0.75,
        );
        // The first second after a start reads more slowly: plans are made, the owner's columns are loaded.
        self.wrk("lists.lua", server.api().base(), 8, &many.token, vec![]);
        for connections in [1, 8] {
            let lists = self.wrk("lists.lua", server.api().base(), connections, &many.token, vec![]);
            assert_eq!(lists.bad, 0, "lists.lua: answers of 400 and above");
            let name = format!(
                "first pages, no two alike, {} tasks, {connections} conn.",
                rounded(self.plan.many_tasks as f64)
            );
            let (value, beside) = (
                (lists.p99_ms, "ms p99"),
                format!("p50 {} ms, {} /s", rounded(lists.p50_ms), rounded(lists.per_second)),
            );
            self.report.target(
                &format!("list_uncached_{connections}"),
                &name,
                value,
                beside,
                "p99 ≤ 5 ms",
                lists.p99_ms <= 5.0,
            );
        }
        let pages = 200 * usize::try_from(self.plan.seconds).unwrap_or(1) / 2;
        let (small, large) = (first_pages(&few, pages).await, first_pages(&many, pages).await);
        let ratio = small.percentile(50.0) / large.percentile(50.0);
        let beside = format!(
            "{} ms with 100 tasks; p99 {} and {} ms",
            rounded(small.percentile(50.0)),
            rounded(large.percentile(99.0)),
            rounded(small.percentile(99.0))
        );
        let name = format!("first page after a change, {} tasks", rounded(self.plan.many_tasks as f64));
        self.report.target(
            "first_page_growth",
            &name,
            (large.percentile(50.0), "ms p50"),
            beside,
            "at most a fifth slower",
            ratio >= 1.0 - GROWTH_LOSS_MAX,
        );
    }
}
