//! The forms of all settings, whichever of them a program has a use for.

use access::jwks;
use backends::redis::Address;
use http_api::edge::EdgeSettings;
use process::traces;
use settings::{ConfigError, ObjectStoreUrl, Source, kafka};

/// Checks the forms of what this program may have no use for, so that a mistake is told where it is made and not once a
/// program uses it. (What has a section of its own is checked when that is read.)
///
/// # Errors
/// Names the first one that is not as it should be.
pub fn check_forms(source: &Source) -> Result<(), ConfigError> {
    EdgeSettings::read(source)?;
    jwks::url(source)?;
    traces::endpoint(source)?;
    kafka::Forms::read(source)?;
    Address::read(source)?;
    ObjectStoreUrl::read(source)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use access::token::RootSecret;
    use backends::database::DatabaseUrls;
    use process::logs::LogSettings;

    use super::*;
    use crate::listeners::Listen;

    fn source(pairs: &[(&str, &str)]) -> Source {
        Source::from_pairs(pairs.iter().copied())
    }

    #[test]
    fn an_error_names_the_variable_and_shows_no_secret() {
        let cases: [(&str, &str, Result<(), ConfigError>); 5] = [
            ("PRIMETRADE_LISTEN", "8080", Listen::read(&source(&[("PRIMETRADE_LISTEN", "8080")])).map(drop)),
            (
                "PRIMETRADE_DATABASE_URL",
                "hunter2",
                DatabaseUrls::read(&source(&[("PRIMETRADE_DATABASE_URL", "hunter2")])).map(drop),
            ),
            ("PRIMETRADE_SECRET", "hunter2", RootSecret::read(&source(&[("PRIMETRADE_SECRET", "hunter2")])).map(drop)),
            ("PRIMETRADE_LOG_FORMAT", "xml", LogSettings::read(&source(&[("PRIMETRADE_LOG_FORMAT", "xml")])).map(drop)),
            ("PRIMETRADE_LOG", "[", LogSettings::read(&source(&[("PRIMETRADE_LOG", "a=[b")])).map(drop)),
        ];
        for (name, value, result) in cases {
            let text = result.expect_err(name).to_string();
            assert!(text.contains(name), "{text}");
            assert!(!text.contains("hunter2"), "{value}: {text}");
        }
    }

    #[test]
    fn what_only_other_programs_use_is_checked_too() {
        let check = |name: &str, value: &str| check_forms(&source(&[(name, value)]));
        for (name, good, bad) in [
            (
                "PRIMETRADE_TRUSTED_PROXIES",
                &["127.0.0.1", "10.0.0.0/8, 2001:db8::/32,::1", "0.0.0.0/0"][..],
                &["nginx", "10.0.0.0/33", "10.0.0.0/", "::/129", "1.2.3", "10.0.0.0/-1", "::ffff:10.0.0.0/104"][..],
            ),
            (
                "PRIMETRADE_CORS_ORIGINS",
                &["*", "https://app.example", "http://localhost:3000, https://b.example:8443", "http://[::1]:3000"],
                &[
                    "https://app.example/",
                    "app.example",
                    "https://",
                    "https://app.example/path",
                    "https://*.example",
                    "https://a.example https://b.example",
                    "HTTPS://app.example",
                    "https://me@app.example",
                    "https://app.example:port",
                    "null",
                ],
            ),
            (
                "PRIMETRADE_JWKS_URL",
                &["http://127.0.0.1:8081/.well-known/jwks.json", "https://id.example/keys"],
                &["id.example/keys", "ftp://id.example", "http://", "keys", "https://me:hunter2@id.example/keys"],
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &["http://collector:4318", "https://otel.example/v1"],
                &["collector:4318", "grpc://collector:4317", "yes please", "https://hunter2@otel.example"],
            ),
            (
                "PRIMETRADE_KAFKA_BROKERS",
                &["kafka:9092", "one:9092,two:9092", "[::1]:9092"],
                &["kafka", "kafka:", "kafka:0", "kafka:70000", "http://kafka:9092", ":9092", "one:9092 two:9092"],
            ),
            (
                "PRIMETRADE_REDIS_URL",
                &["redis://cache:6379/0", "redis://:word@cache", "rediss://cache:6379"],
                &["cache:6379", "hunter2", "rediss://:hunter2@cache:6379#insecure"],
            ),
            (
                "PRIMETRADE_OBJECT_STORE_URL",
                &["file:///var/lib/it's a, \"$odd\" [one]#", "s3://bucket", "s3://bucket.of-some/prefix/of/it"],
                &[
                    "bucket",
                    "file://folder",
                    "s3://",
                    "s3:///prefix",
                    "s3://key:hunter2@bucket/prefix",
                    "s3://key/hunter2@bucket/prefix",
                    "https://key:hunter2@s3.example/bucket",
                ],
            ),
            ("PRIMETRADE_RATE_LIMITS", &["on", "off"], &["yes"]),
            ("PRIMETRADE_KAFKA_PARTITIONS", &["1", "1000"], &["0", "-1", "many", "1001"]),
            ("PRIMETRADE_KAFKA_REPLICATION", &["1", "32767"], &["0", "32768"]),
            ("PRIMETRADE_KAFKA_COMPRESSION", &["zstd", "lz4"], &["gzip", "ZSTD"]),
            ("PRIMETRADE_KAFKA_SECURITY_PROTOCOL", &["plaintext", "SASL_SSL"], &["tls"]),
            ("PRIMETRADE_KAFKA_SASL_MECHANISM", &["PLAIN", "SCRAM-SHA-512"], &["GSSAPI"]),
        ] {
            for value in good {
                check(name, value).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
            }
            for value in bad {
                let error = check(name, value).expect_err(&format!("{name}={value}")).to_string();
                assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
            }
            let error = check(name, "me:hunter2 or so").expect_err(name).to_string();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
        }
    }
}
