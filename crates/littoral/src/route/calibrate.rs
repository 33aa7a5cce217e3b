//! `littoral route calibrate`: from prompts to a router with a promise.
//!
//! Both models answer every prompt here, greedily. The small one's answer is worse where the large one's is right and it is
//! not. Two routers are learnt from the same examples, one that decides before an answer and one that decides after it; each
//! has a promise of its own, at δ/2. So both promises hold at once with a probability of 1 - δ, and whoever looks at both and
//! takes the one that keeps more, or the one that could be promised at all, has what δ says. Who knows before which it is to be
//! (`--when`) has the whole of δ for that one.

use super::kept::{answers, json as json_text, said};
use super::label::{Judged, share};
use super::prompts;
use crate::llm;
use crate::named;
use crate::output::{self, Failure};
use crate::pending::Pending;
use littoral_infer::route::calibrate::{CalibrateError, Calibration};
use littoral_infer::route::features::When;
use littoral_infer::route::learn::learn;
use littoral_infer::route::saved::{FORMAT, Router, Saved, examples_of};
use littoral_infer::route::score::Example;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model that answers here: a file, or the name of one that is here.
    #[arg(long)]
    small: PathBuf,
    /// The model that is asked where the small one is not sure.
    #[arg(long)]
    big: PathBuf,
    /// Lines of {"prompt": …, "answer": …}. Without an answer the small model's is good where it is the large one's. A prompt
    /// that comes again is left out.
    #[arg(long, value_name = "FILE", required_unless_present = "log")]
    prompts: Option<PathBuf>,
    /// The same of your own traffic, beside or instead. What comes again counts again, as it does in traffic.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The greatest share of worse answers among those that the small model gives alone.
    #[arg(long, default_value_t = 0.1, value_parser = super::part)]
    alpha: f64,
    /// The probability that what is promised is wrong: of both routers together, half of it each, or of the one of --when.
    #[arg(long, default_value_t = 0.1, value_parser = super::part)]
    delta: f64,
    /// Calibrate this router only, with the whole of delta: `before` an answer or `after` it. Which one is chosen beforehand.
    #[arg(long, value_name = "WHEN", value_parser = crate::above::when())]
    when: Option<When>,
    /// Tokens of an answer at most.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=8192))]
    max_tokens: u32,
    /// Of the split between examples for the score and examples for the promise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Answers are kept in this file, and read from it the next time.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Where the router is written.
    #[arg(short, long, value_name = "FILE", default_value = "route.json")]
    output: PathBuf,
}

/// A large model that is right in less than this part of the exact answers is hardly what was to be measured.
const SELDOM: f64 = 0.2;

