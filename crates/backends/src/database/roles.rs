//! Database roles: one for each kind of connection, with the rights that it needs and no others. They have no login. A service
//! that is to have no more rights than it needs logs in as somebody who is a member; who owns the schemas has all of them.

use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};

use super::sql_error::{message, sql_state};

/// Held while rights are granted and settings are made, so that two who do it at once do not meet in the catalogue: "prtr",
/// "role".
const ADVISORY_LOCK: i64 = 0x7072_7472_726f_6c65;
/// Not allowed.
const FORBIDDEN: &str = "42501";

/// The roles of a schema. They are the whole cluster's; what they may do is each database's.
#[derive(Debug, Clone, Copy)]
pub struct Roles {
    /// Their names, as they are written in SQL.
    pub names: &'static [&'static str],
    /// Statements that grant each of them what it needs, on the schema as this program has it.
    pub grants: &'static str,
    /// Statements that set what a session begins with that logs in as one of them.
    pub settings: Option<&'static str>,
}

/// What `Schema::grant` has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Which schema.
    pub schema: &'static str,
    /// Its roles.
    pub roles: &'static [&'static str],
    /// What was not done, and why; None: all is done.
    pub left: Option<String>,
}

/// Makes the roles that are not there, grants, and says what could not be done.
pub(super) async fn grant(roles: Roles, connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let names = roles.names.to_vec();
    let found = sqlx::query_scalar!(
        r#"select rolname::text as "name!" from pg_roles where rolname::text = any ($1::text[])"#,
        &names as _
    );
    let found = found.fetch_all(&mut *connection).await?;
    let missing: Vec<String> = names
        .into_iter()
        .filter(|name| found.iter().all(|found| found != name))
        .map(|name| format!("create role {name}"))
        .collect();
    for make in &missing {
        // another database's migration may be about to make it
        let make = format!("do $$ begin {make}; exception when duplicate_object or unique_violation then null; end $$");
        let made = raw_sql(AssertSqlSafe(make)).execute(&mut *connection).await;
        if forbidden(made.map(drop))?.is_some() {
            return Ok(Some(format!(
                "this login may not make roles (CREATEROLE). Where services are to log in with the rights that they need and \
                 no others, let somebody who may run {}; then run primetrade migrate again",
                missing.join("; ")
            )));
        }
    }
    if let Some(reason) = run_alone(roles.grants, connection).await? {
        let advice = "run primetrade migrate as who owns the schema";
        return Ok(Some(format!("this login may not grant their rights ({reason}): {advice}")));
    }
    let Some(settings) = roles.settings else { return Ok(None) };
    Ok(run_alone(settings, connection).await?.map(|reason| {
        format!(
            "their rights are granted, but this login may not change their settings ({reason}), which matter behind a \
             connection pooler in transaction mode"
        )
    }))
}

/// Runs statements, all of them or none, and never beside another program that does. Why they were not allowed, if they were
/// not.
async fn run_alone(statements: &'static str, connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", ADVISORY_LOCK).execute(&mut *transaction).await?;
    let run = raw_sql(statements).execute(&mut *transaction).await;
    let refused = forbidden(run.map(drop))?;
    if refused.is_some() {
        transaction.rollback().await?;
    } else {
        transaction.commit().await?;
    }
    Ok(refused)
}

/// Why it was not allowed, if it was not.
fn forbidden(done: Result<(), sqlx::Error>) -> Result<Option<String>, sqlx::Error> {
    match done {
        Ok(()) => Ok(None),
        Err(error) if sql_state(&error).as_deref() == Some(FORBIDDEN) => Ok(Some(message(&error))),
        Err(error) => Err(error),
    }
}
