//! `littoral up`: a whole fleet on this machine, for real.
//!
//! One cloud, edges and devices, each a process of its own with its own key, enrolled by tickets, talking over
//! encrypted sockets. Every device gets a share of a real table as a file in its folder; a job trains over the fleet and
//! is compared with the same model in one place and with devices alone.
//!
//! Read in this order: [`dataset`] (what is trained on), [`share`] (who gets which rows), [`children`]
//! (processes), [`fleet`] (tickets, jobs), [`baseline`] (what it is compared with), [`chat`] (a language model beside it),
//! [`progress`] and [`report`].
//!
//! Not here: anything that a deployment by hand would not do in the same way.

mod baseline;
mod chat;
mod children;
pub mod dataset;
mod fleet;
mod progress;
mod report;
mod share;

use crate::input::{runtime, stop_signal};
use crate::output::{self, Failure};
use baseline::{Baseline, Pool};
use children::{Children, Note};
use clap::builder::NonEmptyStringValueParser;
use dataset::{DataSet, Shipped};
use fleet::{CLOUD, Fleet};
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::Limits;
use littoral_node::deploy::DeviceData;
use littoral_node::job::JobSpec;
use littoral_node::role::cloud::command::Command;
use littoral_node::work::{LocalData, Rows};
use progress::Progress;
use report::{Outcome, Report};
use serde_json::Value;
use share::Shares;
use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Processes of one trial.
const DEVICES_MAX: usize = 256;

#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(from_global)]
    pub json: bool,
    /// Devices, each with its own share of the data
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=DEVICES_MAX as i64))]
    devices: u32,
    /// Edge servers; with none, devices dial the cloud
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=32))]
    edges: u32,
    /// Rounds of training; by default as many as suit the data
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: Option<u64>,
    /// A table that ships with Littoral
    #[arg(long, value_enum, default_value = "breast_cancer", conflicts_with = "data")]
    dataset: Shipped,
    /// A CSV file of your own instead; or a folder of `littoral partition`, with as many devices as it has
    #[arg(long, value_name = "FILE", requires = "label")]
    data: Option<PathBuf>,
    /// The column of --data that is to be predicted: classes
    #[arg(long, value_name = "COLUMN", requires = "data", value_parser = NonEmptyStringValueParser::new())]
    label: Option<String>,
    /// So many partitions and splits of the data, each with its job
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Mask the sums: edges and cloud see what all devices send together and nothing of any one
    #[arg(long)]
    secure_aggregation: bool,
    /// Where the machines' folders go: an empty or new folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Leave the fleet running until Ctrl-C
    #[arg(long)]
    keep_running: bool,
    /// After training, serve a language model too, until Ctrl-C: smollm2-135m-instruct. First of all it is checked, and
    /// fetched if it is not here
    #[arg(long)]
    chat: bool,
    /// The same, with another model: a file, a name of `littoral models`, or hf:owner/repo/file.gguf
    #[arg(long, value_name = "MODEL")]
    chat_model: Option<PathBuf>,
    /// The same in three tiers: a device drafts with this small model of the same vocabulary, an edge of two processes
    /// verifies, and the cloud goes on where the edge is lost
    #[arg(long, value_name = "MODEL", requires = "chat_model")]
    chat_draft: Option<PathBuf>,
}

pub fn run(mut args: Args) -> Result<(), Failure> {
    let began = Instant::now();
    let (data, given) = match (&args.data, &args.label) {
        (Some(folder), Some(label)) if folder.is_dir() => {
            let (data, given) = DataSet::of_folder(folder, label)?;
            (data, Some(given))
        }
        (Some(file), Some(label)) => (DataSet::of_file(file, label)?, None),
        _ => (DataSet::shipped(args.dataset)?, None),
    };
    let shares = match given {
        None => Shares::cut(&data, args.devices as usize, args.seeds)?,
        Some(given) => {
            if given.len() > DEVICES_MAX || args.seeds > 1 {
                let expected = format!("a partition into 1 to {DEVICES_MAX} devices, and one seed");
                let got = format!("{} devices, {} seeds", given.len(), args.seeds);
                return Err(Failure::new("the trial does not begin", "--data", expected, got));
            }
            args.devices = given.len() as u32;
            Shares::given(&data, vec![given])?
        }
    };
    let runtime = runtime()?;
    let stopped = || Failure::new("the trial ends", "littoral up", "all its rounds", "a signal to stop");
    let chat = match args.chat || args.chat_model.is_some() {
        true => Some(runtime.block_on(async {
            tokio::select! {
                found = chat::find(args.chat_model.clone(), args.chat_draft.clone()) => found,
                () = stop_signal() => Err(stopped()),
            }
        })?),
        false => None,
    };
    let dir = folder(args.dir.as_deref())?;
    runtime.block_on(async {
        let (mut children, notes) = Children::new(&dir)?;
        let progress = Progress::new();
        let holding = Cell::new(false);
        let trial = Trial {
            args: &args,
            data: &data,
            chat: chat.as_ref(),
            dir: &dir,
            progress: &progress,
            began,
            holding: &holding,
        };
        let outcome = tokio::select! {
            done = trial.run(&shares, &mut children, notes) => done,
            () = stop_signal() => match holding.get() {
                true => Ok(None),
                false => Err(stopped()),
            },
        };
        progress.step("stopping the fleet");
        children.stop().await;
        progress.end();
        let Some(mut report) = outcome? else { return Ok(()) };
        // With every process gone the counts are final.
        report.traffic = Report::traffic_of(&dir, &trial.fleet().devices);
        trial.show(&report);
        Ok(())
    })
}

