//! `littoral bench split`: one model over several processes of this machine, against one process.
//!
//! The head is here with its part of the layers, the others are processes of their own; all use the same processors, which they
//! take turns on. So the *ideal* of one stream is the speed of one process: the same weights are read once for each token,
//! and nothing is gained but memory. The two are measured in turns. *Predicted*: what `littoral plan
//! --stage` reckons for these layers, from what it measures of all processes before anything is written. *Hop*: what of a token's
//! way round is no machine's computation, over the number of hops; a hop has the vectors encrypted, sent over loopback through a
//! forwarder, and decrypted.

use super::stages::{Ground, Written, broken, form, request};
use super::{Report, median};
use crate::live::Live;
use crate::llm;
use crate::output::{Failure, talk};
use littoral_infer::engine::{Engine, Event, Limits, Request};
use littoral_infer::split::plan::{self, Demand, Fleet, Objective, Recovery};
use littoral_model::lm::CacheType;
use littoral_node::split::chain::{Chain, HeadLayers};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Activations;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const PROMPT: usize = 64;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// Processes with layers, this one among them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(2..=16))]
    stages: u16,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: u32,
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=2000))]
    tokens: u32,
    /// Round trip between processes.
    #[arg(long, default_value_t = 0.0)]
    rtt_ms: f64,
    /// Streams at once for the second figure.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=12))]
    streams: u32,
    /// Threads of each process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    crate::input::start_log("warn");
    let pool = Pool::new(args.threads.into());
    let ground = Ground::new(&args.model, args.threads.into(), false)?;
    let model = Arc::new(llm::load(&ground.model, &pool)?);
    let (vocabulary, layers) = (model.stage.config().vocabulary, model.stage.config().layers);
    let mut whole = Engine::new(model, CacheType::F16, Limits::default())?;
    crate::input::runtime()?.block_on(async {
        let mut stages = Vec::new();
        for n in 1..args.stages.into() {
            stages.push(ground.start(n, args.rtt_ms).await?);
        }
        let machines: Vec<_> = stages.iter().map(|stage| stage.address.clone()).collect();
        // As `plan --stage` does; before anybody computes for somebody else.
        let digest = llm::digest(&ground.model)?;
        let fleet = Live::measure(&ground.model, digest, &ground.head, &machines, &pool).await?.fleet()?;
        let mut chain = ground.chain(machines, HeadLayers::Even, &pool)?;
        form(&mut chain, args.stages.into(), &pool)?;
        // As the stages do, which are there by now: all take turns on the same processors.
        pool.pin();
        let (mut ideal, mut split, mut hops, mut same) = (Vec::new(), Vec::new(), Vec::new(), true);
        let mut stage_ms: Vec<f64> = Vec::new();
        let (mut first, mut ideal_first, mut many, mut ideal_many) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        // The first words wait for pages of the model that nobody has touched.
        for of in [&mut Here(&mut whole) as &mut dyn Steps, &mut chain] {
            write(of, vec![request(vocabulary, 1, 16)], &pool)?;
        }
        for _ in 0..args.repeats {
            let one = || request(vocabulary, PROMPT, args.tokens as usize);
            let alone = write(&mut Here(&mut whole), vec![one()], &pool)?;
            let apart = write(&mut chain, vec![one()], &pool)?;
            same &= alone[0].ids == apart[0].ids;
            ideal.push(alone[0].tok_s());
            split.push(apart[0].tok_s());
            ideal_first.push(alone[0].at_s[0]);
            first.push(apart[0].at_s[0]);
            if let Some((times_us, hop_us)) = chain.head().pace().few() {
                stage_ms = times_us.iter().map(|us| *us as f64 / 1e3).collect();
                hops.push(hop_us as f64 / 1e3 / f64::from(args.stages));
            }
            let streams =
                || (0..args.streams).map(|n| request(vocabulary, PROMPT + n as usize, args.tokens as usize)).collect();
            let alone = write(&mut Here(&mut whole), streams(), &pool)?;
            let apart = write(&mut chain, streams(), &pool)?;
            same &= alone.iter().zip(&apart).all(|(alone, apart)| alone.ids == apart.ids);
            ideal_many.push(together(&alone));
            many.push(together(&apart));
            talk(&format!("one process {:.1} tok/s, {} processes {:.1}", median(&ideal), args.stages, median(&split)));
        }
        if !same {
            return Err(broken(&"the text of one process was expected, the chain wrote another"));
        }
        let (decode, ideal, hop_ms) = (median(&split), median(&ideal), median(&hops));
        let predicted = predicted(&ground, &chain, &fleet)?;
        let numbers = json!({
            "stages": args.stages,
            "predicted_tok_s": predicted,
            "layers": layers,
            "decode_tok_s": decode,
            "ideal_tok_s": ideal,
            "hop_ms": hop_ms,
            "stage_ms": stage_ms,
            "first_token_s": median(&first),
            "ideal_first_token_s": median(&ideal_first),
            "streams": args.streams,
            "streams_tok_s": median(&many),
            "ideal_streams_tok_s": median(&ideal_many),
            "rtt_ms": args.rtt_ms,
            "identical": same,
        });
        let rows = vec![
            ["processes".into(), args.stages.to_string()],
            ["one stream, tokens per second".into(), format!("{decode:.1}")],
            ["  one process".into(), format!("{ideal:.1}")],
            ["  predicted".into(), format!("{predicted:.1}")],
            ["a hop, ms".into(), format!("{hop_ms:.2}")],
            ["machines for one token, ms".into(), stage_ms.iter().map(|ms| format!("{ms:.2} ")).collect()],
            [format!("first token of a prompt of {PROMPT}, s"), format!("{:.3}", median(&first))],
            ["  one process".into(), format!("{:.3}", median(&ideal_first))],
            [format!("{} streams, tokens per second", args.streams), format!("{:.1}", median(&many))],
            ["  one process".into(), format!("{:.1}", median(&ideal_many))],
            ["texts".into(), "the same".into()],
        ];
        Ok(Report { numbers, rows })
    })
}

