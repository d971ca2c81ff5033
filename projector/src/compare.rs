//! The differences between two generations, in one snapshot.
//!
//! Both move while they are compared, so what either of them has from past the lower of both checkpoints is left out.
//! Counters, which have no position, are held against the rows that they count, each within its own generation.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// How many differences of a kind are named.
const EXAMPLES_MAX: i64 = 5;

/// How two generations differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// All of them.
    pub total: i64,
    /// A few of each kind.
    pub examples: Vec<Difference>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `task`, `history`, `owner`, `task_count`, `day_count`, `parked`.
    pub kind: &'static str,
    /// Whose.
    pub owner_id: Option<Uuid>,
    /// Of which task, where it is one's.
    pub task_id: Option<Uuid>,
    /// Which event or row of it, and what is different.
    pub detail: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(task_id) = self.task_id {
            write!(f, " of task {task_id}")?;
        }
        if let Some(owner_id) = self.owner_id {
            write!(f, " of owner {owner_id}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl Differences {
    fn add(&mut self, kind: &'static str, rows: Vec<Found>) {
        self.total += rows.first().map_or(0, |row| row.total);
        self.examples.extend(rows.into_iter().map(|row| Difference {
            kind,
            owner_id: row.owner_id,
            task_id: row.task_id,
            detail: row.detail,
        }));
    }
}

struct Found {
    owner_id: Option<Uuid>,
    task_id: Option<Uuid>,
    detail: String,
    total: i64,
}

/// Compares all tables of two generations.
///
/// # Errors
/// The database does not answer.
pub(crate) async fn compare(connection: &mut PgConnection, live: i32, new: i32) -> Result<Differences, sqlx::Error> {
    let mut transaction = connection.begin_with("begin transaction isolation level repeatable read, read only").await?;
    sqlx::query!("set local work_mem = '64MB'").execute(&mut *transaction).await?;
    let mut differences = Differences::default();
    differences.add("task", tasks(&mut transaction, live, new).await?);
    differences.add("history", history(&mut transaction, live, new).await?);
    differences.add("owner", owners(&mut transaction, live, new).await?);
    differences.add("parked", parked(&mut transaction, live, new).await?);
    for generation in [live, new] {
        differences.add("task_count", task_counts(&mut transaction, generation).await?);
        differences.add("day_count", day_counts(&mut transaction, generation).await?);
    }
    transaction.rollback().await?;
    Ok(differences)
}

async fn tasks(connection: &mut PgConnection, live: i32, new: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        with bound as (
            select o.owner_id, min(c.position) as position
            from (select distinct owner_id, shard from read_model.owner where generation in ($1, $2)) as o
            join read_model.checkpoint as c on c.generation in ($1, $2) and c.shard = o.shard
            group by o.owner_id
        )
        select owner_id as "owner_id?", task_id as "task_id?",
            case when a.version is null then format('missing in the live generation (version %s)', b.version)
                when b.version is null then format('missing in the new generation (version %s)', a.version)
                else 'different: ' || array_to_string(array[
                    case when a.version <> b.version then format('version (%s, new %s)', a.version, b.version) end,
                    case when a.position <> b.position then 'position' end,
                    case when a.deleted <> b.deleted then 'deleted' end,
                    case when a.status <> b.status then format('status (%s, new %s)', a.status, b.status) end,
                    case when a.priority <> b.priority then format('priority (%s, new %s)', a.priority, b.priority) end,
                    case when a.title <> b.title then 'title' end,
                    case when a.description is distinct from b.description then 'description' end,
                    case when a.tags <> b.tags then 'tags' end,
                    case when a.due_at is distinct from b.due_at then 'due_at' end,
                    case when a.created_at <> b.created_at then 'created_at' end,
                    case when a.updated_at <> b.updated_at then 'updated_at' end,
                    case when a.started_at is distinct from b.started_at then 'started_at' end,
                    case when a.completed_at is distinct from b.completed_at then 'completed_at' end,
                    case when a.search <> b.search then 'search' end], ', ')
            end as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.task where generation = $1) as a
        full join (select * from read_model.task where generation = $2) as b using (owner_id, task_id)
        left join bound using (owner_id)
        where coalesce(a.position, 0) <= coalesce(bound.position, 0)
            and coalesce(b.position, 0) <= coalesce(bound.position, 0)
            and (a.version, a.position, a.deleted, a.status, a.priority, a.title, a.description, a.tags, a.due_at,
                a.created_at, a.updated_at, a.started_at, a.completed_at, a.search)
                is distinct from
                (b.version, b.position, b.deleted, b.status, b.priority, b.title, b.description, b.tags, b.due_at,
                b.created_at, b.updated_at, b.started_at, b.completed_at, b.search)
        order by 1, 2
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}

