//! What a server keeps to decide one request after another: its router, the router's watch, and a budget.
//!
//! A request is looked at once or twice. [`Routing::first`] knows what came: the rule and the link. Where a score would change
//! the decision, the small model begins: [`Routing::scored`] decides once it has seen enough of it.

use super::budget::Budget;
use super::decide::{Case, Decision, Link, Load, Place, Prices, Promise, Reason, decide};
use super::drift::{Watch, Watching, drawn_for_audit};
use super::features::{Seen, When};
use super::rule::Rule;
use super::saved::Router;
use crate::sample::Noise;

/// What a request is, before anything is computed for it.
#[derive(Clone, Debug)]
pub struct Coming {
    pub rule: Rule,
    /// Something about it that the large model cannot be asked.
    pub unaskable: Option<&'static str>,
    /// The small model's answer to it can be scored: there is one answer, of text.
    pub scorable: bool,
}

/// What becomes of a request that has come.
#[derive(Clone, Debug, PartialEq)]
pub enum First {
    Decided(Decision),
    /// The small model begins, and is heard until then; nothing of it is given out before.
    Try(When),
}

#[derive(Clone, Copy, Debug, Default)]
struct Audits {
    seed: u64,
    share: f64,
    /// Scored so far.
    requests: u64,
}

/// Large ones are asked as long as nothing says otherwise: without a router every request that may leave does.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    router: Option<(Router, Option<Watch>)>,
    /// BLAKE3 of the large model's file that the router is of; `None`: that is not looked at.
    large: Option<[u8; 32]>,
    /// BLAKE3 of the file of the model here; `None`: that is not looked at.
    own: Option<[u8; 32]>,
    budget: Option<Budget>,
    prices: Prices,
    /// What the edge may keep waits for it so long at most.
    wait_max_ms: Option<f64>,
    audits: Audits,
    /// Requests that have no score, so far.
    unscored: u64,
}

impl Routing {
    /// `watch`: as it was kept; a new one, if there is none or it is another calibration's.
    pub fn new(router: Option<Router>, watch: Option<Watch>, budget: Option<Budget>, prices: Prices) -> Self {
        let watched = |router: Router| {
            let kept = |calibration| {
                let new = Watch::new(calibration, Watching::default());
                watch.filter(|watch| watch.is_of(calibration)).unwrap_or(new)
            };
            let watch = router.calibration.as_ref().map(kept);
            (router, watch)
        };
        Self { router: router.map(watched), budget, prices, ..Self::default() }
    }

    /// What would wait longer for a place here goes to the large model, if it may: it is tried no more than it is answered.
    pub fn waiting_at_most(self, wait_max_ms: f64) -> Self {
        Self { wait_max_ms: Some(wait_max_ms), ..self }
    }

    /// The router's promise is of this large model only (BLAKE3 of its file), where the machine above says what it has.
    pub fn of_model(self, large: [u8; 32]) -> Self {
        Self { large: Some(large), ..self }
    }

    /// The model here (BLAKE3 of its file): a machine above that has the same one is asked only where that saves time or money.
    pub fn beside(self, own: [u8; 32]) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Is the model above the one here?
    pub fn is_same(&self, link: Link) -> bool {
        self.own.is_some() && link.model == self.own
    }

    /// So many of the answers that are kept for their score, 0 to 1, are asked of the large model too.
    pub fn auditing(self, seed: u64, share: f64) -> Self {
        Self { audits: Audits { seed, share, requests: 0 }, ..self }
    }

    /// An audit came to its end: was the small model's answer the worse one?
    pub fn audited(&mut self, worse: bool) {
        if let Some((_, Some(watch))) = &mut self.router {
            watch.audited(worse);
        }
    }

    /// To be kept over a restart.
    pub fn watch(&self) -> Option<&Watch> {
        self.router.as_ref()?.1.as_ref()
    }

    /// Is the large model's share bounded?
    pub fn has_budget(&self) -> bool {
        self.budget.is_some()
    }

