//! Where a request is answered: a function of plain values, with the reason in words.
//!
//! The order is the order of what outranks what:
//!
//! 1. the **rule**: local-only stays here, whatever the rest says;
//! 2. the **link**: without one the small model answers;
//! 3. the **budget** binds whatever a price or the load says: what the large model may not be asked stays;
//! 4. where the large model is **the one here**, it is asked only if that costs less, or sooner begins;
//! 5. the **risk**: what the calibration keeps may stay, if it need not wait too long for that and is not dearer than the
//!    large model's; what stays for the budget alone has no promise;
//! 6. all else goes to the large model; with the small one's drafts where those are cheaper, or as cheap and faster
//!    ([`Drafting`]). Drafts change no token, so quality is no question there.
//!
//! A **cascade** needs the whole answer for its score. So it is decided twice: first without a score, which says "answer here
//! and ask again", then with it.

use super::calibrate::Calibration;
use super::drift::{Watch, Withdrawn};
use super::features::When;
use super::rule::{Rule, Why};
use crate::speculate::controller::Controller;
use crate::speculate::drafter::Mode;
use std::fmt;

/// What the calibration allows now.
#[derive(Clone, Debug, PartialEq)]
pub enum Promise {
    /// Requests of this score or a greater one are kept.
    InForce {
        threshold: f64,
        alpha: f64,
        delta: f64,
    },
    /// There is no calibration.
    None,
    /// There is one, of another large model than the one that is asked.
    OtherModel,
    Withdrawn(Withdrawn),
}

impl Promise {
    pub fn of(calibration: &Calibration, watch: &Watch) -> Self {
        match watch.withdrawn() {
            Some(why) => Self::Withdrawn(why.clone()),
            None => {
                let Calibration { threshold, alpha, delta, .. } = *calibration;
                Self::InForce { threshold, alpha, delta }
            }
        }
    }
}

/// The way to the large model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    pub up: bool,
    /// BLAKE3 of the large model's file, where that is told.
    pub model: Option<[u8; 32]>,
    /// `None`: the small model cannot draft this answer.
    pub drafting: Option<Drafting>,
}

/// What drafts over a link are worth, as whoever drafts has measured it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drafting {
    pub round_trip_ms: f64,
    /// By what is known of acceptance and times, some way of drafting is as fast as the large model's own stream, or faster.
    pub pays: bool,
}

impl Drafting {
    /// A controller's own choice for the next answer. With the costs as they are that is to ask whether the round trip is below
    /// the one at which its best way of drafting breaks even with a stream.
    pub fn of(learnt: &Controller) -> Self {
        Self { round_trip_ms: learnt.costs().round_trip_s * 1e3, pays: learnt.next_answer().mode() != Mode::Stream }
    }
}

/// How the large model is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drafts {
    /// The small model drafts, since a drafted answer costs less.
    Cheaper,
    /// It drafts, and whoever drafts goes on measuring.
    Faster,
    /// Drafts cost the same and gain nothing, as far as is known.
    Slower {
        round_trip_ms: f64,
    },
    /// A drafted answer costs more.
    Dearer,
    Impossible,
}

impl Drafts {
    fn of(case: &Case) -> Self {
        let Prices { drafted, cloud, .. } = case.prices;
        match case.link.drafting {
            None => Self::Impossible,
            Some(_) if drafted < cloud => Self::Cheaper,
            Some(_) if drafted > cloud => Self::Dearer,
            Some(Drafting { pays: true, .. }) => Self::Faster,
            Some(Drafting { round_trip_ms, .. }) => Self::Slower { round_trip_ms },
        }
    }

    fn place(self) -> Place {
        match self {
            Self::Cheaper | Self::Faster => Place::EdgeDraftsCloudVerifies,
            Self::Slower { .. } | Self::Dearer | Self::Impossible => Place::Cloud,
        }
    }
}

impl fmt::Display for Drafts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cheaper | Self::Faster => write!(f, "drafted here, verified there"),
            Self::Slower { round_trip_ms } => write!(f, "drafts gain nothing at a round trip of {round_trip_ms:.0} ms"),
            Self::Dearer => write!(f, "drafts cost more"),
            Self::Impossible => write!(f, "not drafted"),
        }
    }
}

/// What a token of an answer costs, by who writes it and in any one unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    pub edge: f64,
    pub drafted: f64,
    pub cloud: f64,
}

