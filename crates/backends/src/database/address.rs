//! Where a database is, and what a connection to it has to be like. Every connection of every program is made by
//! [`Address::connect`]: one host after the other, until one answers that is what is wanted; its session is set up
//! after connecting, in one statement, since a connection pooler takes no settings at the start. Where a setting of the
//! database stands in a file, it is read again before each connection: whoever keeps the secrets may change them.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Executor, Row};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::sql_error::{message, sql_state};
use super::url::ReadAgain;

/// Keepalive and user time-out of the sockets, from the server's side: the client library opens ours and gives no access to
/// them. A client that has vanished is noticed within 11 s, and its locks are free again.
const TCP: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
];
/// How long one host may take to connect and to say what it is, in milliseconds.
const HOST_MS_MAX: u64 = 2_000;
/// How long a connection may take to say that it is still there, in milliseconds.
const CHECK_MS_MAX: u64 = 1_000;
/// How long a second connection is waited for, by which it is found out whether sessions are shared, in milliseconds.
const SECOND_MS_MAX: u64 = 1_000;
/// How often two connections are asked in turn who serves them.
const TURNS: usize = 3;

/// What is done at a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Writes, and keeps settings and locks in its session: a server that only reads is not what is wanted.
    Write,
    /// Reads only, also at a standby, and without a session of its own where a pooler shares them.
    Read,
}

/// Which of several servers is wanted: `target_session_attrs` of the URL, or what the use asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Any,
    Writable,
    Standby,
}

/// Whether what is set in a session is still set at the next statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sessions {
    Own,
    /// A pooler gives each transaction another server connection.
    Shared {
        /// It keeps prepared statements all the same.
        prepared: bool,
    },
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody there, or refused.
    #[error("{}", message(.0))]
    Database(#[from] sqlx::Error),
    /// A standby, or a server whose transactions are read-only.
    #[error("the server at {0} only reads: it is a standby, or default_transaction_read_only is on")]
    ReadOnly(String),
    /// Writable, where a standby is asked for.
    #[error("the server at {0} is not a standby, which target_session_attrs asks for")]
    NotStandby(String),
    /// A connection pooler that gives each transaction another server connection.
    #[error(
        "a connection pooler at {0} shares its connections between transactions (PgBouncer: pool_mode = transaction or statement), and settings and locks of this program's sessions would be somebody else's. Set pool_mode = session for this database, or give the address of Postgres itself; only query-api works in transaction mode"
    )]
    SharedSessions(String),
    /// The same without prepared statements.
    #[error(
        "a connection pooler at {0} shares its connections between transactions and loses prepared statements (PgBouncer: pool_mode = transaction with max_prepared_statements = 0, or a version before 1.21, which cannot keep them). Set max_prepared_statements = 200 in pgbouncer.ini, or pool_mode = session"
    )]
    NoPreparedStatements(String),
}

impl ConnectError {
    /// Whether it may be over in a moment: the server starts, has no place, or another one becomes the primary.
    pub(super) fn passes(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Io(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
            Self::Database(error) => matches!(sql_state(error).as_deref(), Some("57P03" | "53300")),
            Self::ReadOnly(_) | Self::NotStandby(_) => true,
            Self::SharedSessions(_) | Self::NoPreparedStatements(_) => false,
        }
    }
}

impl From<ConnectError> for sqlx::Error {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Database(error) => error,
            ConnectError::ReadOnly(_)
            | ConnectError::NotStandby(_)
            | ConnectError::SharedSessions(_)
            | ConnectError::NoPreparedStatements(_) => Self::Io(io::Error::other(error.to_string())),
        }
    }
}

/// Where a database is, as one or several servers of which one is wanted, and what a session there is set to. Cheap to
/// clone; clones know the same of the servers.
#[derive(Clone, Debug)]
pub struct Address {
    servers: Arc<RwLock<Servers>>,
    /// What `pg_stat_activity` shows.
    application: String,
    again: Option<ReadAgain>,
    wanted: Wanted,
    /// The URL says what is wanted.
    named: bool,
    for_use: Use,
    settings: Vec<(&'static str, &'static str)>,
    /// Which server is tried first: the one that was wanted last.
    next: Arc<AtomicUsize>,
}

/// The servers, and the URL that says them.
#[derive(Debug)]
struct Servers {
    all: Arc<[PgConnectOptions]>,
    /// Whether they share sessions, once that is known.
    sessions: Arc<OnceCell<Sessions>>,
    /// Where it has been read again.
    url: Option<SecretString>,
    /// It could not be, which has been said.
    is_failing: bool,
}

