//! The part of `bench draft` with a link: the large model in another process, behind a line.

use super::draft::{Args, request, write_plain};
use super::draft_prompts::Prompt;
use super::median;
use super::stages::{Written, broken, ready};
use crate::llm;
use crate::output::{self, Failure, talk};
use littoral_infer::engine::{Engine, Limits, Request};
use littoral_infer::model::Model;
use littoral_infer::speculate::controller::{self, Controller};
use littoral_infer::speculate::costs::Costs;
use littoral_infer::speculate::drafter::{Mode, Policy, Yield, Yields};
use littoral_model::lm::CacheType;
use littoral_node::speculate::edge::{self, Edge, Small};
use littoral_node::transport::forwarder::Forwarder;
use littoral_node::transport::shaper::Shape;
use littoral_node::transport::{Address, TcpOptions, TcpTransport};
use littoral_tensor::pool::Pool;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Far {
    pub identical: bool,
    /// By round trip.
    pub regrets: Value,
    pub rows: Vec<[String; 2]>,
}

/// The process with the large model.
struct Verifier(Child);

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A way to make answers, and what it is called.
#[derive(Clone, Copy)]
enum Way {
    Controller,
    Fixed(Mode),
}

/// One prompt, one way.
struct Measured {
    name: &'static str,
    way: Way,
    tok_s: Vec<f64>,
    /// Of the large model, in all runs, and the tokens of those.
    passes: u64,
    tokens: u64,
    yields: Yields,
    predicted: f64,
    same: bool,
}

pub fn run(args: &Args, prompts: &[&Prompt]) -> Result<Far, Failure> {
    crate::input::start_log("warn");
    let pool = Pool::new(1);
    let load = |path: &PathBuf| -> Result<Arc<Model>, Failure> {
        Ok(Arc::new(llm::load(&crate::named::here(path)?.path, &pool)?))
    };
    talk("writing the texts on one machine");
    let big = load(&args.model)?;
    let mut whole = Engine::new(big.clone(), CacheType::F16, Limits { kept_bytes_max: 0, ..Limits::default() })?;
    let mut expected = Vec::new();
    for prompt in prompts {
        let request = request(&big, prompt, args.tokens.unwrap_or(64) as usize)?;
        expected.push((request.clone(), write_plain(&mut whole, request, &pool)?.ids));
    }
    drop((whole, big));
    let small = load(&args.draft)?;
    let folder = Folder(std::env::temp_dir().join(format!("littoral-draft-{}", std::process::id())));
    let mut far = Far { identical: true, regrets: json!({}), rows: Vec::new() };
    crate::input::runtime()?.block_on(async {
        let identity = crate::stage::identity(&folder.0.join("edge"))?;
        let (_verifier, at) = verifier(&folder.0, &args.model, &identity.id().to_string()).await?;
        for rtt_ms in &args.rtt_ms {
            let shape = Shape { delay_us: (rtt_ms * 500.0) as u64, ..Shape::default() };
            let target = at.host_port()?.parse().map_err(|e| broken(&e))?;
            let line = Forwarder::start(target, shape, shape, 1).await.map_err(|e| broken(&e))?;
            let upstream = Address::new(at.id, line.local_address());
            let limits = Limits { kept_bytes_max: 0, ..Limits::default() };
            let engine = Engine::new(small.clone(), CacheType::F16, limits)?;
            let transport = Arc::new(TcpTransport::dialler(&identity, TcpOptions::default())?);
            let first = u64::from_le_bytes(littoral_node::host::keys::random()?);
            let mut edge = Edge::start(Small::Engine(Box::new(engine)), first, transport, vec![upstream]);
            edge.set_sources(args.draft_source);
            one_link(args, prompts, &expected, *rtt_ms, &mut edge, &pool, &mut far)?;
        }
        Ok(far)
    })
}

