//! What is good enough on one's own machine and not where others reach it: refused outside of loopback, unless
//! `PRIMETRADE_ALLOW_INSECURE` asks for it by name.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use secrecy::ExposeSecret;

use crate::error::{ConfigError, invalid};
use crate::network::Network;
use crate::source::Source;

const ALLOW: &str = "PRIMETRADE_ALLOW_INSECURE";
/// A secret with fewer different bytes was not drawn at random: 32 random hexadecimal digits have 14, give or take two.
const DIFFERENT_BYTES_MIN: usize = 8;

/// An insecure setting, by the name that allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insecure {
    /// Neither TLS nor a proxy in front that is trusted: passwords and tokens travel in clear.
    PlainHttp,
    /// Whoever guesses passwords is not slowed down.
    NoRateLimits,
    /// A secret that can be guessed: whoever does makes tokens of his own.
    WeakSecret,
    /// Any page may call in the name of whoever looks at it.
    AnyOrigin,
    /// Whoever connects says which address he comes from.
    AnyProxy,
}

impl Insecure {
    const ALL: [Self; 5] = [Self::PlainHttp, Self::NoRateLimits, Self::WeakSecret, Self::AnyOrigin, Self::AnyProxy];

    const fn as_str(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain-http",
            Self::NoRateLimits => "no-rate-limits",
            Self::WeakSecret => "weak-secret",
            Self::AnyOrigin => "any-origin",
            Self::AnyProxy => "any-proxy",
        }
    }

    /// The setting that makes it so.
    const fn setting(self) -> &'static str {
        match self {
            Self::PlainHttp => "PRIMETRADE_LISTEN",
            Self::NoRateLimits => "PRIMETRADE_RATE_LIMITS",
            Self::WeakSecret => "PRIMETRADE_SECRET",
            Self::AnyOrigin => "PRIMETRADE_CORS_ORIGINS",
            Self::AnyProxy => "PRIMETRADE_TRUSTED_PROXIES",
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::PlainHttp => {
                "passwords and tokens would travel in clear. Set PRIMETRADE_TLS_CERT_FILE and PRIMETRADE_TLS_KEY_FILE, or \
                 put a proxy with TLS in front and name it in PRIMETRADE_TRUSTED_PROXIES"
            }
            Self::NoRateLimits => "nobody who guesses passwords would be slowed down",
            Self::WeakSecret => "it was not drawn at random and can be guessed. For instance: openssl rand -hex 32",
            Self::AnyOrigin => "any page could call in the name of whoever looks at it. Name the origins",
            Self::AnyProxy => "whoever connects could say which address it comes from. Name the proxies",
        }
    }

    fn is_there(self, source: &Source) -> Result<bool, ConfigError> {
        Ok(match self {
            Self::PlainHttp => {
                source.text("PRIMETRADE_TLS_CERT_FILE")?.is_none()
                    && source.text("PRIMETRADE_TRUSTED_PROXIES")?.is_none()
            }
            Self::NoRateLimits => !source.switch("PRIMETRADE_RATE_LIMITS", true)?,
            Self::WeakSecret => {
                // the previous one is taken as well
                let secrets = [source.secret("PRIMETRADE_SECRET")?, source.secret("PRIMETRADE_SECRET_PREVIOUS")?];
                secrets.iter().flatten().any(|secret| is_weak(secret.expose_secret()))
            }
            Self::AnyOrigin => source.list::<String>("PRIMETRADE_CORS_ORIGINS")?.iter().any(|origin| origin == "*"),
            Self::AnyProxy => {
                source.list::<Network>("PRIMETRADE_TRUSTED_PROXIES")?.iter().any(|network| network.prefix_bits == 0)
            }
        })
    }
}

impl fmt::Display for Insecure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// It is the name of no insecure setting.
#[derive(Debug, thiserror::Error)]
#[error("there is {}", Insecure::ALL.map(Insecure::as_str).join(", "))]
pub struct NoSuchName;

impl FromStr for Insecure {
    type Err = NoSuchName;

    fn from_str(text: &str) -> Result<Self, NoSuchName> {
        Self::ALL.into_iter().find(|insecure| insecure.as_str() == text).ok_or(NoSuchName)
    }
}

/// Refuses to be reached by others, at the address of the API, with an insecure setting that nobody has asked for. Only
/// that address counts: no password, token or task comes by that of operations, and whoever moves figures to an address asks for them
/// to be seen there.
///
/// # Errors
/// Names the first such setting, and what allows it.
pub fn check(source: &Source, address: SocketAddr) -> Result<(), ConfigError> {
    let allowed: Vec<Insecure> = source.list(ALLOW)?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    for insecure in Insecure::ALL {
        if !allowed.contains(&insecure) && insecure.is_there(source)? {
            return Err(invalid(
                insecure.setting(),
                &format!(
                    "listening on {address}, where others reach it: {}. To have it all the same: {ALLOW}={insecure}",
                    insecure.reason()
                ),
            ));
        }
    }
    Ok(())
}

