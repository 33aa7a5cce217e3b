//! Three replicas of a cloud as processes of their own, over PostgreSQL and S3, and edges and devices that train through
//! them. Replicas are killed, stopped, cut off; the model is that of a run in one process without all that, bit for bit.

mod database;
mod ground;
#[path = "../host_scratch/mod.rs"]
mod host_scratch;
mod shards;
#[path = "../shared_store/mod.rs"]
mod shared_store;
mod standing;
mod tier;

use ground::{Ground, alone, job, key, operator, tcp};
use littoral_node::config::CloudConfig;
use littoral_node::deploy::{Running, join, start_cloud};
use littoral_node::host;
use littoral_node::role::Table;
use littoral_node::role::cloud::command::Command;
use littoral_wire::ticket::Ticket;
use littoral_wire::{JobId, List, NodeId};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tier::{CONFIG, HAS_FLEET, RUNS_JOB, Tier, signal};

const DEVICES: u8 = 4;
const REPLICAS: usize = 3;
const LEASE_MS: u64 = 1_000;
const JOB: JobId = JobId(1);
const LIMIT: Duration = Duration::from_secs(240);

/// Not a test: what a replica's process runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_child() {
    let Ok(config) = std::env::var(CONFIG) else { return };
    let config: CloudConfig = toml::from_str(&config).unwrap();
    let say = |what: String| writeln!(std::io::stdout(), "\nsaid {}", what.replace('\n', " ")).unwrap();
    // As a supervisor would.
    loop {
        let on_report: host::OnReport = Arc::new(move |report| say(format!("{report:?}")));
        match start_cloud(&config, on_report).await {
            Ok(running) => {
                say("up".into());
                let ended = Running::until(running, std::future::pending()).await;
                say(format!("ended {ended:?}"));
            }
            Err(e) => {
                say(format!("not started: {e}"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_lose_no_job_and_change_no_bit() {
    let rounds = 24;
    let Some(mut tier) = Tier::start("killed").await else { return };
    let expected = alone(&job(rounds)).await;
    assert!(expected.finished);

    tier.wait("holder of the fleet", |tier| tier.holder(HAS_FLEET).is_some()).await;
    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    // Submitted where it has to be passed on.
    let elsewhere = (tier.holder(HAS_FLEET).unwrap() + 1) % REPLICAS;
    let mut asked = operator(tier.replicas[elsewhere].at).await.unwrap();
    let answer = asked.ask(&Command::JobSubmit { toml: job(rounds) }).await;
    assert_eq!(answer.unwrap_or_else(|e| panic!("{e}; {}", tier.logs())), json!({"job": 1}));
    asked.close().await;

    // The replica that runs the job is killed, again and again, and comes back with an empty folder.
    for version in [2, 6, 10, 14] {
        tier.until("version", |story| story.versions >= version).await;
        tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
        let holder = tier.holder(RUNS_JOB).unwrap();
        tier.replicas[holder].kill();
        tier.until("version of another", |story| story.versions > version).await;
        tier.replicas[holder].start();
    }
    let story = tier.until("end", |story| story.finished).await;
    assert_eq!(story.versions, expected.versions);
    assert_eq!(story.model, expected.model, "the model of a run without kills");
    let everyone: BTreeSet<NodeId> = (0..DEVICES).map(|i| key(&format!("device-{i}")).id()).collect();
    for counted in story.counted.iter().chain(&expected.counted) {
        assert_eq!(counted.keys().copied().collect::<BTreeSet<_>>(), everyone);
        assert!(counted.values().all(|times| *times == 1), "{counted:?}");
    }
    // Everybody can say how it ended, whoever runs it.
    tier.wait("all replicas up", |tier| tier.replicas.iter().all(|replica| replica.said("up"))).await;
    for replica in &tier.replicas {
        let mut asked = operator(replica.at).await.unwrap();
        let shown = asked.ask(&Command::JobShow { job: 1 }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
        assert_eq!(shown["model"], story.model.unwrap().to_string());
        let listed = asked.ask(&Command::JobList).await.unwrap();
        assert_eq!(listed["jobs"].as_array().unwrap().len(), 1);
        let (_, manifest, _) = asked.model(JOB).await.unwrap();
        let mut model = Vec::new();
        asked.fetch(&manifest, &mut model).await.unwrap();
        assert_eq!(model.len() as u64, manifest.bytes());
        asked.close().await;
    }
    ground.stop().await;
}

/// It believes to run the job, and to have all the time in the world.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stood_still_changes_nothing_when_it_goes_on() {
    let rounds = 12;
    let Some(tier) = Tier::start("stalled").await else { return };
    let expected = alone(&job(rounds)).await;
    let ground = Ground::start(tier.dir.path(), &tier.addresses()).await;
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    asked.ask(&Command::JobSubmit { toml: job(rounds) }).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    asked.close().await;
    tier.until("version", |story| story.versions >= 3).await;
    tier.wait("holder of the job", |tier| tier.holder(RUNS_JOB).is_some()).await;
    let holder = tier.holder(RUNS_JOB).unwrap();
    let child = tier.replicas[holder].child.as_ref().unwrap();
    signal(child, "-STOP");
    let stopped_at = tier.story().await.versions;
    tier.until("version of another", |story| story.versions > stopped_at + 1).await;
    signal(child, "-CONT");
    tier.wait("end of its run", |tier| tier.replicas[holder].said("ended Err")).await;
    let story = tier.until("end", |story| story.finished).await;
    assert_eq!(story.versions, expected.versions);
    assert_eq!(story.model, expected.model);
    ground.stop().await;
}

/// What all share is changed by one of them, whoever is asked, and all hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_counts_once_whichever_replica_is_asked() {
    let Some(tier) = Tier::start("tickets").await else { return };
    let mut asked = operator(tier.replicas[0].at).await.unwrap();
    let ticket = Command::Ticket { role: "device".into(), uses: 1, valid_ms: 60_000, secret: "07".repeat(16) };
    asked.ask(&ticket).await.unwrap_or_else(|e| panic!("{e}; {}", tier.logs()));
    let join = |n: usize| {
        let ticket = Ticket {
            cloud: key("cloud").id(),
            secret: [7; 16],
            role: littoral_wire::message::Role::Device,
            addresses: List::new(vec![tier.replicas[n].at.to_string().as_str().into()]).unwrap(),
            roster: None,
        };
        let dir = tier.dir.path().join(format!("joins-{n}"));
        async move { join(&ticket, "ward", &dir, &tcp()).await }
    };
    let (a, b, c) = tokio::join!(join(0), join(1), join(2));
    let joined: Vec<_> = [a, b, c].into_iter().filter_map(Result::ok).collect();
    assert_eq!(joined.len(), 1, "{}", tier.logs());
    // It is known everywhere, and so is its end.
    for state in ["away", "revoked"] {
        for replica in &tier.replicas {
            let mut asked = operator(replica.at).await.unwrap();
            let started = Instant::now();
            loop {
                let listed = asked.ask(&Command::FleetList).await.unwrap();
                let ward = listed["machines"].as_array().unwrap().iter().find(|machine| machine["name"] == "ward");
                if ward.is_some_and(|ward| ward["state"] == state) {
                    break;
                }
                assert!(started.elapsed() < LIMIT, "not {state}: {listed}; {}", tier.logs());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            asked.close().await;
        }
        if state == "away" {
            asked.ask(&Command::FleetRevoke { node: "ward".into() }).await.unwrap();
        }
    }
    let rows = tier.store.load_job(JobId(0)).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.key.table == Table::Ticket).count(), 0);
    assert_eq!(rows.iter().filter(|row| row.key.table == Table::Command).count(), 2);
}
