//! A round's sums, cut into shards that all replicas add up.

use super::ground::{Ground, alone, job, operator};
use super::shared_store::Postgres;
use super::tier::{RUNS_JOB, Tier};
use littoral_node::role::cloud::command::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_in_shards_are_the_same_sums() {
    let rounds = 12;
    let Some(server) = Postgres::here().await else { return };
    let expected = alone(&job(rounds)).await;
    // Four edges with a device each: two shards of two sums.
    let mut tier = Tier::on(server, "shards", |config| config.shared.shard_sums = 2).await;
    let ground = Ground::of_edges(4, tier.dir.path(), &tier.addresses()).await;
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    asked.ask(&Command::JobSubmit { toml: job(rounds) }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    asked.close().await;
    // Whoever applies is killed.
    for version in [3, 7] {
        tier.until("version", |story| story.versions >= version).await;
        tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
        let holder = tier.holder(RUNS_JOB).unwrap();
        tier.replicas[holder].kill();
        tier.until("version of another", |story| story.versions > version).await;
        tier.replicas[holder].start();
    }
    let story = tier.until("end", |story| story.finished).await;
    assert_eq!((story.versions, story.model), (expected.versions, expected.model), "{}", tier.logs());
    let helped = tier.replicas.iter().filter(|replica| replica.ever_said("sums of job 1 are added up")).count();
    assert!(helped > 0, "nobody added up another's: {}", tier.logs());
    assert!(!tier.replicas.iter().any(|replica| replica.ever_said("not in shards")), "{}", tier.logs());
    ground.stop().await;
}
