//! `littoral sim FILE.toml` of a file with a `[serving]` table: language models over machines that die, in virtual time.

use crate::input::text;
use crate::memory::peak_rss_mb;
use crate::output::{self, Failure};
use littoral_sim::serving::{self, Outcome, Scenario};
use serde::Deserialize;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    serving: Scenario,
}

/// The scenario of a file, if it has one.
pub fn scenario(file: &Path) -> Result<Option<Scenario>, Failure> {
    let toml = text(file, FILE_BYTES_MAX)?;
    let has = toml.parse::<toml::Table>().is_ok_and(|table| table.contains_key("serving"));
    if !has {
        return Ok(None);
    }
    let refuse = |e: toml::de::Error| {
        Failure::new("the scenario was refused", file.display().to_string(), "a [serving] table", e.message())
    };
    toml::from_str(&toml).map(|File { serving }| Some(serving)).map_err(refuse)
}

/// Runs seeds one after another.
pub fn run(file: &Path, scenario: &Scenario, seeds: impl Iterator<Item = u64>, json: bool) -> Result<(), Failure> {
    let mut broken = 0;
    for seed in seeds {
        let begun = Instant::now();
        let refuse = |e: serving::ScenarioError| {
            let place = format!("{}, [serving] {}", file.display(), e.field);
            Failure::new("the scenario was refused", place, e.expected, e.got)
        };
        let outcome = serving::run(&Scenario { seed, ..scenario.clone() }).map_err(refuse)?;
        let elapsed_s = begun.elapsed().as_secs_f64();
        if json {
            let mut object = serde_json::to_value(&outcome).unwrap_or_default();
            (object["elapsed_s"], object["peak_rss_mb"]) = (json!(elapsed_s), json!(peak_rss_mb()));
            output::object(&object);
        } else {
            person(&outcome, elapsed_s);
        }
        if !outcome.broken.is_empty() {
            broken += 1;
            output::talk(&format!("replay: littoral sim {} --seed {seed}", file.display()));
        }
    }
    if broken > 0 {
        output::talk(&format!("{broken} runs broke what must hold"));
        std::process::exit(1);
    }
    Ok(())
}

fn person(outcome: &Outcome, elapsed_s: f64) {
    let Outcome { seed, virtual_s, requests, tokens, failed, taken_over, local_only, kept, .. } = outcome;
    output::line(&format!(
        "seed {seed} · {:.0} virtual minutes in {elapsed_s:.1} s · {requests} requests, {tokens} tokens, {failed} failed, \
         {taken_over} ended by the small model, {local_only} that must not leave, {kept} that need not",
        virtual_s / 60.0
    ));
    let Outcome { kills, silences, stops, slowings, cuts, losses_survived, .. } = outcome;
    output::line(&format!(
        "faults: kill {kills}, silent {silences}, stop {stops}, slow {slowings}, cut {cuts}, {} messages of drafts lost, doubled \
         or late · {losses_survived} losses of a running chain survived, noticed after {:.3} s (median), {:.3} s (longest)",
        outcome.mishaps, outcome.median_detect_s, outcome.longest_detect_s
    ));
    output::line(&format!(
        "pauses of the head's answers: {} over 0.2 s, median {:.3} s, longest {:.3} s · {} passes saved by drafts · {} bytes \
         on links · at most {} bytes of states and logs on a machine",
        outcome.pauses,
        outcome.median_pause_s,
        outcome.longest_pause_s,
        outcome.passes_saved,
        outcome.bytes,
        outcome.memory_bytes_max
    ));
    outcome.broken.iter().for_each(|broken| output::line(&format!("BROKEN {broken}")));
    output::line(&format!("trace {}", outcome.trace));
}
