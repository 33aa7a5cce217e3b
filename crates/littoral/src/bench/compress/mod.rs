//! `littoral bench compress`: what compression costs and what it saves, on the MNIST work of `bench fedavg`.
//!
//! Rounds of 50 of 1,000 clients, as `bench fedavg` trains them, first with plain fixed point, then with each recipe; the
//! same seeds, cohorts and orders of images for all. Every byte goes the real road: residual, code or map, rounding, seal;
//! an edge decodes and absorbs, or sums words; the cloud opens, maps back and applies.
//!
//! *Uplink bytes* are the sealed bytes that one device sends in one round, all of them: whole part, lengths, scales; for a
//! recipe of two sums both updates. Masks add keys and shares to that, no words. The *ratio* is to the model in f32
//! (199,210 x 4 bytes), which is also what plain fixed point sends, but for its whole part. *Accuracy* is on the 10,000 test
//! images after the last round, the mean over the seeds, and *lost* is against plain fixed point.
//!
//! With `--down` the model goes down the link as a chain of deltas, in every run but the plain one; *bytes down* are those of
//! one version for one device that has the version before.
//!
//! A client takes part in three of 60 rounds on average: a residual waits for some twenty rounds.

mod trial;

use super::mnist::{self, Mnist, ROUNDS_MAX};
use super::{Report, machine};
use crate::output::{Failure, talk};
use littoral_fed::compress::Recipe;
use littoral_fed::compress::downlink::Codes;
use serde_json::{Value, json};
use std::time::Instant;
use trial::{Outcome, World};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Threads that train clients; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=i64::from(ROUNDS_MAX)))]
    rounds: u16,
    /// Of the first weights, the orders of images and all draws: one run each.
    #[arg(long, value_delimiter = ',', default_value = "7,8,9")]
    seeds: Vec<u64>,
    /// Codes of the deltas by which the model goes down the link; without, it goes whole, in f32.
    #[arg(long, value_enum)]
    down: Option<Down>,
    /// A recipe as in a job, instead of those that are built in: `name = "eden", bits = 2`. May be repeated.
    #[arg(long, value_parser = recipe)]
    recipe: Vec<Recipe>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Down {
    Int4,
    Int8,
}

/// Measured if nothing else is asked for: the defaults, and what they were chosen among.
const RECIPES: &[&str] = &[
    r#"name = "eden""#,
    r#"name = "eden", bits = 2"#,
    r#"name = "quantise""#,
    r#"name = "quantise", bits = 8"#,
    r#"name = "quantise", bits = 2"#,
    r#"name = "top-k""#,
    r#"name = "sign""#,
    r#"name = "powersgd""#,
    r#"name = "powersgd", sums = 2"#,
    r#"name = "random-k""#,
    r#"name = "rotation""#,
];

/// The fields of a job's `[compression]`, comma-separated.
fn recipe(text: &str) -> Result<Recipe, String> {
    #[derive(serde::Deserialize)]
    struct Line {
        compression: Recipe,
    }
    let line = toml::from_str::<Line>(&format!("compression = {{ {text} }}"));
    let recipe = line.map_err(|error| error.message().to_owned())?.compression;
    // Parameters do not hang on the model.
    recipe.build(0, &[]).map_err(|error| error.to_string())?;
    Ok(recipe)
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let threads = args.threads.map_or_else(machine::cores, usize::from);
    machine::keep_freed_memory();
    let mut world = World::new(Mnist::load()?, mnist::model()?, threads)?;
    let recipes = match args.recipe.as_slice() {
        [] => RECIPES.iter().map(|text| recipe(text)).collect::<Result<Vec<_>, _>>(),
        chosen => Ok(chosen.to_vec()),
    };
    let recipes = recipes.map_err(|why| Failure::new("no recipe", "littoral bench compress", "a recipe", why))?;

    let model_bytes = world.model_bytes() as f64;
    let down = args.down.map(|down| match down {
        Down::Int4 => Codes::Int4,
        Down::Int8 => Codes::Int8,
    });
    let mut rows = Vec::new();
    let mut measure = |recipe: Option<&Recipe>, plain: Option<f64>| -> Result<(Value, f64), Failure> {
        let start = Instant::now();
        let text = recipe.map_or("plain fixed point".into(), told);
        let down = recipe.and(down);
        let runs = args.seeds.iter().map(|&seed| world.run(recipe, down, seed, args.rounds.into()));
        let runs = runs.collect::<Result<Vec<Outcome>, _>>()?;
        let mean = |of: fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64;
        let (accuracy, bytes) = (mean(|run| run.accuracy), mean(|run| run.bytes_per_device));
        let (lost, ratio) = (plain.unwrap_or(accuracy) - accuracy, model_bytes / bytes);
        let bytes_down = mean(|run| run.bytes_per_version);
        let (masked, why) = world.masked(recipe)?;
        let line = format!(
            "accuracy {accuracy:.4} (lost {lost:+.4}), {bytes:.0} bytes, {ratio:.1} x fewer, {bytes_down:.0} bytes down, masks: {}",
            if masked { "yes" } else { "no" }
        );
        talk(&format!("{text}: {line} ({:.0} s)", start.elapsed().as_secs_f64()));
        rows.push([text.clone(), line]);
        let accuracies: Vec<f64> = runs.iter().map(|run| run.accuracy).collect();
        let mut numbers = json!({
            "recipe": text, "accuracy": accuracy, "accuracies": accuracies, "accuracy_lost": lost,
            "uplink_bytes_per_device_round": bytes, "ratio": ratio, "masked": masked,
            "downlink_bytes_per_version": bytes_down, "saturated_share": mean(|run| run.saturated_share),
        });
        if let Some(why) = why {
            numbers["why_not_masked"] = why.into();
        }
        Ok((numbers, accuracy))
    };
    let (plain, accuracy) = measure(None, None)?;
    let recipes: Vec<Value> =
        recipes.iter().map(|recipe| Ok(measure(Some(recipe), Some(accuracy))?.0)).collect::<Result<_, Failure>>()?;
    let numbers = json!({
        "rounds": args.rounds, "seeds": args.seeds, "uncompressed_bytes": model_bytes, "plain": plain,
        "recipes": recipes,
    });
    Ok(Report { numbers, rows })
}

/// A recipe on one line.
fn told(recipe: &Recipe) -> String {
    let text = toml::to_string(recipe).unwrap_or_default();
    text.lines().collect::<Vec<_>>().join(", ")
}