/// One server whose sessions are this program's own, for writing.
impl From<PgConnectOptions> for Address {
    fn from(server: PgConnectOptions) -> Self {
        let sessions = Arc::new(OnceCell::new_with(Some(Sessions::Own)));
        Self::of(vec![server], Wanted::Any, Use::Write, sessions)
    }
}

impl Address {
    /// `postgres://user:password@host:5432,other:5432/database?target_session_attrs=read-write`: one host or several, with
    /// what libpq calls `any`, `read-write`, `primary`, `read-only` or `standby`. Without it, `for_use` decides. Nobody is
    /// asked.
    ///
    /// # Errors
    /// What is wrong with it, without a part of it.
    pub fn parse(url: &SecretString, for_use: Use) -> Result<Self, String> {
        let (urls, attributes) = split(url.expose_secret())?;
        let wanted = match attributes.as_deref() {
            None if for_use == Use::Write => Wanted::Writable,
            None | Some("any") => Wanted::Any,
            Some("read-write" | "primary") => Wanted::Writable,
            Some("read-only" | "standby") => Wanted::Standby,
            Some(_) => {
                let known = "any, read-write, primary, read-only or standby";
                return Err(format!("target_session_attrs in it is none of {known}"));
            }
        };
        if for_use == Use::Write && wanted != Wanted::Writable {
            return Err("this database is written to: target_session_attrs in it has to be read-write".to_owned());
        }
        let servers = servers_of(&urls)?;
        Ok(Self { named: attributes.is_some(), ..Self::of(servers, wanted, for_use, Arc::default()) })
    }

    /// Nothing is compiled (`jit`): no statement here runs for so long that it pays, and on a fresh database the planner
    /// believes it of some that run every second.
    fn of(servers: Vec<PgConnectOptions>, wanted: Wanted, for_use: Use, sessions: Arc<OnceCell<Sessions>>) -> Self {
        let servers = Servers { all: plain(servers), sessions, url: None, is_failing: false };
        let servers = Arc::new(RwLock::new(servers));
        let settings = [("jit", "off")].into_iter().chain(TCP).collect();
        let application = "primetrade".to_owned();
        let next = Arc::default();
        Self { servers, application, again: None, wanted, named: false, for_use, settings, next }
    }

    /// The same, whose URL is read again before each connection.
    #[must_use]
    pub(super) fn read_again(self, again: ReadAgain) -> Self {
        Self { again: Some(again), ..self }
    }

    fn servers(&self) -> Arc<[PgConnectOptions]> {
        self.known().0
    }

    /// The servers, and whether they share sessions.
    fn known(&self) -> (Arc<[PgConnectOptions]>, Arc<OnceCell<Sessions>>) {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        (servers.all.clone(), servers.sessions.clone())
    }

