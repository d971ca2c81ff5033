//! Searches among many tasks.

use std::sync::Arc;

use super::{Bench, latency, mebibytes, next_run};
use crate::load::{batches, task_id};
use crate::report::rounded;

const CONNECTIONS: u32 = 8;
const LIST_MS_MAX: f64 = 20.0;
const SUGGEST_MS_MAX: f64 = 10.0;
/// Different words of the texts beside those that are searched for.
const WORDS: usize = 20_000;
const SYLLABLES: [&str; 20] = [
    "ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "xi", "yo",
    "zu",
];

impl Bench<'_> {
    pub(super) async fn search(&mut self) {
        self.report.part("Search, no two requests alike");
        let server = self.server(false).await;
        let account = Arc::new(server.api().account().await);
        let (run, tasks) = (next_run(), self.plan.many_tasks);
        let commands: Vec<String> = (0..tasks).map(|n| create(&task_id(run, 0, n), n, tasks)).collect();
        batches(&account, &commands).await;
        server.caught_up().await;
        let before = mebibytes(&server);
        let ask = |kind: &str| {
            let variables = vec![("BENCH_KIND", kind.to_owned())];
            let measured = self.wrk("search.lua", server.api().base(), CONNECTIONS, &account.token, variables);
            assert_eq!(measured.bad, 0, "search.lua: answers of 400 and above");
            measured
        };
        // The owner's texts are loaded meanwhile.
        ask("rare");
        let kinds = [
            ("rare", "a word that 10 tasks have", LIST_MS_MAX),
            ("half", "a word that half of them have", LIST_MS_MAX),
            ("phrase", "a phrase that one in 20 has", LIST_MS_MAX),
            ("han", "a run of Han and kana, one in 10", LIST_MS_MAX),
            ("facets", "facets of half of them", LIST_MS_MAX),
            ("suggest", "suggestions", SUGGEST_MS_MAX),
            ("mistakes", "suggestions for a mistyped word", SUGGEST_MS_MAX),
        ];
        let measured = kinds.map(|(kind, _, _)| ask(kind));
        for ((kind, name, ms_max), measured) in kinds.into_iter().zip(measured) {
            let beside = format!("{}, {} /s", latency(&measured), rounded(measured.per_second));
            let target = format!("p99 ≤ {ms_max} ms");
            let value = (measured.p99_ms, "ms p99");
            self.report.target(&format!("search_{kind}"), name, value, beside, &target, measured.p99_ms <= ms_max);
        }
        let memory = mebibytes(&server);
        self.report.note("search_memory", "memory", memory, "MiB", format!("{} MiB before", rounded(before)));
    }
}

/// A create of the n-th of so many tasks.
fn create(id: &str, n: usize, tasks: usize) -> String {
    let word = |k: usize| word(n * 31 + k * 7_919);
    let rare = n % (tasks / 10).max(1);
    let half = if n.is_multiple_of(2) { "half" } else { "other" };
    // As many have the words or characters in another order.
    let phrase = ["quarterly report", "report quarterly"].get(n % 20).unwrap_or(&"");
    let han = ["明日の会議の準備をする", "準備と明日の会議"].get(n / 2 % 10).unwrap_or(&"");
    let description: Vec<String> = (3..15).map(word).collect();
    format!(
        "{{\"type\":\"CreateTask\",\"task_id\":\"{id}\",\"title\":\"{} {half} {} rare{rare}\",\
         \"description\":\"{} {phrase} {han}\",\"due_at\":\"2031-05-0{}T12:00:00Z\",\"tags\":[\"bench\",\"{}\"]}}",
        word(1),
        word(2),
        description.join(" "),
        1 + n % 9,
        self::word(n % 100),
    )
}

/// As in wrk/search.lua.
fn word(number: usize) -> String {
    let mut rest = number % WORDS;
    let mut text = String::new();
    for _ in 0..4 {
        text += SYLLABLES[rest % SYLLABLES.len()];
        rest /= SYLLABLES.len();
    }
    text
}
