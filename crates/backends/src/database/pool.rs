//! Connections that are shared. Where sqlx's own pool gives a connection back by a ping without a
//! limit, which one that died silently never answers, here nothing waits for one without a limit:
//!
//! - one that was given back in the middle of something ends that within [`DRAIN_MS_MAX`], or is closed;
//! - one that nobody has heard of for [`CHECK_EVERY_MS`] is asked before it is used, and while it is idle; that keeps it
//!   alive on its way as well;
//! - once one did not answer, all that are idle are asked before they are used;
//! - none gets older than [`AGE_S_MAX`], so that a name that leads elsewhere is noticed;
//! - one that turns out to be a standby, where somebody writes, is closed; one whose transaction came to nothing is asked
//!   whether it is.
//!
//! What an async function does is compiled where it is awaited. Here the futures are boxed, so that connecting and the
//! protocol are compiled once, and not again in each crate that has a query.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use metrics::gauge;
use sqlx::postgres::{PgConnection, PgTransactionManager};
use sqlx::{Connection, Error, SqlStr, raw_sql};
use sqlx_core::transaction::TransactionManager;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;
use super::sql_error::sql_state;

/// What is under way on a connection that is given back may take so long to end, in milliseconds.
const DRAIN_MS_MAX: u64 = 2_000;
/// A connection that nobody has heard of for so long is asked whether it is there, in milliseconds.
const CHECK_EVERY_MS: u64 = 5_000;
/// How often idle connections are looked at, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;
/// How long a connection is used at most, in seconds.
pub const AGE_S_MAX: u64 = 300;
/// Those that were made together do not end together: each has a part less than the one before, down to three quarters.
const AGE_STEPS: u32 = 16;
const AGE_PARTS: u32 = 64;
/// The first and the longest pause between two attempts to connect, in milliseconds.
const PAUSE_MS_MIN: u64 = 20;
const PAUSE_MS_MAX: u64 = 500;
/// How long a connection may take to say goodbye, in milliseconds.
const CLOSE_MS_MAX: u64 = 1_000;

/// What a new connection does before its first use. That it fails is no reason not to use it.
pub type Prepare = for<'c> fn(&'c mut PgConnection) -> BoxFuture<'c, ()>;

/// How many connections, and how long one is waited for.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    /// At most.
    pub connections_max: u32,
    /// Made before they are asked for.
    pub connections_kept: u32,
    /// How long one is waited for, in milliseconds.
    pub wait_ms_max: u64,
    /// How long one is used, in seconds: [`AGE_S_MAX`], unless a test sets less.
    pub age_s_max: u64,
}

/// A pool of connections. Clones share them.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    address: Address,
    size: PoolSize,
    prepare: Option<Prepare>,
    /// One for each connection that somebody has or makes.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Held>>,
    given_back: Notify,
    open: Arc<AtomicU32>,
    made: AtomicU32,
    /// What was heard of last before this is asked before it is used.
    distrusted: Mutex<Instant>,
    closed: AtomicBool,
    /// In metrics.
    shown_as: OnceLock<&'static str>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("place", &self.0.address.place()).field("size", &self.0.size).finish()
    }
}

/// A connection, and what is known of it.
struct Held {
    connection: PgConnection,
    ends: Instant,
    /// When it answered last.
    heard: Instant,
    _counted: Counted,
}

/// Counts what is open.
struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Closes it, as is polite, while nobody waits for that.
    fn close(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(Duration::from_millis(CLOSE_MS_MAX), self.end()));
        }
    }

    async fn end(self) {
        let Self { connection, _counted, .. } = self;
        // The server notices as well when the socket is closed.
        let _ = connection.close().await;
    }
}

impl Pool {
    /// Connects when it is asked, and in the background now where connections are kept. Needs a Tokio runtime.
    #[must_use]
    pub fn new(address: Address, size: PoolSize, prepare: Option<Prepare>) -> Self {
        let pool = Self(Arc::new(Inner {
            address,
            size,
            prepare,
            permits: Arc::new(Semaphore::new(size.connections_max as usize)),
            idle: Mutex::default(),
            given_back: Notify::new(),
            open: Arc::default(),
            made: AtomicU32::new(0),
            distrusted: Mutex::new(Instant::now()),
            closed: AtomicBool::new(false),
            shown_as: OnceLock::new(),
        }));
        tokio::spawn(look_after(Arc::downgrade(&pool.0)));
        pool
    }

