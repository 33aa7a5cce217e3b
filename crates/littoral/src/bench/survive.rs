//! `littoral bench survive`: a stage of a chain is lost in the middle of a text.
//!
//! Stages are processes of their own, the head is here and has both ends of the model and no layers, so that every layer can
//! be lost. In each run 200 tokens are written greedily, and at a random moment one stage is killed (SIGKILL) or its cable is
//! pulled: what is sent to it is lost without a word. The text is compared with that of one machine. *Pause*: the longest
//! time between two tokens. Then the stage comes back, and is taken in before the next run.
//!
//! `--fault none` is the other side of it: nobody is lost while every processor is kept busy, and nobody may be called lost.

use super::draws::Draws;
use super::stages::{Ground, StageProcess, Written, broken, form, request};
use super::{Report, median};
use crate::llm;
use crate::output::{Failure, talk};
use littoral_infer::engine::{Engine, Limits};
use littoral_model::lm::CacheType;
use littoral_node::split::chain::{Chain, HeadLayers, Survived};
use littoral_tensor::pool::Pool;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

const PROMPT: usize = 64;

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The process gets SIGKILL.
    Kill,
    /// Packets are lost, and nobody says so.
    Silent,
    /// Nothing happens, but that all processors are busy.
    None,
}

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=16))]
    stages: u16,
    #[arg(long, default_value = "kill")]
    fault: Fault,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(8..=2000))]
    tokens: u32,
    /// Threads of each process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Of the moments and the stages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    crate::input::start_log("warn");
    let pool = Pool::new(args.threads.into());
    let ground = Ground::new(&args.model, args.threads.into(), true)?;
    talk("writing the text on one machine");
    let expected = alone(&ground, args.tokens as usize, &pool)?;
    let mut draws = Draws(args.seed);
    crate::input::runtime()?.block_on(async {
        let mut stages = Vec::new();
        for n in 0..args.stages.into() {
            stages.push(ground.start(n, 0.0).await?);
        }
        let machines = stages.iter().map(|stage| stage.address.clone()).collect();
        let mut chain = ground.chain(machines, HeadLayers::Just(0), &pool)?;
        let _busy = (args.fault == Fault::None).then(Busy::all);
        let (mut identical, mut pauses, mut survived, mut usual) = (0, Vec::new(), Vec::new(), Vec::new());
        for run in 0..args.runs {
            form(&mut chain, stages.len() + 1, &pool)?;
            chain.survived();
            let victim = draws.below(stages.len() as u64) as usize;
            let at = 4 + draws.below(u64::from(args.tokens) - 8) as usize;
            let written = one(&mut chain, &mut stages[victim], args, at, &pool)?;
            let same = written.ids == expected.ids;
            identical += u32::from(same);
            pauses.push(written.longest_pause_s());
            usual.push(written.tok_s());
            let told = chain.survived();
            let what = match args.fault {
                Fault::None => "nobody lost".to_owned(),
                Fault::Kill | Fault::Silent => format!("stage {} lost at token {at}", victim + 1),
            };
            talk(&format!(
                "run {}: {what}: {}, pause {:.3} s{}",
                run + 1,
                if same { "the same text" } else { "ANOTHER TEXT" },
                written.longest_pause_s(),
                told.iter().map(shown).collect::<String>(),
            ));
            survived.extend(told);
            match args.fault {
                Fault::Kill => ground.again(&mut stages[victim]).await?,
                Fault::Silent => stages[victim].set_cable(true),
                Fault::None => {}
            }
        }
        let report = report(args, identical, &pauses, &survived, &usual)?;
        if identical < args.runs {
            return Err(broken(&format!(
                "{} texts like that of one machine were expected, got {identical}",
                args.runs
            )));
        }
        if args.fault == Fault::None && !survived.is_empty() {
            return Err(broken(&format!("nobody was lost, and {} were called so", survived.len())));
        }
        Ok(report)
    })
}

/// A thread for each processor that does nothing but take its time, until this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn all() -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let goes_on = goes_on.clone();
            std::thread::spawn(move || {
                while goes_on.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(goes_on)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

fn shown(survived: &Survived) -> String {
    let Survived { detect_s, load_s, replay_s, .. } = survived;
    format!(" (noticed after {detect_s:.3}, loaded in {load_s:.3}, heard again in {replay_s:.3})")
}

fn report(
    args: &Args,
    identical: u32,
    pauses: &[f64],
    survived: &[Survived],
    tok_s: &[f64],
) -> Result<Report, Failure> {
    let of = |part: fn(&Survived) -> f64| median(&survived.iter().map(part).collect::<Vec<_>>());
    let (detect_s, load_s, replay_s) = (of(|s| s.detect_s), of(|s| s.load_s), of(|s| s.replay_s));
    let (median_pause_s, max_pause_s) = (median(pauses), pauses.iter().copied().fold(0.0, f64::max));
    let numbers = json!({
        "runs": args.runs,
        "identical": identical,
        "median_pause_s": median_pause_s,
        "max_pause_s": max_pause_s,
        "detect_s": detect_s,
        "load_s": load_s,
        "replay_s": replay_s,
        "losses": survived.len(),
        "tok_s": median(tok_s),
    });
    let rows = vec![
        ["runs".into(), args.runs.to_string()],
        ["texts like that of one machine".into(), identical.to_string()],
        ["pause, seconds: median, longest".into(), format!("{median_pause_s:.3}, {max_pause_s:.3}")],
        ["  until it was noticed".into(), format!("{detect_s:.3}")],
        ["  until layers were loaded".into(), format!("{load_s:.3}")],
        ["  until they had heard again what was lost".into(), format!("{replay_s:.3}")],
    ];
    Ok(Report { numbers, rows })
}

/// The text of one machine.
fn alone(ground: &Ground, tokens: usize, pool: &Pool) -> Result<Written, Failure> {
    let model = Arc::new(llm::load(&ground.model, pool)?);
    let vocabulary = model.stage.config().vocabulary;
    let mut engine = Engine::new(model, CacheType::F16, Limits::default())?;
    let (begun, mut written) = (Instant::now(), Written::default());
    engine.submit(request(vocabulary, PROMPT, tokens)).map_err(|e| broken(&e))?;
    while !written.hear(begun, engine.step(pool))? {}
    Ok(written)
}

fn one(chain: &mut Chain, victim: &mut StageProcess, args: &Args, at: usize, pool: &Pool) -> Result<Written, Failure> {
    let vocabulary = chain.engine().model().stage.config().vocabulary;
    let request = request(vocabulary, PROMPT, args.tokens as usize);
    chain.engine_mut().submit(request).map_err(|e| broken(&e))?;
    let (begun, mut written, mut lost) = (Instant::now(), Written::default(), false);
    while !written.hear(begun, chain.step(pool)?)? {
        if !lost && written.ids.len() >= at {
            lost = true;
            match args.fault {
                Fault::Kill => victim.kill(),
                Fault::Silent => victim.set_cable(false),
                Fault::None => {}
            }
        }
    }
    Ok(written)
}
