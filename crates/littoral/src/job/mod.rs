//! `littoral job`: submit, follow, stop, take away and repeat.

mod model;
mod replay;
mod show;

use crate::fleet::ask;
use crate::input::{runtime, text};
use crate::output::{self, Failure};
use crate::pending::Pending;
use crate::reach::Reach;
use clap::{Subcommand, ValueEnum};
use littoral_node::deploy::replay::RunRecord;
use littoral_node::job::{JobError, JobSpec, SAMPLE_TOML};
use littoral_node::operator::OperatorError;
use littoral_node::role::cloud::command::Command as Order;
use littoral_wire::message::SPEC_BYTES_MAX;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check a job and give it to the cloud.
    Submit {
        /// As `littoral job sample` shows.
        file: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// All jobs.
    Ls {
        #[command(flatten)]
        reach: Reach,
    },
    /// One job: where it stands, and why it waits.
    Show {
        job: u64,
        #[command(flatten)]
        reach: Reach,
    },
    /// Follow a job until it ends.
    Watch {
        job: u64,
        #[command(flatten)]
        reach: Reach,
    },
    /// End a job; its model stays.
    Stop {
        job: u64,
        #[command(flatten)]
        reach: Reach,
    },
    /// Write the record of a run: each version, its devices, its model's hash.
    Record {
        job: u64,
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Write a job's current model as safetensors.
    Model {
        job: u64,
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Repeat a run from its record, on the devices' own data, and compare the models.
    Replay {
        record: PathBuf,
        /// A folder with one folder per device.
        #[arg(long, value_name = "DIR")]
        devices: PathBuf,
    },
    /// Print a commented job that runs.
    Sample {
        /// What it trains on.
        #[arg(long, value_enum, default_value = "table")]
        kind: SampleKind,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Rows of numbers and categories, a class each: CSV or JSON Lines
    Table,
    /// Rows of which a number is to be predicted
    Regression,
    /// A folder of PNG or JPEG images by class
    Images,
    /// NumPy or IDX arrays
    Arrays,
    /// Plain text, the next character
    Text,
    /// Plain text, the next word
    Words,
}

impl SampleKind {
    fn toml(self) -> &'static str {
        match self {
            Self::Table => SAMPLE_TOML,
            Self::Regression => include_str!("../../../../jobs/regression.toml"),
            Self::Images => include_str!("../../../../jobs/images.toml"),
            Self::Arrays => include_str!("../../../../jobs/arrays.toml"),
            Self::Text => include_str!("../../../../jobs/text.toml"),
            Self::Words => include_str!("../../../../jobs/words.toml"),
        }
    }
}

pub fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Submit { file, reach } => submit(&file, &reach, json),
        Command::Ls { reach } => {
            let reply = ask(&reach, &Order::JobList)?;
            if json {
                output::object(&reply)
            } else {
                show::list(&reply)
            }
            Ok(())
        }
        Command::Show { job, reach } => {
            let reply = ask(&reach, &Order::JobShow { job })?;
            if json {
                output::object(&reply)
            } else {
                show::details(&reply)
            }
            Ok(())
        }
        Command::Watch { job, reach } => watch(job, &reach, json),
        Command::Stop { job, reach } => {
            let reply = ask(&reach, &Order::JobStop { job })?;
            if json {
                output::object(&reply)
            } else {
                output::line(&format!("job {job} is stopped"))
            }
            Ok(())
        }
        Command::Record { job, output, reach } => record(job, &output, &reach, json),
        Command::Model { job, output, reach } => model::export(job, &output, &reach, json),
        Command::Replay { record, devices } => replay::run(&record, &devices, json),
        Command::Sample { kind } => {
            output::sample(kind.toml(), json);
            Ok(())
        }
    }
}

/// Reads and checks a job; what is wrong is named with the file.
pub fn read_job(file: &Path) -> Result<(JobSpec, String), Failure> {
    let (spec, toml) = read_any_job(file)?;
    Ok((spec.within_epsilon().map_err(|e| named(file, e))?, toml))
}

/// The same, of a job that may cost more than it says.
pub fn read_any_job(file: &Path) -> Result<(JobSpec, String), Failure> {
    let toml = text(file, SPEC_BYTES_MAX as u64)?;
    let spec = JobSpec::parse(&toml).map_err(|e| named(file, e))?;
    Ok((spec, toml))
}

pub fn named(file: &Path, mut error: JobError) -> Failure {
    error.place = format!("{}, {}", file.display(), error.place);
    error.into()
}

