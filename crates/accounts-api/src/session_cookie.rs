//! The session cookie: in it a browser keeps a session's refresh token, where no script reads it. `SameSite=Strict`
//! keeps other sites from sending it; what else could (another origin of the same site) is kept out by `Origin`.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue};
use http_api::headers::single;
use http_api::problem::{Problem, ProblemCode};
use process::context::RequestContext;
use secrecy::{ExposeSecret, SecretString};

/// `PRIMETRADE_CORS_ORIGINS`: from whose pages the cookie is taken, besides the API's own. `*` names none.
#[derive(Clone)]
pub(crate) struct PageOrigins(Arc<[String]>);

impl PageOrigins {
    pub fn new(cors_origins: &[String]) -> Self {
        Self(cors_origins.iter().filter(|origin| *origin != "*").cloned().collect())
    }
}

/// The session cookie of a request, and of its answer.
pub(crate) struct SessionCookie {
    secure: bool,
    token: Option<SecretString>,
    /// Whether the request comes from a page whose requests may use it.
    own_page: bool,
}

impl<S: Sync> FromRequestParts<S> for SessionCookie
where
    PageOrigins: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // HTTP/2 has it in the address, HTTP/1.1 in a header
        let host = parts.uri.authority().cloned().or_else(|| parts.headers.get(HOST)?.to_str().ok()?.parse().ok());
        let tls = RequestContext::in_progress().is_some_and(|context| context.is_tls());
        let secure = tls || !host.as_ref().is_some_and(|host| is_loopback(host.host()));
        let origin = single(&parts.headers, &ORIGIN).ok().flatten().and_then(|origin| origin.to_str().ok());
        let own_page = origin.is_some_and(|origin| {
            let listed = PageOrigins::from_ref(state).0.iter().any(|listed| listed == origin);
            listed || host.is_some_and(|host| origin_of(&host, tls).eq_ignore_ascii_case(origin))
        });
        Ok(Self { secure, token: sent(&parts.headers, name(secure)), own_page })
    }
}

impl SessionCookie {
    /// The refresh token, if the request has one.
    ///
    /// # Errors
    /// 403 where it comes from a page that may not use it.
    pub fn token(&self) -> Result<Option<&str>, Problem> {
        match &self.token {
            Some(_) if !self.own_page => Err(Problem::new(ProblemCode::ForeignOrigin)),
            token => Ok(token.as_ref().map(ExposeSecret::expose_secret)),
        }
    }

    /// Whether the request has a refresh token for which this holds, from whatever page.
    pub fn is(&self, holds: impl FnOnce(&str) -> bool) -> bool {
        self.token.as_ref().is_some_and(|token| holds(token.expose_secret()))
    }

    /// `Set-Cookie` with another refresh token, for so many seconds.
    pub fn keep(&self, token: &SecretString, seconds: i32) -> HeaderValue {
        self.set_cookie(token.expose_secret(), seconds)
    }

    /// `Set-Cookie` that removes it.
    pub fn remove(&self) -> HeaderValue {
        self.set_cookie("", 0)
    }

    fn set_cookie(&self, value: &str, seconds: i32) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = name(self.secure);
        let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        let mut header = HeaderValue::from_str(&cookie).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }
}

/// Browsers take the first name only with `Secure`, for this host alone; without TLS it is of use on loopback only.
fn name(secure: bool) -> &'static str {
    if secure { "__Host-session" } else { "session" }
}

/// The first cookie of this name.
fn sent(headers: &HeaderMap, name: &str) -> Option<SecretString> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, token)| token.into())
}

/// As a browser writes it: without the scheme's own port.
fn origin_of(host: &Authority, tls: bool) -> String {
    let (scheme, own_port) = if tls { ("https", 443) } else { ("http", 80) };
    match host.port_u16() {
        Some(port) if port != own_port => format!("{scheme}://{}:{port}", host.host()),
        _ => format!("{scheme}://{}", host.host()),
    }
}