async fn history(connection: &mut PgConnection, live: i32, new: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        with bound as (
            select o.owner_id, min(c.position) as position
            from (select distinct owner_id, shard from read_model.owner where generation in ($1, $2)) as o
            join read_model.checkpoint as c on c.generation in ($1, $2) and c.shard = o.shard
            group by o.owner_id
        )
        select owner_id as "owner_id?", task_id as "task_id?",
            format('event %s %s', version,
                case when a.position is null then 'missing in the live generation'
                    when b.position is null then 'missing in the new generation'
                    else 'different: ' || array_to_string(array[
                        case when a.position <> b.position then 'position' end,
                        case when a.occurred_at <> b.occurred_at then 'occurred_at' end,
                        case when a.recorded_at <> b.recorded_at then 'recorded_at' end,
                        case when a.type <> b.type then 'type' end,
                        case when a.actor_type <> b.actor_type then 'actor type' end,
                        case when a.actor_id is distinct from b.actor_id then 'actor id' end,
                        case when a.changes <> b.changes then 'changes' end], ', ')
                end) as "detail!",
            count(*) over () as "total!"
        from (select * from read_model.history where generation = $1) as a
        full join (select * from read_model.history where generation = $2) as b using (owner_id, task_id, version)
        left join bound using (owner_id)
        where coalesce(a.position, 0) <= coalesce(bound.position, 0)
            and coalesce(b.position, 0) <= coalesce(bound.position, 0)
            and (a.position, a.occurred_at, a.recorded_at, a.type, a.actor_type, a.actor_id, a.changes)
                is distinct from
                (b.position, b.occurred_at, b.recorded_at, b.type, b.actor_type, b.actor_id, b.changes)
        order by 1, 2, version
        limit $3
        "#,
        live,
        new,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
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

async fn task_counts(connection: &mut PgConnection, generation: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", null::uuid as "task_id?",
            format('generation %s counts %s tasks of status %s and priority %s, and has %s', $1::int,
                coalesce(a.count, 0), status, priority, coalesce(b.count, 0)) as "detail!",
            count(*) over () as "total!"
        from (
            select owner_id, status, priority, count from read_model.task_count where generation = $1 and count <> 0
        ) as a
        full join (
            select owner_id, status, priority, count(*) as count
            from read_model.task
            where generation = $1 and not deleted
            group by owner_id, status, priority
        ) as b using (owner_id, status, priority)
        where a.count is distinct from b.count
        order by owner_id, status, priority
        limit $2
        "#,
        generation,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}

async fn day_counts(connection: &mut PgConnection, generation: i32) -> Result<Vec<Found>, sqlx::Error> {
    sqlx::query_as!(
        Found,
        r#"
        select owner_id as "owner_id?", null::uuid as "task_id?",
            format('generation %s counts %s created and %s completed on %s, and has %s and %s', $1::int,
                coalesce(a.created, 0), coalesce(a.completed, 0), day, coalesce(b.created, 0),
                coalesce(b.completed, 0)) as "detail!",
            count(*) over () as "total!"
        from (
            select owner_id, day, created, completed
            from read_model.day_count
            where generation = $1 and (created, completed) <> (0, 0)
        ) as a
        full join (
            select owner_id, day, sum(created)::bigint as created, sum(completed)::bigint as completed
            from (
                select owner_id, (created_at at time zone 'UTC')::date as day, 1 as created, 0 as completed
                from read_model.task
                where generation = $1 and not deleted
                union all
                select owner_id, (completed_at at time zone 'UTC')::date, 0, 1
                from read_model.task
                where generation = $1 and not deleted and completed_at is not null
            ) as d
            group by owner_id, day
        ) as b using (owner_id, day)
        where (a.created, a.completed) is distinct from (b.created, b.completed)
        order by owner_id, day
        limit $2
        "#,
        generation,
        EXAMPLES_MAX,
    )
    .fetch_all(connection)
    .await
}