    /// `wait_ms`: until the small model would begin with it.
    pub fn first(&mut self, coming: &Coming, link: Link, wait_ms: f64) -> First {
        let local = coming.rule != Rule::Free;
        if let Some(what) = coming.unaskable.filter(|_| !local && link.up) {
            let reason = Reason::Unaskable(what);
            let place = Place::Edge;
            let (drafts, cascade, promised, audit) = (None, false, false, false);
            return First::Decided(Decision { place, drafts, cascade, promised, audit, reason });
        }
        let load = Load { wait_ms, wait_max_ms: self.wait_max_ms };
        let case = Case { load, ..self.case(coming.rule.clone(), link, None) };
        let useful = matches!(case.promise, Promise::InForce { .. }) || self.budget.is_some();
        if local || !link.up || !coming.scorable || !useful || case.same {
            // Without a score nothing is waited for. What cannot have one counts as the least sure, so that nobody gets around
            // a budget.
            let counted = !local && link.up && !coming.scorable;
            let score = if counted { self.least() } else { None };
            return First::Decided(decide(&Case { when: When::Before, score, ..case }));
        }
        // What goes whatever its score is not tried.
        let score = self.behind_all();
        let decision = decide(&Case { when: When::Before, score, ..case.clone() });
        match decision.reason {
            Reason::CheaperAway if self.budget.is_none() => First::Decided(decision),
            Reason::Busy { .. } => {
                self.least();
                First::Decided(decision)
            }
            _ => First::Try(case.when),
        }
    }

    /// The small model was heard: its first token, or all of its answer.
    pub fn scored(&mut self, seen: &Seen, rule: &Rule, link: Link) -> Decision {
        let score = self.router.as_ref().map(|(router, _)| router.score(seen));
        self.audits.requests += 1;
        let Audits { seed, share, requests } = self.audits;
        let audit = drawn_for_audit(seed, requests, share);
        let decision = decide(&Case { audit, ..self.case(rule.clone(), link, score) });
        // After the decision, so that nothing decides about itself.
        if let Some(score) = score {
            if let Some((_, Some(watch))) = &mut self.router {
                watch.saw(score);
            }
            if let Some(budget) = &mut self.budget {
                budget.saw(score);
            }
        }
        decision
    }

    /// The small model could not answer.
    pub fn unscored(&mut self, rule: &Rule, link: Link) -> Decision {
        let case = Case { when: When::Before, ..self.case(rule.clone(), link, None) };
        let score = if link.up { self.least() } else { None };
        decide(&Case { score, ..case })
    }

    /// With a budget, a place behind all scores, and by chance among others without one: else many of those would stand in each
    /// other's way, and in that of all.
    fn least(&mut self) -> Option<f64> {
        let score = self.behind_all()?;
        self.unscored += 1;
        self.budget.as_mut()?.saw(score);
        Some(score)
    }

    /// The next such place.
    fn behind_all(&self) -> Option<f64> {
        self.budget.as_ref().map(|_| -Noise::new(self.audits.seed, self.unscored + 1).uniform(1))
    }

