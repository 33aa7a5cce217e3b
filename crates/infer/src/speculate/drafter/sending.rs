//! What a drafter says: rounds as its mode wants them, and a stream where there is nothing to draft.

use super::{Drafter, Mode, Output};
use littoral_wire::Speculation;
use littoral_wire::bounded::List;
use littoral_wire::speculation::{Declared, Digest, Drafts, ROUND_TOKENS_MAX, Want};

impl Drafter {
    /// Sends what the mode wants sent, and waits for an answer.
    pub(super) fn go_on(&mut self, now_us: u64, output: &mut Output) {
        if self.over.is_some() {
            return;
        }
        self.quote(now_us, output);
        let barren = self.barren == Some(self.end()) || self.draftable() == 0;
        match self.mode() {
            _ if self.behind.is_some() => self.show(output),
            Mode::Stream => self.ask_stream(now_us, output),
            Mode::Rounds { .. } if self.sent > 0 => {}
            Mode::Rounds { tokens } => {
                let tokens = tokens.min(self.draftable()).clamp(1, ROUND_TOKENS_MAX);
                if self.drafts.len() >= tokens || (barren && !self.drafts.is_empty()) {
                    self.send_round(now_us, tokens.min(self.drafts.len()), Want::Wait, output);
                } else if barren {
                    self.ask_stream(now_us, output);
                }
            }
            Mode::Ahead { block, ahead } => {
                self.send_blocks(now_us, (block, ahead), barren, Want::Wait, output);
                if barren && self.drafts.is_empty() {
                    self.ask_stream(now_us, output);
                }
            }
            Mode::Along { block, ahead } => {
                self.send_blocks(now_us, (block, ahead), barren, Want::Stream, output);
                self.ask_stream(now_us, output);
            }
        }
        let awaited = !self.opened || self.behind.is_some() || self.sent > 0 || self.asked == Some(Want::Stream);
        if awaited && self.deadline_us.is_none() {
            let patience_us = self.patience.first_us.saturating_mul(1 << self.tries.min(20));
            self.deadline_us = Some(now_us.saturating_add(patience_us.min(self.patience.most_us)));
        }
    }

    /// Whole blocks; what is left goes out as it is if no more may be drafted for now.
    fn send_blocks(
        &mut self,
        now_us: u64,
        (block, ahead): (usize, usize),
        barren: bool,
        want: Want,
        output: &mut Output,
    ) {
        let block = block.clamp(1, ROUND_TOKENS_MAX);
        let most = ahead.min(self.draftable()).max(1);
        while self.drafts.len() - self.sent >= block {
            self.send_round(now_us, block, want, output);
        }
        if self.drafts.len() > self.sent && (barren || self.drafts.len() >= most) {
            self.send_round(now_us, (self.drafts.len() - self.sent).min(block), want, output);
        }
    }

    /// All that is drafted: what the text drafts is there at once.
    pub(super) fn send_quotes(&mut self, now_us: u64, output: &mut Output) {
        let want = if matches!(self.mode(), Mode::Along { .. }) { Want::Stream } else { Want::Wait };
        while self.drafts.len() > self.sent {
            self.send_round(now_us, (self.drafts.len() - self.sent).min(ROUND_TOKENS_MAX), want, output);
        }
    }

    fn ask_stream(&mut self, now_us: u64, output: &mut Output) {
        if self.asked != Some(Want::Stream) {
            self.send_round(now_us, 0, Want::Stream, output);
        }
    }

    /// The next `count` drafts that were not sent yet.
    fn send_round(&mut self, now_us: u64, count: usize, want: Want, output: &mut Output) {
        let before = self.drafts.iter().take(self.sent);
        let digest = before.fold(self.answer.digest(), |digest: Digest, draft| digest.then(draft.drafted.id));
        let drafts = self.drafts.iter().skip(self.sent).take(count);
        let declared: Option<Vec<Declared>> = match self.request.drafts {
            Drafts::Ids => None,
            Drafts::Declared => drafts.clone().map(|draft| draft.drafted.declared.clone()).collect(),
        };
        self.rounds = self.rounds.saturating_add(1);
        output.send.push(Speculation::Round {
            session: self.session,
            number: self.rounds,
            epoch: self.epoch,
            commit: self.answer.len() as u32,
            start: (self.answer.len() + self.sent) as u32,
            digest,
            tokens: List::new(drafts.map(|draft| draft.drafted.id).collect()).unwrap_or_default(),
            distributions: declared.map(|declared| List::new(declared).unwrap_or_default()),
            want,
        });
        if count > 0 {
            self.trips.round(now_us, self.answer.len() + self.sent);
        }
        self.sent += count;
        self.asked = Some(want);
    }

    pub(super) fn open(&self) -> Speculation {
        Speculation::Open { session: self.session, request: self.request.clone() }
    }

    pub(super) fn resume(&self) -> Speculation {
        let commit = self.behind.map_or(self.answer.len(), |behind| behind.chosen);
        let digest = self.answer.digest_at(commit).unwrap_or_default();
        Speculation::Resume { session: self.session, commit: commit as u32, digest }
    }
}
