//! The processes of a trial fleet: started, watched, started again, stopped.
//!
//! A child that ends although nobody stopped it is reported with the end of its log and started again in its folder,
//! where it finds all it had promised. One that keeps ending by itself is given up, and the trial with it; one that
//! somebody kills is started as often as it is killed. A server that cannot even begin is told and not started again.

use crate::output::Failure;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Before a child is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);
/// A child may end by itself this often within [`RESTARTS_WITHIN`].
const RESTARTS_MAX: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(30);
/// Their numbers are the same on every Unix.
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// For goodbyes; then a child is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// For answers that a server has begun; less than that.
pub const SERVER_GRACE: &str = "5s";
/// Of a log that is shown.
const LOG_LINES: usize = 5;
const LOG_TAIL_BYTES: i64 = 4_096;

pub const PIDS_FILE: &str = "pids.json";
pub const LOG_FILE: &str = "log.txt";

/// Which role a child plays. They stop in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Of a language model, or of some of its layers.
    Server,
    Device,
    Edge,
    Cloud,
}

impl Kind {
    /// The command that runs it.
    fn command(self) -> &'static str {
        match self {
            Self::Server => "serve",
            Self::Device => "device",
            Self::Edge => "edge",
            Self::Cloud => "cloud",
        }
    }
}

/// What happened to a child.
#[derive(Clone, Debug)]
pub enum Note {
    /// It ended and runs again.
    Restarted { name: String, pid: u32, how: String, log: Vec<String> },
    /// It ended too often.
    GivenUp { name: String, how: String, log: Vec<String> },
}

/// A server to be started.
pub struct Service {
    /// Its folder, and its name in `pids.json`.
    pub name: String,
    pub command: &'static str,
    pub args: Vec<OsString>,
    /// Flags of places where it listens, and under which name it says which one it took.
    pub listens: &'static [(&'static str, &'static str)],
}

/// All children of one trial.
pub struct Children {
    shared: Arc<Shared>,
    tasks: Vec<(Kind, JoinHandle<()>)>,
    /// Kinds up to this one stop.
    stop: watch::Sender<Option<Kind>>,
}

struct Shared {
    dir: PathBuf,
    program: PathBuf,
    notes: mpsc::UnboundedSender<Note>,
    pids: Mutex<BTreeMap<String, u32>>,
}

impl Children {
    /// `dir` gets the list of process numbers.
    pub fn new(dir: &Path) -> Result<(Self, mpsc::UnboundedReceiver<Note>), Failure> {
        let program = std::env::current_exe()
            .map_err(|e| Failure::new("no children", "this program", "the path of its file", e))?;
        let (notes, told) = mpsc::unbounded_channel();
        let shared = Shared { dir: dir.to_owned(), program, notes, pids: Mutex::default() };
        Ok((Self { shared: Arc::new(shared), tasks: Vec::new(), stop: watch::channel(None).0 }, told))
    }

    /// Starts the role that lives in the folder `name`, and keeps it running.
    pub fn start(&mut self, name: &str, kind: Kind) -> Result<(), Failure> {
        let dir = self.shared.dir.join(name);
        let args = [kind.command().into(), "--tethered".into(), "--dir".into(), dir.into()].to_vec();
        let part = Part { name: name.to_owned(), kind, args };
        let first = self.shared.spawn(&part, None).map_err(|e| no_child(name, &e))?;
        self.keep(part, first);
        Ok(())
    }

    /// Starts a server and keeps it running at the places that it took first, where others know it. What it says of itself once
    /// it is ready.
    pub async fn serve(&mut self, service: Service) -> Result<Value, Failure> {
        let Service { name, command, args, listens } = service;
        let part = |places: &[String]| {
            let mut words: Vec<OsString> = ["--json", command, "--tethered"].map(OsString::from).to_vec();
            for ((flag, _), place) in listens.iter().zip(places) {
                words.extend([flag.into(), place.into()]);
            }
            words.extend(args.iter().cloned());
            Part { name: name.clone(), kind: Kind::Server, args: words }
        };
        let any: Vec<String> = listens.iter().map(|_| "127.0.0.1:0".to_owned()).collect();
        let mut first = self.shared.spawn(&part(&any), Some(Stdio::piped())).map_err(|e| no_child(&name, &e))?;
        let mut line = String::new();
        if let Some(out) = first.process.stdout.take() {
            BufReader::new(out).read_line(&mut line).await.map_err(|e| no_child(&name, &e))?;
        }
        let said: Value = serde_json::from_str(&line).unwrap_or_default();
        // `http://place` or `key@place`.
        let place = |(_, field): &(&str, &str)| {
            let told = said.get(*field).and_then(Value::as_str)?;
            told.rsplit(['/', '@']).next().map(str::to_owned)
        };
        let Some(places) = listens.iter().map(place).collect::<Option<Vec<String>>>() else {
            let ended = first.process.wait().await.map_err(|e| no_child(&name, &e))?;
            return Err(told(&said).unwrap_or_else(|| {
                let log = self.shared.dir.join(&name).join(LOG_FILE);
                Failure::new("the model is not served", &name, "a server that runs", describe(ended))
                    .hint(format!("see {}", log.display()))
            }));
        };
        self.keep(part(&places), first);
        Ok(said)
    }

