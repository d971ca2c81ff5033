//! Tasks that run as long as the process.

use std::collections::HashMap;
use std::time::Duration;

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tasks that run beside the listener, and the token by which they end.
#[derive(Default)]
pub struct Background {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
    /// Cancelled when nobody asks any more.
    pub stop: CancellationToken,
}

/// A task has ended that should run as long as the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {0} ended, which it should not; see the log. The process ends, so that it can be started again")]
pub struct Died(&'static str);

impl Background {
    /// Starts a task that ends only when `stop` is cancelled; should it end before, so does the process.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Returns when a task has ended that should run as long as the process.
    pub async fn first_to_die(&mut self) -> Died {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                tracing::error!(%error, "a background task has died");
                error.id()
            }
            None => std::future::pending().await,
        };
        Died(self.names.get(&id).copied().unwrap_or("background task"))
    }

    /// Lets what is under way be written, for a bounded time.
    pub async fn stop(mut self, time_max: Duration) {
        self.stop.cancel();
        let stopping = async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.names.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
        };
        if tokio::time::timeout(time_max, stopping).await.is_err() {
            let still: Vec<&str> = self.names.into_values().collect();
            tracing::warn!("not stopped within {} ms: {}", time_max.as_millis(), still.join(", "));
        }
    }
}

/// Tasks that end together, as one: before `stop` when the first of them does, after it when all have.
pub async fn all_of(mut tasks: JoinSet<()>, stop: CancellationToken) {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err() || !stop.is_cancelled() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_is_told_by_its_name_also_when_it_panicked() {
        let mut background = Background::default();
        let stop = background.stop.clone();
        background.spawn("long one", stop.cancelled_owned());
        background.spawn("short one", async {});
        assert_eq!(background.first_to_die().await, Died("short one"));
        background.spawn("broken one", async { panic!("as it should") });
        assert_eq!(background.first_to_die().await, Died("broken one"));
        background.stop(Duration::from_secs(10)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_not_waited_for() {
        let mut background = Background::default();
        background.spawn("stuck one", std::future::pending());
        background.stop(Duration::from_secs(3)).await;
    }
}