impl Default for Prices {
    /// What is computed here is free.
    fn default() -> Self {
        Self { edge: 0.0, drafted: 1.0, cloud: 1.0 }
    }
}

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct Case {
    pub rule: Rule,
    /// When this router has its score.
    pub when: When,
    /// The small model's score, 0 to 1; `None` while it has none.
    pub score: Option<f64>,
    pub promise: Promise,
    /// Below it the large model may be asked; `None`: without limit ([`Budget::threshold`](super::budget::Budget)).
    pub budget: Option<f64>,
    pub link: Link,
    /// The machine above has the model that is here: its answer is no better.
    pub same: bool,
    pub prices: Prices,
    pub load: Load,
    /// The request was drawn for an audit ([`drawn_for_audit`](super::drift::drawn_for_audit)).
    pub audit: bool,
}

/// How busy the edge is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Until it begins with a request that comes now; 0 for one that it has begun, infinite while some layers have no machine.
    pub wait_ms: f64,
    /// A request that it may keep, but that would wait longer, goes to the large model; `None`: it waits.
    pub wait_max_ms: Option<f64>,
}

impl Load {
    fn is_too_much(&self) -> bool {
        self.wait_max_ms.is_some_and(|most_ms| self.wait_ms > most_ms)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The small model, here.
    Edge,
    /// The large model's text, drafted here.
    EdgeDraftsCloudVerifies,
    Cloud,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub place: Place,
    /// `None`: the large model is not asked.
    pub drafts: Option<Drafts>,
    /// The small model answers, and its answer has yet to be scored: decide again with the score before it is given out.
    pub cascade: bool,
    /// The calibration's promise covers this answer.
    pub promised: bool,
    /// Ask the large model too, and tell the watch which was better.
    pub audit: bool,
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    LocalOnly(Why),
    CloudDown,
    /// The large model is the one here.
    SameModel,
    NotScoredYet,
    Kept {
        score: f64,
        threshold: f64,
        alpha: f64,
        delta: f64,
    },
    /// Asking the large model costs less than answering.
    CheaperAway,
    /// Whatever its score, it would wait too long here.
    Busy {
        wait_ms: f64,
    },
    BudgetSpent {
        score: f64,
        threshold: f64,
    },
    Unsure {
        score: f64,
        threshold: f64,
    },
    NoScore,
    NoPromise,
    OtherModel,
    /// There is something in it that the large model cannot be asked.
    Unaskable(&'static str),
    Withdrawn(Withdrawn),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LocalOnly(why) => write!(f, "local-only: {why}"),
            Self::CloudDown => write!(f, "the cloud cannot be reached: the edge answers"),
            Self::SameModel => write!(f, "the machine above has the same model: the edge answers"),
            Self::NotScoredYet => write!(f, "the edge answers first; its answer is scored before it is given out"),
            Self::Kept { score, threshold, alpha, delta } => write!(
                f,
                "score {score:.3}, at least {threshold:.3}: the edge's answers are worse in at most {} % of such requests, with \
                 {} % confidence",
                percent(*alpha),
                percent(1.0 - delta)
            ),
            Self::CheaperAway => write!(f, "the cloud costs less than the edge"),
            Self::Busy { wait_ms } if wait_ms.is_infinite() => {
                write!(f, "some layers of the edge's model have no machine")
            }
            Self::Busy { wait_ms } => write!(f, "the edge would begin with it in about {:.1} s", wait_ms / 1e3),
            Self::BudgetSpent { score, threshold } => {
                write!(
                    f,
                    "score {score:.3}, at least {threshold:.3}: the cloud's budget is for less sure ones; nothing is promised"
                )
            }
            Self::Unsure { score, threshold } => write!(f, "score {score:.3}, below {threshold:.3}"),
            Self::NoScore => write!(f, "the edge has no score for it"),
            Self::Unaskable(what) => write!(f, "the large model cannot be asked for {what}: the edge answers"),
            Self::NoPromise => write!(f, "no calibration: the edge promises nothing"),
            Self::OtherModel => write!(f, "the calibration is of another large model: the edge promises nothing"),
            Self::Withdrawn(why) => write!(f, "the calibration is withdrawn: {why}"),
        }
    }
}

fn percent(part: f64) -> f64 {
    (part * 1e4).round() / 100.0
}

