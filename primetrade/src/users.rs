//! `primetrade user …`: the accounts, and how the other commands find one.

use access::Role;
use domain::format_time;
use event_store::TailReader;
use identity::{Account, AccountChange, Accounts, Email, IdentityError, Name, NewAccount, Password};
use serde_json::{Value, json};

use crate::cli;
use crate::database::Databases;
use crate::failure::Failure;
use crate::output::Report;
use crate::pages::{self, PAGE_MAX};
use crate::password;

/// `primetrade user …`
///
/// # Errors
/// A value that cannot be taken, no such account, or the database.
pub async fn run(databases: &Databases, command: cli::User) -> Result<Report, Failure> {
    let accounts = accounts(databases).await?;
    match command {
        cli::User::Create { email, name, admin, password: _ } => {
            let email = address(Email::parse(&email))?;
            let name = name.unwrap_or_else(|| email.as_str().split('@').next().unwrap_or_default().to_owned());
            let name = Name::parse(&name).map_err(|invalid| Failure::Invalid("--name", invalid))?;
            let role = if admin { Role::Admin } else { Role::User };
            let account = accounts.create(NewAccount { email, name, password: read_password().await?, role }).await?;
            Ok(Report::good(format!("Made the account {}", line_of(&account)), object_of(&account)))
        }
        cli::User::Password { email, password: _ } => {
            let account = find(&accounts, &email).await?;
            accounts.set_password(account.id, read_password().await?).await?;
            Ok(Report::good(
                format!("The password of {} was set, and its sessions have ended.", account.email),
                object_of(&account),
            ))
        }
        cli::User::Disable { email } => {
            let account = find(&accounts, &email).await?;
            let change = AccountChange { disabled: Some(true), ..AccountChange::default() };
            let account = accounts.change(account.id, change).await?;
            Ok(Report::good(format!("Disabled {}; its sessions have ended.", account.email), object_of(&account)))
        }
        cli::User::List => {
            let all = pages::read_all(|account: &Account| account.id, |after| accounts.list(after, PAGE_MAX)).await?;
            Ok(Report::list(&all, line_of, object_of))
        }
    }
}

/// The accounts, without a server.
pub(crate) async fn accounts(databases: &Databases) -> Result<Accounts, Failure> {
    let heads = TailReader::new(databases.write.clone(), None).heads().await.map_err(IdentityError::from)?;
    Ok(Accounts::new(databases.write.clone(), heads.into_iter().map(|(shard, _)| shard).collect())?)
}

fn address(parsed: Result<Email, domain::Invalid>) -> Result<Email, Failure> {
    parsed.map_err(|invalid| Failure::Invalid("the e-mail address", invalid))
}

/// The account with this address, however it is written.
pub(crate) async fn find(accounts: &Accounts, email: &str) -> Result<Account, Failure> {
    let email = address(Email::lenient(email))?;
    accounts.find_by_email(&email).await?.ok_or_else(|| Failure::NoAccount(email.as_str().to_owned()))
}

async fn read_password() -> Result<Password, Failure> {
    let line = password::read_line().await.map_err(|error| Failure::File("standard input".to_owned(), error))?;
    Password::parse(&line).map_err(|invalid| Failure::Invalid("the password", invalid))
}

fn line_of(account: &Account) -> String {
    let disabled = if account.disabled { "  disabled" } else { "" };
    format!("{}  {:5}  {}  {}{disabled}", account.id, account.role.as_str(), account.email, account.name)
}

fn object_of(account: &Account) -> Value {
    json!({
        "id": account.id,
        "email": account.email,
        "name": account.name,
        "role": account.role.as_str(),
        "disabled": account.disabled,
        "created_at": format_time(account.created_at),
    })
}
