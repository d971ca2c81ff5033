//! A database of its own, rows as the projector would write them, and the router in front of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use access::token::{RootSecret, Sealer};
use access::{AUDIENCE, Claims, ISSUER, Keys, Revoked, Role, Verifier};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::{Extension, Router};
use backends::database::Pool;
use chrono::{DateTime, TimeDelta, Utc};
use ed25519_dalek::SigningKey;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use query_api::{QueryApi, Sources};
use read_model::search::Lexemes;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolCopyExt, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use system_tests::wait::eventually;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

pub type Time = DateTime<Utc>;

/// How long a Redis must have been there to be believed.
pub const SETTLED_MS: u64 = 4_000;

/// The database, the router, and who signs tokens.
pub struct World {
    pub db: PgPool,
    pub router: Router,
    pub sealer: Sealer,
    pub log_id: Uuid,
    pub revoked: watch::Sender<Arc<Revoked>>,
    pub applied: watch::Sender<u64>,
    pub shutdown: CancellationToken,
    key: SigningKey,
    keys: watch::Sender<Arc<Keys>>,
    /// Shared by all processes of this world, and told by its projector.
    pub redis: Option<backends::redis::Redis>,
    /// Whether Redis misses what is written.
    pub redis_misses: AtomicBool,
    position: AtomicI64,
    base: PgConnectOptions,
    name: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Self {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        assert_eq!((self.status.as_u16(), self.json()["code"].as_str()), (status, Some(code)), "{text}");
        self
    }
}

/// A task as a row.
#[derive(Debug, Clone)]
pub struct Task {
    pub id: Uuid,
    pub version: i64,
    pub deleted: bool,
    pub title: String,
    pub description: Option<String>,
    pub status: i16,
    pub priority: i16,
    pub tags: Vec<String>,
    pub rank: Option<String>,
    pub due_at: Option<Time>,
    pub created_at: Time,
    pub updated_at: Time,
    pub started_at: Option<Time>,
    pub completed_at: Option<Time>,
}

pub fn at(second: i64) -> Time {
    DateTime::from_timestamp(1_780_000_000 + second, 0).unwrap()
}

pub fn rfc(time: Time) -> String {
    domain::format_time(time)
}

impl Task {
    pub fn new(title: &str) -> Self {
        Self {
            id: process::clock::new_id(),
            version: 1,
            deleted: false,
            title: title.to_owned(),
            description: None,
            status: 0,
            priority: 1,
            tags: Vec::new(),
            rank: None,
            due_at: None,
            created_at: at(0),
            updated_at: at(0),
            started_at: None,
            completed_at: None,
        }
    }
}

fn options() -> PgConnectOptions {
    let url = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL names a Postgres to make databases in");
    url.parse::<PgConnectOptions>().expect("TEST_DATABASE_URL is a URL").disable_statement_logging()
}

impl World {
    pub async fn new() -> Self {
        let base = options();
        let name = format!("test_c_{}", Uuid::new_v4().simple());
        let admin = PgPoolOptions::new().max_connections(1).connect_with(base.clone()).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&admin).await.unwrap();
        let db = PgPoolOptions::new().max_connections(4).connect_with(base.clone().database(&name)).await.unwrap();
        read_model::migrate(&mut db.acquire().await.unwrap()).await.unwrap();
        let log_id = Uuid::new_v4();
        sqlx::query!("update read_model.projection set log_id = $1", log_id).execute(&db).await.unwrap();

