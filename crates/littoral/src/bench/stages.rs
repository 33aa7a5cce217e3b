//! Stages as processes of this program, each behind a line that can be cut, and a chain over them with its head here: what
//! `survive` and `split` measure.

use crate::llm;
use crate::output::Failure;
use littoral_infer::engine::{Engine, Event, Limits, Request};
use littoral_infer::sample::SamplingParams;
use littoral_infer::split::head::Head;
use littoral_model::lm::CacheType;
use littoral_node::split::chain::{self, Chain, HeadLayers};
use littoral_node::transport::Address;
use littoral_node::transport::Identity;
use littoral_node::transport::forwarder::{Forwarder, Passing};
use littoral_node::transport::shaper::Shape;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Activations;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PLACE: &str = "the stages of this measurement";
/// For a chain to be whole.
const FORMING: Duration = Duration::from_secs(120);
/// For a process to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn broken(why: &dyn std::fmt::Display) -> Failure {
    super::broken(PLACE)(why)
}

/// One process, and the line to it.
pub struct StageProcess {
    child: Child,
    n: usize,
    /// Where it listens.
    target: SocketAddr,
    /// Where the head and other stages dial it.
    pub address: Address,
    line: Forwarder,
}

impl Drop for StageProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl StageProcess {
    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Pulls the cable, or puts it back: what is sent is lost without a word.
    pub fn set_cable(&self, there: bool) {
        self.line.set_passing(Passing { udp: there, tcp: there });
        if there {
            // What was held meanwhile belongs to connections that both ends have given up.
            self.line.cut();
        }
    }
}

/// The folder of a measurement, which goes with it.
pub struct Ground {
    pub dir: PathBuf,
    pub model: PathBuf,
    pub head: Identity,
    threads: usize,
    /// Stages pack what they may be given when another is lost, for a while after they were started.
    standby: bool,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Ground {
    pub fn new(model: &Path, threads: usize, standby: bool) -> Result<Self, Failure> {
        let dir = std::env::temp_dir().join(format!("littoral-stages-{}", std::process::id()));
        fs::create_dir_all(&dir).map_err(|e| broken(&e))?;
        let head = crate::stage::identity(&dir.join("head"))?;
        let model = crate::named::here(model)?.path;
        let model = fs::canonicalize(model).map_err(|e| broken(&e))?;
        Ok(Self { dir, model, head, threads, standby })
    }

    /// Starts stage number `n` behind a line that takes `rtt_ms` both ways. Must run inside a runtime.
    pub async fn start(&self, n: usize, rtt_ms: f64) -> Result<StageProcess, Failure> {
        let (child, at) = self.process(n, "127.0.0.1:0").await?;
        let shape = Shape { delay_us: (rtt_ms * 500.0) as u64, ..Shape::default() };
        let target: SocketAddr = at.host_port()?.parse().map_err(|e| broken(&e))?;
        let line = Forwarder::start(target, shape, shape, n as u64).await.map_err(|e| broken(&e))?;
        Ok(StageProcess { child, n, target, address: Address::new(at.id, line.local_address()), line })
    }

    /// Starts the process of a stage anew, with its key, behind its line.
    pub async fn again(&self, stage: &mut StageProcess) -> Result<(), Failure> {
        stage.line.cut();
        (stage.child, _) = self.process(stage.n, &stage.target.to_string()).await?;
        Ok(())
    }

    async fn process(&self, n: usize, listen: &str) -> Result<(Child, Address), Failure> {
        let program = std::env::current_exe().map_err(|e| broken(&e))?;
        let mut child = Command::new(program)
            .args(["--json", "stage", "--tethered", "--pin", "--listen", listen, "--dir"])
            .arg(self.dir.join(format!("stage-{n}")))
            .args(["--allow", &self.head.id().to_string(), "--threads", &self.threads.to_string(), "--model"])
            .arg(&self.model)
            .args(if self.standby { &[][..] } else { &["--standby-mb", "0"] })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.dir.join(format!("stage-{n}.log"))).map_err(|e| broken(&e))?)
            .spawn()
            .map_err(|e| broken(&e))?;
        let said = ready(&mut child).await?;
        Ok((child, said["address"].as_str().unwrap_or_default().parse()?))
    }

    /// A chain over these stages with its head in this process.
    pub fn chain(&self, machines: Vec<Address>, head_layers: HeadLayers, pool: &Pool) -> Result<Chain, Failure> {
        let digest = llm::digest(&self.model)?;
        let (ends, bytes) = llm::load_ends(&self.model, pool)?;
        let most = Head::tokens_max(ends.stage.config().width, Activations::F32);
        let limits = Limits { proposed_max: 0, ..Limits::default() };
        let limits = limits.within(most).unwrap_or(limits);
        let engine = Engine::new(Arc::new(ends), CacheType::F16, limits)?;
        let settings = chain::Settings {
            machines,
            digest,
            cache_type: CacheType::F16,
            activations: Activations::F32,
            log_bytes_max: 256 << 20,
            head_layers,
            planner: None,
            tiles: None,
        };
        Ok(Chain::start(engine, bytes, &self.head, settings)?)
    }
}

/// What a process of this program says when it is ready.
pub async fn ready(child: &mut Child) -> Result<Value, Failure> {
    let out = child.stdout.take().ok_or_else(|| broken(&"a process without output"))?;
    let said = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map(|_| line)
    });
    let said = tokio::time::timeout(PATIENCE, said).await.map_err(|_| broken(&"a process said nothing"))?;
    let line = said.map_err(|e| broken(&e))?.map_err(|e| broken(&e))?;
    serde_json::from_str(&line).map_err(|e| broken(&format!("{e}: {line}")))
}

/// A prompt of ids that any model takes, and greedy text behind it.
pub fn request(vocabulary: usize, prompt_tokens: usize, max_tokens: usize) -> Request {
    Request {
        prompt: (0..prompt_tokens as u32).map(|i| (i * 7919 + 1000) % vocabulary as u32).collect(),
        max_tokens,
        sampling: SamplingParams::greedy(),
        constraint: None,
        top_logprobs: None,
        ignore_end: true,
    }
}

/// The ids of an answer and when each came, in seconds since the request.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub ids: Vec<u32>,
    pub at_s: Vec<f64>,
}

impl Written {
    pub fn hear(&mut self, begun: Instant, events: Vec<Event>) -> Result<bool, Failure> {
        for event in events {
            match event {
                Event::Token { id, .. } => {
                    self.ids.push(id);
                    self.at_s.push(begun.elapsed().as_secs_f64());
                }
                Event::Finished { why: littoral_infer::engine::Finish::Failed(why), .. } => return Err(broken(&why)),
                Event::Finished { .. } => return Ok(true),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Tokens per second, without the first.
    pub fn tok_s(&self) -> f64 {
        match (self.at_s.first(), self.at_s.last()) {
            (Some(first), Some(last)) if last > first => (self.at_s.len() - 1) as f64 / (last - first),
            _ => 0.0,
        }
    }

    /// The longest time between two tokens.
    pub fn longest_pause_s(&self) -> f64 {
        self.at_s.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
    }
}

/// Steps until so many machines are in the chain, the head among them.
pub fn form(chain: &mut Chain, links: usize, pool: &Pool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !(chain.head().running() && chain.head().chain().len() == links) {
        chain.step(pool)?;
        if begun.elapsed() > FORMING {
            return Err(broken(&"a chain of all stages was expected, some did not come"));
        }
    }
    Ok(())
}
