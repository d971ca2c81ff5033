//! Cross-origin requests (CORS).

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ORIGIN, VARY,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use settings::{ConfigError, Source, invalid};

const METHODS: &str = "GET, POST, PATCH, DELETE";
const HEADERS: &str = "authorization, content-type, if-match, if-none-match, idempotency-key, consistency-token, \
                       x-request-id, traceparent, last-event-id";
const EXPOSED: &str = "etag, location, link, consistency-token, change-id, idempotent-replayed, retry-after, \
    x-request-id, ratelimit, ratelimit-policy";

/// `PRIMETRADE_CORS_ORIGINS`: origins as a browser sends them, `scheme://host` or `scheme://host:port`, or `*`.
///
/// # Errors
/// When one is no origin: it would never be equal to one.
pub fn origins(source: &Source) -> Result<Vec<String>, ConfigError> {
    const NAME: &str = "PRIMETRADE_CORS_ORIGINS";
    let origins: Vec<String> = source.list(NAME)?;
    match origins.iter().position(|origin| *origin != "*" && !is_origin(origin)) {
        Some(index) => {
            let what = "is not * or an origin as https://app.example, with nothing after the host";
            Err(invalid(NAME, &format!("number {} of its list {what}", index + 1)))
        }
        None => Ok(origins),
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host_and_port)) = text.split_once("://") else { return false };
    let Ok(authority) = host_and_port.parse::<Authority>() else { return false };
    let has_port = authority.as_str().len() > authority.host().len();
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'@' || byte == b'*')
        && !authority.host().is_empty()
        && (!has_port || authority.port_u16().is_some())
}

/// From which pages browsers may call.
pub(super) struct Cors {
    any: bool,
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// From pages of these origins; none: CORS is off.
    pub fn new(origins: &[String]) -> Self {
        Self {
            any: origins.iter().any(|origin| origin == "*"),
            origins: origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
        }
    }

    /// The origin to allow, where CORS is configured and the request comes from a page of such an origin.
    pub fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.any && self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// Writes the headers of an answer.
    pub fn write_headers(&self, allowed_origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = allowed_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            if !self.any {
                // the session cookie
                headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
        }
        if !self.any && !self.origins.is_empty() {
            // also without an origin: another one gets another answer
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
    }
}

/// The answer to a preflight request.
pub(super) fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS)),
        (ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS)),
        (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

#[cfg(test)]
mod tests {
    #[test]
    fn gateway_and_services_of_compose_have_the_same_origins() {
        let compose = include_str!("../../../../docker-compose.yml");
        let (before, gateway) = compose.split_once("\n  gateway:\n").expect("a gateway");
        let of_services = before.split("\n\n").find(|part| part.contains("\nx-environment:")).expect("what all have");
        for part in [of_services, gateway] {
            assert!(part.contains("  PRIMETRADE_CORS_ORIGINS: ${PRIMETRADE_CORS_ORIGINS:-}\n"), "{part}");
        }
    }
}
