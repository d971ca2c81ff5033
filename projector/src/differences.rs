//! How two generations differ.

use uuid::Uuid;

/// How many differences of a kind are named.
pub(crate) const EXAMPLES_MAX: i64 = 5;

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
    /// The table.
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
    /// What a query of a comparison has found.
    pub(crate) fn found(kind: &'static str, rows: Vec<Found>) -> Self {
        let mut differences = Self::default();
        differences.add(kind, rows);
        differences
    }

    pub(crate) fn add(&mut self, kind: &'static str, rows: Vec<Found>) {
        self.total += rows.first().map_or(0, |row| row.total);
        self.examples.extend(rows.into_iter().map(|row| Difference {
            kind,
            owner_id: row.owner_id,
            task_id: row.task_id,
            detail: row.detail,
        }));
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.total += more.total;
        self.examples.extend(more.examples);
    }
}

/// A row of a query of a comparison.
pub(crate) struct Found {
    pub owner_id: Option<Uuid>,
    pub task_id: Option<Uuid>,
    pub detail: String,
    /// Of all rows.
    pub total: i64,
}

/// The rows of a query that compares two generations: `a` has what the live one has, `b` what the new one has, joined by owner
/// and what else makes them a pair. Both move while they are compared, so what either has from past `bound`, the lower of
/// both checkpoints, is left out.
macro_rules! differing {
    (
        select $detail:literal,
        from $pairs:literal,
        where $differ:literal,
        order by $order:literal,
        $live:expr, $new:expr, $connection:expr
    ) => {
        sqlx::query_as!(
            crate::differences::Found,
            r#"
            with bound as (
                select o.owner_id, min(c.position) as position
                from (select distinct owner_id, shard from read_model.owner where generation in ($1, $2)) as o
                join read_model.checkpoint as c on c.generation in ($1, $2) and c.shard = o.shard
                group by o.owner_id
            )
            select owner_id as "owner_id?", task_id as "task_id?", "#
                + $detail
                + r#" as "detail!",
                count(*) over () as "total!"
            from "#
                + $pairs
                + r#"
            left join bound using (owner_id)
            where coalesce(a.position, 0) <= coalesce(bound.position, 0)
                and coalesce(b.position, 0) <= coalesce(bound.position, 0)
                and ("#
                + $differ
                + r#")
            order by "#
                + $order
                + r#"
            limit $3
            "#,
            $live,
            $new,
            crate::differences::EXAMPLES_MAX,
        )
        .fetch_all($connection)
    };
}

pub(crate) use differing;
