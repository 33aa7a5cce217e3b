//! Everything once more: to a verifier that is silent, over a new link, or to one that is to go on with what another has written, and
//! is shown the answer so far.

use super::{Controller, Drafter, Output, Over, Patience, Policy, Sources};
use littoral_wire::Speculation;
use littoral_wire::bounded::List;
use littoral_wire::speculation::{ROUND_TOKENS_MAX, Request, Want};

/// The answer as another verifier made it, which this one chooses again, shown what to try.
#[derive(Clone, Copy)]
pub(super) struct Behind {
    /// Positions that it has chosen, and positions that it was shown.
    pub chosen: usize,
    pub shown: usize,
}

/// How far ahead of what it has chosen a verifier is shown the answer: no more than it keeps.
const SHOWN_MAX: usize = 896;

impl Drafter {
    /// As [`new`](Self::new), of an answer that begins with these tokens. The verifier chooses them again before it goes on, as in
    /// [`moved`](Self::moved).
    pub fn going_on(
        session: u64,
        request: Request,
        policy: Policy,
        sources: Sources,
        patience: Patience,
        answer: &[u32],
        now_us: u64,
    ) -> (Self, Output) {
        let mut drafter = Self::of(session, request, policy, sources, patience);
        for id in answer {
            drafter.follow(*id);
            drafter.answer.push(*id);
        }
        drafter.behind = (!answer.is_empty()).then_some(Behind { chosen: 0, shown: 0 });
        drafter.start(now_us)
    }

    /// Another verifier of the same model goes on with the answer, over there in a session of this number. It chooses what is
    /// committed again before it goes on; if it chooses otherwise, that is [`Over::Contradicted`], and nothing of it was given out.
    /// `learnt`: what is known of its link.
    pub fn moved(&mut self, session: u64, learnt: Option<&Controller>, now_us: u64) -> Output {
        let mut output = Output::default();
        if self.over.is_some() {
            return output;
        }
        (self.session, self.opened, self.epoch, self.rounds, self.tries) = (session, false, 0, 0, 0);
        (self.passes_before, self.passes) = (self.passes(), 0);
        self.behind = (self.answer.len() > 0).then_some(Behind { chosen: 0, shown: 0 });
        if let (Policy::Learning(controller), Some(learnt)) = (&mut self.policy, learnt) {
            **controller = controller.over_the_link_of(learnt);
        }
        self.say_again(now_us, &mut output);
        self.trips.opening(now_us);
        output
    }

    /// A new link to the verifier: says where the answer stands, and everything that may have been lost.
    pub fn reconnected(&mut self, now_us: u64) -> Output {
        let mut output = Output::default();
        if self.over.is_none() {
            self.say_again(now_us, &mut output);
        }
        output
    }

    /// When [`tick`](Self::tick) is due; none if nothing is awaited.
    pub fn deadline_us(&self) -> Option<u64> {
        self.deadline_us
    }

    /// Has nothing been heard for too long?
    pub fn tick(&mut self, now_us: u64) -> Output {
        let mut output = Output::default();
        if self.over.is_some() || self.deadline_us.is_none_or(|deadline_us| now_us < deadline_us) {
            return output;
        }
        self.tries += 1;
        match self.tries > self.patience.tries_max {
            true => self.end_with(Over::Lost, &mut output),
            false => self.say_again(now_us, &mut output),
        }
        output
    }

    fn say_again(&mut self, now_us: u64, output: &mut Output) {
        (self.sent, self.asked, self.resumed_at, self.deadline_us) = (0, None, None, None);
        self.trips.again(now_us, self.end());
        self.barren = None;
        if let Some(behind) = &mut self.behind {
            behind.shown = behind.chosen;
        }
        output.send.push(if self.opened { self.resume() } else { self.open() });
        self.go_on(now_us, output);
    }

    /// Shows a new verifier what the one before it chose.
    pub(super) fn show(&mut self, output: &mut Output) {
        while let Some(Behind { chosen, shown }) = self.behind.filter(|_| self.opened) {
            let end = self.answer.len().min(chosen + SHOWN_MAX).min(shown + ROUND_TOKENS_MAX);
            let Some(digest) = self.answer.digest_at(shown).filter(|_| shown < end) else { return };
            self.rounds = self.rounds.saturating_add(1);
            output.send.push(Speculation::Round {
                session: self.session,
                number: self.rounds,
                epoch: self.epoch,
                commit: chosen as u32,
                start: shown as u32,
                digest,
                tokens: List::new(self.answer.ids()[shown..end].to_vec()).unwrap_or_default(),
                distributions: None,
                want: Want::Wait,
            });
            self.behind = Some(Behind { chosen, shown: end });
        }
    }
}