/// A router, and what is told of it.
struct Told {
    router: Router,
    numbers: Value,
    line: String,
    promised: bool,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let read = |path: &Option<PathBuf>| path.as_deref().map_or_else(|| Ok(Vec::new()), prompts::read);
    let (asked, repeated) = prompts::each_once(read(&args.prompts)?, read(&args.log)?);
    if asked.len() < 3 {
        let expected = "at least 3, better some hundreds,";
        return Err(Failure::new("nothing is calibrated", "the prompts", expected, asked.len()));
    }
    let pending = Pending::at(&args.output)?;
    let pool = llm::pool(args.threads.map(usize::from));
    let texts: Vec<String> = asked.iter().map(|asked| asked.prompt.clone()).collect();
    let answered = |given: &PathBuf| {
        let path = named::here(given)?.path;
        let said = said(&path)?;
        let answers = answers(args.keep.as_deref(), (&path, &said), &texts, args.max_tokens as usize, &pool)?;
        Ok::<_, Failure>((said, answers))
    };
    let ((small, small_answers), (large, large_answers)) = (answered(&args.small)?, answered(&args.big)?);
    let answered = asked.iter().zip(&small_answers).zip(&large_answers);
    let judged: Vec<Judged> = answered.map(|((asked, small), large)| Judged::new(asked, small, large)).collect();
    let examples: Vec<_> = judged.iter().map(Judged::example).collect();
    let told = |when| told(args, when, &examples_of(when, &examples));
    let (before, after) = (told(When::Before)?, told(When::After)?);
    let saved = Saved {
        format: FORMAT,
        small: small.clone(),
        large: large.clone(),
        exact_answers: asked.iter().any(|asked| asked.answer.is_some()),
        before: before.router,
        after: after.router,
        examples,
    };
    pending.write(json_text(&saved, &args.output)? + "\n")?;
    let exact = asked.iter().filter(|asked| asked.answer.is_some()).count();
    let numbers = json!({
        "prompts": asked.len(),
        "repeated": repeated,
        "exact_answers": exact,
        "small_accuracy": share(&judged, |judged| judged.small),
        "big_accuracy": share(&judged, |judged| judged.large),
        "agreement": share(&judged, |judged| judged.agree),
        "worse": share(&judged, Judged::worse),
        "alpha": args.alpha,
        "delta": args.delta,
        "delta_each": delta_each(args),
        "before": before.numbers,
        "after": after.numbers,
        "file": args.output.display().to_string(),
    });
    if json {
        output::object(&numbers);
    } else {
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        let right = |part| format!("{} right", percent(part));
        let rows = [
            ["prompts".to_owned(), format!("{}, {exact} with exact answers", asked.len())],
            [small.name.clone(), right(share(&judged, |judged| judged.small))],
            [large.name.clone(), right(share(&judged, |judged| judged.large))],
            ["the small one's is worse".to_owned(), percent(share(&judged, Judged::worse))],
            ["before an answer".to_owned(), before.line],
            ["after an answer".to_owned(), after.line],
        ];
        output::table(&["calibrated", ""], &rows.map(Vec::from));
        if repeated > 0 {
            output::talk(&format!("prompts that came again and were left out: {repeated}"));
        }
        output::talk(&format!("the router is in {}", args.output.display()));
    }
    let known = asked.iter().zip(&judged).filter(|(asked, _)| asked.answer.is_some());
    let right = known.filter(|(_, judged)| judged.large).count();
    if (right as f64) < SELDOM * exact as f64 {
        output::talk(&format!(
            "warning: the large model is right on {right} of {exact} exact answers; where it is wrong no answer is worse, so the \
             promise says little: are answers cut by --max-tokens, or written otherwise than in the file?"
        ));
    }
    if !(before.promised || after.promised) {
        output::talk("warning: nothing may be kept; a score can still keep to a budget");
    }
    Ok(())
}

/// Of one router's promise.
fn delta_each(args: &Args) -> f64 {
    if args.when.is_some() { args.delta } else { args.delta / 2.0 }
}

fn told(args: &Args, when: When, examples: &[Example]) -> Result<Told, Failure> {
    let delta = delta_each(args);
    let learnt = learn(when, examples, args.alpha, delta, args.seed)
        .map_err(|e| Failure::new("nothing is calibrated", "the prompts", "enough for a score", e))?;
    let scorer = learnt.scorer;
    if args.when.is_some_and(|only| only != when) {
        let line = "nothing is promised: --when was the other one".to_owned();
        let numbers = json!({"nothing": line, "examples_needed": null});
        let router = Router { scorer, calibration: None, nothing: Some(line.clone()) };
        return Ok(Told { router, numbers, line, promised: false });
    }
    Ok(match learnt.calibration {
        Ok(found) => {
            let Calibration { threshold, kept_share, kept, kept_worse, examples, upper_bound, .. } = found;
            let numbers = json!({
                "threshold": threshold, "kept_share": kept_share, "kept": kept, "kept_worse": kept_worse,
                "examples": examples, "upper_bound": upper_bound,
            });
            let line = format!(
                "keeps {:.1} % ({kept} of {examples}, {kept_worse} worse) from a score of {threshold:.3} on: at most {upper_bound:.3} \
                 are worse, with {} % confidence",
                100.0 * kept_share,
                (100.0 * (1.0 - delta) * 1e6).round() / 1e6
            );
            let router = Router { scorer, calibration: Some(found), nothing: None };
            Told { router, numbers, line, promised: true }
        }
        Err(why) => {
            let needed = match why {
                CalibrateError::Nothing { examples_needed, .. } => examples_needed,
                _ => None,
            };
            let line = why.to_string();
            let numbers = json!({"nothing": line, "examples_needed": needed});
            let router = Router { scorer, calibration: None, nothing: Some(line.clone()) };
            Told { router, numbers, line, promised: false }
        }
    })
}
