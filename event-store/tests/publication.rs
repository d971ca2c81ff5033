//! Lease and cursor of the relay on a real Postgres: one holder at a time, and nothing moves but under its epoch.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use event_store::Publication;
use event_store::lease::{LeaseError, ShardCursor, Term};
use event_store::publication::{Advance, RepublishError};
use sqlx::PgPool;
use uuid::Uuid;

use common::shared;

const LONG: Duration = Duration::from_secs(60);

async fn publication(pool: &PgPool) -> Publication {
    event_store::migrate(&shared(pool)).await.expect("migrations run");
    Publication::new(shared(pool))
}

async fn lead(publication: &Publication) -> Option<Term> {
    publication.lease(Uuid::new_v4()).acquire(LONG, "topic", 3).await.expect("an answer")
}

/// As if the holder had not renewed it for long.
async fn expire(pool: &PgPool) {
    sqlx::query("update event_store.relay set expires_at = clock_timestamp() - interval '1 second'")
        .execute(pool)
        .await
        .expect("expired");
}

fn advance(position: i64, last_positions: &[(i32, i64)]) -> Vec<Advance> {
    vec![Advance { shard: 0, position, last_positions: last_positions.iter().copied().collect() }]
}

#[sqlx::test(migrations = false)]
async fn one_holds_the_lease_until_it_expires_or_is_returned(pool: PgPool) {
    let publication = publication(&pool).await;
    let mut first = publication.lease(Uuid::new_v4());
    let mut second = publication.lease(Uuid::new_v4());
    let one = first.acquire(LONG, "topic", 3).await.expect("an answer").expect("free");
    assert_eq!(second.acquire(LONG, "topic", 3).await.expect("an answer"), None);
    assert!(first.renew(one.epoch, LONG).await.expect("an answer"));

    expire(&pool).await;
    assert!(first.renew(one.epoch, LONG).await.expect("an answer"), "nobody else has taken it");
    expire(&pool).await;
    let two = second.acquire(LONG, "topic", 3).await.expect("an answer").expect("expired");
    assert!(two.epoch > one.epoch);
    assert!(!first.renew(one.epoch, LONG).await.expect("an answer"), "it is somebody else's");
    first.release(one.epoch).await.expect("an answer");
    assert!(second.renew(two.epoch, LONG).await.expect("an answer"), "only one's own is returned");

    second.release(two.epoch).await.expect("an answer");
    assert!(!second.renew(two.epoch, LONG).await.expect("an answer"), "it was returned");
    let three = first.acquire(LONG, "topic", 3).await.expect("an answer").expect("returned");
    let again = first.acquire(LONG, "topic", 3).await.expect("an answer").expect("from itself");
    assert!(again.epoch > three.epoch);
}

