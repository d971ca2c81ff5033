//! `primetrade keys api …`: the API keys of services.

use domain::{Time, format_time};
use identity::{Accounts, ApiKey, IdentityError, Name, NewApiKey};
use process::clock;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::cli;
use crate::failure::Failure;
use crate::output::Report;
use crate::pages::{self, PAGE_MAX};
use crate::users::find;

/// Makes, lists or revokes.
///
/// # Errors
/// A value that cannot be taken, no such account or key, or the database.
pub async fn run(accounts: &Accounts, command: cli::ApiKeys) -> Result<Report, Failure> {
    match command {
        cli::ApiKeys::Create { account, name, scopes, expires } => {
            let account = find(accounts, &account).await?.id;
            let name = Name::parse(&name).map_err(|invalid| Failure::Invalid("--name", invalid))?;
            let expires_at = expires.map(|after| clock::now() + after);
            let new = NewApiKey { account, name, scopes: scopes.into_iter().collect(), expires_at };
            let (made, key) = accounts.create_api_key(new).await?;
            let key = key.expose_secret();
            let mut object = object_of(&made);
            object["key"] = key.into();
            Ok(Report::good(
                format!("{key}\nThis is the key of {}. It is not shown again: only its hash is kept.", line_of(&made)),
                object,
            ))
        }
        cli::ApiKeys::List { account } => {
            let account = match account {
                Some(email) => Some(find(accounts, &email).await?.id),
                None => None,
            };
            let page_after = |after| accounts.api_keys(account, after, PAGE_MAX);
            let all = pages::read_all(|key: &ApiKey| key.id, page_after).await?;
            Ok(Report::list(&all, line_of, object_of))
        }
        cli::ApiKeys::Revoke { id } => {
            let revoked = accounts.revoke_api_key(id).await.map_err(|error| match error {
                IdentityError::NotFound => Failure::NoApiKey(id),
                error => error.into(),
            })?;
            let text = match revoked {
                true => format!("Revoked the API key {id}; its access tokens end within 5 s."),
                false => format!("The API key {id} was revoked before."),
            };
            Ok(Report::good(text, json!({ "id": id, "revoked": revoked })))
        }
    }
}

fn line_of(key: &ApiKey) -> String {
    let now = clock::now();
    let ends = match (key.revoked_at, key.expires_at) {
        (Some(revoked_at), _) => format!("revoked {}", format_time(revoked_at)),
        (None, Some(expires_at)) if expires_at <= now => format!("expired {}", format_time(expires_at)),
        (None, Some(expires_at)) => format!("until {}", format_time(expires_at)),
        (None, None) => "without end".to_owned(),
    };
    let used = shown(key.last_used_at).map_or_else(|| "never used".to_owned(), |at| format!("used {at}"));
    format!("{}  {}  {}  {ends}  {used}  {}", key.id, key.email, key.scopes, key.name)
}

fn object_of(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "account": key.email,
        "name": key.name,
        "scopes": key.scopes.iter().map(access::Scope::as_str).collect::<Vec<_>>(),
        "created_at": format_time(key.created_at),
        "expires_at": shown(key.expires_at),
        "revoked_at": shown(key.revoked_at),
        "last_used_at": shown(key.last_used_at),
    })
}

fn shown(time: Option<Time>) -> Option<String> {
    time.map(format_time)
}
