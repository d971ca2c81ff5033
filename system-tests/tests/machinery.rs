//! The parts that other tests break are what they say: a real broker and a real Redis that keep what they acknowledged.

use system_tests::kafka::{Kafka, machine};
use system_tests::redis::Redis;

#[tokio::test]
async fn a_broker_starts_again_after_a_kill() {
    let kafka = Kafka::start();
    kafka.kill();
    kafka.restart().await;
    kafka.stop().await;
    kafka.restart().await;
    assert!(kafka.log().matches("Kafka Server started").count() == 3);
}

#[test]
fn redis_comes_back_with_what_was_saved() {
    let redis = Redis::start();
    redis.ask(&["SET", "a", "1"]);
    redis.ask(&["SAVE"]);
    redis.ask(&["SET", "a", "2"]);
    redis.restart();
    assert_eq!(redis.ask(&["GET", "a"]).trim(), "1");
    redis.restart_empty();
    assert_eq!(redis.ask(&["DBSIZE"]).trim(), "0");
}

/// Issue 10, 9: of the stack's Postgres; the managed one has a test on a small disk.
#[test]
fn a_write_ahead_log_takes_an_eighth_of_its_disk() {
    for (kb, mb) in [("0", "64"), ("921600", "112"), ("8388608", "1024"), ("1000000000", "1024")] {
        let output = machine("wal_mb \"$@\"").arg(kb).output().expect("bash");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), mb, "{kb} KB: {output:?}");
    }
}
