use sqlx::{Connection, PgConnection};

use crate::columns::Columns;

/// Where the head row is.
pub(crate) async fn head_ctid(connection: &mut PgConnection, shard: i16) -> Result<String, sqlx::Error> {
    sqlx::query_scalar!(r#"select ctid::text as "ctid!" from event_store.head where shard = $1"#, shard)
        .fetch_one(connection)
        .await
}

/// What became of the fast path's statement.
pub(crate) enum Inserted {
    /// All is there, after this position; and where the head row is now.
    After(i64, String),
    /// Nothing was done: some of it is there already, or a stream is not as far as a unit expects it.
    Conflicts,
    /// Nothing was done: the head row is not at that ctid any more.
    HeadMoved,
}

/// The fast path: one statement. A repetition or a conflict is everyday life, and an error would stand in the database's
/// log together with the whole statement; so it looks first whether anything of the batch is there already. It also looks
/// whether each stream is as far as expected, since no index forbids a gap. What it sees is not stale as long as the head
/// row is the one that it sees too, for who appends moves it. All the same the unique indexes decide: any violation undoes
/// it all.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    shard: i16,
    ctid: &str,
    columns: &Columns<'_>,
) -> Result<Inserted, sqlx::Error> {
    let row = sqlx::query!(
        r#"
        with looked as materialized (
            select exists (
                select from unnest($4::uuid[], $5::uuid[], $6::bigint[]) as e (owner_id, task_id, version)
                join event_store.event using (owner_id, task_id, version)
            ) or exists (
                select from unnest($17::uuid[], $18::uuid[]) as c (owner_id, command_id)
                join event_store.command using (owner_id, command_id)
            ) or exists (
                select from unnest($25::uuid[], $26::uuid[], $27::bigint[]) as u (owner_id, task_id, version)
                where version > 0 and not exists (
                    select from event_store.event e
                    where (e.owner_id, e.task_id, e.version) = (u.owner_id, u.task_id, u.version)
                )
            ) as conflicts
        ), head as (
            update event_store.head set position = position + $3
            where ctid = $2::text::tid and shard = $1 and not (select conflicts from looked)
            returning position - $3 as base, ctid
        ), stored as (
            insert into event_store.event (shard, recorded_at, position, owner_id, task_id, version, event_id, type,
                schema_version, occurred_at, actor_type, actor_id, command_id, correlation_id, traceparent, data,
                change_id, undoes)
            select $1, now(), generate_series(base + 1, base + $3), unnest($4::uuid[]), unnest($5::uuid[]),
                unnest($6::bigint[]), unnest($7::uuid[]), unnest($8::text[]), unnest($9::smallint[]),
                unnest($10::timestamptz[]), unnest($11::text[]), unnest($12::uuid[]), unnest($13::uuid[]),
                unnest($14::text[]), unnest($15::text[]), unnest($16::text[]), unnest($28::uuid[]),
                unnest($29::uuid[])
            from head
        ), remembered as (
            insert into event_store.command (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint, status,
                change_id)
            select owner_id, command_id, task_id, version, case when event > 0 then base + event else revision end, now(),
                fingerprint, status, change_id
            from (
                select base, unnest($17::uuid[]) as owner_id, unnest($18::uuid[]) as command_id,
                    unnest($19::uuid[]) as task_id, unnest($20::bigint[]) as version, unnest($21::bigint[]) as event,
                    unnest($22::bigint[]) as revision, unnest($23::uuid[]) as fingerprint, unnest($24::smallint[]) as status,
                    unnest($30::uuid[]) as change_id
                from head
            ) c
        )
        select conflicts as "conflicts!", base as "base?", ctid::text as "ctid?" from looked left join head on true
        "#,
        shard,
        ctid,
        columns.event_id.len() as i64,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.event_id,
        &columns.event_type as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.actor_type as _,
        &columns.actor_id as _,
        &columns.command_id,
        &columns.correlation_id as _,
        &columns.traceparent as _,
        &columns.data,
        &columns.c_owner_id,
        &columns.c_command_id,
        &columns.c_task_id,
        &columns.c_version,
        &columns.c_event,
        &columns.c_revision,
        &columns.c_fingerprint,
        &columns.c_status,
        &columns.u_owner_id,
        &columns.u_task_id,
        &columns.u_expected,
        &columns.change_id,
        &columns.undoes as _,
        &columns.c_change_id as _,
    )
    .fetch_one(connection)
    .await?;
    Ok(match (row.base, row.ctid) {
        (Some(base), Some(ctid)) => Inserted::After(base, ctid),
        _ if row.conflicts => Inserted::Conflicts,
        _ => Inserted::HeadMoved,
    })
}

/// What the checked append has judged, unit by unit: 0 appended, 1 conflict, 2 a known command id, else there already.
pub(crate) struct Judged {
    pub(crate) base: i64,
    pub(crate) outcomes: Vec<i16>,
    pub(crate) positions: Vec<Option<i64>>,
}

/// The checked append: see `event_store.append_checked` in the migration.
pub(crate) async fn insert_checked(
    connection: &mut PgConnection,
    shard: i16,
    columns: &Columns<'_>,
) -> Result<Judged, sqlx::Error> {
    sqlx::query_as!(
        Judged,
        r#"
        select base as "base!", outcomes as "outcomes!", positions as "positions!: Vec<Option<i64>>"
        from event_store.append_checked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
            $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31)
        "#,
        shard,
        &columns.u_owner_id,
        &columns.u_task_id,
        &columns.u_expected,
        &columns.u_first_event as _,
        &columns.unit,
        &columns.owner_id,
        &columns.task_id,
        &columns.version,
        &columns.event_id,
        &columns.event_type as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.actor_type as _,
        &columns.actor_id as _,
        &columns.command_id,
        &columns.correlation_id as _,
        &columns.traceparent as _,
        &columns.data,
        &columns.change_id,
        &columns.undoes as _,
        &columns.c_unit,
        &columns.c_owner_id,
        &columns.c_command_id,
        &columns.c_task_id,
        &columns.c_version,
        &columns.c_event,
        &columns.c_revision,
        &columns.c_fingerprint,
        &columns.c_status,
        &columns.c_change_id as _,
    )
    .fetch_one(connection)
    .await
}

/// Writes something that does not stay, and is long enough not to fit into what is there.
pub(crate) async fn try_room(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        r#"
        insert into event_store.batch_answer (owner_id, command_id, fingerprint, recorded_at, body)
        select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), string_agg(gen_random_uuid()::text, '')
        from generate_series(1, 8192)
        "#
    )
    .execute(&mut *transaction)
    .await?;
    transaction.rollback().await
}
