//! The database under running replicas is stopped, started again, and does not answer.

use super::ground::{Ground, alone, job, operator};
use super::shared_store::Postgres;
use super::tier::Tier;
use super::{LEASE_MS, REPLICAS};
use littoral_node::role::cloud::command::Command;
use std::time::Duration;

const ROUNDS: u32 = 16;

async fn submitted(server: &Postgres, name: &str) -> (Tier, Ground) {
    let tier = Tier::on(server, name, |_| {}).await;
    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    asked.ask(&Command::JobSubmit { toml: job(ROUNDS) }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    asked.close().await;
    (tier, ground)
}

/// What was acknowledged is there afterwards, and the model is that of an undisturbed run.
async fn ends_as_if_nothing_had_been(tier: &Tier, versions: u64, ground: Ground) {
    let expected = alone(&job(ROUNDS)).await;
    let story = tier.until("end", |story| story.finished).await;
    assert!(story.versions >= versions);
    assert_eq!((story.versions, story.model), (expected.versions, expected.model));
    assert!(story.counted.iter().all(|counted| counted.values().all(|times| *times == 1)), "{:?}", story.counted);
    ground.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_and_comes_back_soon_costs_nothing() {
    let Some(mut server) = Postgres::own("soon").await else { return };
    let (tier, ground) = submitted(&server, "soon").await;
    for version in [2, 5] {
        let versions = tier.until("version", |story| story.versions >= version).await.versions;
        server.order("stop");
        server.order("start");
        tier.until("version after it", |story| story.versions > versions).await;
    }
    ends_as_if_nothing_had_been(&tier, 5, ground).await;
}

/// Who cannot renew what it holds ends, and its supervisor starts it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_without_a_database_end_and_jobs_go_on_when_it_is_back() {
    let Some(mut server) = Postgres::own("away").await else { return };
    let (tier, ground) = submitted(&server, "away").await;
    let versions = tier.until("version", |story| story.versions >= 3).await.versions;
    server.order("stop");
    tier.wait("end of those that hold something", |tier| tier.replicas.iter().any(|r| r.times("ended Err") > 0)).await;
    server.order("start");
    ends_as_if_nothing_had_been(&tier, versions, ground).await;
}

/// It takes connections and questions, and says nothing for longer than leases last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stands_still_stops_jobs_and_not_for_good() {
    let Some(server) = Postgres::own("still").await else { return };
    let (tier, ground) = submitted(&server, "still").await;
    let versions = tier.until("version", |story| story.versions >= 3).await.versions;
    server.signal("-STOP");
    tier.wait("end of those that hold something", |tier| tier.replicas.iter().any(|r| r.times("ended Err") > 0)).await;
    tokio::time::sleep(Duration::from_millis(2 * LEASE_MS)).await;
    server.signal("-CONT");
    ends_as_if_nothing_had_been(&tier, versions, ground).await;
    assert_eq!(tier.replicas.len(), REPLICAS);
}
