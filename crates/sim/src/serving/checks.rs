//! What must hold, judged from outside: by what clients are told and by what is on the links.

use super::net::Node;
use super::tiny;
use crate::checkers::Findings;
use crate::queue::Micros;
use littoral_infer::engine::{Engine, Event, Finish, Limits, Request};
use littoral_infer::model::Model;
use littoral_model::lm::CacheType;
use littoral_tensor::pool::Pool;
use littoral_wire::Speculation;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Mistakes that can be built in, to see that they are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Clients are told some tokens twice.
    SaysTwice,
    /// Clients are not told some tokens, or the last ones of answers.
    LosesAToken,
    LosesTheLast,
    /// A stage changes a vector.
    Miscomputes,
    /// The mark is not looked at.
    LetsLocalOnlyLeave,
    /// Stages without the file say that they have what they were told to get.
    ClaimsLayers,
    /// A silent machine is waited for for three seconds.
    NoticesLate,
    /// Stages do not hear which states are free.
    KeepsStates,
    /// A stage cuts vectors off.
    Shortens,
    /// The verifier commits another token than it chose.
    CommitsAnother,
    /// The verifier says another thing at a position than before.
    TakesBack,
    /// An edge says that more is committed than it was told.
    ClaimsMore,
    /// Clients leave, and the verifier neither hears of it nor notices.
    KeepsSessions,
    /// Edges stop drafting, and hearing, after a while.
    Deafens,
    /// The head does nothing for longer than a pause may be, or for good.
    Sleeps,
    Stops,
    /// Clients are not told that an answer is over, or are told twice.
    LosesTheEnd,
    EndsTwice,
    /// The head tells its clients what it drafts for the machine above.
    TellsDrafts,
    /// When the head loses a stage it drops what it verifies for edges.
    DropsSessions,
}

/// A request on its way: whose it is, and what is known of its answer.
pub(super) struct Asked {
    pub request: Request,
    /// Nothing of it is to leave the edge.
    pub stays: bool,
    /// What one machine writes.
    expected: Vec<u32>,
    said: Vec<u32>,
    said_at: Micros,
    /// Of the large model, as the verifier says.
    passes: u64,
    at_edge: bool,
    node: Node,
    /// Whose model goes on if the one above it is lost.
    below: Tier,
}

/// Whose model writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tier {
    Edge,
    /// The head; the verifier too, unless there are three tiers.
    Head,
    Verifier,
}

pub(super) struct Checks {
    /// Of each tier, by [`Tier`].
    models: [Arc<Model>; 3],
    pool: Pool,
    findings: Findings,
    pause_max_us: u64,
    asked: BTreeMap<u64, Asked>,
    /// Of each session of an edge: whose it is, and what the verifier committed.
    sessions: BTreeMap<(usize, u64), (u64, BTreeMap<usize, u32>)>,
    pub tokens: u64,
    pub ended: u64,
    pub failed: u64,
    pub taken_over: u64,
    /// Answers of the head that the verifier wrote, and that it began and the head ended.
    pub head_verified: u64,
    pub head_taken_over: u64,
    pub local_only: u64,
    pub passes_saved: u64,
    pub pauses_us: Vec<u64>,
}

/// Shorter ones are no pauses.
const PAUSE_US: u64 = 200_000;

impl Checks {
    /// `models`: of edges, the head, and the verifier.
    pub fn new(models: [Arc<Model>; 3], pause_max_us: u64) -> Self {
        Self {
            models,
            pool: Pool::new(1),
            findings: Findings::default(),
            pause_max_us,
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tokens: 0,
            ended: 0,
            failed: 0,
            taken_over: 0,
            head_verified: 0,
            head_taken_over: 0,
            local_only: 0,
            passes_saved: 0,
            pauses_us: Vec::new(),
        }
    }

    pub fn add(&mut self, finding: impl FnOnce() -> String) {
        self.findings.add(finding);
    }

    pub fn broken(&self) -> Vec<String> {
        self.findings.list().to_vec()
    }

