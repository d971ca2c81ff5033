//! One statement on any connection of a pool.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{TryStreamExt, stream};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, Postgres, SqlStr};

use super::pool::Pool;

/// A query, whatever its type was.
struct Statement {
    sql: SqlStr,
    prepared: Option<PgStatement>,
    arguments: Option<PgArguments>,
    persistent: bool,
}

impl Statement {
    fn of<'q>(mut query: impl Execute<'q, Postgres>) -> Result<Self, Error> {
        let arguments = query.take_arguments().map_err(Error::Encode)?;
        let (prepared, persistent) = (query.statement().cloned(), query.persistent());
        Ok(Self { sql: query.sql(), prepared, arguments, persistent })
    }
}

impl Execute<'_, Postgres> for Statement {
    fn sql(self) -> SqlStr {
        self.sql
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.prepared.as_ref()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        self.persistent
    }
}

impl Pool {
    fn fetch_all(
        self,
        statement: Result<Statement, Error>,
    ) -> BoxStream<'static, Result<Either<PgQueryResult, PgRow>, Error>> {
        let all = async move {
            let statement = statement?;
            let mut connection = self.acquire().await?;
            let found: Result<Vec<_>, Error> = connection.fetch_many(statement).try_collect().await;
            connection.seen(found)
        };
        Box::pin(stream::once(all).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten())
    }

    fn fetch_first(self, statement: Result<Statement, Error>) -> BoxFuture<'static, Result<Option<PgRow>, Error>> {
        Box::pin(async move {
            let statement = statement?;
            let mut connection = self.acquire().await?;
            let found = connection.fetch_optional(statement).await;
            connection.seen(found)
        })
    }
}

/// One statement on any connection. All its rows are taken before the first is given.
impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.clone().fetch_all(Statement::of(query))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.clone().fetch_first(Statement::of(query))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.describe(sql).await })
    }
}
