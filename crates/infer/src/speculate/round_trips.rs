//! Round trips that a drafter sees: from a question to the answer to just that question, less the pass that the answer waited for.
//!
//! The opening of a session is answered once, a round by the verdict over its tokens, and a stream, which answers nothing, is asked now
//! and then where it stands. What was asked twice is no measure: its answer may be to either (Karn and Partridge 1987). What is
//! left of waiting, for a verifier that was busy, is for whoever takes the least of several.

use std::collections::VecDeque;

/// How long after the last sample a stream is asked. Rounds from before it that were dead on arrival are answered by then.
const ASK_US: u64 = 1_000_000;

#[derive(Default)]
pub(super) struct RoundTrips {
    /// When the session was opened, until that was answered.
    opening_us: Option<u64>,
    /// Where rounds under way begin, and when they were sent.
    rounds: VecDeque<(usize, u64)>,
    /// Rounds that begin before this may be under way twice.
    doubled: usize,
    asked_us: Option<u64>,
    /// When something was sent, or measured, last.
    last_us: u64,
}

impl RoundTrips {
    /// A session is opened, for the first time under its number.
    pub fn opening(&mut self, now_us: u64) {
        *self = Self { opening_us: Some(now_us), last_us: now_us, ..Self::default() };
    }

    /// All that was drafted up to this position may be sent again.
    pub fn again(&mut self, now_us: u64, end: usize) {
        *self = Self { doubled: end.max(self.doubled), last_us: now_us, ..Self::default() };
    }

    /// Rounds under way are dead.
    pub fn forget(&mut self) {
        self.rounds.clear();
    }

    pub fn round(&mut self, now_us: u64, start: usize) {
        self.last_us = now_us;
        if start >= self.doubled {
            self.rounds.push_back((start, now_us));
        }
    }

    /// Is a stream to be asked where it stands?
    pub fn asks(&mut self, now_us: u64) -> bool {
        let due = self.asked_us.is_none() && now_us.saturating_sub(self.last_us) >= ASK_US;
        if due {
            self.asked_us = Some(now_us);
        }
        due
    }

    pub fn opened(&mut self, now_us: u64) -> Option<u64> {
        let sent_us = self.opening_us.take()?;
        Some(now_us.saturating_sub(sent_us))
    }

    /// A verdict over drafted tokens that end there: it answers the round with the last of them.
    pub fn verdict(&mut self, now_us: u64, end: usize, pass_us: u64) -> Option<u64> {
        let answered = self.rounds.iter().take_while(|(start, _)| *start < end).count();
        let (_, sent_us) = self.rounds.drain(..answered).next_back()?;
        self.last_us = now_us;
        Some(now_us.saturating_sub(sent_us).saturating_sub(pass_us))
    }

    /// It was said where the answer stands.
    pub fn stands(&mut self, now_us: u64) -> Option<u64> {
        let sent_us = self.asked_us.take()?;
        self.last_us = now_us;
        Some(now_us.saturating_sub(sent_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_answers_the_last_round_that_it_saw() {
        let mut trips = RoundTrips::default();
        trips.opening(5);
        // The first round goes out before the opening is answered, and changes nothing about it.
        trips.round(10, 0);
        assert_eq!((trips.opened(45), trips.opened(46)), (Some(40), None));
        trips.round(20, 4);
        trips.round(30, 8);
        assert_eq!(trips.verdict(100, 8, 25), Some(55));
        // The same verdict once more answers nothing.
        assert_eq!(trips.verdict(101, 8, 25), None);
        assert_eq!(trips.verdict(120, 10, 25), Some(65));
    }

    #[test]
    fn what_is_asked_twice_is_no_measure() {
        let mut trips = RoundTrips::default();
        trips.opening(0);
        trips.round(10, 0);
        trips.again(1_000, 4);
        trips.round(1_000, 0);
        assert_eq!((trips.opened(1_010), trips.verdict(1_020, 4, 0)), (None, None));
        trips.round(1_030, 4);
        assert_eq!(trips.verdict(1_100, 8, 0), Some(70));
    }

    #[test]
    fn a_stream_is_asked_one_thing_at_a_time() {
        let mut trips = RoundTrips::default();
        trips.round(0, 0);
        assert_eq!((trips.asks(ASK_US - 1), trips.asks(ASK_US), trips.asks(2 * ASK_US)), (false, true, false));
        assert_eq!((trips.stands(ASK_US + 30), trips.stands(ASK_US + 31)), (Some(30), None));
        assert!(!trips.asks(2 * ASK_US) && trips.asks(2 * ASK_US + 30));
    }
}
