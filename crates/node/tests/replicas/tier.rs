//! The replicas, as processes, and what they share.

use super::ground::{Story, fleet, free_address, story, tcp, write_key};
use super::host_scratch::Scratch;
use super::shared_store::{Postgres, bucket, open, s3::S3};
use super::{JOB, LEASE_MS, LIMIT, REPLICAS};
use littoral_node::config::CloudConfig;
use littoral_node::store::{PgStore, Store};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A replica's configuration, as TOML.
pub const CONFIG: &str = "LITTORAL_TEST_REPLICA";

pub struct Replica {
    config: CloudConfig,
    pub at: SocketAddr,
    pub child: Option<Child>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Replica {
    pub fn start(&mut self) {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args(["--exact", "replica_child", "--nocapture"])
            .env(CONFIG, toml::to_string(&self.config).unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = (BufReader::new(child.stdout.take().unwrap()).lines(), self.log.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(said) = line.strip_prefix("said ") {
                    log.lock().unwrap().push(said.to_owned());
                }
            }
        });
        self.child = Some(child);
    }

    /// With SIGKILL. Its folder goes too: a replica needs nothing of it but the key.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.log.lock().unwrap().push("killed".into());
        std::fs::remove_dir_all(&self.config.dir).unwrap();
        write_key(&self.config.dir);
    }

    pub fn said(&self, what: &str) -> bool {
        let log = self.log.lock().unwrap();
        log.iter().rev().take_while(|line| *line != "killed").any(|line| line.contains(what))
    }
}

impl Replica {
    /// In any of its runs.
    pub fn ever_said(&self, what: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(what))
    }

    /// How often its runs have begun, or ended by themselves: `up`, `ended`.
    pub fn times(&self, what: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.starts_with(what)).count()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub struct Tier {
    pub dir: Scratch,
    pub store: PgStore,
    pub replicas: Vec<Replica>,
    _s3: S3,
}

impl Tier {
    pub async fn start(name: &str) -> Option<Self> {
        Some(Self::on(Postgres::here().await?, name, |_| {}).await)
    }

    /// On this server, with another configuration.
    pub async fn on(server: &Postgres, name: &str, change: impl Fn(&mut CloudConfig)) -> Self {
        let url = server.database().await;
        let (dir, s3) = (Scratch::new(name), S3::start().await);
        let options = bucket(Some(&s3.endpoint), "models", dir.path());
        let store = open(&url, &options, &dir.path().join("observer")).await;
        store.commit(fleet(), vec![]).await.unwrap();
        let mut addresses = Vec::new();
        for _ in 0..REPLICAS {
            addresses.push(free_address().await);
        }
        let replica = |at: &SocketAddr| {
            let folder: PathBuf = dir.path().join(format!("replica-{}", at.port()));
            write_key(&folder);
            let mut config = CloudConfig {
                dir: folder,
                listen: at.to_string(),
                network: tcp(),
                threads: 1,
                ..CloudConfig::default()
            };
            config.shared.database = url.clone();
            config.shared.bucket = options.url.clone();
            config.shared.endpoint = options.endpoint.clone();
            config.shared.access_key = options.access_key.clone();
            config.shared.secret_key = options.secret_key.clone();
            config.shared.replicas = addresses.iter().map(ToString::to_string).collect();
            config.shared.lease_ms = LEASE_MS;
            change(&mut config);
            Replica { config, at: *at, child: None, log: Arc::default() }
        };
        let mut replicas: Vec<Replica> = addresses.iter().map(replica).collect();
        replicas.iter_mut().for_each(Replica::start);
        let tier = Self { dir, store, replicas, _s3: s3 };
        tier.wait("all replicas up", |tier| tier.replicas.iter().all(|replica| replica.said("up"))).await;
        tier
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas.iter().map(|replica| replica.at).collect()
    }

    pub async fn wait(&self, what: &str, fits: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !fits(self) {
            assert!(started.elapsed() < LIMIT, "no {what}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn story(&self) -> Story {
        story(&self.store.load_job(JOB).await.unwrap())
    }

    pub async fn until(&self, what: &str, fits: impl Fn(&Story) -> bool) -> Story {
        let started = Instant::now();
        loop {
            let story = match self.store.load_job(JOB).await {
                Ok(rows) => story(&rows),
                Err(e) if e.may_pass() => Story::default(),
                Err(e) => panic!("{e}"),
            };
            if fits(&story) {
                return story;
            }
            assert!(started.elapsed() < LIMIT, "no {what} but {story:?}; {}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Who runs the job, or looks after the fleet.
    pub fn holder(&self, what: &str) -> Option<usize> {
        self.replicas.iter().position(|replica| replica.child.is_some() && replica.said(what))
    }

    pub fn logs(&self) -> String {
        let log = |replica: &Replica| {
            let log = replica.log.lock().unwrap();
            format!("{}:\n  {}", replica.at, log[log.len().saturating_sub(30)..].join("\n  "))
        };
        self.replicas.iter().map(log).collect::<Vec<_>>().join("\n")
    }
}

pub const RUNS_JOB: &str = "this replica runs job 1 now";
pub const HAS_FLEET: &str = "this replica looks after the fleet now";

pub fn signal(child: &Child, name: &str) {
    assert!(Process::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}
