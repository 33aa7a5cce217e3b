//! How long passes take, machine by machine: what the head waits for before it calls one late.

use std::collections::VecDeque;

/// Passes that are remembered.
const REMEMBERED: usize = 32;
/// A pass of a few tokens reads weights, one of many computes: they are told apart.
const FEW: usize = 4;
/// Before anything was measured, and what no machine is blamed for.
const PATIENCE_US: u64 = 600_000;
/// Where nothing like it was seen.
const UNKNOWN_US: u64 = 30_000_000;
/// A machine is late that takes so many times the longest that was seen.
const TIMES: u64 = 4;

#[derive(Clone, Debug)]
struct Seen {
    tokens: usize,
    round_us: u64,
    times_us: Vec<u32>,
}

/// The last passes of a chain.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    seen: VecDeque<Seen>,
}

impl Pace {
    /// Machines or their layers are others now.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    /// A pass of so many tokens came back after `round_us`; machines took `times_us`, the head first.
    pub fn heard(&mut self, tokens: usize, round_us: u64, times_us: &[u32]) {
        if self.seen.len() == REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { tokens, round_us, times_us: times_us.to_vec() });
    }

    /// What the last pass took, with the head's part of it.
    pub fn last_us(&self) -> Option<u64> {
        let last = self.seen.back()?;
        Some(last.round_us + last.times_us.first().map_or(0, |own| u64::from(*own)))
    }

    /// A pass of so many tokens that is away longer than this is late, judged by those of half as many or more: what one token
    /// takes says nothing of a prompt.
    ///
    /// Where too few were seen there is no knowing: beats tell then whether a machine is alive.
    pub fn patience_us(&self, tokens: usize) -> u64 {
        let like = || self.seen.iter().filter(|seen| 2 * seen.tokens >= tokens).map(|seen| seen.round_us);
        match like().max() {
            Some(longest) if like().count() >= 4 => PATIENCE_US + TIMES * longest,
            _ => UNKNOWN_US,
        }
    }

    /// Medians of the passes of a few tokens: each machine's time, and what of the round was no machine's, in microseconds.
    pub fn few(&self) -> Option<(Vec<u64>, u64)> {
        let few: Vec<&Seen> = self.seen.iter().filter(|seen| seen.tokens <= FEW).collect();
        let machines = few.iter().map(|seen| seen.times_us.len()).min()?;
        let time = |index: usize| median(few.iter().map(|seen| u64::from(seen.times_us[index])).collect());
        let others = |seen: &&Seen| seen.times_us.iter().skip(1).map(|us| u64::from(*us)).sum::<u64>();
        let hops = median(few.iter().map(|seen| seen.round_us.saturating_sub(others(seen))).collect());
        Some(((0..machines).map(time).collect(), hops))
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_say_nothing_of_prompts() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience_us(1), UNKNOWN_US);
        (0..32).for_each(|_| pace.heard(1, 30_000, &[10_000, 15_000]));
        assert_eq!(pace.patience_us(1), PATIENCE_US + TIMES * 30_000);
        assert_eq!(pace.patience_us(128), UNKNOWN_US);
        (0..4).for_each(|_| pace.heard(128, 900_000, &[300_000, 500_000]));
        assert_eq!(pace.patience_us(100), PATIENCE_US + TIMES * 900_000);
        assert_eq!(pace.last_us(), Some(1_200_000));
        assert_eq!(pace.few(), Some((vec![10_000, 15_000], 15_000)));
    }
}