pub fn decide(case: &Case) -> Decision {
    let edge =
        |reason| Decision { place: Place::Edge, drafts: None, cascade: false, promised: false, audit: false, reason };
    if let Rule::LocalOnly(why) = &case.rule {
        return edge(Reason::LocalOnly(why.clone()));
    }
    if !case.link.up {
        return edge(Reason::CloudDown);
    }
    let drafts = Drafts::of(case);
    let away = |reason| Decision { place: drafts.place(), drafts: Some(drafts), ..edge(reason) };
    let score = case.score.filter(|score| !score.is_nan());
    let useful = matches!(case.promise, Promise::InForce { .. }) || case.budget.is_some();
    let spent = case.budget.zip(score).filter(|(threshold, score)| score >= threshold);
    // Within a budget only who has a score: it says who goes first.
    let may_go = case.budget.is_none() || (score.is_some() && spent.is_none());
    if may_go && (useful || case.same) && case.load.is_too_much() {
        return away(Reason::Busy { wait_ms: case.load.wait_ms });
    }
    let Prices { edge: here, drafted, cloud } = case.prices;
    let there = if drafts.place() == Place::Cloud { cloud } else { drafted };
    if may_go && there < here {
        return away(Reason::CheaperAway);
    }
    if case.same {
        return edge(Reason::SameModel);
    }
    if useful && case.when == When::After && case.score.is_none() {
        return Decision { cascade: true, ..edge(Reason::NotScoredYet) };
    }
    if let (Promise::InForce { threshold, alpha, delta }, Some(score)) = (&case.promise, score)
        && score >= *threshold
    {
        let kept = Reason::Kept { score, threshold: *threshold, alpha: *alpha, delta: *delta };
        return Decision { promised: true, audit: case.audit && case.budget != Some(f64::NEG_INFINITY), ..edge(kept) };
    }
    if let Some((threshold, score)) = spent {
        return edge(Reason::BudgetSpent { score, threshold });
    }
    away(match (&case.promise, score) {
        (Promise::None, _) => Reason::NoPromise,
        (Promise::OtherModel, _) => Reason::OtherModel,
        (Promise::Withdrawn(why), _) => Reason::Withdrawn(why.clone()),
        (Promise::InForce { .. }, None) => Reason::NoScore,
        (Promise::InForce { threshold, .. }, Some(score)) => Reason::Unsure { score, threshold: *threshold },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINK: Link = Link { up: true, model: None, drafting: Some(Drafting { round_trip_ms: 20.0, pays: true }) };

    fn case(score: f64) -> Case {
        Case {
            rule: Rule::Free,
            when: When::Before,
            score: Some(score),
            promise: Promise::InForce { threshold: 0.7, alpha: 0.1, delta: 0.1 },
            budget: None,
            link: LINK,
            same: false,
            prices: Prices::default(),
            load: Load::default(),
            audit: true,
        }
    }

    fn said(case: &Case) -> (Place, String) {
        let decision = decide(case);
        (decision.place, decision.reason.to_string())
    }

    #[test]
    fn cases_one_by_one() {
        let kept = "score 0.700, at least 0.700: the edge's answers are worse in at most 10 % of such requests, with 90 % \
                    confidence";
        assert_eq!(said(&case(0.7)), (Place::Edge, kept.into()));
        let unsure = |place| (place, "score 0.699, below 0.700".to_owned());
        assert_eq!(said(&case(0.699)), unsure(Place::EdgeDraftsCloudVerifies));
        let drafts = |case: &Case| decide(case).drafts;
        let far = Link { drafting: Some(Drafting { round_trip_ms: 40.0, pays: false }), ..LINK };
        let far = Case { link: far, ..case(0.699) };
        assert_eq!(said(&far), unsure(Place::Cloud));
        assert_eq!(drafts(&far), Some(Drafts::Slower { round_trip_ms: 40.0 }));
        let thrifty = Case { prices: Prices { drafted: 0.5, ..Prices::default() }, ..far };
        assert_eq!(said(&thrifty), unsure(Place::EdgeDraftsCloudVerifies));
        assert_eq!(drafts(&thrifty), Some(Drafts::Cheaper));
        let dear = Case { prices: Prices { drafted: 1.5, ..Prices::default() }, ..case(0.699) };
        assert_eq!((said(&dear), drafts(&dear)), (unsure(Place::Cloud), Some(Drafts::Dearer)));
        assert_eq!(said(&Case { link: Link { drafting: None, ..LINK }, ..case(0.699) }), unsure(Place::Cloud));
        assert_eq!(drafts(&case(0.7)), None);
        let spent = said(&Case { budget: Some(0.4), ..case(0.5) });
        assert_eq!(spent.0, Place::Edge);
        assert!(spent.1.ends_with("nothing is promised"), "{}", spent.1);
        let battery = Case { prices: Prices { edge: 2.0, drafted: 3.0, cloud: 1.0 }, ..case(0.9) };
        assert_eq!(said(&battery), (Place::Cloud, "the cloud costs less than the edge".into()));
        let spent = decide(&Case { budget: Some(0.9), ..battery.clone() });
        assert_eq!((spent.place, spent.promised), (Place::Edge, true));
        // Drafted it costs more than here, alone less: but it is the drafted one that would be asked for.
        let other = Case { prices: Prices { edge: 2.0, drafted: 1.0, cloud: 3.0 }, ..battery };
        assert_eq!(said(&other).0, Place::EdgeDraftsCloudVerifies);
        assert_eq!(said(&Case { link: Link { drafting: None, ..LINK }, ..other }).0, Place::Edge);
        let none = "no calibration: the edge promises nothing".to_owned();
        let case = Case { promise: Promise::None, link: Link { drafting: None, ..LINK }, ..case(0.9) };
        assert_eq!(said(&case), (Place::Cloud, none));
    }

    #[test]
    fn who_would_wait_too_long_goes_if_it_may() {
        let busy = Load { wait_ms: 12_300.0, wait_max_ms: Some(5_000.0) };
        let waits = Case { load: busy, ..case(0.9) };
        let away = (Place::EdgeDraftsCloudVerifies, "the edge would begin with it in about 12.3 s".to_owned());
        assert_eq!(said(&waits), away);
        // Before it is known how sure the edge is, too.
        assert_eq!(said(&Case { when: When::After, score: None, ..waits.clone() }), away);
        for load in [Load { wait_ms: 5_000.0, ..busy }, Load { wait_max_ms: None, ..busy }] {
            assert_eq!(said(&Case { load, ..waits.clone() }).0, Place::Edge);
        }
        // Not against a rule, a link that is down, or a budget.
        let rule = Rule::LocalOnly(Why::Marked);
        let down = Link { up: false, ..LINK };
        for case in [
            Case { rule, ..waits.clone() },
            Case { link: down, ..waits.clone() },
            Case { budget: Some(0.9), ..waits.clone() },
        ] {
            assert_eq!(said(&case).0, Place::Edge);
        }
        assert_eq!(said(&Case { budget: Some(0.95), ..waits }), away);
    }

    /// Its answer would be no better. It helps out where this machine is busy, or lacks a part of its model, and where it is cheaper.
    #[test]
    fn the_same_model_above_is_asked_where_that_saves_time_or_money() {
        let none = Case { same: true, promise: Promise::None, score: None, ..case(0.0) };
        let stays = (Place::Edge, "the machine above has the same model: the edge answers".to_owned());
        assert_eq!([said(&none), said(&Case { same: true, ..case(0.1) })], [stays.clone(), stays.clone()]);
        let away = |why: &str| (Place::EdgeDraftsCloudVerifies, why.to_owned());
        let waits = |wait_ms| Case { load: Load { wait_ms, wait_max_ms: Some(5_000.0) }, ..none.clone() };
        assert_eq!(said(&waits(5_000.0)), stays);
        assert_eq!(said(&waits(12_300.0)), away("the edge would begin with it in about 12.3 s"));
        assert_eq!(said(&waits(f64::INFINITY)), away("some layers of the edge's model have no machine"));
        let battery = Prices { edge: 2.0, ..Prices::default() };
        assert_eq!(said(&Case { prices: battery, ..none }), away("the cloud costs less than the edge"));
    }

    #[test]
    fn a_cascade_is_decided_twice() {
        let first = Case { when: When::After, score: None, ..case(0.0) };
        let decision = decide(&first);
        assert_eq!((decision.place, decision.cascade, decision.promised), (Place::Edge, true, false));
        let decision = decide(&Case { score: Some(0.9), ..first.clone() });
        assert_eq!((decision.place, decision.cascade, decision.promised), (Place::Edge, false, true));
        let decision = decide(&Case { score: Some(0.1), ..first.clone() });
        assert_eq!((decision.place, decision.cascade), (Place::EdgeDraftsCloudVerifies, false));
        // Without any use for a score the answer is not waited for.
        let decision = decide(&Case { promise: Promise::None, ..first });
        assert_eq!((decision.place, decision.cascade), (Place::EdgeDraftsCloudVerifies, false));
    }

    fn any() -> BoxedStrategy<f64> {
        prop_oneof![3 => 0f64..=1.0, 1 => proptest::num::f64::ANY].boxed()
    }

    /// Patterns are somebody's text: line breaks, and what a terminal would obey.
    fn rules() -> BoxedStrategy<Rule> {
        let pattern = "[a*? \t\r\n\u{1b}\u{85}\u{2028}\u{202e}]{0,8}";
        let why = prop_oneof![
            Just(Why::Marked),
            pattern.prop_map(|pattern| Why::Key { pattern }),
            pattern.prop_map(|pattern| Why::Text { pattern }),
        ];
        prop_oneof![Just(Rule::Free), why.prop_map(Rule::LocalOnly)].boxed()
    }

    prop_compose! {
        fn cases()(
            rule in rules(), up in proptest::bool::ANY, same in proptest::bool::ANY, after in proptest::bool::ANY, audit in proptest::bool::ANY,
            score in proptest::option::of(any()), budget in proptest::option::of(any()), promise in 0..3, threshold in any(),
            times in proptest::array::uniform3(any()), prices in proptest::array::uniform3(any()),
            drafts in proptest::option::of(proptest::bool::ANY), patient in proptest::bool::ANY,
        ) -> Case {
            let [round_trip_ms, wait_ms, wait_max_ms] = times;
            let scores = Withdrawn::Scores { distance: 0.5, limit: 0.2, level: 0.01 };
            Case {
                rule,
                when: if after { When::After } else { When::Before },
                score,
                promise: [Promise::InForce { threshold, alpha: 0.1, delta: 0.1 }, Promise::None, Promise::Withdrawn(scores)]
                    [promise as usize].clone(),
                budget,
                link: Link { up, model: None, drafting: drafts.map(|pays| Drafting { round_trip_ms, pays }) },
                same,
                prices: Prices { edge: prices[0], drafted: prices[1], cloud: prices[2] },
                load: Load { wait_ms, wait_max_ms: (!patient).then_some(wait_max_ms) },
                audit,
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn decisions_keep_the_order(case in cases()) {
            let decision = decide(&case);
            let (local, place) = (case.rule != Rule::Free, decision.place);
            // Nothing local-only leaves: not the request, not an audit of it; nor is it kept back for a second decision.
            if local {
                prop_assert!(place == Place::Edge && !decision.audit && !decision.cascade);
                prop_assert!(matches!(decision.reason, Reason::LocalOnly(_)));
            } else if !case.link.up {
                prop_assert!(place == Place::Edge && !decision.audit && !decision.cascade);
                prop_assert_eq!(&decision.reason, &Reason::CloudDown);
            }
            // A promise is made only where there is one, and an audit only of what it covers.
            if decision.promised {
                let covered = matches!(case.promise, Promise::InForce { threshold, .. } if case.score >= Some(threshold));
                prop_assert!(covered && place == Place::Edge && !local && case.link.up);
            }
            prop_assert!(!decision.audit || (decision.promised && case.audit));
            // Decided once and for all, as soon as there is a score.
            prop_assert!(!decision.cascade || (case.score.is_none() && case.when == When::After));
            if place == Place::EdgeDraftsCloudVerifies {
                prop_assert!(case.link.drafting.is_some());
            }
            prop_assert_eq!(decision.drafts.map(Drafts::place).unwrap_or(Place::Edge), place);
            let reason = decision.reason.to_string();
            prop_assert!(!reason.contains(|c: char| c.is_control() || "\u{2028}\u{202e}".contains(c)), "{reason:?}");
            prop_assert_eq!(&decide(&case).place, &place);
        }

        /// A surer answer is never sent where a less sure one was kept.
        #[test]
        fn a_greater_score_stays_where_a_lesser_did(case in cases(), low in 0f64..=1.0, more in 0f64..=1.0) {
            let at = |score: f64| decide(&Case { score: Some(score), ..case.clone() }).place;
            if at(low) == Place::Edge {
                prop_assert_eq!(at(low.max(more)), Place::Edge);
            }
        }

        /// A share of requests that was bounded stays bounded, however dear the edge is.
        #[test]
        fn a_budget_binds_where_the_cloud_is_cheaper(case in cases(), score in 0f64..=1.0, budget in 0f64..=1.0) {
            let prices = Prices { edge: 2.0, drafted: 1.0, cloud: 1.0 };
            let decision = decide(&Case { score: Some(score), budget: Some(budget), prices, ..case });
            if score >= budget {
                prop_assert_eq!(decision.place, Place::Edge);
            }
        }
    }
}