fn submit(file: &Path, reach: &Reach, json: bool) -> Result<(), Failure> {
    let (spec, toml) = read_job(file)?;
    let reply = ask(reach, &Order::JobSubmit { toml })?;
    let job = reply["job"].as_u64().unwrap_or_default();
    if json {
        output::object(&json!({"job": job, "name": spec.name(), "plan": spec.remarks()}));
    } else {
        output::line(&format!("job {job}"));
        spec.remarks().iter().for_each(|remark| output::talk(remark));
        output::talk(&format!("follow it with `littoral job watch {job}{}`", reach.words()));
    }
    Ok(())
}

/// A cloud that goes away is dialled again after this long, so often without an answer.
const REDIAL_PAUSE: Duration = Duration::from_secs(1);
const REDIALS_MAX: u32 = 60;

/// With `--json`: each change on a line, and at the end `{"summary": …}`.
fn watch(job: u64, reach: &Reach, json: bool) -> Result<(), Failure> {
    let last = runtime()?.block_on(async {
        let mut last = Value::Null;
        let mut silent = 0;
        loop {
            let lost = match follow(job, reach, json, &mut last, &mut silent).await {
                Ok(()) => return Ok(last),
                Err(lost) => lost,
            };
            // What never worked is not tried again, and a refusal stays one.
            let refused = matches!(lost, Gone::Refused(_));
            let (Gone::Refused(failure) | Gone::Away(failure)) = lost;
            silent += 1;
            if refused || last.is_null() || silent > REDIALS_MAX {
                return Err(failure);
            }
            if silent == 1 {
                output::talk(&format!("{failure}; trying again"));
            }
            tokio::time::sleep(REDIAL_PAUSE).await;
        }
    })?;
    let ended = match last["state"].as_str() {
        Some("failed") => "the job failed",
        Some("halted") => "the job stands still",
        _ => "",
    };
    if !ended.is_empty() {
        let why = last["why"].as_str().unwrap_or("no reason given");
        return Err(Failure::new(ended, format!("job {job}"), "all its rounds", why));
    }
    if json {
        output::object(&json!({"summary": last}));
    }
    Ok(())
}

enum Gone {
    Away(Failure),
    Refused(Failure),
}

/// Follows over one connection, to the job's end.
async fn follow(job: u64, reach: &Reach, json: bool, last: &mut Value, silent: &mut u32) -> Result<(), Gone> {
    let gone = |e: OperatorError| match e {
        OperatorError::Session(_) => Gone::Away(e.into()),
        _ => Gone::Refused(e.into()),
    };
    let operator = reach.dial().await.map_err(Gone::Away)?;
    let mut watch = operator.watch(&Order::JobWatch { job }).await.map_err(gone)?;
    while let Some(now) = watch.next().await.map_err(gone)? {
        *silent = 0;
        if json {
            output::object(&now);
        } else if let Some(news) = show::news(last, &now) {
            output::line(&news);
        }
        *last = now;
    }
    Ok(())
}

/// Page by page, so that a record may be longer than a reply.
pub fn fetch_record(job: u64, reach: &Reach) -> Result<RunRecord, Failure> {
    runtime()?.block_on(async {
        let mut operator = reach.dial().await?;
        let mut whole: Option<RunRecord> = None;
        let mut from = 0;
        loop {
            let mut page = operator.ask(&Order::JobRecord { job, from }).await?;
            page["job"] = job.into();
            let next = page["next"].as_u64();
            let page: RunRecord = serde_json::from_value(page)
                .map_err(|e| Failure::new("no record", "the cloud's reply", "a page of a record", e))?;
            match &mut whole {
                None => whole = Some(page),
                Some(whole) => whole.versions.extend(page.versions),
            }
            match (next, whole.take()) {
                (None, Some(record)) => {
                    operator.close().await;
                    return Ok(record);
                }
                (Some(next), before) => (from, whole) = (next as usize, before),
                (None, None) => {}
            }
        }
    })
}

fn record(job: u64, file: &Path, reach: &Reach, json: bool) -> Result<(), Failure> {
    let pending = Pending::at(file)?;
    let record = fetch_record(job, reach)?;
    pending.write(serde_json::to_vec_pretty(&record).unwrap_or_default())?;
    let versions = record.versions.len();
    if json {
        output::object(&json!({"job": job, "versions": versions, "file": file.display().to_string()}));
    } else {
        output::line(&format!("{}: {versions} versions of job {job}", file.display()));
    }
    Ok(())
}
