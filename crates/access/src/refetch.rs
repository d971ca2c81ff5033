//! Requests that wait for the keys of tokens to be fetched again.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Requests that wait for a fetch; more are answered at once.
const ASKING_MAX: usize = 256;

/// Asks for the keys to be fetched now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Refetch {
    ask: mpsc::Sender<oneshot::Sender<()>>,
    time_max: Duration,
}

/// Where it is asked.
pub(crate) struct Asked(mpsc::Receiver<oneshot::Sender<()>>);

/// Those that wait for one fetch.
pub(crate) struct Waiting(Vec<oneshot::Sender<()>>);

impl Refetch {
    /// One whose requests wait at most so long.
    pub(crate) fn channel(time_max: Duration) -> (Self, Asked) {
        let (ask, asked) = mpsc::channel(ASKING_MAX);
        (Self { ask, time_max }, Asked(asked))
    }

    /// Returns once they have been fetched, or were a moment ago, or it took too long.
    pub async fn wait(&self) {
        let (answer, answered) = oneshot::channel();
        if self.ask.try_send(answer).is_ok() {
            let _ = tokio::time::timeout(self.time_max, answered).await;
        }
    }
}

impl Asked {
    /// Those that have asked, once anybody has; never, once nobody can any more.
    pub async fn next(&mut self) -> Waiting {
        let Some(first) = self.0.recv().await else { return std::future::pending().await };
        let mut waiting = vec![first];
        while let Ok(answer) = self.0.try_recv() {
            waiting.push(answer);
        }
        Waiting(waiting)
    }
}

impl Waiting {
    /// It was done.
    pub fn answer(self) {
        for answer in self.0 {
            // the request may be gone
            let _ = answer.send(());
        }
    }
}