    /// Where its connections lead.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0.address
    }

    /// How many connections there are at most.
    #[must_use]
    pub fn connections_max(&self) -> u32 {
        self.0.size.connections_max
    }

    /// How many connections are open.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// How many of them nobody uses.
    #[must_use]
    pub fn num_idle(&self) -> usize {
        self.0.idle().len()
    }

    /// What came of a statement on another connection to the same database: that the server only reads, since a failover,
    /// means that no connection of before leads to where it should.
    pub fn notice(&self, error: &Error) {
        self.0.notice(error);
    }

    /// Whether a connection that was last found to be good then has to be asked before it is used.
    #[must_use]
    pub fn is_in_doubt_since(&self, found_good: Instant) -> bool {
        found_good <= *self.0.distrusted()
    }

    /// Shows in metrics how it is used, under a name that is none of an address.
    pub fn show_as(&self, name: &'static str) {
        self.0.shown_as.get_or_init(|| name);
        self.0.show();
    }

    /// Whether it is closed, or about to be.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Relaxed)
    }

    /// A connection, once one is free; it goes back when it is dropped.
    ///
    /// # Errors
    /// None in time, or none to be had.
    pub fn acquire(&self) -> BoxFuture<'_, Result<Pooled, Error>> {
        let wait = Duration::from_millis(self.0.size.wait_ms_max);
        Box::pin(async move {
            timeout(wait, self.acquire_by(Instant::now() + wait)).await.unwrap_or(Err(Error::PoolTimedOut))
        })
    }

    async fn acquire_by(&self, deadline: Instant) -> Result<Pooled, Error> {
        let permit = self.0.permits.clone().acquire_owned().await.map_err(|_| Error::PoolClosed)?;
        if self.is_closed() {
            return Err(Error::PoolClosed);
        }
        let held = match self.0.take_good().await {
            Some(held) => held,
            // Where the server, or a pooler before it, has no room for another one, one that comes back will do.
            None => tokio::select! {
                held = self.0.connect(deadline) => held?,
                held = self.0.returned() => held,
            },
        };
        let pool = self.0.clone();
        Ok(Pooled {
            held: Some(held),
            permit: Some(permit),
            pool,
            taken: Instant::now(),
            in_doubt: false,
            begins: false,
        })
    }

    /// A transaction on a connection of its own.
    ///
    /// # Errors
    /// As [`Pool::acquire`], or the database refuses.
    pub fn begin(&self) -> BoxFuture<'_, Result<PoolTransaction, Error>> {
        self.begin_by(None)
    }

    /// A transaction that reads one snapshot in all of its statements, on a connection of its own.
    ///
    /// # Errors
    /// As [`Pool::acquire`], or the database refuses.
    pub fn begin_snapshot(&self) -> BoxFuture<'_, Result<PoolTransaction, Error>> {
        self.begin_by(Some(SqlStr::from_static("begin transaction isolation level repeatable read, read only")))
    }

    fn begin_by(&self, statement: Option<SqlStr>) -> BoxFuture<'_, Result<PoolTransaction, Error>> {
        Box::pin(async {
            let mut connection = self.acquire().await?;
            connection.begins = true;
            PgTransactionManager::begin(&mut connection, statement).await?;
            connection.begins = false;
            Ok(PoolTransaction { connection, ended: false })
        })
    }

    /// Waits until all connections are back, and closes them. From now on there are no new ones.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let all = self.0.permits.acquire_many(self.0.size.connections_max).await;
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle());
        join_all(idle.into_iter().map(|held| timeout(Duration::from_millis(CLOSE_MS_MAX), held.end()))).await;
        drop(all);
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Held>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn distrusted(&self) -> MutexGuard<'_, Instant> {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self) {
        let Some(name) = self.shown_as.get().copied() else { return };
        let idle = u32::try_from(self.idle().len()).unwrap_or(u32::MAX);
        let used = self.open.load(Ordering::Relaxed).saturating_sub(idle);
        for (state, count) in [("idle", idle), ("used", used)] {
            gauge!("database_connections", "pool" => name, "state" => state).set(f64::from(count));
        }
        gauge!("database_connections_max", "pool" => name).set(f64::from(self.size.connections_max));
    }

    /// Whether the error says that the server only reads; then all connections of before are asked before they are used.
    fn notice(&self, error: &Error) -> bool {
        let only_reads = sql_state(error).as_deref() == Some("25006");
        if only_reads {
            *self.distrusted() = Instant::now();
        }
        only_reads
    }

    /// Whether it has to be asked before it is used.
    fn is_in_doubt(&self, held: &Held) -> bool {
        held.heard.elapsed() >= Duration::from_millis(CHECK_EVERY_MS) || held.heard <= *self.distrusted()
    }

    /// An idle connection that is known to be there. Where the first one that is asked is not, a new one is better than
    /// to ask the next.
    async fn take_good(&self) -> Option<Held> {
        loop {
            let held = self.idle().pop()?;
            if held.ends <= Instant::now() {
                held.close();
            } else if !self.is_in_doubt(&held) {
                return Some(held);
            } else {
                return self.asked(held).await;
            }
        }
    }

    /// The connection, if it answers.
    async fn asked(&self, mut held: Held) -> Option<Held> {
        let asked = Instant::now();
        if self.address.check(&mut held.connection).await {
            held.heard = asked;
            return Some(held);
        }
        *self.distrusted() = asked;
        None
    }

    /// A connection that somebody gives back, and that was heard of just then.
    async fn returned(&self) -> Held {
        loop {
            self.given_back.notified().await;
            let mut idle = self.idle();
            if idle.last().is_some_and(|held| !self.is_in_doubt(held) && held.ends > Instant::now())
                && let Some(held) = idle.pop()
            {
                return held;
            }
        }
    }

    /// A new connection, tried for until the deadline where it may come.
    async fn connect(&self, deadline: Instant) -> Result<Held, Error> {
        let mut pause = Duration::from_millis(PAUSE_MS_MIN);
        loop {
            let asked = Instant::now();
            match self.address.connect().await {
                Ok(mut connection) => {
                    let counted = Counted(self.open.clone());
                    self.open.fetch_add(1, Ordering::Relaxed);
                    if let Some(prepare) = self.prepare {
                        prepare(&mut connection).await;
                    }
                    let (age_max, made) =
                        (Duration::from_secs(self.size.age_s_max), self.made.fetch_add(1, Ordering::Relaxed));
                    let ends = asked + age_max - age_max * (made % AGE_STEPS) / AGE_PARTS;
                    return Ok(Held { connection, ends, heard: asked, _counted: counted });
                }
                Err(error) if error.passes() && asked + pause < deadline => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(PAUSE_MS_MAX));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn put_back(&self, held: Held) {
        if self.closed.load(Ordering::Relaxed) || held.ends <= Instant::now() {
            held.close();
        } else {
            self.idle().push(held);
            self.given_back.notify_one();
        }
    }

    /// Ends what is under way on a connection that was given back, and puts it back. Where a transaction `begins`, sqlx does
    /// not know of it, and would leave the next one who uses the connection in it.
    async fn drain(&self, mut held: Held, heard: Instant, begins: bool) {
        let given_back = Instant::now();
        let connection = &mut held.connection;
        let ended = async {
            connection.flush().await?;
            if begins {
                raw_sql("rollback").execute(connection).await?;
            }
            Ok::<_, Error>(())
        };
        match timeout(Duration::from_millis(DRAIN_MS_MAX), ended).await {
            Ok(Ok(())) => self.put_back(Held { heard, ..held }),
            Ok(Err(error)) => tracing::debug!(%error, "a connection to the database is gone"),
            Err(_) => {
                tracing::warn!("a connection to the database does not answer; it is closed");
                *self.distrusted() = given_back;
            }
        }
    }

    /// Asks the idle connections that are in doubt, closes old ones, makes those that are kept.
    async fn look(self: &Arc<Self>) {
        let mut in_doubt = Vec::new();
        {
            let mut idle = self.idle();
            let (keep, look): (Vec<_>, Vec<_>) =
                idle.drain(..).partition(|held| !self.is_in_doubt(held) && held.ends > Instant::now());
            *idle = keep;
            for held in look {
                match self.permits.clone().try_acquire_owned() {
                    Ok(permit) if held.ends > Instant::now() => in_doubt.push((held, permit)),
                    Ok(_) => held.close(),
                    Err(_) => idle.push(held),
                }
            }
        }
        let answers =
            join_all(in_doubt.into_iter().map(|(held, permit)| async move { (self.asked(held).await, permit) }));
        for (held, _permit) in answers.await {
            if let Some(held) = held {
                self.put_back(held);
            }
        }
        while self.open.load(Ordering::Relaxed) < self.size.connections_kept {
            let Ok(_permit) = self.permits.clone().try_acquire_owned() else { return };
            let deadline = Instant::now() + Duration::from_millis(self.size.wait_ms_max);
            match self.connect(deadline).await {
                Ok(held) => self.put_back(held),
                Err(error) => return tracing::debug!(%error, "connections that are kept"),
            }
        }
    }
}

async fn look_after(pool: Weak<Inner>) {
    while let Some(pool) = pool.upgrade() {
        if pool.closed.load(Ordering::Relaxed) {
            return;
        }
        pool.show();
        pool.look().await;
        drop(pool);
        sleep(Duration::from_millis(LOOK_EVERY_MS)).await;
    }
}

/// A connection of a [`Pool`].
pub struct Pooled {
    held: Option<Held>,
    permit: Option<OwnedSemaphorePermit>,
    pool: Arc<Inner>,
    /// When it was taken out.
    taken: Instant,
    /// Whether it is asked before its next use.
    in_doubt: bool,
    /// A transaction was asked for, and it is not known whether it has begun.
    begins: bool,
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").finish_non_exhaustive()
    }
}

