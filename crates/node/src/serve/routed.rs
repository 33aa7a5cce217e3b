//! Who answers, as the writer asks it: requests in, places out, with the reason in words for a header.
//!
//! What is decided, and in which order, is [`littoral_infer::route`]'s.

use super::ask::Kind;
use super::keys::Key;
use super::trial::Trial;
use super::upstream::{Drafts, Upstream};
use super::writer::Asked;
use crate::speculate::edge::Way;
use littoral_infer::engine::Request;
use littoral_infer::route::decide::{Decision, Drafts as Drafted, Link, Place};
use littoral_infer::route::drift::Watch;
use littoral_infer::route::features::When;
use littoral_infer::route::routing::{Coming, First, Routing};
use littoral_infer::route::rule::Rule;
use littoral_infer::sample::SamplingParams;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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
            Self::Upstream => Placed::Upstream(String::new(), Way::Fastest),
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
    Upstream(String, Way),
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

/// Scores that a watch has heard and a kill may make it forget.
const SCORES_UNWRITTEN: usize = 20;

impl Routed {
    /// `kept`: a file for the watch over the calibration.
    pub fn new(routing: Routing, upstream: Option<Arc<Upstream>>, kept: Option<PathBuf>) -> Self {
        let kept = kept.map(|path| (path, routing.watch().cloned()));
        Self { routing, upstream, kept }
    }

    /// `drafted`: the server above verifies drafts of this answer.
    fn link(&self, motor: Option<Link>, drafted: bool) -> Link {
        const DOWN: Link = Link { up: false, model: None, drafting: None };
        match &self.upstream {
            Some(upstream) => {
                let drafting = motor.filter(|_| drafted).and_then(|link| link.drafting);
                Link { up: upstream.up(), model: None, drafting }
            }
            None => motor.unwrap_or(DOWN),
        }
    }

    /// `wait_ms`: until the model here would begin with it.
    pub fn first(&mut self, asking: &Asking, asked: &[Asked], motor: Option<Link>, wait_ms: f64) -> Placing {
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
        let drafted = matches!(asked, [Asked::Text { request, prompt_logprobs: None, .. }] if greedy(request));
        let link = self.link(motor, drafted && self.drafts(asking.kind, motor));
        let link = Link { up: link.up && !asking.refused, ..link };
        match self.routing.first(&coming, link, wait_ms) {
            First::Decided(decision) => Placing::Decided(self.placed(&decision)),
            First::Try(when) => Placing::Try(when),
        }
    }

    /// May the model above, which is the one here, go on with what was begun here? Not where its share is bounded.
    pub fn goes_on_above(&self, motor: Option<Link>) -> bool {
        let same = motor.is_some_and(|link| link.up && self.routing.is_same(link));
        same && self.upstream.is_none() && !self.routing.has_budget()
    }

