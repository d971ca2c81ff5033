//! How slow the machine is meanwhile, by itself: so that a test that asks for a time says something about the product
//! also where the machine has something else to do.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::pool;

const EVERY_MS: u64 = 50;
/// From a command to where it is read: two commits in a row, a broker's acknowledgement, and as many processes as that
/// takes woken up.
const STEPS: u32 = 10;

/// When it should have begun, and when it was done; the last one is under way.
type Step = (Instant, Option<Instant>);

/// A small commit to a table of the test's own, again and again: what each step of ours takes at least, and nothing that
/// ours can delay.
#[derive(Debug)]
pub struct Slowness {
    steps: Arc<Mutex<Vec<Step>>>,
    task: JoinHandle<()>,
}

impl Slowness {
    /// Looks at it until it is dropped.
    pub async fn watch(database_url: &str) -> Slowness {
        let pool = pool(database_url).await;
        sqlx::query("create table public.slowness (at timestamptz not null)").execute(&pool).await.expect("a table");
        let steps = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(look(pool, Arc::clone(&steps)));
        Slowness { steps, task }
    }

    /// What something that takes less than `limit` on an idle machine may have taken that began then.
    pub fn allowed(&self, limit: Duration, began: Instant) -> Duration {
        let now = Instant::now();
        let steps = self.steps.lock().expect("steps");
        let meanwhile = steps.iter().rev().take_while(|(_, end)| end.is_none_or(|end| end >= began));
        let slowest = meanwhile.map(|(start, end)| end.unwrap_or(now) - *start).max().unwrap_or_default();
        limit + STEPS * slowest
    }
}

impl Drop for Slowness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn look(pool: PgPool, steps: Arc<Mutex<Vec<Step>>>) {
    let mut tick = interval(Duration::from_millis(EVERY_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // that this task is late is the machine's slowness too
        steps.lock().expect("steps").push((Instant::now() + Duration::from_millis(EVERY_MS), None));
        tick.tick().await;
        sqlx::query("insert into public.slowness values (now())").execute(&pool).await.expect("a commit");
        if let Some((_, end)) = steps.lock().expect("steps").last_mut() {
            *end = Some(Instant::now());
        }
    }
}
