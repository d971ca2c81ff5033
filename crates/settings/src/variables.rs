//! The contract: every variable that there is.

/// Names the file that [`Source::add_file`] reads, where no flag does.
pub const CONFIG_FILE: &str = "PRIMETRADE_CONFIG_FILE";

/// Every variable there is; another one that begins with `PRIMETRADE_` is a mistake that [`Source::check_names`] tells.
pub const VARIABLES: &[Variable] = &[
    Variable::open(CONFIG_FILE, None, "settings as NAME=value, over the variables"),
    Variable::open("PRIMETRADE_LISTEN", Some("127.0.0.1:8080"), "address and port"),
    Variable::open("PRIMETRADE_OPS_LISTEN", None, "livez, readyz and metrics move to this address"),
    Variable::open("PRIMETRADE_DATA_DIR", Some("./data"), "data folder of a single process"),
    Variable::secret("PRIMETRADE_DATABASE_URL", "event store and identity"),
    Variable::open("PRIMETRADE_DATABASE_HOST", None, "beside the URL or instead: nothing is escaped in these"),
    Variable::open("PRIMETRADE_DATABASE_PORT", None, "its port; 5432 if not set"),
    Variable::open("PRIMETRADE_DATABASE_USER", None, "who we are there"),
    Variable::secret("PRIMETRADE_DATABASE_PASSWORD", "its password"),
    Variable::open("PRIMETRADE_DATABASE_NAME", None, "which database there"),
    Variable::secret("PRIMETRADE_READ_DATABASE_URL", "read models, default the same"),
    Variable::open("PRIMETRADE_READ_DATABASE_HOST", None, "as above, of the read models"),
    Variable::open("PRIMETRADE_READ_DATABASE_PORT", None, "its port; 5432 if not set"),
    Variable::open("PRIMETRADE_READ_DATABASE_USER", None, "who we are there"),
    Variable::secret("PRIMETRADE_READ_DATABASE_PASSWORD", "its password"),
    Variable::open("PRIMETRADE_READ_DATABASE_NAME", None, "which database there"),
    Variable::secret("PRIMETRADE_READ_REPLICA_URL", "replica for reads, optional"),
    Variable::open("PRIMETRADE_READ_REPLICA_HOST", None, "as above, of the replica"),
    Variable::open("PRIMETRADE_READ_REPLICA_PORT", None, "its port; 5432 if not set"),
    Variable::open("PRIMETRADE_READ_REPLICA_USER", None, "who we are there"),
    Variable::secret("PRIMETRADE_READ_REPLICA_PASSWORD", "its password"),
    Variable::open("PRIMETRADE_READ_REPLICA_NAME", None, "which database there"),
    Variable::secret("PRIMETRADE_SECRET", "authenticates tokens and cursors, encrypts keys"),
    Variable::secret("PRIMETRADE_SECRET_PREVIOUS", "the one before it: what was made with it is taken, optional"),
    Variable::open(
        "PRIMETRADE_OBJECT_STORE_URL",
        None,
        "files of imports and exports: file:///folder or s3://bucket/prefix; AWS_… say the rest",
    ),
    Variable::open(
        "PRIMETRADE_SECURITY_LEDGER",
        None,
        "file outside of the database to which is added what is done to accounts; a restore does it again",
    ),
    Variable::open("PRIMETRADE_JWKS_URL", None, "keys for services without the identity database"),
    Variable::open("PRIMETRADE_KAFKA_BROKERS", None, "host:port, with commas between; services only"),
    Variable::open("PRIMETRADE_KAFKA_TOPIC", Some("primetrade.task-events"), "where the log is published"),
    Variable::open("PRIMETRADE_KAFKA_PARTITIONS", Some("12"), "of the topic"),
    Variable::open("PRIMETRADE_KAFKA_REPLICATION", Some("1"), "copies of a partition"),
    Variable::open(
        "PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS",
        Some("1"),
        "copies that must have a message before it counts",
    ),
    Variable::open("PRIMETRADE_KAFKA_COMPRESSION", Some("zstd"), "zstd or lz4"),
    Variable::open(
        "PRIMETRADE_KAFKA_SECURITY_PROTOCOL",
        Some("plaintext"),
        "plaintext, ssl, sasl_plaintext or sasl_ssl",
    ),
    Variable::open("PRIMETRADE_KAFKA_SASL_MECHANISM", None, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    Variable::open("PRIMETRADE_KAFKA_SASL_USERNAME", None, "who we are to the brokers"),
    Variable::secret("PRIMETRADE_KAFKA_SASL_PASSWORD", "its password"),
    Variable::open(
        "PRIMETRADE_KAFKA_CA_FILE",
        None,
        "authority of the brokers' certificates (PEM), default those of the machine",
    ),
    Variable::open("PRIMETRADE_KAFKA_CERT_FILE", None, "our certificate and those above it (PEM), for the brokers"),
    Variable::open("PRIMETRADE_KAFKA_KEY_FILE", None, "its key (PEM)"),
    Variable::secret("PRIMETRADE_REDIS_URL", "services only; rediss:// for TLS, redis-sentinel:// for Sentinels"),
    Variable::open(
        "PRIMETRADE_REDIS_CA_FILE",
        None,
        "authority of Redis' certificate (PEM), default those of the machine",
    ),
    Variable::open("PRIMETRADE_REDIS_CERT_FILE", None, "our certificate and those above it (PEM), for Redis"),
    Variable::open("PRIMETRADE_REDIS_KEY_FILE", None, "its key (PEM)"),
    Variable::open("PRIMETRADE_TLS_CERT_FILE", None, "certificate and those above it (PEM): clients come by TLS"),
    Variable::open("PRIMETRADE_TLS_KEY_FILE", None, "its key (PEM)"),
    Variable::open("PRIMETRADE_TRUSTED_PROXIES", None, "addresses or networks whose X-Forwarded-For is believed"),
    Variable::open("PRIMETRADE_CORS_ORIGINS", None, "origins that browsers may call from"),
    Variable::open("PRIMETRADE_RATE_LIMITS", Some("on"), "on or off"),
    Variable::open(
        "PRIMETRADE_ALLOW_INSECURE",
        None,
        "outside of loopback: plain-http, no-rate-limits, weak-secret, any-origin, any-proxy",
    ),
    Variable::open("PRIMETRADE_LOG", Some("info"), "as RUST_LOG"),
    Variable::open("PRIMETRADE_LOG_FORMAT", Some("text"), "text or json"),
    Variable::open("OTEL_EXPORTER_OTLP_ENDPOINT", None, "where traces go"),
];

/// A variable of the contract.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Whether its value is never shown.
    pub secret: bool,
    /// Its value where it is not set, if that is always the same one.
    pub default: Option<&'static str>,
    /// One line about it.
    pub about: &'static str,
}

impl Variable {
    /// One whose value may be shown.
    #[must_use]
    pub const fn open(name: &'static str, default: Option<&'static str>, about: &'static str) -> Self {
        Self { name, secret: false, default, about }
    }

    /// One whose value is never shown.
    #[must_use]
    pub const fn secret(name: &'static str, about: &'static str) -> Self {
        Self { name, secret: true, default: None, about }
    }
}

/// Whether a variable's value is never shown.
pub(crate) fn is_secret(name: &str) -> bool {
    VARIABLES.iter().any(|variable| variable.secret && variable.name == name)
}