    /// Requests that have no end yet.
    pub fn open(&self) -> usize {
        self.asked.len()
    }

    /// Clients of this machine see it die: of what they asked they hear no more.
    pub fn died(&mut self, node: Node) {
        self.asked.retain(|_, asked| asked.node != node);
    }

    /// A client asks a machine of the tier `at`; the seed of its request is its number. `by`: whose model is to write it.
    pub fn ask(&mut self, request: Request, local_only: bool, (node, at): (Node, Tier), by: Tier, now: Micros) {
        let expected = alone(&self.models[by as usize], &request, &[], &self.pool);
        let seed = request.sampling.seed;
        self.local_only += u64::from(local_only);
        let (stays, at_edge) = (local_only || at == by, at == Tier::Edge);
        let said = Vec::new();
        self.asked
            .insert(seed, Asked { node, request, stays, expected, said, said_at: now, passes: 0, at_edge, below: at });
    }

    /// Tokens of a request's answer that are to come.
    pub fn lacks(&self, seed: u64) -> usize {
        self.asked.get(&seed).map_or(0, |asked| asked.expected.len().saturating_sub(asked.said.len()))
    }

    /// A client is told something of its request. `far`: tokens of the large model, if the small one may have ended it.
    pub fn hear(&mut self, seed: u64, event: &Event, far: Option<(u64, u64)>, now: Micros) {
        let Some(asked) = self.asked.get_mut(&seed) else {
            return self.findings.add(|| format!("request {seed}: something was said after its end: {event:?}"));
        };
        match event {
            Event::Token { id, .. } => {
                let at = asked.said.len();
                if far.is_some_and(|(tokens, _)| tokens as usize == at) {
                    // The small model goes on from what was committed.
                    let rest = alone(&self.models[asked.below as usize], &asked.request, &asked.said, &self.pool);
                    asked.expected.truncate(at);
                    asked.expected.extend(rest);
                }
                if asked.expected.get(at) != Some(id) {
                    let expected = asked.expected.get(at).copied();
                    self.findings.add(|| {
                        format!("request {seed}, token {at}: {expected:?} expected as of one machine, got {id}")
                    });
                }
                let pause_us = now.saturating_sub(asked.said_at);
                if at > 0 && pause_us > PAUSE_US && !asked.at_edge {
                    self.pauses_us.push(pause_us);
                }
                if at > 0 && pause_us > self.pause_max_us {
                    self.findings.add(|| format!("request {seed}, token {at}: a pause of {} ms", pause_us / 1_000));
                }
                asked.said.push(*id);
                asked.said_at = now;
                self.tokens += 1;
            }
            Event::Finished { why, .. } => {
                if let Finish::Failed(why) = why {
                    self.failed += 1;
                    // Nobody could write it, and that was said.
                    if !why.contains("have had no machine") {
                        self.findings.add(|| format!("request {seed} failed: {why}"));
                    }
                } else if asked.said != asked.expected {
                    let (expected, got) = (asked.expected.len(), asked.said.len());
                    self.findings.add(|| format!("request {seed}: {expected} tokens expected at its end, got {got}"));
                }
                let said = asked.said.len() as u64;
                let far = far.map_or(said, |(tokens, _)| tokens);
                let (whole, taken_over) = (far == said && !asked.stays, far < said);
                match asked.at_edge {
                    true => self.taken_over += u64::from(taken_over),
                    false => {
                        self.head_verified += u64::from(whole);
                        self.head_taken_over += u64::from(taken_over && far > 0);
                    }
                }
                if asked.passes > 0 {
                    self.passes_saved += far.saturating_sub(asked.passes);
                }
                self.ended += 1;
                self.asked.remove(&seed);
            }
            Event::Started { .. } | Event::Tried { .. } | Event::Embedded { .. } => {}
        }
    }

