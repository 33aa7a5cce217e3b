//! `littoral bench draft`: what drafts are worth, prompt by prompt.
//!
//! *On one machine*: plain decoding and decoding with drafts take turns, a prompt at a time, with all threads. *Predicted* is what
//! the last answer's controller promises for its best length.
//!
//! *Over a link*: the large model is in a process of its own with one thread (`littoral serve --verify`), the small one is here
//! with another, and between them is a line of the given round trip. Ways take turns: streaming, rounds of 4 and of 8 drafted
//! tokens, drafting ahead in blocks of 4, drafting along with the stream in blocks of 2, and the controller, which chooses by
//! itself. *Predicted*: what the formulas promise with the costs and the acceptance that were measured in answers of that way.
//!
//! Texts are greedy and must be the same in every run. *Acceptance*: on one machine drafted tokens that stood, of those that were
//! tried; over a link the controller's estimate of the chance that one stands.
//! Over a link the lines have `drafted` too: tokens by who drafted them, the model or the text itself, and how many stood.
//! *Passes*: of the large model, for one token. *Regret*: what the controller is behind the best other way, in medians over
//! the prompts.

use super::draft_far;
use super::draft_prompts::{PROMPTS, Prompt};
use super::stages::{Written, broken};
use super::{Report, median};
use crate::llm;
use crate::output::{self, Failure, talk};
use littoral_infer::engine::{Engine, Limits, Request};
use littoral_infer::model::Model;
use littoral_infer::sample::SamplingParams;
use littoral_infer::speculate::drafter::Sources;
use littoral_infer::speculate::pair::Pair;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, or the name of one that is here.
    #[arg(long)]
    pub model: PathBuf,
    /// The small model that drafts.
    #[arg(long)]
    pub draft: PathBuf,
    /// Tokens of each text; by default 192 on one machine, and 64 over a link, where there are many more texts.
    #[arg(long, value_parser = clap::value_parser!(u32).range(16..=2000))]
    pub tokens: Option<u32>,
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub repeats: u32,
    /// Threads on one machine.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Round trips to measure, in milliseconds; 0 is a link without delay.
    #[arg(long, value_delimiter = ',', value_name = "MS,MS,…")]
    pub rtt_ms: Vec<f64>,
    /// What drafts over a link: the small model, `lookup` in the text itself, or both.
    #[arg(long, value_name = "SOURCE", default_value = "both", value_parser = crate::above::sources())]
    pub draft_source: Sources,
    /// Prompts, by their names or their kinds (code, json, answer, prose); by default all eight.
    #[arg(long, value_delimiter = ',', value_name = "NAME,NAME,…")]
    prompts: Vec<String>,
    /// Leave out what is measured on one machine.
    #[arg(long)]
    no_local: bool,
    #[arg(from_global)]
    pub json: bool,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let prompts = chosen(&args.prompts)?;
    let mut report = Report { numbers: json!({}), rows: Vec::new() };
    let mut summary = serde_json::Map::new();
    let mut identical = true;
    if !args.no_local {
        let local = local(args, &prompts)?;
        identical &= local.identical;
        summary.insert("local_ratio".into(), local.ratios);
        report.rows.extend(local.rows);
    }
    if !args.rtt_ms.is_empty() {
        let far = draft_far::run(args, &prompts)?;
        identical &= far.identical;
        summary.insert("controller_regret".into(), far.regrets);
        report.rows.extend(far.rows);
    }
    summary.insert("identical".into(), identical.into());
    report.numbers = json!({"summary": summary});
    if !identical {
        return Err(broken(&"the same text in every run was expected, another was written"));
    }
    Ok(report)
}

fn chosen(names: &[String]) -> Result<Vec<&'static Prompt>, Failure> {
    let known = |name: &String| PROMPTS.iter().any(|prompt| is(prompt, name));
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<&str> = PROMPTS.iter().map(|prompt| prompt.name).collect();
        return Err(Failure::usage("--prompts", format!("names or kinds of {}", all.join(", ")), unknown));
    }
    Ok(PROMPTS.iter().filter(|prompt| names.is_empty() || names.iter().any(|name| is(prompt, name))).collect())
}

fn is(prompt: &Prompt, name: &str) -> bool {
    prompt.name == name || prompt.name.rsplit_once('-').is_some_and(|(kind, _)| kind == name)
}

/// What was measured on one machine.
struct Local {
    identical: bool,
    ratios: serde_json::Value,
    rows: Vec<[String; 2]>,
}

