//! The differences between two generations, in one snapshot.
//!
//! Both move while they are compared, so what either of them has from past the lower of both checkpoints is left out.

use sqlx::{Connection, PgConnection};

use crate::differences::{Differences, EXAMPLES_MAX, Found};
use crate::projections;

/// Compares all tables of two generations.
///
/// # Errors
/// The database does not answer.
pub(super) async fn compare(connection: &mut PgConnection, live: i32, new: i32) -> Result<Differences, sqlx::Error> {
    let mut transaction = connection.begin_with("begin transaction isolation level repeatable read, read only").await?;
    sqlx::query!("set local work_mem = '64MB'").execute(&mut *transaction).await?;
    let mut differences = Differences::default();
    differences.add("owner", owners(&mut transaction, live, new).await?);
    differences.add("parked", parked(&mut transaction, live, new).await?);
    for projection in projections::ALL {
        differences.extend(projection.compare(live, new, &mut transaction).await?);
    }
    transaction.rollback().await?;
    Ok(differences)
}

async fn owners(connection: &mut PgConnection, live: i32, new: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", null::uuid as "task_id?",
            case when a.revision is null then 'missing in the live generation'
                when b.revision is null then 'missing in the new generation'
                else format('revision %s, new %s; first parked %s, new %s', a.revision, b.revision,
                    coalesce(a.parked_position::text, 'none'), coalesce(b.parked_position::text, 'none'))
            end as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.owner where generation = $1) as a
        full join (select * from read_model.owner where generation = $2) as b using (owner_id)
        left join lateral (
            select min(c.position) as position
            from read_model.checkpoint as c
            where c.generation in ($1, $2) and c.shard = coalesce(a.shard, b.shard)
        ) as bound on true
        where greatest(a.revision, b.revision, a.parked_position, b.parked_position) <= bound.position
            and (a.shard, a.revision, a.parked_position) is distinct from (b.shard, b.revision, b.parked_position)
        order by 1
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}

async fn parked(connection: &mut PgConnection, live: i32, new: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select coalesce(a.owner_id, b.owner_id) as "owner_id?", coalesce(a.task_id, b.task_id) as "task_id?",
            format('the event at position %s of shard %s is parked only in the %s generation', position, shard,
                case when a.id is null then 'new' else 'live' end) as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.parked where generation = $1) as a
        full join (select * from read_model.parked where generation = $2) as b using (shard, position)
        where (a.id is null or b.id is null)
            and position <= (
                select min(c.position) from read_model.checkpoint as c
                where c.generation in ($1, $2) and c.shard = coalesce(a.shard, b.shard)
            )
        order by shard, position
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}