    /// What is on the link of an edge, either way.
    pub fn link(&mut self, edge: usize, frame: &Speculation, bytes: usize) {
        let Some(session) = frame.session() else { return };
        let key = (edge, session);
        if let Speculation::Open { request, .. } = frame {
            // Where its verifier had forgotten an answer it is begun anew; what was committed before still stands.
            let seed = request.sampling.seed;
            let before = self.sessions.values().filter(|(other, _)| *other == seed).map(|(_, committed)| committed);
            let before = before.max_by_key(|committed| committed.len()).cloned().unwrap_or_default();
            self.sessions.entry(key).or_insert((seed, before));
        }
        let Some((seed, committed)) = self.sessions.get_mut(&key) else { return };
        if let Some(asked) = self.asked.get_mut(seed) {
            if let Speculation::Commit { passes, .. } = frame {
                asked.passes = asked.passes.max(u64::from(*passes));
            }
            if asked.stays {
                let seed = *seed;
                self.findings.add(|| format!("request {seed} must not leave: {bytes} bytes of it go over a link"));
            }
        }
        match frame {
            Speculation::Commit { start, tokens, .. } => {
                // What was said while there was no link is in none of the messages.
                let ids = (*start as usize..).zip(tokens.iter().map(|token| token.id));
                if ids.clone().any(|(at, id)| committed.get(&at).is_some_and(|known| *known != id)) {
                    let seed = *seed;
                    self.findings.add(|| format!("request {seed}: what is committed at {start} is not what was"));
                }
                committed.extend(ids);
            }
            // The end that drafts has no token that was not committed.
            Speculation::Round { commit, .. } | Speculation::Resume { commit, .. } => {
                let said = self.asked.get(seed).map(|asked| asked.said.as_slice()).unwrap_or_default();
                let (commit, most) = (*commit as usize, (0..).take_while(|at| committed.contains_key(at)).count());
                let same = said.iter().enumerate().all(|(at, id)| committed.get(&at) == Some(id));
                if commit > most || !same {
                    let seed = *seed;
                    self.findings.add(|| format!("request {seed}: {commit} tokens committed here, {most} there"));
                }
            }
            Speculation::Close { .. } => drop(self.sessions.remove(&key)),
            _ => {}
        }
    }

    /// All is over and mended.
    pub fn finish(&mut self) {
        for seed in self.asked.keys().copied().collect::<Vec<_>>() {
            self.findings.add(|| format!("request {seed} has no end"));
        }
    }
}

pub(super) fn limits() -> Limits {
    Limits { prompt_tokens_per_pass: 20, kept_bytes_max: 0, ..Limits::default() }
}

/// What one machine writes behind a beginning of the answer.
fn alone(model: &Arc<Model>, request: &Request, begun: &[u32], pool: &Pool) -> Vec<u32> {
    let Ok(mut engine) = Engine::new(model.clone(), CacheType::F16, limits()) else { return Vec::new() };
    let Ok(id) = engine.submit(request.clone()) else { return Vec::new() };
    engine.pace(id, 0);
    engine.step(pool);
    engine.rewrite(id, begun);
    engine.pace(id, usize::MAX);
    let mut text = Vec::new();
    while !engine.idle() {
        let told = engine.step(pool).into_iter();
        text.extend(told.filter_map(|event| if let Event::Token { id, .. } = event { Some(id) } else { None }));
    }
    text
}

/// A request whose seed is its number. `text`: prompts of the same one begin alike.
pub(super) fn request(number: u64, text: u64, prompt_tokens: u64, max_tokens: u64) -> Request {
    let vocabulary = tiny::VOCABULARY as u64 - 1;
    Request {
        prompt: (0..prompt_tokens).map(|i| ((i * (text % 17 + 3) + text) % vocabulary) as u32).collect(),
        max_tokens: max_tokens as usize,
        sampling: littoral_infer::sample::SamplingParams {
            seed: number,
            temperature: (number % 3) as f32 / 2.0,
            ..Default::default()
        },
        constraint: None,
        top_logprobs: None,
        ignore_end: !number.is_multiple_of(4),
    }
}
