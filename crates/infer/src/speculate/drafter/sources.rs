//! Who drafts: a small model, whose tokens the host brings, or the text itself, which is asked here.

use super::{Drafted, Drafter, Mode, Policy};
use crate::speculate::both::Source;
use littoral_wire::speculation::{Declared, Drafts, Share};

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

/// Without a controller to compare promises, the acceptance from which on a match is taken before the model is asked.
const QUOTED: f64 = 0.6;

impl Drafter {
    /// What was drafted so far, by whom, and how much of it held.
    pub fn yields(&self) -> Yields {
        self.yields
    }

    /// Lets the text draft, block by block, as long as it promises more than the model and more is wanted. Each end of the text is
    /// asked about once, before the host is: where the model is at work nobody else drafts.
    pub(super) fn quote(&mut self) {
        while self.lookup.is_some() && self.wanted() > 0 && self.quoted_at != Some((self.revision, self.end())) {
            self.quoted_at = Some((self.revision, self.end()));
            let Some(quoted) = self.quoted(self.wanted()) else { break };
            if let Policy::Learning(controller) = &mut self.policy {
                controller.hear_quoted();
            }
            self.yields.text.drafted += quoted.len() as u64;
            self.drafts.extend(quoted);
            // The host may be at work on an end that is none any more. What comes of it is another guess, and refutes nothing.
            self.revision += 1;
        }
        if self.sources == Sources::Lookup && self.wanted() > 0 {
            self.barren = Some(self.end());
        }
    }

    /// Up to `count` tokens from the text, if it is the one to draft.
    fn quoted(&self, count: usize) -> Option<Vec<Draft>> {
        let ahead: Vec<u32> = self.drafts.iter().map(|draft| draft.drafted.id).collect();
        let found = self.lookup.as_ref()?.propose(&ahead, count)?;
        let preferred = match &self.policy {
            _ if self.sources == Sources::Lookup => true,
            Policy::Learning(controller) => controller.prefers_text(found.length),
            Policy::Fixed(_) => self.matches.acceptance(found.length) >= QUOTED,
        };
        let declares = self.request.drafts == Drafts::Declared;
        let draft = |(at, id): (usize, u32)| {
            // The text has no doubt: all of it is on one token.
            let declared = declares.then(|| Declared::new(vec![Share { id, less_one: u16::MAX }])).flatten();
            Draft { drafted: Drafted { id, declared }, source: Source::Lookup { length: found.length + at } }
        };
        preferred.then(|| found.tokens.into_iter().enumerate().map(draft).collect())
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

    /// Do the drafts hardly all hold? The text drafts a hundred tokens at once, and each costs the verifier time. What is drafted
    /// in rounds is counted by the round; a model alone is never so far ahead.
    pub(super) fn doubtful(&self) -> bool {
        let (Policy::Learning(controller), Mode::Ahead { .. } | Mode::Along { .. }) = (&self.policy, self.mode())
        else {
            return false;
        };
        let mut sources = self.drafts.iter().map(|draft| draft.source);
        sources.clone().any(|source| source != Source::Model) && !controller.worth_drafting_behind(&mut sources)
    }
}
