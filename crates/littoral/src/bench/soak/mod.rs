//! `littoral bench soak`: a device, an edge of three processes and a cloud serve several people while machines are killed.
//!
//! The device has the small model; the edge (a head and two stages) and the cloud verify with the large one. People ask the
//! device all the time: greedy and drawn, short and long, some of it local-only. Every `--kill-every` seconds one of the
//! machines above gets SIGKILL, and comes back a second later. The device is never killed, and nothing that it answers may break.
//!
//! *Wrong*: a text that is not the one that was expected. What the large model wrote must be the beginning of its own text, and
//! all of it if it wrote all; what is local-only, or was asked while nobody was above, must be the small one's. Texts to compare
//! with are asked for before anybody is killed. *Broken*: a reply without its end. *Leaks*: files and memory of the device, the
//! medians of the first and the last third of the time; in a run of some minutes more than a little is an error.

mod client;
mod machines;

use super::draws::Draws;
use super::{Report, median};
use crate::output::{Failure, talk};
use client::{Answer, Question};
use machines::{Machines, Place};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a machine stays away.
const AWAY: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(2);
/// Five minutes of looks, and how much more than at first is a leak then.
const LEAK_SAMPLES: usize = 150;
const FILES_MORE: f64 = 8.0;
const MEMORY_TIMES: f64 = 1.05;
const MEMORY_MORE_MB: f64 = 16.0;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The large model: a file, or the name of one that is here.
    #[arg(long)]
    model: PathBuf,
    /// The small one, of the same vocabulary.
    #[arg(long)]
    draft: PathBuf,
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// People who ask at the same time.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    clients: u16,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 5.0)]
    kill_every: f64,
    /// Tokens of the longest answers.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1000))]
    tokens: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What came of all questions.
#[derive(Default)]
struct Counted {
    requests: u64,
    wrong: u64,
    broken: u64,
    local_only: u64,
    /// Answers that several machines wrote.
    moved: u64,
    tokens: BTreeMap<String, u64>,
    longest_pause_s: f64,
    first_fault: Option<String>,
}

/// Of the device.
struct Sample {
    files: f64,
    own_mb: f64,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    crate::input::start_log("warn");
    if !(args.minutes > 0.0 && args.minutes <= 10_000.0 && args.kill_every >= 1.0) {
        let got = format!("{} minutes, a kill every {} s", args.minutes, args.kill_every);
        return Err(Failure::usage("--minutes and --kill-every", "more than 0 minutes, and at least 1 s", got));
    }
    let mut machines = Machines::start(&args.model, &args.draft)?;
    talk("asking for the texts to compare with");
    let questions = expected(args, &machines)?;
    until_asked(&machines, "edge")?;

    let stop = Arc::new(AtomicBool::new(false));
    let counted = Arc::new(Mutex::new(Counted::default()));
    let people: Vec<_> = (0..args.clients)
        .map(|person| {
            let (stop, counted, device) = (stop.clone(), counted.clone(), machines.device.clone());
            let questions = questions.clone();
            let mut draws = Draws(args.seed ^ (u64::from(person) << 32));
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let (question, large, small) = &questions[draws.index(questions.len())];
                    let local_only = draws.below(5) == 0;
                    let answer = client::ask(&device, question, local_only);
                    counted.lock().unwrap_or_else(PoisonError::into_inner).hear(answer, local_only, large, small);
                }
            })
        })
        .collect();
    let (begun, mut draws, mut samples) = (Instant::now(), Draws(args.seed), Vec::new());
    let until = Duration::from_secs_f64(args.minutes * 60.0);
    let (mut next_kill, mut next_look, mut kills) = (Duration::from_secs_f64(args.kill_every), LOOK, 0u64);
    while begun.elapsed() < until {
        thread::sleep(Duration::from_millis(50));
        if begun.elapsed() >= next_look {
            next_look += LOOK;
            samples.push(machines.sample()?);
        }
        machines.return_those_away(AWAY)?;
        if begun.elapsed() >= next_kill {
            next_kill += Duration::from_secs_f64(args.kill_every);
            kills += u64::from(machines.kill(Place::ALL[draws.index(Place::ALL.len())]));
        }
    }
    stop.store(true, Relaxed);
    for person in people {
        let _ = person.join();
    }
    machines.return_those_away(Duration::ZERO)?;
    // It is as it was: the edge is there again, and its text is the text.
    until_asked(&machines, "edge")?;
    let counted = std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
    report(args, &counted, kills, &samples)
}

type Asked = (Question, String, String);

