//! Who drafts: a small model, whose tokens the host brings, or the text itself, which is asked here.

use super::{Drafted, Drafter, Output, Policy};
use crate::speculate::both::Source;
use crate::speculate::quoting::Matches;
use littoral_wire::speculation::{Declared, Drafts, ROUND_TOKENS_MAX, Share};

/// Where drafts may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sources {
    /// The host's small model.
    Model,
    /// What followed in the prompt and the answer when the same tokens stood there before. There is never any
    /// [`Work`](super::Work), and where nothing matches nothing is drafted.
    Lookup,
    /// Whichever promises more, at each end of the text.
    #[default]
    Both,
}

/// Drafted tokens of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Yield {
    pub drafted: u64,
    /// Of these, committed. The others were refuted, taken back before that, or came too late.
    pub held: u64,
}

/// What came of each source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Yields {
    pub model: Yield,
    pub text: Yield,
}

impl Yields {
    /// With what came of another answer.
    pub fn and(self, other: Self) -> Self {
        let sum = |a: Yield, b: Yield| Yield { drafted: a.drafted + b.drafted, held: a.held + b.held };
        Self { model: sum(self.model, other.model), text: sum(self.text, other.text) }
    }

    pub(super) fn of(&mut self, source: Source) -> &mut Yield {
        match source {
            Source::Model => &mut self.model,
            Source::Lookup { .. } => &mut self.text,
        }
    }
}

/// A token beyond the answer, and whose it is.
pub(super) struct Draft {
    pub drafted: Drafted,
    pub source: Source,
}

/// Where the way is fixed and no promises are compared, the acceptance from which on a match is taken before the model is asked.
const QUOTED: f64 = 0.6;

impl Drafter {
    /// What was drafted so far, by whom, and how much of it held.
    pub fn yields(&self) -> Yields {
        self.yields
    }

    /// Lets the text draft, block by block, as long as it promises more than the model and more is wanted. Each end of the text is
    /// asked about once, before the host is: where the model is at work nobody else drafts.
    pub(super) fn quote(&mut self, now_us: u64, output: &mut Output) {
        if self.lookup.is_none() || self.behind.is_some() {
            return;
        }
        if self.quoting.is_some() {
            self.send_quotes(now_us, output);
        }
        while self.wanted() > 0 && self.quoted_at != Some((self.revision, self.end())) {
            self.quoted_at = Some((self.revision, self.end()));
            let quoted = self.quoted();
            if quoted.is_empty() {
                break;
            }
            self.yields.text.drafted += quoted.len() as u64;
            self.drafts.extend(quoted);
            // The host may be at work on an end that is none any more. What comes of it is another guess, and refutes nothing.
            self.revision += 1;
            if self.quoting.is_some() {
                self.send_quotes(now_us, output);
            }
        }
        if self.sources == Sources::Lookup && self.wanted() > 0 {
            self.barren = Some(self.end());
        }
    }

    /// A block from the text, if it is the one to draft.
    fn quoted(&mut self) -> Vec<Draft> {
        let ahead: Vec<u32> = self.drafts.iter().map(|draft| draft.drafted.id).collect();
        let found = self.lookup.as_ref().and_then(|lookup| lookup.propose(&ahead, ROUND_TOKENS_MAX));
        let length = found.as_ref().map(|found| found.length);
        let preferred = match &self.policy {
            Policy::Learning(controller) if !controller.is_pinned() => {
                let (beside, behind) = (self.mode_unquoted(), !self.drafts.is_empty());
                self.quoting = length.and_then(|length| controller.quoting(length, beside, behind));
                self.quoting.is_some()
            }
            _ => length
                .is_some_and(|length| self.sources == Sources::Lookup || self.matches().acceptance(length) >= QUOTED),
        };
        let (declares, count) = (self.request.drafts == Drafts::Declared, self.wanted());
        let draft = |length: usize, id: u32| {
            // The text has no doubt: all of it is on one token.
            let declared = declares.then(|| Declared::new(vec![Share { id, less_one: u16::MAX }])).flatten();
            Draft { drafted: Drafted { id, declared }, source: Source::Lookup { length } }
        };
        let tokens = found.filter(|_| preferred).into_iter().flat_map(|found| (found.length..).zip(found.tokens));
        tokens.take(count).map(|(length, id)| draft(length, id)).collect()
    }

    /// How long matches hold, as far as is known.
    fn matches(&self) -> &Matches {
        match &self.policy {
            Policy::Learning(controller) => controller.matches(),
            Policy::Fixed(_) => &self.matches,
        }
    }

    /// The answer goes on with this token: what the text foretold is judged, whether or not it was asked.
    pub(super) fn follow(&mut self, id: u32) {
        let verdict = self.lookup.as_mut().and_then(|lookup| lookup.follow(id));
        let Some((length, held)) = verdict else { return };
        match &mut self.policy {
            Policy::Learning(controller) => controller.hear_match(length, held),
            Policy::Fixed(_) => self.matches.hear(length, held),
        }
    }
}
