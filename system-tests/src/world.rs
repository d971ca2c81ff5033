//! Where the tests of the HTTP contract go: one process, or the gateway of the services. A test file is told by its
//! root, and is the same for both.

use std::sync::{Arc, Once};

use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::client::{Account, Api};
use crate::cluster::{Cluster, unique};
use crate::server::{CliRun, Config, Server};
use crate::stack::Stack;

/// The two ways of running, under the same names.
macro_rules! way_of_running {
    ($(#[$about:meta])* $way:ident, $world:ident, $start:ident) => {
        $(#[$about])*
        pub mod $way {
            use super::{$start, $world, Account, Api, World};

            async fn world() -> &'static World {
                $world.get_or_init($start).await
            }

            /// A client for this test (a connection pool belongs to one runtime).
            pub async fn api() -> Api {
                Api::new(&world().await.base)
            }

            /// An account that is an admin.
            pub async fn admin() -> Account {
                world().await.admin().await
            }

            /// Where livez, readyz and metrics are: of commands, of queries, of the projector.
            pub async fn ops() -> [Api; 3] {
                world().await.ops()
            }
        }
    };
}

way_of_running! {
    /// One process on a port.
    one_process, ONE_PROCESS, start_one_process
}

way_of_running! {
    /// The gateway, and two copies of each service behind it.
    services, SERVICES, start_services
}

static ONE_PROCESS: OnceCell<World> = OnceCell::const_new();
static SERVICES: OnceCell<World> = OnceCell::const_new();

/// What is tested, shared by all tests of a binary.
struct World {
    base: String,
    ops: [String; 3],
    target: Target,
}

enum Target {
    OneProcess(Arc<Server>),
    Services(Arc<Stack>),
}

impl World {
    async fn admin(&self) -> Account {
        let email = format!("admin-{}-{}@example.com", unique(), Uuid::new_v4().simple());
        let password = "the admin's own password";
        let arguments = ["user", "create", "--email", &email, "--name", "An Admin", "--admin", "--password-stdin"];
        let run: CliRun = match &self.target {
            Target::OneProcess(server) => server.cli_with_input(&arguments, password).await,
            Target::Services(stack) => stack.cli_with_input(&arguments, password).await,
        };
        run.expect(0);
        Api::new(&self.base).log_in(Uuid::nil(), &email, password).await
    }

    fn ops(&self) -> [Api; 3] {
        [0, 1, 2].map(|index| Api::new(&self.ops[index]))
    }
}

async fn start_one_process() -> World {
    let cluster = Cluster::shared();
    let database = cluster.create_database().await;
    let server = Arc::new(Server::start(Config::new(cluster.url(&database))).await);
    let shown = Arc::clone(&server);
    show_on_failure(move || shown.log_tail());
    let base = server.api().base().to_owned();
    World { ops: [base.clone(), base.clone(), base.clone()], base, target: Target::OneProcess(server) }
}

async fn start_services() -> World {
    let stack = Arc::new(Stack::start().await);
    let shown = Arc::clone(&stack);
    show_on_failure(move || shown.log_tails());
    World {
        base: stack.api().base().to_owned(),
        ops: ["command-api-1", "query-api-1", "projector-1"].map(|part| stack.ops(part).base().to_owned()),
        target: Target::Services(stack),
    }
}

fn show_on_failure(log: impl Fn() -> String + Send + Sync + 'static) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let inner = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            inner(panic);
            eprintln!("--- log of what all tests share:\n{}", log());
        }));
    });
}