    /// The trial's folder.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    fn keep(&mut self, part: Part, first: Held) {
        let (shared, kind, stop) = (Arc::clone(&self.shared), part.kind, self.stop.subscribe());
        self.tasks.push((kind, tokio::spawn(async move { shared.keep(&part, first, stop).await })));
    }

    /// Stops servers, then devices, then edges, then the cloud, each with time for goodbyes.
    pub async fn stop(&mut self) {
        for kind in [Kind::Server, Kind::Device, Kind::Edge, Kind::Cloud] {
            self.stop.send_replace(Some(kind));
            for (_, task) in self.tasks.extract_if(.., |(of, _)| *of == kind) {
                let _ = task.await;
            }
        }
    }
}

/// What is started, and started again: a command, with a folder.
struct Part {
    name: String,
    kind: Kind,
    args: Vec<OsString>,
}

/// A process and the pipe that holds it up.
struct Held {
    process: Child,
    hold: Option<ChildStdin>,
}

impl Shared {
    /// What it says goes to its log; with `out`, its stdout goes there.
    fn spawn(&self, part: &Part, out: Option<Stdio>) -> io::Result<Held> {
        let dir = self.dir.join(&part.name);
        fs::create_dir_all(&dir)?;
        let log = File::options().create(true).append(true).open(dir.join(LOG_FILE))?;
        let mut process = Command::new(&self.program)
            .args(&part.args)
            .stdin(Stdio::piped())
            .stdout(out.map_or_else(|| log.try_clone().map(Stdio::from), Ok)?)
            .stderr(log)
            // Ctrl-C goes to us only: we stop the children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let hold = process.stdin.take();
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert(part.name.clone(), process.id().unwrap_or(0));
        let unfinished = self.dir.join("pids.json.new");
        fs::write(&unfinished, serde_json::to_vec(&*pids).unwrap_or_default())?;
        fs::rename(&unfinished, self.dir.join(PIDS_FILE))?;
        Ok(Held { process, hold })
    }

    async fn keep(&self, part: &Part, mut held: Held, mut stop: watch::Receiver<Option<Kind>>) {
        let name = &part.name;
        let mut ends: VecDeque<Instant> = VecDeque::new();
        loop {
            let ended = tokio::select! {
                ended = held.process.wait() => Some(ended),
                _ = stop.wait_for(|stopped| *stopped >= Some(part.kind)) => None,
            };
            let Some(ended) = ended else { return held.let_go().await };
            let killed = ended.as_ref().is_ok_and(killed_from_outside);
            let how = ended.map_or_else(|e| e.to_string(), describe);
            let log = log_tail(&self.dir.join(name).join(LOG_FILE));
            let now = Instant::now();
            ends.extend((!killed).then_some(now));
            ends.retain(|end| now - *end < RESTARTS_WITHIN);
            let given_up = |how: String, log| Note::GivenUp { name: name.clone(), how, log };
            if ends.len() > RESTARTS_MAX {
                let _ = self.notes.send(given_up(how, log));
                return;
            }
            sleep(RESTART_PAUSE).await;
            let note = match self.spawn(part, None) {
                Ok(next) => {
                    let pid = next.process.id().unwrap_or(0);
                    held = next;
                    Note::Restarted { name: name.clone(), pid, how, log }
                }
                Err(e) => {
                    let _ = self.notes.send(given_up(e.to_string(), log));
                    return;
                }
            };
            let _ = self.notes.send(note);
        }
    }
}

impl Held {
    async fn let_go(mut self) {
        drop(self.hold.take());
        if timeout(STOP_TIMEOUT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}

fn no_child(name: &str, why: &io::Error) -> Failure {
    Failure::new("no child", name, "a process", why)
}

/// A failure as a child prints it for programs.
fn told(said: &Value) -> Option<Failure> {
    let part = |name: &str| said.get("error")?.get(name)?.as_str();
    Some(Failure::new(part("what")?, part("where")?, part("expected")?, part("got")?))
}

/// By a person, or a system that needs memory; a fault of the program itself ends with another signal or a code.
fn killed_from_outside(status: &ExitStatus) -> bool {
    matches!(status.signal(), Some(SIGINT | SIGKILL | SIGTERM))
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (_, Some(code)) => format!("ended with code {code}"),
        _ => "ended".to_owned(),
    }
}

/// The last lines of a log.
fn log_tail(path: &Path) -> Vec<String> {
    let read = || {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len() as i64;
        file.seek(SeekFrom::End(-bytes.min(LOG_TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}