#[sqlx::test(migrations = false)]
async fn the_lease_expires_by_the_database_s_clock(pool: PgPool) {
    let publication = publication(&pool).await;
    let short = Duration::from_millis(300);
    publication.lease(Uuid::new_v4()).acquire(short, "topic", 3).await.expect("an answer").expect("free");
    let mut other = publication.lease(Uuid::new_v4());
    let started = tokio::time::Instant::now();
    while other.acquire(LONG, "topic", 3).await.expect("an answer").is_none() {
        assert!(started.elapsed() < LONG / 2, "it never expires");
        tokio::task::yield_now().await;
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[sqlx::test(migrations = false)]
async fn the_cursor_moves_only_under_the_current_epoch(pool: PgPool) {
    let publication = publication(&pool).await;
    let mut cursor = publication.cursor();
    let one = lead(&publication).await.expect("free");
    assert_eq!(one.shards, [ShardCursor { shard: 0, position: 0, last_positions: BTreeMap::new(), base: 0 }]);
    assert!(cursor.advance(one.epoch, &advance(10, &[(0, 9), (2, 10)])).await.expect("an answer"));
    assert!(cursor.advance(one.epoch, &advance(20, &[(2, 20)])).await.expect("an answer"));
    expire(&pool).await;
    let two = lead(&publication).await.expect("expired");
    assert!(!cursor.advance(one.epoch, &advance(30, &[(1, 30)])).await.expect("an answer"));
    assert_eq!(two.shards[0].position, 20);
    assert_eq!(two.shards[0].last_positions, BTreeMap::from([(0, 9), (2, 20)]));

    let published = publication.tail().published().await.expect("an answer");
    assert_eq!(published.len(), 1);
    assert_eq!((published[0].cursor, published[0].topic.as_str()), (20, "topic"));
    assert_eq!(published[0].last_positions, [(0, 9), (1, 0), (2, 20)]);
}

#[sqlx::test(migrations = false)]
async fn who_takes_the_lease_waits_for_a_move_of_the_cursor_that_has_begun(pool: PgPool) {
    let publication = publication(&pool).await;
    let one = lead(&publication).await.expect("free");
    expire(&pool).await;
    let mut moving = pool.begin().await.expect("begun");
    // what advance does first
    sqlx::query("select from event_store.relay where epoch = $1 for share")
        .bind(one.epoch)
        .execute(&mut *moving)
        .await
        .expect("locked");
    sqlx::query("update event_store.relay_cursor set position = 7").execute(&mut *moving).await.expect("moved");
    let taking = tokio::spawn({
        let publication = publication.clone();
        async move { lead(&publication).await }
    });
    let blocked = "select count(*) from pg_locks where not granted";
    while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&pool).await.expect("an answer") == 0 {
        assert!(!taking.is_finished(), "it does not wait");
    }
    moving.commit().await.expect("committed");
    let two = taking.await.expect("no panic").expect("expired");
    assert_eq!(two.shards[0].position, 7);
}

#[sqlx::test(migrations = false)]
async fn another_topic_is_refused_until_the_log_is_published_again(pool: PgPool) {
    let publication = publication(&pool).await;
    let mut lease = publication.lease(Uuid::new_v4());
    let one = lease.acquire(LONG, "topic", 3).await.expect("an answer").expect("free");
    lease.release(one.epoch).await.expect("an answer");
    for (topic, partitions) in [("other", 3), ("topic", 4)] {
        let refused = lease.acquire(LONG, topic, partitions).await.expect_err("elsewhere");
        assert!(
            matches!(&refused, LeaseError::Elsewhere { topic, partitions: 3, .. } if topic == "topic"),
            "{refused}"
        );
    }
    assert!(lease.acquire(LONG, "topic", 3).await.expect("an answer").is_some(), "nothing was taken");
    publication.republish(1, None).await.expect("republished");
    let two = lease.acquire(LONG, "other", 4).await.expect("an answer").expect("free");
    assert_eq!(two.publication, 2);
    assert!(lease.acquire(LONG, "topic", 3).await.is_err());
}

#[sqlx::test(migrations = false)]
async fn a_new_publication_begins_where_it_is_told_and_takes_the_lease_away(pool: PgPool) {
    let publication = publication(&pool).await;
    let mut lease = publication.lease(Uuid::new_v4());
    let one = lease.acquire(LONG, "topic", 3).await.expect("an answer").expect("free");
    let mut cursor = publication.cursor();
    assert!(cursor.advance(one.epoch, &advance(20, &[(0, 18), (1, 20)])).await.expect("an answer"));

    for wrong in [0, -1, 22] {
        let refused = publication.republish(wrong, None).await.expect_err("nothing there");
        assert!(matches!(refused, RepublishError::NotYet { shard: 0, next: 21 }), "{refused}");
    }
    assert!(matches!(publication.republish(1, Some(9)).await, Err(RepublishError::NoShard(9))));
    assert!(lease.renew(one.epoch, LONG).await.expect("an answer"), "what is refused changes nothing");

    let begun = publication.republish(15, None).await.expect("republished");
    assert_eq!((begun.publication, begun.shard, begun.from, begun.events), (2, 0, 15, 6));
    assert_eq!(begun.topic.as_deref(), Some("topic"));
    assert!(!lease.renew(one.epoch, LONG).await.expect("an answer"));
    assert!(!cursor.advance(one.epoch, &advance(30, &[])).await.expect("an answer"));
    let published = publication.tail().published().await.expect("an answer").remove(0);
    assert_eq!((published.publication, published.cursor), (2, 14));
    assert_eq!(published.last_positions, [(0, 14), (1, 14), (2, 14)]);
    let two = lease.acquire(LONG, "topic", 3).await.expect("an answer").expect("free at once");
    assert_eq!((two.publication, two.shards[0].position, two.shards[0].base), (2, 14, 14));
    assert!(two.shards[0].last_positions.is_empty());
}

#[sqlx::test(migrations = false)]
async fn with_several_shards_one_has_to_be_named(pool: PgPool) {
    let publication = publication(&pool).await;
    sqlx::query("insert into event_store.head values (1, 0)").execute(&pool).await.expect("a shard");
    assert_eq!(lead(&publication).await.expect("free").shards.len(), 2);
    let refused = publication.republish(1, None).await.expect_err("which?");
    assert!(matches!(&refused, RepublishError::WhichShard(shards) if shards == &[0, 1]), "{refused}");
    assert_eq!(publication.republish(1, Some(1)).await.expect("republished").shard, 1);
}