/// Questions with the large model's text and the small one's.
fn expected(args: &Args, machines: &Machines) -> Result<Arc<Vec<Asked>>, Failure> {
    let mut all = Vec::new();
    for (at, prompt) in super::draft_prompts::PROMPTS.iter().enumerate() {
        let tokens = (args.tokens / 4 + args.tokens * 3 / 4 * (at as u32 % 4) / 3).max(4);
        let question =
            Question { prompt: prompt.text, tokens, temperature: if at % 2 == 0 { 0.0 } else { 0.8 }, seed: at };
        let text = |answer: Answer| match answer.fault {
            None => Ok(answer.text()),
            Some(why) => Err(super::broken("a question before anybody is killed")(&why)),
        };
        let large = text(client::ask(&machines.cloud, &question, false))?;
        let small = text(client::ask(&machines.device, &question, true))?;
        all.push((question, large, small));
    }
    Ok(Arc::new(all))
}

/// Until the device is answered by this tier.
fn until_asked(machines: &Machines, tier: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let question = Question { prompt: "Hm?", tokens: 4, temperature: 0.0, seed: 0 };
    while client::ask(&machines.device, &question, false).by() != Some(tier) {
        if begun.elapsed() > Duration::from_secs(120) {
            return Err(super::broken("the machines")(&format!("{tier} was expected to verify within two minutes")));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Counted {
    fn hear(&mut self, answer: Answer, local_only: bool, large: &str, small: &str) {
        self.requests += 1;
        self.local_only += u64::from(local_only);
        self.longest_pause_s = self.longest_pause_s.max(answer.longest_pause_s);
        for (by, tokens) in &answer.tokens {
            *self.tokens.entry(by.clone()).or_default() += tokens;
        }
        self.moved += u64::from(answer.parts.len() > 1);
        let text = answer.text();
        if let Some(why) = answer.fault {
            self.broken += 1;
            self.first_fault.get_or_insert(format!("broken: {why}, after {text:?}"));
            return;
        }
        let above: String =
            answer.parts.iter().filter(|(by, _)| by != "device").map(|(_, text)| text.as_str()).collect();
        let right = match answer.parts.iter().all(|(by, _)| by == "device") {
            true => text == small,
            // All of it, or the beginning with the small model behind.
            false if answer.parts.last().is_some_and(|(by, _)| by == "device") => {
                !local_only && large.starts_with(&above)
            }
            false => !local_only && text == large,
        };
        if !right {
            self.wrong += 1;
            let parts: Vec<&str> = answer.parts.iter().map(|(by, _)| by.as_str()).collect();
            self.first_fault.get_or_insert(format!("wrong, by {parts:?}: {text:?}, expected {large:?} or {small:?}"));
        }
    }
}

fn report(args: &Args, counted: &Counted, kills: u64, samples: &[Sample]) -> Result<Report, Failure> {
    let Counted { requests, wrong, broken, local_only, moved, tokens, longest_pause_s, .. } = counted;
    let third = samples.len() / 3;
    let of = |samples: &[Sample], part: fn(&Sample) -> f64| median(&samples.iter().map(part).collect::<Vec<_>>());
    let (first, last) = (&samples[..third], &samples[samples.len() - third..]);
    let [files, own] =
        [|s: &Sample| s.files, |s: &Sample| s.own_mb].map(|part: fn(&Sample) -> f64| [of(first, part), of(last, part)]);
    let numbers = json!({
        "minutes": args.minutes, "clients": args.clients, "kills": kills, "requests": requests, "wrong": wrong,
        "broken": broken, "local_only": local_only, "moved": moved, "tokens": tokens, "longest_pause_s": longest_pause_s,
        "device_files": files, "device_own_mb": own,
    });
    if let Some(fault) = &counted.first_fault {
        return Err(super::broken("an answer")(&format!(
            "{wrong} wrong and {broken} broken of {requests}; the first: {fault}"
        )));
    }
    // What fills up at first, caches and states that are kept, is full by then.
    let leaks = files[1] > files[0] + FILES_MORE || own[1] > own[0] * MEMORY_TIMES + MEMORY_MORE_MB;
    if samples.len() >= LEAK_SAMPLES && leaks {
        let got = format!("{files:?} files and {own:?} MB, where no more were expected at the end than at first");
        return Err(super::broken("the device")(&got));
    }
    let row = |what: &str, value: String| [what.to_owned(), value];
    let rows = vec![
        row("answers, of them wrong, broken", format!("{requests}, {wrong}, {broken}")),
        row("machines killed", kills.to_string()),
        row("answers that several machines wrote", moved.to_string()),
        row("tokens by who wrote them", format!("{tokens:?}")),
        row("longest pause in an answer, s", format!("{longest_pause_s:.2}")),
        row("the device's files, first and last third", format!("{:.0}, {:.0}", files[0], files[1])),
        row("the device's own memory, MB", format!("{:.1}, {:.1}", own[0], own[1])),
    ];
    Ok(Report { numbers, rows })
}
