use std::io;

use backends::database::DatabaseError;
use process::logs::LogsError;
use process::traces::TracesError;
use service::ListenError;
use settings::ConfigError;

use crate::data_dir::DataDirError;
use crate::database::OpenError;
use crate::doctor::DoctorError;
use crate::import::ImportError;
use crate::privileges::PrivilegesError;
use crate::salvage::SalvageFailure;
use crate::serve::ServeError;

/// Why a command could not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    #[error(transparent)]
    Traces(#[from] TracesError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Identity(#[from] identity::StartError),
    #[error("{0}")]
    Account(#[from] identity::IdentityError),
    #[error("{0}")]
    ApiKey(#[from] identity::ApiKeyError),
    #[error("there is no API key {0}. See them all with primetrade keys api list")]
    NoApiKey(uuid::Uuid),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    Export(#[from] task_files::ExportError),
    #[error(transparent)]
    Rebuild(#[from] projector::RebuildError),
    #[error(transparent)]
    Republish(#[from] event_store::publication::RepublishError),
    #[error(
        "publication {publication} has begun, but the projectors could not be told to read from the beginning: {source}. Run the same command again"
    )]
    NotForgotten { publication: i64, source: sqlx::Error },
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    #[error(transparent)]
    Salvage(#[from] SalvageFailure),
    #[error(transparent)]
    Ledger(#[from] identity::ledger::LedgerError),
    #[error(transparent)]
    Settle(#[from] event_store::lineage::SettleError),
    #[error("the event store: {0}")]
    EventStore(sqlx::Error),
    #[error("the read models: {0}")]
    ReadModels(sqlx::Error),
    #[error("there is no account {0}. Make it with primetrade user create, or see them all with primetrade user list")]
    NoAccount(String),
    #[error("{0} {1}")]
    Invalid(&'static str, domain::Invalid),
    #[error("--excel is for CSV: add --format csv")]
    ExcelIsCsv,
    #[error("{0}: {1}")]
    File(String, io::Error),
    #[error("the result could not be written to standard output: {0}. What was asked for was done")]
    NotTold(io::Error),
    #[error("the program could not be set up: {0}")]
    Setup(io::Error),
    #[error("interrupted")]
    Interrupted,
}
