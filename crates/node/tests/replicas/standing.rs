//! Where a job stands is known at every replica, whoever runs it, and whoever of them dies.

use super::ground::{Ground, job, operator};
use super::tier::{RUNS_JOB, Tier};
use super::{LIMIT, REPLICAS};
use littoral_node::role::cloud::command::Command;
use std::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_says_where_a_job_stands() {
    let rounds = 9_000;
    let Some(mut tier) = Tier::start("standing").await else { return };
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    asked.ask(&Command::JobSubmit { toml: job(rounds) }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    asked.close().await;
    // Nobody is here: it waits, and everybody says so, and for what.
    for replica in &tier.replicas {
        let started = Instant::now();
        let mut asked = operator(replica.at).await.unwrap();
        loop {
            let listed = asked.ask(&Command::JobList).await.unwrap();
            let job = &listed["jobs"][0];
            assert_ne!(job["state"], "elsewhere");
            // One that was told by another replica may not have heard of it yet.
            if job["why"].as_str().is_some_and(|why| why.contains("needs 4 devices")) {
                assert_eq!(
                    (&job["state"], &job["wanted"], &job["rounds"]),
                    (&"waiting".into(), &4.into(), &9_000.into())
                );
                break;
            }
            assert!(started.elapsed() < LIMIT, "{listed}; {}", tier.logs());
        }
        asked.close().await;
    }

    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    tier.until("version", |story| story.versions >= 2).await;
    tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
    let holder = tier.holder(RUNS_JOB).unwrap();
    let other = (holder + 1) % REPLICAS;
    let watching = operator(tier.replicas[other].at).await.unwrap();
    let mut watching = watching.watch(&Command::JobWatch { job: 1 }).await.unwrap();
    let mut version_of = async || watching.next().await.unwrap().unwrap()["version"].as_u64().unwrap();
    let seen = version_of().await;
    // Who runs it dies: whoever watches elsewhere hears on, and whoever asks for details gets them.
    tier.replicas[holder].kill();
    let mut asked = operator(tier.replicas[other].at).await.unwrap();
    let shown = asked.ask(&Command::JobShow { job: 1 }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    assert!(shown["version"].as_u64().unwrap() >= seen && shown["versions"].is_array(), "{shown}");
    let started = Instant::now();
    while version_of().await <= shown["version"].as_u64().unwrap() {
        assert!(started.elapsed() < LIMIT, "{}", tier.logs());
    }
    let listed = asked.ask(&Command::JobList).await.unwrap();
    assert!(listed["jobs"][0]["version"].as_u64().unwrap() > shown["version"].as_u64().unwrap(), "{listed}");
    asked.ask(&Command::JobStop { job: 1 }).await.unwrap();
    while let Some(told) = watching.next().await.unwrap() {
        if told["state"] == "stopped" {
            break;
        }
    }
    asked.close().await;
    ground.stop().await;
}