/// Tokens per second of this chain, as the planner reckons for these devices.
fn predicted(ground: &Ground, chain: &Chain, fleet: &Fleet) -> Result<f64, Failure> {
    let (model, _) = crate::plan::cost(&ground.model, CacheType::F16)?;
    let (mut stages, mut at) = (Vec::new(), 0);
    for (device, link) in chain.head().chain().iter().enumerate() {
        let end = link.ranges.last().map_or(at, |range| range.end);
        stages.push(plan::Stage { device, layers: at..end });
        at = end;
    }
    let demand = Demand {
        objective: Objective::Latency,
        streams: 1,
        context: PROMPT as u64,
        prompt: PROMPT as u64,
        activations: Activations::F32,
        recovery: Recovery::default(),
    };
    plan::predict(&model, fleet, &demand, &stages).map(|token_s| 1.0 / token_s).map_err(|e| broken(&e))
}

/// What can be stepped.
trait Steps {
    fn engine(&mut self) -> &mut Engine;
    fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, Failure>;
}

struct Here<'a>(&'a mut Engine);

impl Steps for Here<'_> {
    fn engine(&mut self) -> &mut Engine {
        self.0
    }

    fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, Failure> {
        Ok(self.0.step(pool))
    }
}

impl Steps for Chain {
    fn engine(&mut self) -> &mut Engine {
        self.engine_mut()
    }

    fn step(&mut self, pool: &Pool) -> Result<Vec<Event>, Failure> {
        Ok(Chain::step(self, pool)?)
    }
}

/// The answers to some requests at once.
fn write(of: &mut dyn Steps, requests: Vec<Request>, pool: &Pool) -> Result<Vec<Written>, Failure> {
    let begun = Instant::now();
    let mut written = Vec::new();
    for request in requests {
        written.push((of.engine().submit(request).map_err(|e| broken(&e))?, Written::default(), false));
    }
    while written.iter().any(|(_, _, ended)| !ended) {
        for event in of.step(pool)? {
            let sequence = match &event {
                Event::Token { sequence, .. } | Event::Finished { sequence, .. } => *sequence,
                _ => continue,
            };
            for (_, own, ended) in written.iter_mut().filter(|(id, _, _)| *id == sequence) {
                *ended |= own.hear(begun, vec![event.clone()])?;
            }
        }
    }
    Ok(written.into_iter().map(|(_, written, _)| written).collect())
}

/// Tokens of all per second, from the last first token on.
fn together(written: &[Written]) -> f64 {
    let begun = written.iter().filter_map(|one| one.at_s.first()).copied().fold(0.0, f64::max);
    let ended = written.iter().filter_map(|one| one.at_s.last()).copied().fold(0.0, f64::max);
    let tokens = written.iter().flat_map(|one| &one.at_s).filter(|at| **at > begun).count();
    if ended > begun { tokens as f64 / (ended - begun) } else { 0.0 }
}
