//! `read_model.search`: the lexemes of each task's texts ([`read_model::search`]), by which search finds it. A task that is
//! deleted has none.

use async_trait::async_trait;
use read_model::TaskRow;
use read_model::search::Lexemes;
use sqlx::PgConnection;
use uuid::Uuid;

use super::projection::{Effect, Projection, TaskChange};
use crate::columns::columns;
use crate::copy::{COPY_ROWS_MIN, CopyIn, Rows, copy_into};
use crate::differences::{Differences, differing};

pub(super) struct Search;

#[async_trait]
impl Projection for Search {
    async fn write(
        &self,
        effect: &Effect<'_>,
        generation: i32,
        connection: &mut PgConnection,
    ) -> Result<(), sqlx::Error> {
        let new: Vec<&TaskChange> = effect.tasks.iter().filter(|change| change.before.is_none()).collect();
        if new.len() >= COPY_ROWS_MIN {
            copied(new, generation).add(connection).await?;
        } else if !new.is_empty() {
            insert(&Inserted::of(new), generation, connection).await?;
        }
        let updates = effect.tasks.iter().filter_map(|change| Update::of(change.before.as_ref()?, change));
        let updated = Updated::of(updates);
        if !updated.task_id.is_empty() {
            update(&updated, generation, connection).await?;
        }
        Ok(())
    }

    fn copy(&self, effect: &Effect<'_>, generation: i32) -> Option<CopyIn> {
        Some(copied(&effect.tasks, generation))
    }

    async fn compare(&self, live: i32, new: i32, connection: &mut PgConnection) -> Result<Differences, sqlx::Error> {
        // Nothing where the live generation was made before the table.
        let found = differing!(
            select "case when a.lexemes is null then 'missing in the live generation'
                when b.lexemes is null then 'missing in the new generation'
                else 'different: lexemes'
                end",
            from "(
                    select s.owner_id, s.task_id, s.lexemes, t.position
                    from read_model.search as s
                    left join read_model.task as t on t.generation = $1 and t.owner_id = s.owner_id and t.task_id = s.task_id
                    where s.generation = $1
                ) as a
                full join (
                    select s.owner_id, s.task_id, s.lexemes, t.position
                    from read_model.search as s
                    left join read_model.task as t on t.generation = $2 and t.owner_id = s.owner_id and t.task_id = s.task_id
                    where s.generation = $2
                ) as b using (owner_id, task_id)",
            where "a.lexemes is distinct from b.lexemes
                and (select complete_from from read_model.projected_table where name = 'search') <= least($1, $2)",
            order by "1, 2",
            live, new, connection
        )
        .await?;
        Ok(Differences::found("search", found))
    }
}

fn lexemes(TaskRow { deleted, task, .. }: &TaskRow) -> Lexemes {
    if *deleted {
        return Lexemes::default();
    }
    Lexemes::of(&task.title, &task.tags, task.description.as_deref())
}

fn copied<'a>(changes: impl IntoIterator<Item = &'a TaskChange>, generation: i32) -> CopyIn {
    let mut rows = Rows::new();
    for change in changes {
        let TaskRow { owner_id, task, .. } = &change.after;
        let lexemes = lexemes(&change.after);
        rows.row(4).int(generation).uuid(owner_id.0).uuid(task.id).words(&lexemes.iter().collect::<Vec<_>>());
    }
    CopyIn { statements: copy_into!("search", "generation, owner_id, task_id, lexemes"), rows }
}

columns!(Inserted for<'r> of change: &'r TaskChange {
    owner_id: Uuid = change.after.owner_id.0,
    task_id: Uuid = change.after.task.id,
    lexemes: String = lexemes(&change.after).joined(),
});

/// A task that has a row, of which texts have changed.
pub(super) struct Update<'a> {
    after: &'a TaskRow,
    /// `None`: all of them. With the description as it was, those of the former tags.
    removed: Option<Lexemes>,
    added: Lexemes,
}

impl<'a> Update<'a> {
    fn of(before: &TaskRow, change: &'a TaskChange) -> Option<Self> {
        let TaskChange { after, text_changed, .. } = change;
        if *text_changed {
            return Some(Self { after, removed: None, added: lexemes(after) });
        }
        let tags_changed = before.task.tags != after.task.tags;
        tags_changed.then(|| Self {
            after,
            removed: Some(Lexemes::of_tags(&before.task.tags)),
            added: Lexemes::of_tags(&after.task.tags),
        })
    }
}

columns!(Updated for<'r> of update: Update<'r> {
    owner_id: Uuid = update.after.owner_id.0,
    task_id: Uuid = update.after.task.id,
    removed: Option<String> = update.removed.as_ref().map(Lexemes::joined),
    added: String = update.added.joined(),
});

async fn insert(columns: &Inserted, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        insert into read_model.search (generation, owner_id, task_id, lexemes)
        select $1, n.owner_id, n.task_id, array_to_tsvector(string_to_array(n.lexemes, ' '))
        from unnest($2::uuid[], $3::uuid[], $4::text[]) as n (owner_id, task_id, lexemes)
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.lexemes,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn update(columns: &Updated, generation: i32, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"
        update read_model.search as s
        set lexemes = case when n.removed is not null then ts_delete(s.lexemes, string_to_array(n.removed, ' ')) else '' end
            || array_to_tsvector(string_to_array(n.added, ' '))
        from unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[]) as n (owner_id, task_id, removed, added)
        where s.generation = $1 and s.owner_id = n.owner_id and s.task_id = n.task_id
        "#,
        generation,
        &columns.owner_id,
        &columns.task_id,
        &columns.removed as &[Option<String>],
        &columns.added,
    )
    .execute(connection)
    .await?;
    Ok(())
}
