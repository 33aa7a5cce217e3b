//! Who answers, as the writer asks it: requests in, places out, with the reason in words for a header.
//!
//! What is decided, and in which order, is [`littoral_infer::route`]'s.

use super::ask::Kind;
use super::keys::Key;
use super::trial::Trial;
use super::upstream::{Drafts, Upstream};
use super::writer::Asked;
use littoral_infer::engine::Request;
use littoral_infer::route::decide::{Decision, Link, Place};
use littoral_infer::route::drift::Watch;
use littoral_infer::route::features::When;
use littoral_infer::route::routing::{Coming, First, Routing};
use littoral_infer::route::rule::Rule;
use littoral_infer::sample::SamplingParams;
use std::path::PathBuf;
use std::sync::Arc;

/// What is known of a request beside what is to be written.
#[derive(Clone, Debug)]
pub struct Asking {
    pub rule: Rule,
    /// What was asked last, as it was typed.
    pub prompt: Arc<str>,
    /// The machine above was asked already and did not answer.
    pub refused: bool,
    /// Whose it is.
    pub key: Option<Arc<Key>>,
    pub kind: Kind,
    /// It is decided already.
    pub only: Option<Only>,
}

/// Who is to answer, whatever a router says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Here,
    /// The machine above, over the writer's own link.
    Upstream,
}

impl Only {
    pub fn placed(self) -> Placed {
        match self {
            Self::Here => Placed::Here(String::new()),
            Self::Upstream => Placed::Upstream(String::new()),
        }
    }
}

impl Asking {
    /// Nobody else is asked.
    pub fn here(key: Option<Arc<Key>>) -> Self {
        let rule = Rule::Free;
        Self { rule, prompt: "".into(), refused: false, key, kind: Kind::Completion, only: Some(Only::Here) }
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Placed {
    Here(String),
    /// The machine above, over the writer's own link.
    Upstream(String),
    /// The server above, which is asked by whoever took the request.
    Away(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Placing {
    Decided(Placed),
    /// The small model begins.
    Try(When),
}

pub struct Routed {
    routing: Routing,
    /// A server of OpenAI's API; `None`: the motor has a link of its own.
    upstream: Option<Arc<Upstream>>,
    /// Where the watch over the calibration is kept.
    kept: Option<(PathBuf, Option<Watch>)>,
}

impl Routed {
    /// `kept`: a file for the watch over the calibration.
    pub fn new(routing: Routing, upstream: Option<Arc<Upstream>>, kept: Option<PathBuf>) -> Self {
        let kept = kept.map(|path| (path, routing.watch().cloned()));
        Self { routing, upstream, kept }
    }

    fn link(&self, asking_refused: bool, motor: Option<Link>) -> Link {
        let link = match &self.upstream {
            Some(upstream) => Link { up: upstream.up(), round_trip_ms: 0.0, queue_ms: 0.0, model: None },
            None => motor.unwrap_or(Link { up: false, round_trip_ms: 0.0, queue_ms: 0.0, model: None }),
        };
        Link { up: link.up && !asking_refused, ..link }
    }

    pub fn first(&mut self, asking: &Asking, asked: &[Asked], motor: Option<Link>) -> Placing {
        let (mut scorable, mut unaskable) = (asked.len() == 1, None);
        for one in asked {
            match one {
                Asked::Text { request, .. } if request.constraint.is_some() && self.upstream.is_none() => {
                    unaskable = Some("an answer of a certain form");
                }
                // It is one model's.
                Asked::Text { prompt_logprobs: Some(_), .. } if self.upstream.is_none() => {
                    (scorable, unaskable) = (false, Some("log-probabilities of the prompt"));
                }
                Asked::Text { prompt_logprobs, .. } => scorable &= prompt_logprobs.is_none(),
                // A text's vector is one model's.
                Asked::Vectors { .. } => (scorable, unaskable) = (false, Some("vectors")),
            }
        }
        let coming = Coming { rule: asking.rule.clone(), unaskable, scorable };
        let link = self.link(asking.refused, motor);
        match self.routing.first(&coming, link) {
            First::Decided(decision) => {
                let drafted = matches!(asked, [Asked::Text { request, prompt_logprobs: None, .. }] if greedy(request));
                Placing::Decided(self.placed(&decision, drafted && self.drafts(asking.kind, motor)))
            }
            First::Try(when) => Placing::Try(when),
        }
    }

    /// The small model was heard. True: both are to be asked.
    pub fn tried(&mut self, trial: &Trial, motor: Option<Link>) -> (Placed, bool) {
        let link = self.link(false, motor);
        let decision = match trial.seen() {
            Some(seen) => self.routing.scored(&seen, &trial.rule, link),
            None => self.routing.unscored(&trial.rule, link),
        };
        let drafted = greedy(&trial.asked_for().0) && self.drafts(trial.kind, motor);
        (self.placed(&decision, drafted), decision.audit)
    }

    /// Both models were asked.
    pub fn audited(&mut self, worse: bool) {
        self.routing.audited(worse);
    }

    /// Does the server above verify what is drafted here? Then the motor has a link to it.
    fn drafts(&self, kind: Kind, motor: Option<Link>) -> bool {
        let drafts = self.upstream.as_ref().map(|upstream| upstream.drafts());
        let may = matches!(drafts, Some(Drafts::On { chats }) if kind == Kind::Completion || chats.is_ok());
        may && motor.is_some_and(|link| link.up)
    }

    fn placed(&self, decision: &Decision, drafted: bool) -> Placed {
        let why = decision.reason.to_string();
        match (decision.place, &self.upstream) {
            (Place::Edge, _) => Placed::Here(why),
            (_, None) => Placed::Upstream(why),
            (_, Some(_)) if drafted => Placed::Upstream(format!("{why}; drafted here, verified there")),
            (_, Some(_)) => Placed::Away(why),
        }
    }

    /// Writes the watch down, if it has looked since, or heard of an audit.
    pub fn keep(&mut self) {
        let Some((path, before)) = &mut self.kept else { return };
        let now = self.routing.watch();
        let looks =
            |watch: Option<&Watch>| watch.map(|watch| (watch.looks(), watch.audits(), watch.withdrawn().is_some()));
        if looks(now) == looks(before.as_ref()) {
            return;
        }
        let Some(watch) = now else { return };
        if let Some(why) = watch.withdrawn() {
            tracing::warn!("the calibration is withdrawn: {why}");
        }
        match write(path, watch) {
            Ok(()) => *before = Some(watch.clone()),
            // Tried again with the next request.
            Err(why) => tracing::warn!("{} was not written: {why}", path.display()),
        }
    }
}

/// An answer that has only one text, which a server tells token by token: nothing else than the most probable token, and nothing
/// told of it.
fn greedy(request: &Request) -> bool {
    let SamplingParams { temperature, repetition_penalty, frequency_penalty, presence_penalty, logit_bias, .. } =
        &request.sampling;
    let plain = *repetition_penalty == 1.0 && *frequency_penalty == 0.0 && *presence_penalty == 0.0;
    let free = request.constraint.is_none() && request.top_logprobs.is_none() && logit_bias.is_empty();
    *temperature == 0.0 && plain && free && !request.ignore_end
}

/// As a whole or not at all.
fn write(path: &std::path::Path, watch: &Watch) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(watch)?)?;
    std::fs::rename(&beside, path)
}
