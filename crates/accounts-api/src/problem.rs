use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use http_api::problem::{Problem, ProblemCode};
use identity::IdentityError;

/// The problem that the client gets.
pub(crate) fn problem(error: IdentityError) -> Problem {
    let code = match error {
        IdentityError::EmailTaken => ProblemCode::EmailTaken,
        IdentityError::InvalidCredentials => ProblemCode::InvalidCredentials,
        IdentityError::Disabled => ProblemCode::AccountDisabled,
        IdentityError::WrongPassword => ProblemCode::WrongPassword,
        IdentityError::InvalidRefreshToken => ProblemCode::InvalidRefreshToken,
        IdentityError::InvalidApiKey => ProblemCode::InvalidApiKey,
        IdentityError::RefreshInFlight => ProblemCode::RefreshInFlight,
        IdentityError::NotFound => ProblemCode::NotFound,
        IdentityError::Overloaded => ProblemCode::Overloaded,
        IdentityError::DiskFull(_) => return Problem::disk_full(),
        IdentityError::Unavailable(source) => return Problem::unavailable(&source),
        IdentityError::Internal(source) => return Problem::internal(&source),
    };
    let problem = Problem::new(code);
    match code.status() {
        // every 401 has a challenge (RFC 9110, 11.6.1)
        StatusCode::UNAUTHORIZED => {
            let challenge = HeaderValue::from_static("Bearer realm=\"primetrade\"");
            problem.header(WWW_AUTHENTICATE, challenge)
        }
        _ => problem,
    }
}