    fn case(&self, rule: Rule, link: Link, score: Option<f64>) -> Case {
        let other = matches!((link.model, self.large), (Some(there), Some(of)) if there != of);
        let promise = match &self.router {
            Some((Router { calibration: Some(_), .. }, _)) if other => Promise::OtherModel,
            Some((Router { calibration: Some(calibration), .. }, Some(watch))) => Promise::of(calibration, watch),
            _ => Promise::None,
        };
        Case {
            rule,
            when: self.router.as_ref().map_or(When::Before, |(router, _)| router.scorer.when),
            score,
            promise,
            budget: self.budget.as_ref().map(Budget::threshold),
            link,
            same: self.is_same(link),
            prices: self.prices,
            load: Load::default(),
            audit: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::calibrate::{Labelled, calibrate};
    use super::super::decide::{Drafting, Drafts};
    use super::super::features::names;
    use super::super::rule::Why;
    use super::super::score::{Example, Scorer};
    use super::*;
    use crate::speculate::controller::Controller;
    use crate::speculate::costs::Costs;

    const UP: Link = Link { up: true, model: None, drafting: None };
    const COMING: Coming = Coming { rule: Rule::Free, unaskable: None, scorable: true };

    /// Long prompts are hard for it: 800 examples, of which those above 60 characters are worse.
    fn router(when: When) -> Router {
        let width = names(when).len();
        let example = |at: u64| {
            let length = 10.0 + 100.0 * Noise::new(3, at).uniform(0);
            let mut features = vec![0.0; width];
            features[0] = length.ln_1p();
            Example { features, worse: length > 60.0 }
        };
        let examples: Vec<Example> = (0..800).map(example).collect();
        let scorer = Scorer::fit(when, &examples).expect("a fit");
        let labelled: Vec<Labelled> =
            examples.iter().map(|e| Labelled { score: scorer.score(&e.features), worse: e.worse }).collect();
        let calibration = calibrate(&labelled, &[0.9, 0.8, 0.7], 0.1, 0.1).ok();
        assert!(calibration.is_some());
        Router { scorer, calibration, nothing: None }
    }

    fn place(first: First) -> (Place, String) {
        match first {
            First::Decided(decision) => (decision.place, decision.reason.to_string()),
            First::Try(when) => panic!("tried {when:?}"),
        }
    }

    #[test]
    fn without_a_router_all_that_may_leave_does() {
        let mut routing = Routing::default();
        assert_eq!(place(routing.first(&COMING, UP, 0.0)).0, Place::Cloud);
        let local = Coming { rule: Rule::LocalOnly(Why::Marked), ..COMING };
        assert_eq!(
            place(routing.first(&local, UP, 0.0)),
            (Place::Edge, "local-only: the request is marked local-only".into())
        );
        let down = Link { up: false, ..UP };
        assert_eq!(place(routing.first(&COMING, down, 0.0)).0, Place::Edge);
        let formed = Coming { unaskable: Some("a form of the answer"), ..COMING };
        let said = "the large model cannot be asked for a form of the answer: the edge answers";
        assert_eq!(place(routing.first(&formed, UP, 0.0)), (Place::Edge, said.into()));
    }

    #[test]
    fn the_model_here_is_as_good_as_the_same_one_above() {
        let link = |model| Link { model, ..UP };
        for routing in [Routing::default(), Routing::new(Some(router(When::After)), None, None, Prices::default())] {
            let mut routing = routing.beside([1; 32]).waiting_at_most(2_000.0);
            let said = "the machine above has the same model: the edge answers";
            assert_eq!(place(routing.first(&COMING, link(Some([1; 32])), 0.0)), (Place::Edge, said.into()));
            assert_eq!(place(routing.first(&COMING, link(Some([1; 32])), 2_001.0)).0, Place::Cloud);
        }
        let mut routing = Routing::default().beside([1; 32]).waiting_at_most(2_000.0);
        assert_eq!(
            [None, Some([2; 32])].map(|model| place(routing.first(&COMING, link(model), 0.0)).0),
            [Place::Cloud; 2]
        );
    }

    #[test]
    fn a_score_is_asked_for_where_it_decides() {
        for when in [When::Before, When::After] {
            let mut routing = Routing::new(Some(router(when)), None, None, Prices::default());
            assert_eq!(routing.first(&COMING, UP, 0.0), First::Try(when));
            let several = Coming { scorable: false, ..COMING };
            assert_eq!(place(routing.first(&several, UP, 0.0)), (Place::Cloud, "the edge has no score for it".into()));
            let (short, long) = ("x".repeat(20), "x".repeat(100));
            let seen = |prompt| Seen { prompt, answer: "", tokens: &[] };
            let kept = routing.scored(&seen(&short), &Rule::Free, UP);
            assert!(kept.place == Place::Edge && kept.promised, "{kept:?}");
            assert_eq!(routing.scored(&seen(&long), &Rule::Free, UP).place, Place::Cloud);
        }
    }

    /// Traffic of long prompts only: the promise goes, and with it the use of a score; another calibration begins anew.
    #[test]
    fn a_withdrawn_promise_is_kept_over_a_restart() {
        let router = router(When::Before);
        let mut routing = Routing::new(Some(router.clone()), None, None, Prices::default());
        let long = "x".repeat(100);
        for _ in 0..400 {
            routing.scored(&Seen { prompt: &long, answer: "", tokens: &[] }, &Rule::Free, UP);
        }
        let (place_, why) = place(routing.first(&COMING, UP, 0.0));
        assert!(place_ == Place::Cloud && why.starts_with("the calibration is withdrawn"), "{why}");
        let watch = routing.watch().cloned();
        let again = Routing::new(Some(router.clone()), watch.clone(), None, Prices::default());
        assert!(again.watch().is_some_and(|watch| watch.withdrawn().is_some()));
        let mut other = router;
        other.calibration.as_mut().expect("one").scores[0] = 0.0;
        let anew = Routing::new(Some(other), watch, None, Prices::default());
        assert!(anew.watch().is_some_and(|watch| watch.withdrawn().is_none()));
    }

    /// Another large model than the one that was compared: nothing is promised, whatever the score.
    #[test]
    fn a_promise_is_of_one_large_model() {
        let mut routing = Routing::new(Some(router(When::Before)), None, None, Prices::default()).of_model([1; 32]);
        let (other, same) = (Link { model: Some([2; 32]), ..UP }, Link { model: Some([1; 32]), ..UP });
        let said = "the calibration is of another large model: the edge promises nothing";
        assert_eq!(place(routing.first(&COMING, other, 0.0)), (Place::Cloud, said.into()));
        assert_eq!(routing.first(&COMING, same, 0.0), First::Try(When::Before));
    }

    /// A quarter of what is kept is asked of both; too many worse ones take the promise back.
    #[test]
    fn audits_are_drawn_among_kept_requests() {
        let mut routing = Routing::new(Some(router(When::Before)), None, None, Prices::default()).auditing(5, 0.25);
        let (short, long) = ("x".repeat(20), "x".repeat(100));
        let mut scored = |prompt: &str| routing.scored(&Seen { prompt, answer: "", tokens: &[] }, &Rule::Free, UP);
        assert!((0..150).all(|_| !scored(&long).audit));
        let drawn = (0..40).filter(|_| scored(&short).audit).count();
        // 10, and three standard deviations of 2.7.
        assert!((2..=18).contains(&drawn), "{drawn}");
        (0..10).for_each(|_| routing.audited(true));
        let (_, why) = place(routing.first(&COMING, UP, 0.0));
        assert!(why.contains("10 of 10 audited answers were worse"), "{why}");
    }

    /// Who would wait too long is not tried; prices decide before anything is. A budget binds both.
    #[test]
    fn load_and_prices_decide_before_a_try() {
        let new =
            |budget, prices| Routing::new(Some(router(When::After)), None, budget, prices).waiting_at_most(2_000.0);
        let mut routing = new(None, Prices::default());
        assert_eq!(routing.first(&COMING, UP, 2_000.0), First::Try(When::After));
        let away = (Place::Cloud, "the edge would begin with it in about 2.5 s".to_owned());
        assert_eq!(place(routing.first(&COMING, UP, 2_500.0)), away);
        let local = Coming { rule: Rule::LocalOnly(Why::Marked), ..COMING };
        assert_eq!(place(routing.first(&local, UP, 2_500.0)).0, Place::Edge);
        let dear = Prices { edge: 2.0, ..Prices::default() };
        let said = "the cloud costs less than the edge".to_owned();
        assert_eq!(place(new(None, dear).first(&COMING, UP, 0.0)), (Place::Cloud, said.clone()));
        // They go before all of the window; what may not is tried, however long it waits.
        let scores: Vec<f64> = (0..50).map(|at| f64::from(at) / 50.0).collect();
        let budget = || Budget::new(0.2, 50).ok().map(|budget| budget.after(&scores));
        let mut routing = new(budget(), Prices::default());
        let firsts: Vec<First> = (0..40).map(|_| routing.first(&COMING, UP, 2_500.0)).collect();
        let tried = firsts.iter().filter(|first| **first == First::Try(When::After)).count();
        assert!(tried >= 10 && matches!(&firsts[0], First::Decided(d) if d.place == Place::Cloud), "{tried}");
        // Within a budget the least sure ones go, however cheap the cloud is: a score is needed.
        let mut routing = new(budget(), dear);
        assert_eq!(routing.first(&COMING, UP, 0.0), First::Try(When::After));
        let (short, long) = ("x".repeat(20), "x".repeat(100));
        let mut scored = |prompt| routing.scored(&Seen { prompt, answer: "", tokens: &[] }, &Rule::Free, UP);
        assert_eq!(scored(&short).place, Place::Edge);
        let gone = scored(&long);
        assert_eq!((gone.place, gone.reason.to_string()), (Place::Cloud, said));
    }

    /// What a controller has learnt of a link decides whether the small model drafts for the large one.
    #[test]
    fn drafts_are_made_while_the_round_trip_allows() {
        let mut routing = Routing::default();
        let mut over = |round_trip_s, holds: fn(u32) -> bool| {
            let mut learnt = Controller::new(Costs { round_trip_s, ..Costs::GUESS });
            for token in 0..200 {
                learnt.hear_token(Some(holds(token)));
                learnt.decide();
            }
            let drafting = Some(Drafting::of(&learnt));
            match routing.first(&COMING, Link { drafting, ..UP }, 0.0) {
                First::Decided(decision) => (decision.place, decision.drafts),
                First::Try(when) => panic!("tried {when:?}"),
            }
        };
        let drafted = (Place::EdgeDraftsCloudVerifies, Some(Drafts::Faster));
        assert_eq!(over(0.02, |token| token % 10 != 0), drafted);
        assert_eq!(over(0.2, |token| token % 10 != 0), drafted);
        let alone = over(0.2, |token| token % 10 == 0);
        assert_eq!(alone, (Place::Cloud, Some(Drafts::Slower { round_trip_ms: 200.0 })));
    }

    /// A third of the traffic may leave: after a window as many do, the least sure ones.
    #[test]
    fn a_budget_keeps_the_surest() {
        let mut router = router(When::Before);
        router.calibration = None;
        let budget = Budget::new(0.33, 100).expect("a budget");
        let mut routing = Routing::new(Some(router), None, Some(budget), Prices::default());
        assert_eq!(routing.first(&COMING, UP, 0.0), First::Try(When::Before));
        let mut away = 0;
        for at in 0..400u64 {
            let prompt = "x".repeat(10 + (Noise::new(9, at).uniform(0) * 100.0) as usize);
            let decision = routing.scored(&Seen { prompt: &prompt, answer: "", tokens: &[] }, &Rule::Free, UP);
            away += u64::from(at >= 100 && decision.place == Place::Cloud);
        }
        // 99 of 300, and three standard deviations of 8.
        assert!((75..=123).contains(&away), "{away}");
        // Requests for several answers have no score. They count, so that they are no way around it.
        let several = Coming { scorable: false, ..COMING };
        let mut gone = 0;
        for at in 0..400 {
            gone += u64::from(at >= 100 && place(routing.first(&several, UP, 0.0)).0 == Place::Cloud);
        }
        // As many of them as of any: 99, and three standard deviations of 16, those of a threshold from 100 scores included.
        assert!((51..=147).contains(&gone), "{gone}");
        let mut none = Routing::new(None, None, Budget::new(0.0, 100).ok(), Prices::default());
        assert_eq!(place(none.first(&several, UP, 0.0)).0, Place::Edge);
    }
}
