use sqlx::{Connection, PgConnection};

use crate::columns::{Columns, Packed};

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
    /// Nothing was done: a stream is not at the version that a unit expects, or a command id is there already.
    Conflicts,
    /// Nothing was done: the head row is not at that ctid any more.
    HeadMoved,
}

/// The fast append: one statement. Repetitions and conflicts are frequent, and an error would be in the database's log
/// together with the whole statement; so it looks first whether each stream is at the version that its unit expects (no
/// index forbids a gap), but for those of new tasks, and whether a command id is there already. What it sees is not stale as
/// long as the head row is the one that it sees too, for who appends moves it. All the same the unique indexes decide: any
/// violation undoes it all.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    shard: i16,
    ctid: &str,
    columns: &Columns<'_>,
) -> Result<Inserted, sqlx::Error> {
    let packed = Packed::of(columns);
    let row = sqlx::query!(
        r#"
        with looked as materialized (
            select exists (
                select from unnest($5::uuid[], $6::uuid[], $7::bigint[]) as u (owner_id, task_id, expected)
                left join lateral (
                    select e.version from event_store.event e
                    where e.owner_id = u.owner_id and e.task_id = u.task_id
                    order by e.version desc
                    limit 1
                ) latest on true
                where coalesce(latest.version, 0) <> u.expected
            ) or exists (
                select from unnest(($15::uuid[])[:$4::int], ($15::uuid[])[$4 + 1:2 * $4]) as c (owner_id, command_id)
                join event_store.command using (owner_id, command_id)
            ) as conflicts
        ), head as (
            update event_store.head set position = position + $3::int
            where ctid = $2::text::tid and shard = $1 and not (select conflicts from looked)
            returning position - $3::int as base, ctid
        ), stored as (
            insert into event_store.event (shard, recorded_at, position, owner_id, task_id, event_id, command_id, change_id,
                actor_id, undoes, version, type, actor_type, correlation_id, traceparent, data, schema_version, occurred_at)
            select $1, now(), generate_series(base + 1, base + $3),
                unnest(($8::uuid[])[:$3]), unnest(($8::uuid[])[$3 + 1:2 * $3]), unnest(($8::uuid[])[2 * $3 + 1:3 * $3]),
                unnest(($8::uuid[])[3 * $3 + 1:4 * $3]), unnest(($8::uuid[])[4 * $3 + 1:]),
                unnest(($9::uuid[])[:$3]), unnest(($9::uuid[])[$3 + 1:]), unnest($10::bigint[]),
                unnest(($11::text[])[:$3]), unnest(($11::text[])[$3 + 1:2 * $3]),
                unnest(($11::text[])[2 * $3 + 1:3 * $3]), unnest(($11::text[])[3 * $3 + 1:]), unnest($12::text[]),
                unnest($13::smallint[]), unnest($14::timestamptz[])
            from head
        ), remembered as (
            insert into event_store.command (owner_id, command_id, task_id, version, revision, recorded_at, fingerprint, status,
                change_id)
            select owner_id, command_id, task_id, version, case when event > 0 then base + event else revision end, now(),
                fingerprint, status, change_id
            from (
                select base, unnest(($15::uuid[])[:$4]) as owner_id, unnest(($15::uuid[])[$4 + 1:2 * $4]) as command_id,
                    unnest(($15::uuid[])[2 * $4 + 1:3 * $4]) as task_id, unnest(($15::uuid[])[3 * $4 + 1:]) as fingerprint,
                    unnest($16::uuid[]) as change_id, unnest(($17::bigint[])[:$4]) as version,
                    unnest(($17::bigint[])[$4 + 1:2 * $4]) as event, unnest(($17::bigint[])[2 * $4 + 1:]) as revision,
                    unnest($18::smallint[]) as status
                from head
            ) c
        )
        select conflicts as "conflicts!", base as "base?", ctid::text as "ctid?" from looked left join head on true
        "#,
        shard,
        ctid,
        packed.events,
        packed.outcomes,
        &columns.l_owner_id,
        &columns.l_task_id,
        &columns.l_expected,
        &packed.event_ids,
        &packed.optional_event_ids as _,
        &columns.version,
        &packed.event_texts as _,
        &columns.data as _,
        &columns.schema_version,
        &columns.occurred_at,
        &packed.outcome_ids,
        &columns.c_change_id as _,
        &packed.outcome_numbers,
        &columns.c_status,
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
    let packed = Packed::of(columns);
    sqlx::query_as!(
        Judged,
        r#"
        select base as "base!", outcomes as "outcomes!", positions as "positions!: Vec<Option<i64>>"
        from event_store.append_checked(
            p_shard => $1,
            u_owner => $4, u_task => $5, u_expected => $6, u_first_event => $7,
            e_unit => $8, e_owner => ($9::uuid[])[:$2::int], e_task => ($9::uuid[])[$2 + 1:2 * $2], e_version => $11,
            e_id => ($9::uuid[])[2 * $2 + 1:3 * $2], e_type => ($12::text[])[:$2], e_schema_version => $14,
            e_occurred_at => $15, e_actor_type => ($12::text[])[$2 + 1:2 * $2], e_actor => ($10::uuid[])[:$2],
            e_command => ($9::uuid[])[3 * $2 + 1:4 * $2], e_correlation => ($12::text[])[2 * $2 + 1:3 * $2],
            e_traceparent => ($12::text[])[3 * $2 + 1:], e_data => $13, e_change => ($9::uuid[])[4 * $2 + 1:],
            e_undoes => ($10::uuid[])[$2 + 1:],
            c_unit => $16, c_owner => ($17::uuid[])[:$3::int], c_command => ($17::uuid[])[$3 + 1:2 * $3],
            c_task => ($17::uuid[])[2 * $3 + 1:3 * $3], c_version => ($19::bigint[])[:$3],
            c_event => ($19::bigint[])[$3 + 1:2 * $3], c_revision => ($19::bigint[])[2 * $3 + 1:],
            c_fingerprint => ($17::uuid[])[3 * $3 + 1:], c_status => $20, c_change => $18)
        "#,
        shard,
        packed.events,
        packed.outcomes,
        &columns.u_owner_id,
        &columns.u_task_id,
        &columns.u_expected,
        &columns.u_first_event as _,
        &columns.unit,
        &packed.event_ids,
        &packed.optional_event_ids as _,
        &columns.version,
        &packed.event_texts as _,
        &columns.data as _,
        &columns.schema_version,
        &columns.occurred_at,
        &columns.c_unit,
        &packed.outcome_ids,
        &columns.c_change_id as _,
        &packed.outcome_numbers,
        &columns.c_status,
    )
    .fetch_one(connection)
    .await
}

/// Writes something that does not stay, and is long enough not to fit into what is there.
pub(crate) async fn try_disk_space(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
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
