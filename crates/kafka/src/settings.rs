//! Brokers, topic, TLS and SASL.

use std::path::PathBuf;

use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use settings::kafka::Forms;
use settings::{ConfigError, Source, invalid, secret_file};

const TOPIC_LENGTH_MAX: usize = 249;

/// How Kafka is reached, and how the topic is to be made where it is missing.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, with commas between.
    pub brokers: String,
    /// The topic of the task events.
    pub topic: String,
    /// How many partitions the topic has.
    pub partitions: i32,
    /// On how many brokers each partition is.
    pub replication: i32,
    /// How many of them must have a message before it counts as sent.
    pub min_insync_replicas: i32,
    /// How batches of messages are compressed: `zstd` (smaller) or `lz4` (less work).
    pub compression: &'static str,
    /// TLS and SASL.
    pub security: Security,
}

/// TLS and SASL.
#[derive(Debug, Clone, Default)]
pub struct Security {
    /// Encrypted, and the broker's certificate checked.
    pub tls: bool,
    /// The authority to check it with, PEM; `None`: those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// What we show the broker.
    pub certificate: Option<Certificate>,
    /// Who we are, where the broker asks for it.
    pub sasl: Option<Sasl>,
}

/// A certificate of ours, PEM. The files are read when a client is made.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// With those above it.
    pub cert_file: PathBuf,
    /// Its key, without a password.
    pub key_file: PathBuf,
}

/// Who we are to the broker.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// Name.
    pub username: String,
    /// Password.
    pub password: SecretString,
}

impl KafkaSettings {
    /// The variables `PRIMETRADE_KAFKA_…`; `None` where no brokers are given.
    ///
    /// # Errors
    /// Names the variable that cannot be taken.
    pub fn read(source: &Source) -> Result<Option<Self>, ConfigError> {
        let forms = Forms::read(source)?;
        let Some(brokers) = forms.brokers.clone() else { return Ok(None) };
        let topic = source.text("PRIMETRADE_KAFKA_TOPIC")?.unwrap_or_else(|| "primetrade.task-events".into());
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if topic.len() > TOPIC_LENGTH_MAX || !topic.chars().all(is_legal) || topic == "." || topic == ".." {
            return Err(invalid(
                "PRIMETRADE_KAFKA_TOPIC",
                &"letters, digits, dots, hyphens and underscores, at most 249 of them",
            ));
        }
        let Forms { partitions, replication, min_insync_replicas, compression, .. } = forms;
        if min_insync_replicas > replication {
            return Err(invalid(
                "PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS",
                &format!("it is more than PRIMETRADE_KAFKA_REPLICATION ({replication}): nothing could ever be sent"),
            ));
        }
        let security = Security::read(source, &forms)?;
        Ok(Some(Self { brokers, topic, partitions, replication, min_insync_replicas, compression, security }))
    }

    /// What every client needs: addresses, name, security, times. All times are bounded.
    ///
    /// The library gives its sockets away to a callback in C alone, so they have no user time-out, and keepalive asks when
    /// the machine has it ask (mostly after two hours). What ends a connection whose other end is silently gone is the
    /// library's own: a request without an answer, of which there is one at least each time that the topic is looked up.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "primetrade")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            // A broker that was started again answers before it leads its partitions. Who leads them, and whether it takes a
            // message by now, is asked again and again, each time after twice as long: up to a second by default, of which
            // a part is lost at each step until everything goes on.
            .set("retry.backoff.max.ms", "250")
            // a topic that was made again a moment ago is found soon
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("allow.auto.create.topics", "false");
        let Security { tls, ca_file, certificate, sasl } = &self.security;
        config.set(
            "security.protocol",
            match (tls, sasl.is_some()) {
                (false, false) => "plaintext",
                (true, false) => "ssl",
                (false, true) => "sasl_plaintext",
                (true, true) => "sasl_ssl",
            },
        );
        if let Some(path) = ca_file {
            config.set("ssl.ca.location", path.to_string_lossy());
        }
        if let Some(Certificate { cert_file, key_file }) = certificate {
            config
                .set("ssl.certificate.location", cert_file.to_string_lossy())
                .set("ssl.key.location", key_file.to_string_lossy());
        }
        if let Some(sasl) = sasl {
            config
                .set("sasl.mechanism", sasl.mechanism)
                .set("sasl.username", &sasl.username)
                .set("sasl.password", sasl.password.expose_secret());
        }
        config
    }
}