struct Trial<'a> {
    args: &'a Args,
    data: &'a DataSet,
    /// What is served after training.
    chat: Option<&'a chat::Models>,
    dir: &'a Path,
    progress: &'a Progress,
    began: Instant,
    /// All is done and shown; what comes now is the end.
    holding: &'a Cell<bool>,
}

impl Trial<'_> {
    fn fleet(&self) -> Fleet {
        Fleet::new(self.dir, self.data, self.args.devices as usize, self.args.edges as usize)
    }

    /// The whole trial while the fleet is up. No report: it was shown already.
    async fn run(
        &self,
        shares: &Shares,
        children: &mut Children,
        mut notes: mpsc::UnboundedReceiver<Note>,
    ) -> Result<Option<Report>, Failure> {
        let watched = async {
            while let Some(note) = notes.recv().await {
                self.progress.note(&note);
                // Training is done when it is there.
                if let Note::GivenUp { name, how, .. } = note
                    && !name.starts_with(chat::NAME)
                {
                    let place = self.dir.join(&name).join(children::LOG_FILE).display().to_string();
                    return Failure::new("the trial ends", name, "a machine that runs", how)
                        .hint(format!("see {place}"));
                }
            }
            std::future::pending().await
        };
        let deed = async {
            let report = self.train(shares, children).await?;
            if !self.args.keep_running && self.chat.is_none() {
                return Ok(Some(report));
            }
            self.show_now(report).await;
            self.holding.set(true);
            if let Some(models) = self.chat {
                match chat::serve(models, &self.fleet(), children).await {
                    Ok(served) => served.show(self.args.json),
                    Err(failure) if self.args.keep_running => failure.print(self.args.json),
                    // What was trained is in the report.
                    Err(failure) => return Err(failure),
                }
            }
            self.say_how_to_go_on();
            std::future::pending().await
        };
        tokio::select! {
            done = deed => done,
            failure = watched => Err(failure),
        }
    }

    async fn train(&self, shares: &Shares, children: &mut Children) -> Result<Report, Failure> {
        let (args, fleet) = (self.args, self.fleet());
        self.progress.say(&format!("folders of all machines: {}", self.dir.display()));
        for (column, why) in &self.data.left_out {
            self.progress.say(&format!("column {column:?} is not used: {why}"));
        }
        self.progress.step(&format!("starting a cloud, {} edges, {} devices", args.edges, args.devices));
        fleet.start(self.data, shares, children).await?;
        let jobs: Vec<JobSpec> = (1..=args.seeds)
            .map(|seed| self.data.job(seed, args.devices, args.rounds, args.secure_aggregation))
            .collect::<Result<_, _>>()?;
        let compared = {
            let (jobs, folders) = (jobs.clone(), fleet.devices.iter().map(|name| self.dir.join(name)).collect());
            tokio::task::spawn_blocking(move || baselines(&jobs, folders))
        };
        let mut trained = Vec::new();
        for spec in &jobs {
            trained.push(self.train_one(&fleet, spec).await?);
        }
        self.progress.step("training in one place, for comparison");
        let compared =
            compared.await.map_err(|e| Failure::new("no comparison", "training in one place", "an end", e))??;
        let mut outcomes = Vec::new();
        for (mut outcome, (spec, baseline)) in trained.into_iter().zip(jobs.iter().zip(compared)) {
            if outcome.baseline.test_rows != baseline.test_rows {
                let (expected, got) = (baseline.test_rows, outcome.baseline.test_rows);
                return Err(Failure::new("no fair comparison", spec.name(), format!("{expected} held-out rows"), got));
            }
            outcome.baseline = baseline;
            outcomes.push(outcome);
        }
        let rounds = jobs.first().map_or(0, |spec| spec.settings().rounds);
        Ok(Report { outcomes, rounds, wall_s: self.began.elapsed().as_secs_f64(), traffic: Vec::new() })
    }

    /// Submits one job, follows it to its end and fetches what came of it.
    async fn train_one(&self, fleet: &Fleet, spec: &JobSpec) -> Result<Outcome, Failure> {
        let toml = toml::to_string(spec.text()).map_err(|e| Failure::new("no job", spec.name(), "a text", e))?;
        let file = |ending: &str| self.dir.join(format!("{}{ending}", spec.name()));
        write(&file(".toml"), toml.as_bytes())?;
        let job = fleet.submit(spec.name(), &toml).await?;
        self.progress.say(&format!("job {job}: {}", describe(spec)));
        let sent = || Report::traffic_of(self.dir, &fleet.devices).iter().map(|(_, moved)| moved.sent).sum();
        fleet.watch(job, |state| self.progress.job(state, sent())).await?;
        let details = fleet.ask(&Command::JobShow { job }).await?;
        let part = |name: &str| details.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if part("state") != "finished" {
            return Err(Failure::new("the job did not finish", spec.name(), "all its rounds", part("why")));
        }
        let last = details.get("last").cloned().unwrap_or_default();
        let federated = last.get("accuracy").and_then(Value::as_f64);
        let federated = federated.ok_or_else(|| Failure::new("no accuracy", spec.name(), "an evaluation", "none"))?;
        let test_rows = last.get("test_rows").and_then(Value::as_u64).unwrap_or(0);
        let (model_file, record_file) = (file(".safetensors"), file(".record.json"));
        fleet.export(job, spec, &model_file).await?;
        let record = fleet.record(job).await?;
        write(&record_file, &serde_json::to_vec_pretty(&record).unwrap_or_default())?;
        let baseline = Baseline { central: 0.0, local_mean: 0.0, test_rows };
        Ok(Outcome { federated, baseline, model: part("model"), model_file, record_file })
    }

    /// Shows the report while the fleet runs on.
    async fn show_now(&self, mut report: Report) {
        // Devices write their counts down a few times a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
        report.traffic = Report::traffic_of(self.dir, &self.fleet().devices);
        self.progress.end();
        self.show(&report);
    }

    fn say_how_to_go_on(&self) {
        let cloud = self.dir.join(CLOUD);
        output::talk("\nthe fleet runs until Ctrl-C; meanwhile:");
        output::talk(&format!("    littoral fleet ls --dir {}", cloud.display()));
        output::talk(&format!("    littoral job submit {} --dir {}", self.job_file().display(), cloud.display()));
        output::talk(&format!("    littoral job watch {} --dir {}", self.args.seeds + 1, cloud.display()));
    }

    fn job_file(&self) -> PathBuf {
        self.dir.join(format!("{}.toml", self.data.set_of(1)))
    }

    fn show(&self, report: &Report) {
        if self.args.json { output::object(&report.to_json()) } else { report.print() }
    }
}

