//! An authority of a test's own, certificates by it, and a Postgres, a Redis and a Kafka that want one from whoever comes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::cluster::{Cluster, free_port, temp_dir, unprivileged};
use crate::kafka::{Kafka, machine};
use crate::redis::Redis;
use crate::wait::until;

const SETTINGS: &str = "\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[end]
basicConstraints = CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";
const READ_AGAIN_WITHIN: Duration = Duration::from_secs(60);
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// An authority. Its files are gone with the test process.
pub struct Authority {
    dir: PathBuf,
}

/// A certificate of somebody on this machine, `localhost` or 127.0.0.1, and its key: two files (PEM).
pub struct Certificate {
    /// The certificate.
    pub cert_file: PathBuf,
    /// The key (PKCS 8), which this user alone can read.
    pub key_file: PathBuf,
}

/// Where a broker wants TLS, a certificate and a password.
pub struct Guarded {
    /// For `PRIMETRADE_KAFKA_BROKERS`; with the security protocol `sasl_ssl` and the mechanism `SCRAM-SHA-512`.
    pub brokers: String,
    /// Who gets in.
    pub username: &'static str,
    /// By this.
    pub password: &'static str,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Another one than any before.
    pub fn new() -> Authority {
        let authority = Authority { dir: temp_dir("authority") };
        fs::write(authority.dir.join("settings"), SETTINGS).expect("the settings of openssl");
        let made = ["-x509", "-extensions", "authority", "-days", "2", "-subj", "/CN=authority of a test"];
        authority
            .openssl(&["req", "-config", "settings"], &[&made[..], &["-keyout", "ca.key", "-out", "ca.pem"]].concat());
        authority
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A new certificate for whoever has this name, which is its subject's `CN`.
    pub fn certificate(&self, name: &str) -> Certificate {
        let (key, asked, made) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let subject = format!("/CN={name}");
        self.openssl(&["req", "-config", "settings"], &["-new", "-subj", &subject, "-keyout", &key, "-out", &asked]);
        let by = ["x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
        let with = ["-extfile", "settings", "-extensions", "end", "-in", asked.as_str(), "-out", made.as_str()];
        self.run(&[&by[..], &with].concat());
        Certificate { cert_file: self.dir.join(made), key_file: self.dir.join(key) }
    }

    /// From now on this login gets into Postgres by TLS alone, and with a certificate of this authority that has its name.
    /// All others get in as before.
    pub async fn guard(&self, cluster: &Cluster, login: &str) {
        let (data, own) = (cluster.dir().join("data"), self.certificate("postgres"));
        for (from, name) in [(self.file(), "ca.pem"), (own.cert_file, "server.pem"), (own.key_file, "server.key")] {
            // Postgres takes a key that is its own alone
            let mut copy = unprivileged(Path::new("/bin/sh"));
            copy.args(["-c", "umask 077 && cat >\"$0\""]).arg(data.join(name));
            let status = copy.stdin(File::open(from).expect("a file of openssl")).status().expect("sh");
            assert!(status.success(), "{name}: {status}");
        }
        let rules = data.join("pg_hba.conf");
        let others = fs::read_to_string(&rules).expect("the rules of Postgres");
        let own = format!("hostssl all {login} 127.0.0.1/32 cert\nhost all {login} 127.0.0.1/32 reject\n");
        fs::write(&rules, own + &others).expect("the rules of Postgres");
        let mut admin = PgConnection::connect(&cluster.url("postgres")).await.expect("the cluster's own database");
        for statement in [
            "alter system set ssl_ca_file = 'ca.pem'",
            "alter system set ssl_cert_file = 'server.pem'",
            "alter system set ssl_key_file = 'server.key'",
            "alter system set ssl = on",
            "select pg_reload_conf()",
        ] {
            sqlx::raw_sql(statement).execute(&mut admin).await.expect(statement);
        }
        until("Postgres has read its settings again", READ_AGAIN_WITHIN, || async {
            let mut connection = PgConnection::connect(&cluster.url("postgres")).await.ok()?;
            let ssl: String = sqlx::query_scalar("show ssl").fetch_one(&mut connection).await.ok()?;
            (ssl == "on").then_some(())
        })
        .await;
    }

    /// A Redis that listens for TLS too, and wants one of this authority's certificates from each client there; and the URL
    /// of that. Whoever comes by [`Redis::url`] needs none.
    pub fn guarded_redis(&self) -> (Redis, String) {
        let (port, own) = (free_port(), self.certificate("redis"));
        let redis = Redis::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &text(&own.cert_file),
            "--tls-key-file",
            &text(&own.key_file),
            "--tls-ca-cert-file",
            &text(&self.file()),
            "--tls-auth-clients",
            "yes",
        ]);
        (redis, format!("rediss://127.0.0.1:{port}"))
    }

    /// A broker that listens for TLS too, and wants one of this authority's certificates and a password from each client
    /// there. Whoever comes by [`Kafka::brokers`] needs neither.
    pub fn guarded_kafka(&self) -> (Kafka, Guarded) {
        let port = free_port();
        let brokers = format!("localhost:{port}");
        let guarded = Guarded { brokers, username: "services", password: "let-the-services-in" };
        let own = self.certificate("kafka");
        let both = own.cert_file.with_extension("both.pem");
        let read = |file: &Path| fs::read_to_string(file).expect("a file of openssl");
        fs::write(&both, read(&own.key_file) + &read(&own.cert_file)).expect("a file");
        let settings = [
            "sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(),
            "scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
                .to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", both.display()),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", self.file().display()),
            "ssl.client.auth=required".to_owned(),
        ];
        let user = format!("SCRAM-SHA-512=[name={},password={}]", guarded.username, guarded.password);
        (Kafka::start_with_listener("GUARDED", port, "SASL_SSL", &settings, &user), guarded)
    }

    /// With a new key.
    fn openssl(&self, command: &[&str], rest: &[&str]) {
        self.run(&[command, &KEY, rest].concat());
    }

    fn run(&self, arguments: &[&str]) {
        let mut openssl = machine("need_openssl && exec openssl \"$@\"");
        let ended = openssl.args(arguments).current_dir(&self.dir).stdin(Stdio::null()).output().expect("bash");
        assert!(ended.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// A path, for a setting.
fn text(file: &Path) -> String {
    file.to_str().expect("UTF-8").to_owned()
}