/// What a browser takes for this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    struct State;

    impl FromRef<State> for PageOrigins {
        fn from_ref(_: &State) -> Self {
            Self::new(&["https://app.example".to_owned(), "*".to_owned()])
        }
    }

    async fn cookie(tls: bool, headers: &[(&str, &str)]) -> SessionCookie {
        let mut request = Request::builder().uri("/api/v1/auth/refresh");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let read = SessionCookie::from_request_parts(&mut parts, &State);
        let Ok(cookie) = RequestContext::fresh().by_tls(tls).scope(read).await;
        cookie
    }

    #[tokio::test]
    async fn it_is_secure_but_without_tls_on_loopback() {
        for (tls, host, secure) in [
            (false, "127.0.0.1:8080", false),
            (false, "127.1.2.3", false),
            (false, "localhost", false),
            (false, "LocalHost:3000", false),
            (false, "[::1]:8080", false),
            (true, "localhost:8443", true),
            (false, "tasks.example", true),
            (false, "tasks.example:8080", true),
            (false, "127.0.0.1.example", true),
            (false, "192.0.2.1", true),
            (false, "[2001:db8::1]", true),
        ] {
            let cookie = cookie(tls, &[("host", host)]).await;
            let set = cookie.keep(&"abc".to_owned().into(), 9);
            let expected = if secure {
                "__Host-session=abc; Path=/; Max-Age=9; HttpOnly; SameSite=Strict; Secure"
            } else {
                "session=abc; Path=/; Max-Age=9; HttpOnly; SameSite=Strict"
            };
            assert_eq!(set.to_str().ok(), Some(expected), "{host}");
            assert!(set.is_sensitive());
        }
        assert!(cookie(false, &[]).await.secure, "whoever names no host");
    }

    #[tokio::test]
    async fn it_is_found_among_others() {
        for (headers, found) in [
            (&[("cookie", "session=a")][..], Some("a")),
            (&[("cookie", "theme=dark; session=a;x=y")], Some("a")),
            (&[("cookie", "theme=dark"), ("cookie", "session=a")], Some("a")),
            (&[("cookie", "session=a; session=b")], Some("a")),
            (&[("cookie", "my-session=b; Session=c; __Host-session=d; session")], None),
            (&[("cookie", "session=a=b")], Some("a=b")),
            (&[("cookie", "")], None),
            (&[], None),
        ] {
            let headers = [headers, &[("host", "localhost"), ("origin", "http://localhost")]].concat();
            let cookie = cookie(false, &headers).await;
            assert_eq!(cookie.token().expect("own"), found, "{headers:?}");
        }
        let secure =
            [("host", "a.example"), ("origin", "https://a.example"), ("cookie", "session=a; __Host-session=d")];
        assert_eq!(cookie(true, &secure).await.token().expect("own"), Some("d"));
    }

    #[tokio::test]
    async fn it_is_taken_from_own_and_listed_pages() {
        for (tls, host, origin, taken) in [
            (false, "localhost:8080", "http://localhost:8080", true),
            (true, "tasks.example", "https://tasks.example", true),
            (true, "Tasks.Example:443", "https://tasks.example", true),
            (false, "tasks.example:80", "http://tasks.example", true),
            (false, "[::1]:8080", "http://[::1]:8080", true),
            (true, "tasks.example", "https://app.example", true),
            (false, "localhost:8080", "http://localhost:8081", false),
            (false, "localhost:8080", "http://localhost", false),
            (false, "localhost:8080", "http://127.0.0.1:8080", false),
            (true, "tasks.example", "http://tasks.example", false),
            (false, "tasks.example", "https://tasks.example", false),
            (true, "tasks.example", "https://tasks.example.evil.example", false),
            (true, "tasks.example", "https://evil.example", false),
            (true, "tasks.example", "http://app.example", false),
            (true, "tasks.example", "null", false),
            (true, "tasks.example", "*", false),
            (true, "tasks.example", "", false),
        ] {
            let cookies = "session=a; __Host-session=a";
            let cookie = cookie(tls, &[("host", host), ("origin", origin), ("cookie", cookies)]).await;
            match cookie.token() {
                Ok(token) => assert_eq!((token, taken), (Some("a"), true), "{host} {origin}"),
                Err(problem) => assert_eq!((problem.code(), taken), (ProblemCode::ForeignOrigin, false), "{origin}"),
            }
        }
        for origins in [&[][..], &[("origin", "http://localhost"), ("origin", "http://localhost")]] {
            let with = cookie(false, &[&[("host", "localhost"), ("cookie", "session=a")], origins].concat()).await;
            assert!(with.token().is_err(), "{origins:?}");
            let without = cookie(false, &[&[("host", "localhost")], origins].concat()).await;
            assert!(without.token().expect("nothing to take").is_none());
        }
    }
}
