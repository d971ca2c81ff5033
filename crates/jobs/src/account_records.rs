use std::sync::Arc;

use domain::OwnerId;
use futures_util::future::BoxFuture;
use uuid::Uuid;

/// Why what is known of an account could not be read.
pub type AccountError = Box<dyn std::error::Error + Send + Sync>;

type Profile = dyn Fn(OwnerId) -> BoxFuture<'static, Result<String, AccountError>> + Send + Sync;
type Audit =
    dyn Fn(OwnerId, Option<Uuid>) -> BoxFuture<'static, Result<Vec<(Uuid, String)>, AccountError>> + Send + Sync;

/// What is known of an account beside its tasks, as JSON. The program gives it: jobs know no accounts.
#[derive(Clone)]
pub struct AccountRecords {
    /// The account as it sees itself.
    pub profile: Arc<Profile>,
    /// A page of what was done to the account or by it, the newest first, older than the one named. The last page is empty.
    pub audit: Arc<Audit>,
}