fn local(args: &Args, prompts: &[&Prompt]) -> Result<Local, Failure> {
    let pool = Pool::new(args.threads.into());
    let load = |path: &PathBuf| -> Result<Arc<Model>, Failure> {
        Ok(Arc::new(llm::load(&crate::named::here(path)?.path, &pool)?))
    };
    let (big, small) = (load(&args.model)?, load(&args.draft)?);
    let limits = Limits { kept_bytes_max: 0, ..Limits::default() };
    let mut plain = Engine::new(big.clone(), CacheType::F16, limits)?;
    let engine = |model| Engine::new(model, CacheType::F16, limits);
    let pair = Pair::new(engine(big.clone())?, Some(engine(small)?));
    let mut pair =
        pair.map_err(|why| Failure::new("nothing was measured", "--draft", "a model of the same vocabulary", why))?;
    let (mut rows, mut kinds) = (Vec::new(), Vec::<(String, f64)>::new());
    let mut all_same = true;
    for prompt in prompts {
        let request = request(&big, prompt, args.tokens.unwrap_or(192) as usize)?;
        let (mut alone, mut drafted, mut same) = (Vec::new(), Vec::new(), true);
        let before = pair.counted();
        for _ in 0..args.repeats {
            let expected = write_plain(&mut plain, request.clone(), &pool)?;
            let got = write_pair(&mut pair, request.clone(), &pool)?;
            same &= expected.ids == got.ids;
            alone.push(expected.tok_s());
            drafted.push(got.tok_s());
        }
        let now = pair.counted();
        let (tried, held) = (now.drafted - before.drafted, now.accepted - before.accepted);
        let acceptance = held as f64 / tried.max(1) as f64;
        let passes = (now.passes - before.passes) as f64 / (now.tokens - before.tokens).max(1) as f64;
        let (plain_tok_s, tok_s) = (median(&alone), median(&drafted));
        all_same &= same;
        for (mode, tok_s, acceptance, passes) in
            [("plain", plain_tok_s, 0.0, 1.0), ("local", tok_s, acceptance, passes)]
        {
            let predicted = if mode == "plain" { pair.promised().0 } else { pair.promised().1 };
            let line = json!({
                "prompt": prompt.name,
                "rtt_ms": 0.0,
                "mode": mode,
                "tok_s": tok_s,
                "acceptance": acceptance,
                "cloud_passes_per_token": passes,
                "predicted_tok_s": predicted,
                "identical": same,
            });
            if args.json {
                output::object(&line);
            }
        }
        let ratio = tok_s / plain_tok_s.max(1e-9);
        talk(&format!(
            "{}: {plain_tok_s:.1} tok/s plain, {tok_s:.1} drafted ({ratio:.2}), {:.0} % of {tried} drafts stood, {passes:.2} passes a token",
            prompt.name,
            100.0 * acceptance,
        ));
        kinds.push((prompt.name.rsplit_once('-').map_or(prompt.name, |(kind, _)| kind).to_owned(), ratio));
        rows.push([format!("{}, drafted against plain", prompt.name), format!("{ratio:.2}")]);
    }
    let of = |kind: &str| {
        let ratios: Vec<f64> = kinds.iter().filter(|(other, _)| other == kind).map(|(_, ratio)| *ratio).collect();
        median(&ratios)
    };
    let ratios = json!({"code": of("code"), "json": of("json"), "answer": of("answer"), "prose": of("prose")});
    Ok(Local { identical: all_same, ratios, rows })
}

pub fn request(model: &Model, prompt: &Prompt, tokens: usize) -> Result<Request, Failure> {
    let prompt = crate::run::prompt_ids(model, prompt.text)?;
    Ok(Request {
        prompt,
        max_tokens: tokens,
        sampling: SamplingParams::greedy(),
        constraint: None,
        top_logprobs: None,
        ignore_end: true,
    })
}

pub fn write_plain(engine: &mut Engine, request: Request, pool: &Pool) -> Result<Written, Failure> {
    let (begun, mut written) = (Instant::now(), Written::default());
    engine.submit(request).map_err(|e| broken(&e))?;
    while !written.hear(begun, engine.step(pool))? {}
    Ok(written)
}

fn write_pair(pair: &mut Pair, request: Request, pool: &Pool) -> Result<Written, Failure> {
    let (begun, mut written) = (Instant::now(), Written::default());
    pair.engine_mut().submit(request).map_err(|e| broken(&e))?;
    while !written.hear(begun, pair.step(pool, &mut || begun.elapsed().as_micros() as u64))? {}
    Ok(written)
}