    /// Takes what the files say by now. Where they cannot be read, what they said before stays: they may be just being
    /// written.
    async fn renew(&self) {
        let Some(again) = self.again.clone() else { return };
        let read = tokio::task::spawn_blocking(move || {
            let url = again.url().map_err(|error| error.to_string())?;
            let (urls, _) = split(url.expose_secret())?;
            Ok::<_, String>((servers_of(&urls)?, url))
        });
        let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok((all, url)) => {
                let is_new = servers.url.as_ref().is_some_and(|known| known.expose_secret() != url.expose_secret());
                // at another place there may be a pooler
                let is_same_place = all.iter().map(place).eq(servers.all.iter().map(place));
                let sessions = if is_same_place { servers.sessions.clone() } else { Arc::default() };
                *servers = Servers { all: plain(all), sessions, url: Some(url), is_failing: false };
                drop(servers);
                if is_new {
                    tracing::info!(database = %self.place(), "the settings of a database have changed in their file");
                }
            }
            Err(error) if !servers.is_failing => {
                servers.is_failing = true;
                tracing::warn!(%error, "the settings of a database cannot be read again; those of before stay");
            }
            Err(_) => {}
        }
    }

    /// The same for who only reads: one server will do while it is a standby; of several, the one that was wanted.
    #[must_use]
    pub fn for_reading(self) -> Self {
        let wanted = if self.servers().len() == 1 && !self.named { Wanted::Any } else { self.wanted };
        Self { for_use: Use::Read, wanted, ..self }
    }

    /// What `pg_stat_activity` shows.
    #[must_use]
    pub fn called(self, application: &str) -> Self {
        Self { application: application.to_owned(), ..self }
    }

    /// With more settings of the session. They are made after connecting, where the session is the connection's own.
    #[must_use]
    pub fn with<const N: usize>(mut self, settings: [(&'static str, &'static str); N]) -> Self {
        self.settings.extend(settings);
        self
    }

    /// A connection: to the server that was the wanted one last, else to the first other one that is.
    ///
    /// # Errors
    /// Of the last server that was tried.
    pub fn connect(&self) -> BoxFuture<'_, Result<PgConnection, ConnectError>> {
        Box::pin(async {
            self.renew().await;
            let (servers, sessions) = self.known();
            let (count, first) = (servers.len(), self.next.load(Ordering::Relaxed));
            let mut error = ConnectError::Database(sqlx::Error::Io(io::ErrorKind::AddrNotAvailable.into()));
            for turn in 0..count {
                let number = (first + turn) % count;
                // Who gives up while this one is waited for begins with the next one.
                self.next.store((number + 1) % count, Ordering::Relaxed);
                let server = servers[number].clone().application_name(&self.application);
                let attempt = timeout(Duration::from_millis(HOST_MS_MAX), self.connect_to(&server, &sessions)).await;
                match attempt.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into())) {
                    Ok(connection) => {
                        self.next.store(number, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Err(failed) => error = failed,
                }
            }
            Err(error)
        })
    }

    async fn connect_to(
        &self,
        server: &PgConnectOptions,
        sessions: &OnceCell<Sessions>,
    ) -> Result<PgConnection, ConnectError> {
        let mut connection = server.connect().await?;
        let settings = match sessions.get_or_init(|| find_sessions(server, &mut connection)).await {
            Sessions::Own => self.settings.as_slice(),
            Sessions::Shared { .. } if self.for_use == Use::Write => {
                return Err(ConnectError::SharedSessions(place(server)));
            }
            Sessions::Shared { prepared: false } => return Err(ConnectError::NoPreparedStatements(place(server))),
            Sessions::Shared { prepared: true } => &[],
        };
        let (names, values): (Vec<&str>, Vec<&str>) = settings.iter().copied().unzip();
        let is = sqlx::query!(
            r#"select pg_is_in_recovery() as "standby!", current_setting('transaction_read_only')::boolean as "reads_only!",
                (select count(set_config(name, value, false)) from unnest($1::text[], $2::text[]) as setting (name, value))"#,
            &names as _,
            &values as _
        );
        let is = is.fetch_one(&mut connection).await?;
        self.judge(server, is.standby, is.reads_only)?;
        Ok(connection)
    }

    fn judge(&self, server: &PgConnectOptions, standby: bool, reads_only: bool) -> Result<(), ConnectError> {
        match self.wanted {
            // who only reads may have said so in its session
            Wanted::Writable if standby || reads_only && self.for_use == Use::Write => {
                Err(ConnectError::ReadOnly(place(server)))
            }
            Wanted::Standby if !standby => Err(ConnectError::NotStandby(place(server))),
            Wanted::Any | Wanted::Writable | Wanted::Standby => Ok(()),
        }
    }

    /// Whether a connection answers in time and is still what is wanted.
    pub async fn check(&self, connection: &mut PgConnection) -> bool {
        let is = sqlx::query!(
            r#"select pg_is_in_recovery() as "standby!", current_setting('transaction_read_only')::boolean as "reads_only!""#
        );
        match timeout(Duration::from_millis(CHECK_MS_MAX), is.fetch_one(connection)).await {
            Ok(Ok(is)) => self.judge(&self.servers()[0], is.standby, is.reads_only).is_ok(),
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Hosts, ports and database, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match self.servers().as_ref() {
            [server] => place(server),
            servers => servers.iter().map(place).collect::<Vec<_>>().join(" or "),
        }
    }
}

/// `extra_float_digits` is what any server has by itself that is new enough.
fn plain(servers: Vec<PgConnectOptions>) -> Arc<[PgConnectOptions]> {
    let plain = |server: PgConnectOptions| server.extra_float_digits(None).disable_statement_logging();
    servers.into_iter().map(plain).collect()
}

fn servers_of(urls: &[String]) -> Result<Vec<PgConnectOptions>, String> {
    let servers: Result<Vec<_>, _> = urls.iter().map(|url| PgConnectOptions::from_str(url)).collect();
    servers.map_err(|_| "it is not a URL as postgres://user:password@host:5432/database".to_owned())
}

/// Whether two connections have two sessions. A pooler in transaction mode lets both have the one that is free.
async fn find_sessions(server: &PgConnectOptions, first: &mut PgConnection) -> Sessions {
    let find = async {
        let mut second = server.connect().await?;
        let (of_first, of_second) = (backend(first).await?, backend(&mut second).await?);
        let mut shared = of_first == of_second;
        for _ in 1..TURNS {
            shared |= backend(first).await? != of_first || backend(&mut second).await? != of_second;
        }
        if !shared {
            return Ok(Sessions::Own);
        }
        // Each has a statement of the same name, which is one too many where the pooler does not keep them apart.
        let mut prepared = true;
        for connection in [first, &mut second] {
            prepared &= sqlx::query!("select 1 as one").fetch_one(connection).await.is_ok();
        }
        Ok::<_, sqlx::Error>(Sessions::Shared { prepared })
    };
    match timeout(Duration::from_millis(SECOND_MS_MAX), find).await {
        Ok(Ok(sessions)) => sessions,
        // Who has to wait until the first connection ends has a session of its own; and who has no room for a second
        // connection does not share.
        Ok(Err(_)) | Err(_) => Sessions::Own,
    }
}