/// The comparison of every seed, from the devices' own files.
fn baselines(jobs: &[JobSpec], folders: Vec<PathBuf>) -> Result<Vec<Baseline>, Failure> {
    let mut sites = Vec::new();
    for folder in folders {
        let (config, base) = DeviceConfig::load(None, Some(&folder))?;
        sites.push(DeviceData::new(config.data, &base, Limits::default()));
    }
    let unread = |why: String| Failure::new("no comparison", "the devices' files", "rows of the job", why);
    let one = |spec: &JobSpec| {
        let rows: Vec<Rows> = sites.iter().map(|site| site.rows(spec)).collect::<Result<_, _>>().map_err(unread)?;
        Pool::of(&rows)?.baseline(spec)
    };
    jobs.iter().map(one).collect()
}

/// The trial's folder, whole and empty.
fn folder(wanted: Option<&Path>) -> Result<PathBuf, Failure> {
    let refused = |dir: &Path, got: String| {
        Failure::new("no folder for the fleet", dir.display().to_string(), "an empty or new folder", got)
    };
    let dir = match wanted {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(|e| refused(dir, e.to_string()))?;
            if fs::read_dir(dir).map_err(|e| refused(dir, e.to_string()))?.next().is_some() {
                return Err(refused(dir, "one with files in it".into()).hint("give another --dir, or delete it"));
            }
            dir.to_owned()
        }
        None => fresh().map_err(|e| refused(&std::env::temp_dir(), e.to_string()))?,
    };
    dir.canonicalize().map_err(|e| refused(&dir, e.to_string()))
}

/// The first `littoral-up-N` that nobody has.
fn fresh() -> io::Result<PathBuf> {
    for n in 1.. {
        let dir = std::env::temp_dir().join(format!("littoral-up-{n}"));
        match fs::create_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(()) => return Ok(dir),
        }
    }
    Err(io::Error::other("no number is free"))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    fs::write(path, bytes)
        .map_err(|e| Failure::new("a file was not written", path.display().to_string(), "room to write", e))
}

fn describe(spec: &JobSpec) -> String {
    let (params, rounds) = (spec.version().params, spec.settings().rounds);
    format!("{} parameters by {}, {rounds} rounds, data set {}", params, spec.algorithm_name(), spec.data_set())
}