fn one_link(
    args: &Args,
    prompts: &[&Prompt],
    expected: &[(Request, Vec<u32>)],
    rtt_ms: f64,
    edge: &mut Edge,
    pool: &Pool,
    far: &mut Far,
) -> Result<(), Failure> {
    let begun = Instant::now();
    while edge.linked().is_none() {
        edge.step(pool).map_err(|e| broken(&e))?;
        if begun.elapsed() > PATIENCE {
            return Err(broken(&"a link to the large model was expected, it did not come up"));
        }
    }
    // What each way learnt in its own answers: where both models share a machine, what they cost depends on who waits for whom.
    let mut learnt: BTreeMap<&'static str, Controller> = BTreeMap::new();
    let mut regrets = Vec::new();
    for (prompt, (request, text)) in prompts.iter().zip(expected) {
        let mut measured: Vec<Measured> = Vec::new();
        for _ in 0..args.repeats {
            let costs = learnt.get("controller").map_or(Costs::GUESS, Controller::costs);
            let ahead = |block| controller::ahead(block, &costs);
            let ways = [
                ("controller", Way::Controller),
                ("stream", Way::Fixed(Mode::Stream)),
                ("rounds-4", Way::Fixed(Mode::Rounds { tokens: 4 })),
                ("rounds-8", Way::Fixed(Mode::Rounds { tokens: 8 })),
                ("ahead-4", Way::Fixed(Mode::Ahead { block: 4, ahead: ahead(4) })),
                ("along-2", Way::Fixed(Mode::Along { block: 2, ahead: ahead(2) })),
            ];
            for (name, way) in ways {
                let own = learnt.entry(name).or_insert_with(|| Controller::new(Costs::GUESS));
                let next = own.next_answer();
                edge.set_policies(Box::new(move |_| {
                    Policy::Learning(Box::new(match way {
                        Way::Controller => next.clone(),
                        Way::Fixed(mode) => next.clone().pinned_to(mode),
                    }))
                }));
                let (written, passes, yields) = write(edge, request.clone(), pool)?;
                let same = written.ids == *text;
                if !same {
                    far.identical = false;
                    talk(&format!("{} by {name} at {rtt_ms} ms: ANOTHER TEXT", prompt.name));
                }
                *own = edge.learnt().clone();
                let at = measured.iter().position(|one| one.name == name).unwrap_or_else(|| {
                    measured.push(Measured {
                        name,
                        way,
                        tok_s: Vec::new(),
                        passes: 0,
                        tokens: 0,
                        yields: Yields::default(),
                        predicted: 0.0,
                        same: true,
                    });
                    measured.len() - 1
                });
                let one = &mut measured[at];
                one.tok_s.push(written.tok_s());
                one.passes += passes;
                one.tokens += written.ids.len() as u64;
                one.yields = one.yields.and(yields);
                one.predicted = own.predicted(own.mode());
                one.same &= same;
            }
        }
        let (mut best, mut own) = (0.0f64, 0.0);
        let mut line = format!("{} at {rtt_ms} ms:", prompt.name);
        for Measured { name, way, tok_s, passes, tokens, yields, predicted, same } in &measured {
            let tok_s = median(tok_s);
            match way {
                Way::Controller => own = tok_s,
                Way::Fixed(_) => best = best.max(tok_s),
            }
            line.push_str(&format!(" {name} {tok_s:.1} ({predicted:.1})"));
            if args.json {
                output::object(&json!({
                    "prompt": prompt.name,
                    "rtt_ms": rtt_ms,
                    "mode": name,
                    "tok_s": tok_s,
                    "acceptance": acceptance(*way, &learnt[name]),
                    "cloud_passes_per_token": *passes as f64 / (*tokens).max(1) as f64,
                    "drafted": {"model": pair(yields.model), "lookup": pair(yields.text)},
                    "predicted_tok_s": predicted,
                    "identical": same,
                }));
            }
        }
        talk(&line);
        regrets.push(1.0 - own / best.max(1e-9));
    }
    let regret = median(&regrets);
    far.regrets[format!("{rtt_ms}")] = regret.into();
    far.rows
        .push([format!("{rtt_ms} ms: the controller behind the best fixed way"), format!("{:.1} %", 100.0 * regret)]);
    Ok(())
}

/// What a way found of its own drafts; one that makes none has none that held.
fn acceptance(way: Way, learnt: &Controller) -> f64 {
    match way {
        Way::Fixed(Mode::Stream) => 0.0,
        Way::Fixed(_) | Way::Controller => learnt.acceptance(),
    }
}

fn pair(Yield { drafted, held }: Yield) -> Value {
    json!({"tokens": drafted, "held": held})
}

fn write(edge: &mut Edge, request: Request, pool: &Pool) -> Result<(Written, u64, Yields), Failure> {
    let (begun, mut written) = (Instant::now(), Written::default());
    let id = edge.submit(request, edge::Way::Fastest).map_err(|e| broken(&e))?;
    while !written.hear(begun, edge.step(pool).map_err(|e| broken(&e))?)? {}
    let far =
        edge.far(id).ok_or_else(|| broken(&"an answer of the large model was expected, the small one wrote it"))?;
    Ok((written, far.passes, far.yields))
}

async fn verifier(dir: &Path, model: &Path, allow: &str) -> Result<(Verifier, Address), Failure> {
    let program = std::env::current_exe().map_err(|e| broken(&e))?;
    let child = Command::new(program)
        .args(["--json", "serve", "--tethered", "--threads", "1", "--listen", "127.0.0.1:0", "--verify", "127.0.0.1:0"])
        .args(["--allow", allow, "--dir"])
        .arg(dir.join("cloud"))
        .arg(crate::named::here(model)?.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut verifier = Verifier(child.map_err(|e| broken(&e))?);
    let said = ready(&mut verifier.0).await?;
    Ok((verifier, said["verifies"].as_str().unwrap_or_default().parse()?))
}
