use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse, Response};
use http_api::account::{Account, unauthenticated};
use http_api::body::EmptyBody;
use http_api::openapi::{Operation, Tag};
use http_api::problem::{Problem, ProblemCode};
use identity::Identity;

use crate::problem::problem;
use crate::session_cookie::SessionCookie;

/// Ends the session of the access token; where none is sent, that of the session cookie.
pub(crate) async fn logout(
    State(identity): State<Identity>,
    account: Option<Account>,
    cookie: SessionCookie,
    _: EmptyBody,
) -> Result<Response, Problem> {
    let is_of_cookie = match account {
        Some(Account(principal)) => {
            identity.logout(principal.session).await.map_err(problem)?;
            cookie.is(|token| identity.session_of(token) == Some(principal.session))
        }
        None => {
            let token = cookie.token()?.ok_or_else(unauthenticated)?;
            identity.logout_by_refresh_token(token).await.map_err(problem)?;
            true
        }
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    if is_of_cookie {
        response.headers_mut().insert(SET_COOKIE, cookie.remove());
    }
    Ok(response)
}

pub(crate) fn described() -> Operation {
    Operation::new(Tag::Accounts, "logout", "Log out")
        .says(
            "Ends the session of the access token or, where none is sent, of the session cookie, which is removed. The session's \
             tokens end within 5 seconds, at every service.",
        )
        .account()
        .or_session_cookie()
        .empty_body()
        .empty(204, "Ended.", &["Set-Cookie"])
        .refuses(&[ProblemCode::InvalidRefreshToken, ProblemCode::DiskFull])
}
