//! Lookup beside a small model, on one machine: a draft from the text costs nothing, so it wins where its match is long enough.
//!
//! How long is long enough is learnt: matches of each length have an acceptance of their own, and whatever promises the most
//! tokens per second drafts next.

use super::costs::{Affine, Costs};
use super::quoting::{CLASSES, GUESS, class};
use super::runs::Runs;
use super::turns::{Turns, best_length, judge};
use super::verifier::Counted;

/// Who drafts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Model,
    /// A match of this length.
    Lookup {
        length: usize,
    },
}

/// What to draft for the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub source: Source,
    /// 0 is plain decoding.
    pub count: usize,
}

#[derive(Clone)]
pub struct Both {
    turns: Turns,
    classes: [Runs; CLASSES.len()],
    has_model: bool,
    /// Whose turn it is where neither promises anything.
    lookup_tries: bool,
}

impl Both {
    /// Beside a model, with guesses as [`Turns::new`] takes them.
    pub fn new(draft_s: f64, verify: Affine, most: usize) -> Self {
        let classes = CLASSES.map(|(_, acceptance)| Runs::new(acceptance, GUESS));
        Self { turns: Turns::new(draft_s, verify, most), classes, has_model: true, lookup_tries: true }
    }

    /// Without a model: lookup or nothing.
    pub fn lookup_only(verify: Affine, most: usize) -> Self {
        Self { has_model: false, ..Self::new(0.0, verify, most) }
    }

    /// For the next answer of the same models.
    pub fn next_answer(&self) -> Self {
        let classes = self.classes.each_ref().map(|runs| runs.fading(2.0 * GUESS));
        Self { turns: self.turns.next_answer(), classes, ..self.clone() }
    }

    /// What to draft, where the text matches so many of its last tokens (`Lookup::propose`), if it does.
    pub fn next(&self, matched: Option<usize>) -> Plan {
        let (mut plan, mut rate) = (Plan { source: Source::Model, count: 0 }, 1.0 / self.turns.costs().verify.at(0));
        if self.has_model {
            (plan.count, rate) = self.turns.best();
        }
        let free = Costs { draft_s: 0.0, ..self.turns.costs() };
        if let Some(length) = matched {
            let source = Source::Lookup { length };
            let (count, promised) = best_length(&self.classes[class(length)], &free, self.turns.most());
            if count > 0 && promised > rate {
                return Plan { source, count };
            }
            // Where nothing is promised, both are tried in turn, though one is cheaper: it would spend the other's share.
            let loss_s = free.verify.at(1) - free.verify.at(0);
            let tries = !self.has_model || (self.lookup_tries && self.turns.next() > 0);
            if plan.count == 0 && self.turns.most() > 0 && tries && self.turns.affords(loss_s) {
                return Plan { source, count: 1 };
            }
        }
        if self.has_model && plan.count == 0 {
            plan.count = self.turns.next();
        }
        plan
    }

    /// A step by this plan had so many drafts, of which so many held, and took so long for each part, in seconds.
    pub fn hear(&mut self, source: Source, drafted: usize, accepted: usize, draft_s: f64, verify_s: f64) {
        if drafted > 0 {
            self.lookup_tries = source == Source::Model;
        }
        match source {
            Source::Model => self.turns.hear(drafted, accepted, draft_s, verify_s),
            Source::Lookup { length } => {
                self.turns.account(drafted, accepted, draft_s, verify_s);
                if drafted > 0 {
                    judge(&mut self.classes[class(length)], drafted, accepted);
                }
            }
        }
    }

    /// Tokens per second of plain decoding, and with the model's drafts where those promise more.
    pub fn promised(&self) -> (f64, f64) {
        let plain = 1.0 / self.turns.costs().verify.at(0);
        (plain, if self.has_model { self.turns.best().1.max(plain) } else { plain })
    }

    /// What was drafted and saved, whoever drafted.
    pub fn counted(&self) -> Counted {
        self.turns.counted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Noise;

    const VERIFY: Affine = Affine { fixed_s: 0.030, per_token_s: 0.003 };

    /// 300 steps with a match of this length each; which sources drafted in the last hundred.
    fn last_sources(both: &mut Both, length: usize, lookup: f64, model: f64) -> Vec<Source> {
        let step = |step: u64| {
            let plan = both.next(Some(length));
            let (alpha, draft_s) = if plan.source == Source::Model { (model, 0.010) } else { (lookup, 0.0) };
            let noise = Noise::new(length as u64, step);
            let held = (0..plan.count as u32).take_while(|&at| noise.uniform(at) < alpha).count();
            both.hear(plan.source, plan.count, held, plan.count as f64 * draft_s, VERIFY.at(plan.count));
            (plan.count > 0).then_some(plan.source)
        };
        (0..300).map(step).skip(200).flatten().collect()
    }

    #[test]
    fn a_match_wins_where_it_is_long_enough_and_that_is_learnt() {
        let mut both = Both::new(0.010, VERIFY, 16);
        // As guessed: of a short one a token is tried, of a long one many.
        assert_eq!(both.next(Some(2)), Plan { source: Source::Lookup { length: 2 }, count: 1 });
        assert!(matches!(both.next(Some(20)), Plan { source: Source::Lookup { length: 20 }, count: 4.. }));
        // Against the guess: here short ones hold and long ones do not.
        let wins = |sources: Vec<Source>| sources.iter().filter(|source| **source != Source::Model).count();
        let wrong = wins(last_sources(&mut both, 20, 0.1, 0.8));
        assert!(wrong < 20, "{wrong}");
        let mut both = Both::new(0.010, VERIFY, 16);
        assert!(wins(last_sources(&mut both, 2, 0.95, 0.1)) >= 95);
        assert!(both.counted().passes_saved() > 300);
    }

    #[test]
    fn without_a_model_no_match_is_plain_decoding() {
        let both = Both::lookup_only(VERIFY, 16);
        assert_eq!(both.next(None).count, 0);
        assert!(both.next(Some(9)).count > 0);
    }
}