        let secret = RootSecret::new(SecretString::from("a secret of at least thirty-two bytes")).unwrap();
        let sealer = Sealer::new(&secret);
        let key = SigningKey::from_bytes(&[7; 32]);
        let (keys, _) = watch::channel(Arc::new(Keys::new([("k".to_owned(), key.verifying_key().to_bytes())])));
        let (revoked, _) = watch::channel(Arc::new(Revoked::default()));
        let (applied, _) = watch::channel(0);
        let mut world = Self {
            db,
            router: Router::new(),
            sealer,
            log_id,
            revoked,
            applied,
            shutdown: CancellationToken::new(),
            key,
            keys,
            redis: None,
            redis_misses: AtomicBool::new(false),
            position: AtomicI64::new(0),
            base,
            name,
        };
        world.router = world.another_process(true);
        world
    }

    /// With a Redis that is there for long enough to be believed.
    pub async fn with_redis(url: &str) -> Self {
        let mut world = Self::new().await;
        let redis = backends::redis::Redis::connect(url).unwrap();
        eventually("Redis is believed", async || redis.settled_values(&[], SETTLED_MS).await.is_ok()).await;
        world.redis = Some(redis);
        world.router = world.another_process(true);
        world
    }

    /// A pool as query-api makes it, on the read models or on a database of another name beside it.
    pub fn pool(&self, beside: Option<&str>) -> Pool {
        query_api::connect(self.options(beside), 4)
    }

    /// How that database is reached.
    pub fn options(&self, beside: Option<&str>) -> PgConnectOptions {
        self.base.clone().database(beside.unwrap_or(&self.name))
    }

    /// A router with caches of its own, as another process on the same database has.
    pub fn another_process(&self, hinted: bool) -> Router {
        let sources = Sources { primary: self.pool(None), replica: None, redis: self.redis.clone() };
        self.process(sources, hinted)
    }

    /// A router that reads from these.
    pub fn process(&self, sources: Sources, hinted: bool) -> Router {
        let applied = hinted.then(|| self.applied.subscribe());
        let app = QueryApi::new(sources, self.sealer.clone(), applied, self.shutdown.clone());
        let verifier = Verifier::new(self.keys.subscribe(), self.revoked.subscribe());
        query_api::router(app).layer(Extension(verifier))
    }

    pub fn bearer(&self, owner: Uuid, session: Uuid, lifetime_s: i64) -> String {
        let now = process::clock::now().timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: owner,
            sid: session,
            role: Role::User,
            shard: 0,
            iat: now,
            exp: now + lifetime_s,
            jti: Uuid::new_v4(),
            scope: None,
        };
        format!("Bearer {}", claims.sign("k", &self.key).unwrap())
    }

    pub async fn send(&self, router: &Router, owner: Uuid, path: &str, headers: &[(&str, &str)]) -> Answer {
        let bearer = self.bearer(owner, Uuid::nil(), 60);
        let mut request = Request::get(path).header("authorization", bearer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub async fn get(&self, owner: Uuid, path: &str) -> Answer {
        self.send(&self.router, owner, path, &[]).await
    }

    /// The key and value of where an owner stands now, as docs/redis.md has them.
    pub async fn owner_version(&self, owner: Uuid) -> (String, String) {
        let as_of_ms = process::clock::now().timestamp_millis();
        let row = sqlx::query!(
            "select p.cache_id, p.live_generation, o.revision, o.change_counter, o.parked_position
             from read_model.projection p join read_model.owner o on o.generation = p.live_generation and o.owner_id = $1",
            owner
        )
        .fetch_one(&self.db)
        .await
        .unwrap();
        let (cache_id, log_id) = (row.cache_id.simple(), self.log_id.simple());
        let key = format!("primetrade:{cache_id}:{log_id}:{}:standing:{}", row.live_generation, owner.simple());
        let parked = row.parked_position.unwrap_or(-1);
        let value = format!(
            "{:016x}{as_of_ms:016x}{:016x}{parked:016x}{}",
            row.change_counter + 1,
            row.revision,
            owner.simple()
        );
        (key, value)
    }

    /// A database beside the read models that is as they are now, and behind from then on. (Its name is for `pool`.)
    pub async fn replica(&self) -> String {
        let name = format!("{}_replica", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name}"))).execute(&self.db).await.unwrap();
        let replica = PgPoolOptions::new().max_connections(1);
        let replica = replica.connect_with(self.base.clone().database(&name)).await.unwrap();
        read_model::migrate(&mut replica.acquire().await.unwrap()).await.unwrap();
        self.bring_up_to_date(&replica).await;
        name
    }

    /// Copies everything to a replica (of the first generation).
    pub async fn bring_up_to_date(&self, replica: &PgPool) {
        let tables = ["projection", "checkpoint"].map(str::to_owned).into_iter().chain(self.tables().await);
        for table in tables.map(|table| format!("read_model.{table}")) {
            let truncate = sqlx::AssertSqlSafe(format!("truncate {table}"));
            sqlx::raw_sql(truncate).execute(replica).await.unwrap();
            let mut rows = self.db.copy_out_raw(&format!("copy (select * from {table}) to stdout")).await.unwrap();
            let mut into = replica.copy_in_raw(&format!("copy {table} from stdin")).await.unwrap();
            while let Some(chunk) = rows.next().await {
                into.send(chunk.unwrap()).await.unwrap();
            }
            into.finish().await.unwrap();
        }
    }

    /// The tables of a generation.
    async fn tables(&self) -> Vec<String> {
        let tables = sqlx::query_scalar!("select name from read_model.projected_table order by ordinal");
        tables.fetch_all(&self.db).await.unwrap()
    }

    /// A pool to write into a replica with.
    pub async fn open(&self, name: &str) -> PgPool {
        PgPoolOptions::new().max_connections(1).connect_with(self.base.clone().database(name)).await.unwrap()
    }

    /// What the projector does after each commit.
    pub async fn tell_redis(&self, owner: Uuid) {
        let Some(redis) = self.redis.as_ref().filter(|_| !self.redis_misses.load(Ordering::Relaxed)) else { return };
        let (key, value) = self.owner_version(owner).await;
        let until = (process::clock::now().timestamp_millis() + 3_000).to_string();
        let script = include_str!("../../../migrations/redis/owner-versions.lua");
        // It may be away: that is its reader's business.
        let _ = redis.run_script(script, &[key], &[until, value]).await;
    }

    /// A command's token.
    pub fn token(&self, owner: Uuid, position: i64) -> String {
        self.sealer.consistency_token(self.log_id, domain::OwnerId(owner), 0, position)
    }

    pub fn next_position(&self) -> i64 {
        self.position.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn last_position(&self) -> i64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Writes tasks as they are, without history.
    pub async fn put(&self, owner: Uuid, tasks: &[Task]) {
        let position = self.next_position();
        let mut tx = self.db.begin().await.unwrap();
        for task in tasks {
            write_task(&mut tx, owner, position, task).await;
        }
        touch(&mut tx, owner, position).await;
        tx.commit().await.unwrap();
        self.tell_redis(owner).await;
        self.applied.send_modify(|n| *n += 1);
    }

    /// Writes a task after an event, and the event into its history. Returns the event's position.
    pub async fn event(&self, owner: Uuid, task: &Task, event_type: &str, changes: Value) -> i64 {
        let position = self.next_position();
        self.event_at(owner, task, event_type, changes, position).await;
        position
    }

    pub async fn event_at(&self, owner: Uuid, task: &Task, event_type: &str, changes: Value, position: i64) {
        let mut tx = self.db.begin().await.unwrap();
        write_task(&mut tx, owner, position, task).await;
        sqlx::query!(
            "insert into read_model.history (generation, owner_id, task_id, version, position, occurred_at, recorded_at, type, actor_type, actor_id, changes)
             values (1, $1, $2, $3, $4, $5, $5, $6, 'user', $1, $7)",
            owner, task.id, task.version, position, task.updated_at, event_type, written(&changes)
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        let title_key = changes["title"]["to"].as_str().map(read_model::search::title_key);
        sqlx::query!(
            "insert into read_model.task_version (generation, owner_id, task_id, version, position, status, priority, held_from,
                 created_at, due_at, started_at, completed_at, tags, title_key, rank)
             values (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            owner,
            task.id,
            task.version,
            position,
            (!task.deleted).then_some(task.status),
            task.priority,
            task.updated_at,
            task.created_at,
            task.due_at,
            task.started_at,
            task.completed_at,
            &task.tags,
            title_key,
            task.rank
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        touch(&mut tx, owner, position).await;
        tx.commit().await.unwrap();
        self.tell_redis(owner).await;
        self.applied.send_modify(|n| *n += 1);
    }

    /// A task and the event that created it.
    pub async fn create(&self, owner: Uuid, task: &Task) -> i64 {
        let priority = ["low", "medium", "high", "urgent"][usize::try_from(task.priority).unwrap()];
        let changes = json!({
            "title": {"from": null, "to": task.title},
            "description": {"from": null, "to": task.description},
            "status": {"from": null, "to": "pending"},
            "priority": {"from": null, "to": priority},
            "due_at": {"from": null, "to": task.due_at.map(rfc)},
            "tags": {"from": [], "to": task.tags},
        });
        self.event(owner, task, "TaskCreated", changes).await
    }

    /// Renames a task, a second later.
    pub async fn rename(&self, owner: Uuid, task: &mut Task, title: &str) -> i64 {
        let from = std::mem::replace(&mut task.title, title.to_owned());
        task.version += 1;
        task.updated_at += TimeDelta::seconds(1);
        self.event(owner, task, "TaskRenamed", json!({"title": {"from": from, "to": title}})).await
    }

    /// Parks what is at a position, or mends it.
    pub async fn park(&self, owner: Uuid, position: Option<i64>) {
        let mut tx = self.db.begin().await.unwrap();
        touch(&mut tx, owner, 0).await;
        sqlx::query!(
            "update read_model.owner set change_counter = change_counter + 4294967296, parked_position = $2
             where generation = 1 and owner_id = $1",
            owner,
            position
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        self.tell_redis(owner).await;
        self.applied.send_modify(|n| *n += 1);
    }

    /// Copies everything into another generation and makes that one live, as a rebuild does.
    pub async fn switch_generation(&self, generation: i32) {
        let statements = format!(
            "insert into read_model.generation (generation, state, attached) values ({generation}, 'building', false);
             select read_model.create_building({generation});
             {copies}
             select read_model.index_tables('_building');
             select read_model.attach_building({generation});
             insert into read_model.checkpoint (generation, shard, position, turn)
                 select {generation}, shard, position, 1 from read_model.checkpoint c, read_model.projection p
                 where c.generation = p.live_generation;
             update read_model.projection set live_generation = {generation};",
            copies = self
                .tables()
                .await
                .iter()
                .map(|t| format!(
                    "create temp table copied as select * from read_model.{t} where generation = (select live_generation from read_model.projection);
                     update copied set generation = {generation};
                     insert into read_model.{t}_building select * from copied; drop table copied;"
                ))
                .collect::<String>(),
        );
        let mut tx = self.db.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        self.applied.send_modify(|n| *n += 1);
    }
}

async fn write_task(tx: &mut sqlx::PgConnection, owner: Uuid, position: i64, task: &Task) {
    sqlx::query!("delete from read_model.task where generation = 1 and owner_id = $1 and task_id = $2", owner, task.id)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query!(
        "insert into read_model.task (generation, owner_id, task_id, position, version, deleted, status, priority, title, description,
             tags, due_at, created_at, updated_at, started_at, completed_at, title_key, rank)
         values (1, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        owner,
        task.id,
        position,
        task.version,
        task.deleted,
        task.status,
        task.priority,
        task.title,
        task.description,
        &task.tags,
        task.due_at,
        task.created_at,
        task.updated_at,
        task.started_at,
        task.completed_at,
        read_model::search::title_key(&task.title),
        task.rank
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query!(
        "delete from read_model.search where generation = 1 and owner_id = $1 and task_id = $2",
        owner,
        task.id
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query!(
        "insert into read_model.search (generation, owner_id, task_id, lexemes)
         values (1, $1, $2, array_to_tsvector(string_to_array($3, ' ')))",
        owner,
        task.id,
        Lexemes::of(&task.title, &task.tags, task.description.as_deref()).joined()
    )
    .execute(&mut *tx)
    .await
    .unwrap();
}

/// What every transaction of the projector does for an owner.
async fn touch(tx: &mut sqlx::PgConnection, owner: Uuid, position: i64) {
    let updated = sqlx::query!(
        "update read_model.owner set revision = greatest(revision, $2), change_counter = change_counter + 1
         where generation = 1 and owner_id = $1",
        owner,
        position
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    if updated.rows_affected() == 0 {
        sqlx::query!(
            "insert into read_model.owner (generation, owner_id, shard, revision, change_counter) values (1, $1, 0, $2, 1)",
            owner,
            position
        )
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    sqlx::query!("delete from read_model.task_count where generation = 1 and owner_id = $1", owner)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query!(
        "insert into read_model.task_count select 1, $1, status, priority, count(*) from read_model.task
         where generation = 1 and owner_id = $1 and not deleted group by status, priority",
        owner
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query!("delete from read_model.day_count where generation = 1 and owner_id = $1", owner)
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query!(
        "insert into read_model.day_count select 1, $1, day, sum(created), sum(completed) from (
             select (created_at at time zone 'UTC')::date as day, 1 as created, 0 as completed from read_model.task
                 where generation = 1 and owner_id = $1 and not deleted
             union all
             select (completed_at at time zone 'UTC')::date, 0, 1 from read_model.task
                 where generation = 1 and owner_id = $1 and not deleted and completed_at is not null) d group by day",
        owner
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query!(
        "insert into read_model.checkpoint as c (generation, shard, position, turn) values (1, 0, $1, 1)
         on conflict (generation, shard) do update set position = greatest(c.position, excluded.position), turn = c.turn + 1",
        position
    )
    .execute(&mut *tx)
    .await
    .unwrap();
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let (base, name) = (self.base.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let admin = PgPoolOptions::new().max_connections(1).connect_with(base).await.unwrap();
                for name in [&name, &format!("{name}_replica")] {
                    let drop = format!("drop database if exists {name} with (force)");
                    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&admin).await.unwrap();
                }
            });
        });
        dropping.join().ok();
    }
}

/// Whether all ids differ.
pub fn distinct<T: Eq + std::hash::Hash>(items: &[T]) -> bool {
    items.iter().collect::<HashSet<_>>().len() == items.len()
}

/// The fields in the order in which the projector writes them, as far as it matters: the title first.
fn written(changes: &Value) -> String {
    let Some(fields) = changes.as_object() else { return changes.to_string() };
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name != "title");
    let fields: Vec<String> = fields.iter().map(|(name, change)| format!("\"{name}\":{change}")).collect();
    format!("{{{}}}", fields.join(","))
}
