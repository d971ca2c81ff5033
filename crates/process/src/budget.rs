//! A budget of what a process has a fixed amount of, such as memory for bodies. One client gets a part of it at most, so that
//! the rest is left for others. Who waits is served in the order of arrival.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The whole amount, and the part of each client. Clones share one budget.
#[derive(Debug)]
pub struct Budget<K: Copy + Eq + Hash>(Arc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    all: Arc<Semaphore>,
    each_max: u32,
    /// Clients that hold a reservation or wait for one.
    clients: Mutex<HashMap<K, Client>>,
}

#[derive(Debug)]
struct Client {
    askers: usize,
    part: Arc<Semaphore>,
}

/// An amount of a budget, until it is dropped.
#[must_use = "it is given back when it is dropped"]
#[derive(Debug)]
pub struct Reservation<K: Copy + Eq + Hash> {
    of_all: OwnedSemaphorePermit,
    of_part: OwnedSemaphorePermit,
    _asker: Asker<K>,
}

/// A client that holds a reservation or waits for one, until it is dropped.
#[derive(Debug)]
struct Asker<K: Copy + Eq + Hash> {
    budget: Budget<K>,
    client: K,
}

impl<K: Copy + Eq + Hash> Budget<K> {
    /// `all` is the whole amount, `each_max` the most that one client may hold.
    #[must_use]
    pub fn new(all: u32, each_max: u32) -> Self {
        let all = Arc::new(Semaphore::new(all as usize));
        Self(Arc::new(Inner { all, each_max, clients: Mutex::default() }))
    }

    /// Waits for `amount`, or for a client's whole part where that is less. The caller limits the time.
    pub async fn take(&self, client: K, amount: u32) -> Reservation<K> {
        // first from the client's own part: while it waits for that, it takes nothing from the others
        let mut reservation = self.begin(client, amount).await;
        reservation.grow(amount).await;
        reservation
    }

    /// Waits for `amount` of a client's own part, and takes nothing of the whole amount before the reservation
    /// [grows](Reservation::grow).
    pub async fn begin(&self, client: K, amount: u32) -> Reservation<K> {
        let (asker, part) = self.asker(client);
        let of_part = permits(part, amount.min(self.0.each_max)).await;
        let of_all = permits(self.0.all.clone(), 0).await;
        Reservation { of_all, of_part, _asker: asker }
    }

    fn asker(&self, client: K) -> (Asker<K>, Arc<Semaphore>) {
        let mut clients = self.clients();
        let new = || Client { askers: 0, part: Arc::new(Semaphore::new(self.0.each_max as usize)) };
        let found = clients.entry(client).or_insert_with(new);
        found.askers += 1;
        (Asker { budget: self.clone(), client }, found.part.clone())
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<K, Client>> {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From a semaphore that nobody closes.
async fn permits(semaphore: Arc<Semaphore>, amount: u32) -> OwnedSemaphorePermit {
    match semaphore.acquire_many_owned(amount).await {
        Ok(permits) => permits,
        Err(_) => std::future::pending().await,
    }
}

impl<K: Copy + Eq + Hash> Reservation<K> {
    /// Waits until it is so much, though no more than it was begun with.
    pub async fn grow(&mut self, amount: u32) {
        let held = self.of_all.num_permits();
        let more = (amount as usize).min(self.of_part.num_permits()).saturating_sub(held);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.of_all.merge(permits(self.of_all.semaphore().clone(), more).await);
    }

    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.of_all.num_permits()
    }

    /// Gives back what is beyond `amount`.
    pub fn shrink(&mut self, amount: usize) {
        for permits in [&mut self.of_all, &mut self.of_part] {
            let beyond = permits.num_permits().saturating_sub(amount);
            drop(permits.split(beyond));
        }
    }
}

impl<K: Copy + Eq + Hash> Clone for Budget<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Copy + Eq + Hash> Drop for Asker<K> {
    fn drop(&mut self) {
        let mut clients = self.budget.clients();
        if let Some(client) = clients.get_mut(&self.client) {
            client.askers -= 1;
            if client.askers == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_client_gets_its_part_and_the_rest_is_there_for_others() {
        let budget = Budget::new(10, 4);
        let now = |client, amount| budget.take(client, amount).now_or_never();
        let held = now("a", 4).expect("there is enough");
        assert!(now("a", 1).is_none(), "more than its part");
        let all = [held, now("b", 4).expect("another client"), now("c", 2).expect("what is left")];
        assert!(now("d", 1).is_none(), "there is no more");
        drop(all);
        let _whole_part = now("d", 100).expect("all was given back");
        assert!(now("d", 1).is_none(), "and no more than its part");
    }

    #[test]
    fn what_is_not_needed_is_given_back() {
        let budget = Budget::new(8, 8);
        let mut reservation = budget.take("a", 8).now_or_never().expect("there is enough");
        reservation.shrink(3);
        assert!(budget.take("b", 6).now_or_never().is_none());
        assert!(budget.take("a", 6).now_or_never().is_none());
        let rest = [budget.take("a", 3).now_or_never(), budget.take("b", 2).now_or_never()];
        assert!(rest.iter().all(Option::is_some));
        reservation.shrink(5);
        drop((reservation, rest));
        assert!(budget.take("b", 8).now_or_never().is_some());
    }

    #[test]
    fn what_has_only_begun_is_there_for_others() {
        let budget = Budget::new(4, 4);
        let mut begun = budget.begin("a", 4).now_or_never().expect("its own part");
        assert!(budget.begin("a", 1).now_or_never().is_none(), "all of which it has");
        let other = budget.take("b", 3).now_or_never().expect("nothing is taken yet");
        assert_eq!((begun.grow(1).now_or_never(), begun.amount()), (Some(()), 1));
        assert_eq!((begun.grow(2).now_or_never(), begun.amount()), (None, 1));
        drop(other);
        assert_eq!((begun.grow(100).now_or_never(), begun.amount()), (Some(()), 4));
    }

    #[tokio::test]
    async fn who_waits_for_itself_stands_in_nobody_s_way() {
        let budget = Budget::new(4, 2);
        let first = budget.take("a", 2).await;
        let mut waits = Box::pin(budget.take("a", 2));
        assert!(futures_util::poll!(&mut waits).is_pending());
        let _other = budget.take("b", 2).now_or_never().expect("nobody is before it");
        drop(first);
        drop(waits.await);
    }

    #[tokio::test]
    async fn who_has_nothing_and_waits_for_nothing_is_forgotten() {
        let budget = Budget::new(2, 2);
        let held = budget.take("a", 2).await;
        let mut gives_up = Box::pin(budget.take("b", 1));
        assert!(futures_util::poll!(&mut gives_up).is_pending());
        assert_eq!(budget.clients().len(), 2);
        drop(gives_up);
        assert_eq!(budget.clients().len(), 1);
        drop(held);
        assert_eq!(budget.clients().len(), 0);
    }
}
