//! Where the tests of the HTTP contract go: a server of their own, or `PRIMETRADE_TEST_URL` (another way of running
//! the same contract, such as the gateway of the services).

use std::sync::Once;

use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::client::{Account, Api};
use crate::cluster::{Cluster, unique};
use crate::server::{CliRun, Config, Server, cli};

/// An address to test, shared by all tests of a binary.
pub struct World {
    /// A client of it, without an account.
    pub api: Api,
    /// The server, where this process started it.
    pub server: Option<Server>,
    database_url: String,
}

static WORLD: OnceCell<World> = OnceCell::const_new();

/// Starts it on the first call.
pub async fn world() -> &'static World {
    WORLD.get_or_init(start).await
}

/// A client for this test (a connection pool belongs to one runtime).
pub async fn api() -> Api {
    Api::new(world().await.api.base())
}

/// An account that is an admin.
pub async fn admin() -> Account {
    let world = world().await;
    let email = format!("admin-{}-{}@example.com", unique(), Uuid::new_v4().simple());
    let password = "the admin's own password";
    world
        .cli(&["user", "create", "--email", &email, "--name", "An Admin", "--admin", "--password-stdin"], password)
        .await
        .expect(0);
    api().await.log_in(Uuid::nil(), &email, password).await
}

impl World {
    /// The command line on the same database.
    pub async fn cli(&self, arguments: &[&str], input: &str) -> CliRun {
        let dir = std::env::temp_dir();
        cli(&dir, Some(&self.database_url), arguments, input).await
    }
}

async fn start() -> World {
    if let Ok(url) = std::env::var("PRIMETRADE_TEST_URL") {
        return World {
            api: Api::new(&url),
            server: None,
            database_url: std::env::var("PRIMETRADE_TEST_DATABASE_URL").unwrap_or_default(),
        };
    }
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let server = Server::start(Config::new(cluster.url(&database))).await;
    show_log_on_failure();
    World { api: server.api(), database_url: server.database_url().to_owned(), server: Some(server) }
}

fn show_log_on_failure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            inner(panic);
            if let Some(server) = WORLD.get().and_then(|world| world.server.as_ref()) {
                eprintln!("--- log of the shared server:\n{}", server.log_tail());
            }
        }));
    });
}