impl Pooled {
    /// Gives it up where the statement says that the server only reads, since a failover.
    pub(super) fn seen<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && self.pool.notice(error)
            && let Some(held) = self.held.as_mut()
        {
            held.ends = Instant::now();
        }
        result
    }
}

impl Deref for Pooled {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.held.as_ref().expect("held until dropped").connection
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.held.as_mut().expect("held until dropped").connection
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let (Some(mut held), permit) = (self.held.take(), self.permit.take()) else { return };
        let distrusted = *self.pool.distrusted();
        // what it answered since others found that the server only reads may have been reads
        let heard = if self.in_doubt || self.taken <= distrusted { distrusted } else { Instant::now() };
        let begins = self.begins;
        // Done at once where nothing is under way.
        match held.connection.flush().now_or_never() {
            Some(Ok(())) if !begins => self.pool.put_back(Held { heard, ..held }),
            Some(Err(error)) => tracing::debug!(%error, "a connection to the database is gone"),
            Some(Ok(())) | None => {
                if let Ok(runtime) = Handle::try_current() {
                    let pool = self.pool.clone();
                    runtime.spawn(async move {
                        pool.drain(held, heard, begins).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// A transaction on a connection of a [`Pool`]; rolled back when it is dropped.
#[derive(Debug)]
pub struct PoolTransaction {
    connection: Pooled,
    ended: bool,
}

impl PoolTransaction {
    /// Commits.
    ///
    /// # Errors
    /// The database refuses; or nobody knows whether it did.
    pub fn commit(self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async {
            let mut transaction = self;
            let committed = PgTransactionManager::commit(&mut transaction.connection).await;
            transaction.ended = committed.is_ok();
            transaction.connection.seen(committed)
        })
    }

    /// Rolls back and waits for that.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn rollback(self) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async {
            let mut transaction = self;
            PgTransactionManager::rollback(&mut transaction.connection).await?;
            transaction.ended = true;
            Ok(())
        })
    }
}

impl Deref for PoolTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PoolTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for PoolTransaction {
    fn drop(&mut self) {
        if !self.ended {
            PgTransactionManager::start_rollback(&mut self.connection);
            // what failed in it may have been that the server only reads
            self.connection.in_doubt = true;
        }
    }
}
