//! The text's side of a controller: in which way the text drafts, and where it drafts instead of the model.
//!
//! Drafts from the text are there at once, so that another way suits them than the model's: as many as hold, in one burst. The
//! model's way is chosen by what the model does alone, so that it is the right one as soon as the text has nothing to say.

use super::{AHEAD_MAX, BETTER, Controller};
use crate::speculate::costs::Costs;
use crate::speculate::drafter::Mode;
use crate::speculate::quoting::Matches;
use crate::speculate::rate::Survival;
use littoral_wire::speculation::ROUND_TOKENS_MAX;

/// Tokens from the text that may be under way: they are there at once.
const QUOTES: [usize; 12] = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 128, AHEAD_MAX];

impl Controller {
    /// A token was committed for which the text had drafted; what it teaches comes with [`hear_match`](Self::hear_match).
    pub fn hear_quote(&mut self) {
        self.runs.pause();
        self.share.hear(0.0);
    }

    /// The text foretold a token by a match of this length, drafted or not: did it come?
    pub fn hear_match(&mut self, length: usize, held: bool) {
        self.matches.hear(length, held);
    }

    pub fn matches(&self) -> &Matches {
        &self.matches
    }

    /// The best way to draft from the text, which matches so many of its last tokens, if that promises more than going on this way.
    /// `behind`: what is drafted already is under way.
    pub fn quoting(&self, length: usize, beside: Mode, behind: bool) -> Option<Mode> {
        let (text, costs) = (self.matches.survival(length), Costs { draft_s: 0.0, ..self.costs() });
        let promised = self.predicted(beside);
        // While drafts are on their way a verifier that streams chooses so many tokens by itself.
        let plain = (costs.round_trip_s / costs.verify.at(0)) as usize;
        let plain = plain.saturating_add(1);
        let ways = QUOTES.into_iter().flat_map(|drafted| {
            let block = drafted.min(ROUND_TOKENS_MAX);
            let waits =
                if drafted == block { Mode::Rounds { tokens: drafted } } else { Mode::Ahead { block, ahead: drafted } };
            let along = (Mode::Along { block, ahead: drafted }, text.rate_at_once(drafted, plain, &costs));
            let along = Some(along).filter(|_| self.drafts_along() && drafted > plain);
            [(waits, text.rate_at_once(drafted, 0, &costs))].into_iter().chain(along)
        });
        let (way, most) = ways.fold((beside, 0.0), |best, way| if way.1 > best.1 * BETTER { way } else { best });
        let better = !behind || self.gains(&text, promised) > self.gains_going_on(beside, promised);
        (better && most > promised * BETTER).then_some(way)
    }

    /// Tokens that drafts from the text, behind others, bring beyond what the same time brings on average: with passes of the best
    /// length, each of which brings a token more than it looks at.
    fn gains(&self, text: &Survival, promised: f64) -> f64 {
        let verify = self.pass.fit();
        let passes_s = QUOTES.map(|drafted| {
            let block = drafted.min(ROUND_TOKENS_MAX);
            let passes = (0..Survival::DEPTH).step_by(block + 1).map(|reach| text.of_first(reach)).sum::<f64>();
            passes * verify.at(block)
        });
        text.tokens(Survival::DEPTH) - 1.0 - promised * passes_s.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// The same of the model where it drafts ahead: a run that is under way has paid for its beginning, and the next one, if it is the
    /// model's again, would have to pay for its own.
    fn gains_going_on(&self, beside: Mode, promised: f64) -> f64 {
        let (Mode::Ahead { .. } | Mode::Along { .. }, costs) = (beside, self.costs()) else { return 0.0 };
        let tokens = Survival::of(&self.runs).tokens(Survival::DEPTH) - 1.0;
        self.share.get() * tokens * (1.0 - promised * costs.draft_s.max(costs.verify.per_token_s)).max(0.0)
    }
}