    /// The small model was heard. True: both are to be asked.
    pub fn tried(&mut self, trial: &Trial, motor: Option<Link>) -> (Placed, bool) {
        let link = self.link(motor, greedy(&trial.asked_for().0) && self.drafts(trial.kind, motor));
        let decision = match trial.seen() {
            Some(seen) => self.routing.scored(&seen, &trial.rule, link),
            None => self.routing.unscored(&trial.rule, link),
        };
        (self.placed(&decision), decision.audit)
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

    fn placed(&self, decision: &Decision) -> Placed {
        let why = decision.reason.to_string();
        let (Place::EdgeDraftsCloudVerifies | Place::Cloud, Some(drafts)) = (decision.place, decision.drafts) else {
            return Placed::Here(why);
        };
        let server = self.upstream.is_some();
        match drafts {
            Drafted::Impossible if server => Placed::Away(why),
            Drafted::Impossible => Placed::Upstream(why, Way::Alone),
            Drafted::Dearer if server => Placed::Away(format!("{why}; {drafts}")),
            Drafted::Dearer => Placed::Upstream(format!("{why}; {drafts}"), Way::Alone),
            Drafted::Cheaper => Placed::Upstream(format!("{why}; {drafts}"), Way::Drafted),
            // What is measured shows as the answer is written when that changes. A server's answers come over the writer's own link
            // then too, which is to be told.
            Drafted::Slower { .. } if server => Placed::Upstream(format!("{why}; {}", Drafted::Faster), Way::Fastest),
            Drafted::Faster | Drafted::Slower { .. } => Placed::Upstream(format!("{why}; {drafts}"), Way::Fastest),
        }
    }

    /// Writes the watch down, if it has looked since, or heard of an audit or of some scores.
    pub fn keep(&mut self) {
        let Some((_, before)) = &self.kept else { return };
        let told = |watch: &Watch| (watch.looks(), watch.audits(), watch.withdrawn().is_some());
        let due = match (self.routing.watch(), before) {
            (None, _) => false,
            (Some(now), None) => told(now) != (0, 0, false) || now.seen() >= SCORES_UNWRITTEN,
            (Some(now), Some(before)) => {
                told(now) != told(before) || now.seen().abs_diff(before.seen()) >= SCORES_UNWRITTEN
            }
        };
        if due {
            self.keep_all();
        }
    }

    /// The same, if anything has changed: nothing comes after it.
    pub fn keep_all(&mut self) {
        let Some((path, before)) = &mut self.kept else { return };
        let Some(watch) = self.routing.watch().filter(|watch| Some(*watch) != before.as_ref()) else { return };
        let withdrawn = |watch: &Watch| watch.withdrawn().is_some();
        if let Some(why) = watch.withdrawn().filter(|_| !before.as_ref().is_some_and(withdrawn)) {
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

/// As a whole or not at all, whatever happens to this machine meanwhile: a server does not start over half a watch.
fn write(path: &Path, watch: &Watch) -> io::Result<()> {
    let beside = path.with_extension("new");
    // One that was left behind may be open to others.
    match fs::remove_file(&beside) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(watch)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_infer::route::budget::Budget;
    use littoral_infer::route::calibrate::{Labelled, calibrate};
    use littoral_infer::route::decide::{Drafting, Prices};
    use littoral_infer::route::features::{Seen, names};
    use littoral_infer::route::saved::Router;
    use littoral_infer::route::score::{Example, Scorer};
    use littoral_infer::sample::stop::StopStrings;
    use std::os::unix::fs::PermissionsExt;

    /// All that it has seen is good enough.
    fn router() -> Router {
        let when = When::Before;
        let example = |at: u32| Example { features: vec![f64::from(at % 7); names(when).len()], worse: at == 0 };
        let examples: Vec<Example> = (0..300).map(example).collect();
        let scorer = Scorer::fit(when, &examples).expect("a fit");
        let labelled: Vec<Labelled> =
            examples.iter().map(|e| Labelled { score: scorer.score(&e.features), worse: e.worse }).collect();
        let calibration = calibrate(&labelled, &[0.0], 0.1, 0.1).expect("a promise");
        Router { scorer, calibration: Some(calibration), nothing: None }
    }

    fn request(temperature: f32) -> Vec<Asked> {
        let sampling = SamplingParams { temperature, ..SamplingParams::default() };
        let request = Request {
            prompt: vec![1],
            max_tokens: 4,
            sampling,
            constraint: None,
            top_logprobs: None,
            ignore_end: false,
        };
        vec![Asked::Text {
            request: Box::new(request),
            stop: StopStrings::new(Vec::new()).expect("none"),
            prompt_logprobs: None,
        }]
    }

    fn asking() -> Asking {
        Asking { only: None, ..Asking::here(None) }
    }

    fn link(pays: bool) -> Option<Link> {
        Some(Link { up: true, model: None, drafting: Some(Drafting { round_trip_ms: 50.0, pays }) })
    }

    /// The same model and no bound on its share; a server at a URL does not say what it has.
    #[test]
    fn what_was_begun_here_goes_on_above_only_where_it_may() {
        let with = |budget| Routing::new(None, None, budget, Prices::default()).beside([1; 32]);
        let above = |model, up| Some(Link { up, model: Some([model; 32]), drafting: None });
        let routed = Routed::new(with(None), None, None);
        let may = [above(1, true), above(2, true), above(1, false), None].map(|link| routed.goes_on_above(link));
        assert_eq!(may, [true, false, false, false]);
        let bounded = Routed::new(with(Budget::new(0.0, 10).ok()), None, None);
        assert!(!bounded.goes_on_above(above(1, true)));
    }

    #[test]
    fn what_drafts_cost_and_gain_is_how_the_machine_above_is_asked() {
        let placed = |drafted, pays| {
            let prices = Prices { drafted, ..Prices::default() };
            let mut routed = Routed::new(Routing::new(None, None, None, prices), None, None);
            match routed.first(&asking(), &request(1.0), link(pays), 0.0) {
                Placing::Decided(Placed::Upstream(why, way)) => {
                    (why.rsplit_once("; ").map(|(_, how)| how.to_owned()).unwrap_or_default(), way)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(placed(1.0, true), ("drafted here, verified there".into(), Way::Fastest));
        assert_eq!(placed(1.0, false), ("drafts gain nothing at a round trip of 50 ms".into(), Way::Fastest));
        assert_eq!(placed(0.5, false), ("drafted here, verified there".into(), Way::Drafted));
        assert_eq!(placed(1.5, true), ("drafts cost more".into(), Way::Alone));
    }

    #[test]
    fn a_server_above_that_verifies_is_asked_for_whole_answers_where_drafts_cost_more() {
        let upstream = |prices| {
            let silence = std::time::Duration::from_secs(1);
            let upstream = Upstream::new("http://127.0.0.1:9/v1", None, None, false, silence).expect("a URL");
            upstream.set_up(true);
            upstream.set_drafts(Drafts::On { chats: Ok(()) });
            Routed::new(Routing::new(None, None, None, prices), Some(Arc::new(upstream)), None)
        };
        let mut dear = upstream(Prices { drafted: 1.5, ..Prices::default() });
        let why = "no calibration: the edge promises nothing".to_owned();
        let away = Placing::Decided(Placed::Away(format!("{why}; drafts cost more")));
        assert_eq!(dear.first(&asking(), &request(0.0), link(true), 0.0), away);
        let mut equal = upstream(Prices::default());
        let drafted = Placed::Upstream(format!("{why}; drafted here, verified there"), Way::Fastest);
        assert_eq!(equal.first(&asking(), &request(0.0), link(false), 0.0), Placing::Decided(drafted));
        // Answers that have more than one text are not drafted for it.
        assert_eq!(equal.first(&asking(), &request(1.0), link(true), 0.0), Placing::Decided(Placed::Away(why)));
    }

    #[test]
    fn the_wait_here_decides_before_a_try() {
        let new = || Routing::new(Some(router()), None, None, Prices::default()).waiting_at_most(1_000.0);
        let mut routed = Routed::new(new(), None, None);
        assert_eq!(routed.first(&asking(), &request(0.0), link(true), 900.0), Placing::Try(When::Before));
        let said = "the edge would begin with it in about 1.6 s; drafted here, verified there".into();
        let away = Placing::Decided(Placed::Upstream(said, Way::Fastest));
        assert_eq!(routed.first(&asking(), &request(0.0), link(true), 1_600.0), away);
    }

    /// After so many scores, at the end, and for nobody else to read.
    #[test]
    fn a_watch_is_written_down_before_it_has_looked() {
        let path = std::env::temp_dir().join(format!("littoral-watch-{}.watch.json", std::process::id()));
        let _ = fs::remove_file(&path);
        let left = path.with_extension("new");
        fs::write(&left, "left behind").expect("a file");
        let router = router();
        let new = |watch| {
            let routing = Routing::new(Some(router.clone()), watch, None, Prices::default());
            Routed::new(routing, None, Some(path.clone()))
        };
        let read = || {
            let watch: Watch = serde_json::from_slice(&fs::read(&path).expect("a watch")).expect("JSON");
            assert_eq!(watch.check(router.calibration.as_ref().expect("one")), Ok(()));
            watch
        };
        let saw = |routed: &mut Routed, scores: usize| {
            for _ in 0..scores {
                let seen = Seen { prompt: "Hm?", answer: "", tokens: &[] };
                routed.routing.scored(&seen, &Rule::Free, routed.link(link(true), false));
                routed.keep();
            }
        };
        let mut routed = new(None);
        saw(&mut routed, SCORES_UNWRITTEN - 1);
        assert!(!path.exists());
        saw(&mut routed, 2);
        assert_eq!(read().seen(), SCORES_UNWRITTEN);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(!left.exists());
        routed.keep_all();
        assert_eq!(read().seen(), SCORES_UNWRITTEN + 1);
        // The next server goes on from there.
        let mut again = new(Some(read()));
        saw(&mut again, 3);
        again.keep_all();
        assert_eq!(read().seen(), SCORES_UNWRITTEN + 4);
        fs::remove_file(&path).expect("its end");
    }
}