impl Security {
    fn read(source: &Source, forms: &Forms) -> Result<Self, ConfigError> {
        const PROTOCOL: &str = "PRIMETRADE_KAFKA_SECURITY_PROTOCOL";
        const CERT_FILE: &str = "PRIMETRADE_KAFKA_CERT_FILE";
        const KEY_FILE: &str = "PRIMETRADE_KAFKA_KEY_FILE";
        let (tls, with_sasl) = (forms.security_protocol.ends_with("ssl"), forms.security_protocol.starts_with("sasl"));
        let file = |name: &str| -> Result<Option<PathBuf>, ConfigError> {
            let Some(path) = source.text(name)?.map(PathBuf::from) else { return Ok(None) };
            if !tls {
                return Err(invalid(name, &format!("it is of use only where {PROTOCOL} has ssl")));
            }
            let cannot_read =
                |error: std::io::Error| invalid(name, &format!("cannot read {}: {error}", path.display()));
            std::fs::File::open(&path).map_err(cannot_read)?;
            Ok(Some(path))
        };
        let ca_file = file("PRIMETRADE_KAFKA_CA_FILE")?;
        let certificate = match (file(CERT_FILE)?, file(KEY_FILE)?) {
            (None, None) => None,
            (Some(cert_file), Some(key_file)) => {
                let checked = key_file.metadata().and_then(|metadata| secret_file::check(&key_file, &metadata));
                checked.map_err(|error| invalid(KEY_FILE, &error))?;
                Some(Certificate { cert_file, key_file })
            }
            (Some(_), None) => {
                let needed_for = "it is the key of PRIMETRADE_KAFKA_CERT_FILE";
                return Err(ConfigError::Missing { name: KEY_FILE.into(), needed_for });
            }
            (None, Some(_)) => {
                let needed_for = "it is the certificate of PRIMETRADE_KAFKA_KEY_FILE";
                return Err(ConfigError::Missing { name: CERT_FILE.into(), needed_for });
            }
        };
        let mechanism = forms.sasl_mechanism;
        let username = source.text("PRIMETRADE_KAFKA_SASL_USERNAME")?;
        let password = source.secret("PRIMETRADE_KAFKA_SASL_PASSWORD")?;
        let missing = |name: &str| ConfigError::Missing { name: name.into(), needed_for: "SASL with the brokers" };
        let sasl = if with_sasl {
            Some(Sasl {
                mechanism: mechanism.ok_or_else(|| missing("PRIMETRADE_KAFKA_SASL_MECHANISM"))?,
                username: username.ok_or_else(|| missing("PRIMETRADE_KAFKA_SASL_USERNAME"))?,
                password: password.ok_or_else(|| missing("PRIMETRADE_KAFKA_SASL_PASSWORD"))?,
            })
        } else if mechanism.is_some() || username.is_some() || password.is_some() {
            // somebody believes that the connection is authenticated
            return Err(invalid(PROTOCOL, &"a SASL setting is given, so it must be sasl_plaintext or sasl_ssl"));
        } else {
            None
        };
        Ok(Self { tls, ca_file, certificate, sasl })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<KafkaSettings>, ConfigError> {
        let brokers = [("PRIMETRADE_KAFKA_BROKERS", "one:9092,two:9092")];
        KafkaSettings::read(&Source::from_pairs(brokers.iter().chain(pairs).copied()))
    }

    fn refused(pairs: &[(&str, &str)]) -> String {
        read(pairs).expect_err("refused").to_string()
    }

    #[test]
    fn without_brokers_there_is_no_kafka() {
        assert!(KafkaSettings::read(&Source::default()).expect("good").is_none());
    }

    #[test]
    fn brokers_are_enough() {
        let settings = read(&[]).expect("good").expect("some");
        assert_eq!((settings.topic.as_str(), settings.partitions), ("primetrade.task-events", 12));
        assert_eq!((settings.replication, settings.min_insync_replicas), (1, 1));
        assert_eq!(settings.compression, "zstd");
        let config = settings.client_config();
        assert_eq!(config.get("security.protocol"), Some("plaintext"));
        assert_eq!(config.get("bootstrap.servers"), Some("one:9092,two:9092"));
    }

    /// In place of a user time-out of the sockets.
    #[test]
    fn a_broker_that_says_nothing_is_asked_for_a_bounded_time() {
        let config = read(&[]).expect("good").expect("some").client_config();
        assert_eq!(config.get("socket.keepalive.enable"), Some("true"));
        for name in ["socket.timeout.ms", "socket.connection.setup.timeout.ms", "topic.metadata.refresh.interval.ms"] {
            let ms = config.get(name).and_then(|ms| ms.parse::<u32>().ok());
            assert!(ms.is_some_and(|ms| (1..=10_000).contains(&ms)), "{name}: {ms:?}");
        }
    }

    /// What is behind a broker that was away goes on soon after it.
    #[test]
    fn what_a_broker_does_not_do_yet_is_asked_for_again_soon() {
        let config = read(&[]).expect("good").expect("some").client_config();
        for (name, ms_max) in [("reconnect.backoff.max.ms", 500), ("retry.backoff.max.ms", 250)] {
            let ms = config.get(name).and_then(|ms| ms.parse::<u32>().ok());
            // the library's first pauses stay what they are: some requests are tried twice only
            assert!(ms.is_some_and(|ms| (200..=ms_max).contains(&ms)), "{name}: {ms:?}");
        }
    }

    #[test]
    fn tls_and_sasl_are_handed_to_the_client_and_the_password_is_never_shown() {
        let file = std::env::temp_dir().join(format!("kafka-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "a certificate").expect("writes");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        let path = file.to_str().expect("utf-8");
        let settings = read(&[
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("PRIMETRADE_KAFKA_SASL_MECHANISM", "scram-sha-512"),
            ("PRIMETRADE_KAFKA_SASL_USERNAME", "us"),
            ("PRIMETRADE_KAFKA_SASL_PASSWORD", "hush-hush"),
            ("PRIMETRADE_KAFKA_CA_FILE", path),
            ("PRIMETRADE_KAFKA_CERT_FILE", path),
            ("PRIMETRADE_KAFKA_KEY_FILE", path),
        ]);
        let settings = settings.expect("good").expect("some");
        let config = settings.client_config();
        assert_eq!(config.get("security.protocol"), Some("sasl_ssl"));
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("sasl.password"), Some("hush-hush"));
        for name in ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"] {
            assert_eq!(config.get(name), Some(path), "{name}");
        }
        assert!(!format!("{settings:?}").contains("hush-hush"));

        let tls = [("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "ssl")];
        let with = |pairs: &[(&str, &str)]| refused(&[&tls[..], pairs].concat());
        let (cert, key) = (("PRIMETRADE_KAFKA_CERT_FILE", path), ("PRIMETRADE_KAFKA_KEY_FILE", path));
        assert!(with(&[cert]).starts_with("PRIMETRADE_KAFKA_KEY_FILE is not set"), "{}", with(&[cert]));
        assert!(with(&[key]).starts_with("PRIMETRADE_KAFKA_CERT_FILE is not set"), "{}", with(&[key]));
        assert!(refused(&[cert, key]).starts_with("PRIMETRADE_KAFKA_CERT_FILE"), "without TLS it is never shown");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("permissions");
        assert!(with(&[cert, key]).starts_with("PRIMETRADE_KAFKA_KEY_FILE: everybody"), "{}", with(&[cert, key]));
        std::fs::remove_file(&file).expect("removes");
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for (pairs, name) in [
            (vec![("PRIMETRADE_KAFKA_TOPIC", "a topic")], "PRIMETRADE_KAFKA_TOPIC"),
            (vec![("PRIMETRADE_KAFKA_PARTITIONS", "0")], "PRIMETRADE_KAFKA_PARTITIONS"),
            (vec![("PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS", "2")], "PRIMETRADE_KAFKA_MIN_INSYNC_REPLICAS"),
            (vec![("PRIMETRADE_KAFKA_COMPRESSION", "gzip")], "PRIMETRADE_KAFKA_COMPRESSION"),
            (vec![("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "tls")], "PRIMETRADE_KAFKA_SECURITY_PROTOCOL"),
            (vec![("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "sasl_ssl")], "PRIMETRADE_KAFKA_SASL_MECHANISM"),
            (vec![("PRIMETRADE_KAFKA_SASL_PASSWORD", "x")], "PRIMETRADE_KAFKA_SECURITY_PROTOCOL"),
            (vec![("PRIMETRADE_KAFKA_CA_FILE", "x")], "PRIMETRADE_KAFKA_CA_FILE"),
            (
                vec![("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", "ssl"), ("PRIMETRADE_KAFKA_CA_FILE", "/not/there.pem")],
                "PRIMETRADE_KAFKA_CA_FILE",
            ),
        ] {
            let said = refused(&pairs);
            assert!(said.starts_with(name), "{said}");
        }
    }

    /// What has no use for Kafka checks the settings too, by their [`Forms`]: it takes no other ones.
    #[test]
    fn what_is_refused_here_is_refused_by_all_programs() {
        for (name, good, bad) in [
            ("PRIMETRADE_KAFKA_PARTITIONS", &["1", "1000"][..], &["0", "1001", "many"][..]),
            ("PRIMETRADE_KAFKA_REPLICATION", &["32767"], &["0", "32768"]),
            ("PRIMETRADE_KAFKA_COMPRESSION", &["zstd", "lz4"], &["ZSTD", "gzip"]),
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", &["plaintext", "SSL"], &["tls"]),
        ] {
            for (values, is_good) in [(good, true), (bad, false)] {
                for value in values {
                    let pair = [(name, *value)];
                    assert_eq!(read(&pair).is_ok(), is_good, "{name}={value}");
                    let forms = Forms::read(&Source::from_pairs(pair));
                    assert_eq!(forms.is_ok(), is_good, "{name}={value}");
                }
            }
        }
    }

    #[test]
    fn every_variable_is_one_of_the_contract() {
        let own = include_str!("settings.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let code = [own, include_str!("../../settings/src/kafka.rs")].concat();
        let names: Vec<_> = code.split('"').filter(|text| text.starts_with("PRIMETRADE_KAFKA_")).collect();
        assert!(names.len() >= 12, "{names:?}");
        for name in names {
            let known = settings::VARIABLES.iter().find(|variable| variable.name == name);
            assert_eq!(known.map(|v| v.secret), Some(name.ends_with("PASSWORD")), "{name}");
        }
    }
}