fn is_weak(secret: &str) -> bool {
    let mut bytes = secret.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let lower = secret.to_lowercase();
    bytes.len() < DIFFERENT_BYTES_MIN
        || ["changeme", "change-me", "change_me", "password", "example"].iter().any(|word| lower.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: (&str, &str) = ("PRIMETRADE_SECRET", "5f2c8a17d3b94e60a1c7f8e2d4b6093c");
    const PROXY: (&str, &str) = ("PRIMETRADE_TRUSTED_PROXIES", "10.0.0.1");

    fn refused(address: &str, settings: &[(&str, &str)]) -> Option<String> {
        let source = Source::from_pairs(settings.iter().copied().chain([("PRIMETRADE_LISTEN", address)]));
        let address = address.replace("localhost", "127.0.0.1").parse().expect("an address");
        check(&source, address).err().map(|error| error.to_string())
    }

    #[test]
    fn each_is_refused_outside_of_loopback_by_its_setting_and_allowed_by_its_name() {
        for (insecure, settings) in [
            ("plain-http", &[GOOD][..]),
            ("no-rate-limits", &[GOOD, PROXY, ("PRIMETRADE_RATE_LIMITS", "off")]),
            ("weak-secret", &[PROXY, ("PRIMETRADE_SECRET", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]),
            ("weak-secret", &[PROXY, ("PRIMETRADE_SECRET", "Please-change-me-0123456789abcdefghij")]),
            ("weak-secret", &[PROXY, GOOD, ("PRIMETRADE_SECRET_PREVIOUS", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]),
            ("any-origin", &[GOOD, PROXY, ("PRIMETRADE_CORS_ORIGINS", "https://app.example,*")]),
            ("any-proxy", &[GOOD, ("PRIMETRADE_TRUSTED_PROXIES", "10.0.0.1,0.0.0.0/0")]),
        ] {
            for outside in ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:8080", "[2001:db8::1]:80"] {
                let error = refused(outside, settings).expect(insecure);
                let setting: Insecure = insecure.parse().expect(insecure);
                assert!(error.starts_with(setting.setting()), "{error}");
                assert!(error.contains(&format!("PRIMETRADE_ALLOW_INSECURE={insecure}")), "{error}");
                let allowed = [settings, &[("PRIMETRADE_ALLOW_INSECURE", insecure)]].concat();
                assert_eq!(refused(outside, &allowed), None);
                let other = if insecure == "any-origin" { "plain-http" } else { "any-origin" };
                let other = [settings, &[("PRIMETRADE_ALLOW_INSECURE", other)]].concat();
                assert!(refused(outside, &other).is_some(), "{insecure} is not allowed by another name");
            }
            for inside in ["127.0.0.1:8080", "127.8.8.8:1", "[::1]:8080", "[::ffff:127.0.0.1]:8080", "localhost:8080"] {
                assert_eq!(refused(inside, settings), None, "{insecure}");
            }
        }
        // the address of operations is none of a client's
        let ops = ("PRIMETRADE_OPS_LISTEN", "0.0.0.0:9080");
        assert_eq!(refused("127.0.0.1:8080", &[ops]), None);
        let error = refused("0.0.0.0:8080", &[GOOD, ("PRIMETRADE_OPS_LISTEN", "127.0.0.1:9080")]);
        assert!(error.expect("plain").contains("plain-http"));
        let cert = ("PRIMETRADE_TLS_CERT_FILE", "cert.pem");
        assert_eq!(refused("0.0.0.0:8080", &[GOOD, cert]), None);
        assert_eq!(refused("0.0.0.0:8080", &[GOOD, PROXY, ("PRIMETRADE_CORS_ORIGINS", "https://app.example")]), None);
    }

    #[test]
    fn a_name_that_there_is_not_is_told_everywhere() {
        let error = refused("127.0.0.1:1", &[("PRIMETRADE_ALLOW_INSECURE", "everything")]).expect("no such name");
        assert!(error.starts_with("PRIMETRADE_ALLOW_INSECURE: number 1 of its list"), "{error}");
        let allow = crate::variables::VARIABLES.iter().find(|variable| variable.name == ALLOW).expect("a setting");
        for text in [&*error, allow.about, include_str!("../../../.env.example")] {
            let named = Insecure::ALL.into_iter().filter(|insecure| text.contains(insecure.as_str()));
            assert_eq!(named.count(), Insecure::ALL.len(), "{text}");
        }
    }
}