/// Who serves a connection. Not prepared: it is not known yet whether that is possible.
async fn backend(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = connection.fetch_one("select pg_backend_pid()").await?;
    row.try_get(0)
}

fn place(server: &PgConnectOptions) -> String {
    let database = server.get_database().unwrap_or_else(|| server.get_username());
    match server.get_socket() {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{}:{}/{database}", server.get_host(), server.get_port()),
    }
}

/// One URL for each host, and `target_session_attrs`. The form with several hosts is libpq's, not one of URLs.
fn split(url: &str) -> Result<(Vec<String>, Option<String>), String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut others, mut attributes) = (Vec::new(), None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("target_session_attrs", value)) => attributes = Some(value.to_owned()),
            _ => others.push(pair),
        }
    }
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    let Some((scheme, rest)) = address.split_once("://") else { return Ok((vec![url.to_owned()], attributes)) };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (user, hosts) = authority.rfind('@').map_or(("", authority), |at| authority.split_at(at + 1));
    if hosts.split(',').count() > 1 && hosts.split(',').any(str::is_empty) {
        return Err("one of the hosts in it has no name".to_owned());
    }
    Ok((hosts.split(',').map(|host| format!("{scheme}://{user}{host}{path}{query}")).collect(), attributes))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use settings::Source;

    use super::super::connect;
    use super::super::url::DatabaseUrls;
    use super::*;

    #[tokio::test]
    async fn whether_sessions_are_shared_is_found_out_anew_at_another_place() {
        let file = std::env::temp_dir().join(format!("database-url-{}", uuid::Uuid::new_v4()));
        let write = |url: &str| {
            fs::write(&file, url).expect("writes");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("permissions");
        };
        write("postgres://u:before@db/app");
        let source = Source::from_pairs([("PRIMETRADE_DATABASE_URL_FILE", file.to_str().expect("UTF-8"))]);
        let given = DatabaseUrls::read(&source).expect("good").write.expect("given");
        let address = connect::address(&given, Use::Write).expect("a URL");
        address.known().1.set(Sessions::Own).expect("nobody was asked");
        for (url, expected) in
            [("postgres://u:after@db/app", Some(Sessions::Own)), ("postgres://u:after@pooler/app", None)]
        {
            write(url);
            address.renew().await;
            assert_eq!(address.known().1.get().copied(), expected, "{url}");
        }
        fs::remove_file(file).expect("removes");
    }

    fn parse(url: &str, for_use: Use) -> Result<Address, String> {
        Address::parse(&url.to_owned().into(), for_use)
    }

    #[test]
    fn one_host_or_several() {
        for (url, place, wanted) in [
            ("postgres://u:p@db:5433/app", "db:5433/app", Wanted::Any),
            ("postgres://u:p@db/app?target_session_attrs=read-write", "db:5432/app", Wanted::Writable),
            ("postgres://u@a,b:5433/app?target_session_attrs=any", "a:5432/app or b:5433/app", Wanted::Any),
            (
                "postgres://u@a:1,[::1]:2/app?target_session_attrs=standby&sslmode=disable",
                "a:1/app or [::1]:2/app",
                Wanted::Standby,
            ),
            ("postgres:///app?user=u&host=/run/postgres", "/run/postgres/app", Wanted::Any),
        ] {
            let address = parse(url, Use::Read).expect(url);
            assert_eq!((address.place().as_str(), address.wanted), (place, wanted), "{url}");
        }
        assert_eq!(parse("postgres://u@a,b/app", Use::Write).expect("a URL").wanted, Wanted::Writable);
    }

    #[test]
    fn what_is_wrong_is_told_without_a_part_of_it() {
        for (url, for_use, named) in [
            ("postgres://u:secret@a,,b/app", Use::Read, "no name"),
            ("postgres://u:secret@a/app?target_session_attrs=prefer-standby", Use::Read, "target_session_attrs"),
            ("postgres://u:secret@a/app?target_session_attrs=standby", Use::Write, "read-write"),
            ("postgres://u:secret@a:b:c/app", Use::Write, "not a URL"),
        ] {
            let told = parse(url, for_use).expect_err(url);
            assert!(told.contains(named) && !told.contains("secret"), "{told}");
        }
    }
}
