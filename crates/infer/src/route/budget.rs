//! A bound on how much the large model is asked: its share of requests, kept by a threshold that follows the traffic.
//!
//! The large model gets the requests whose need of it, 1 - score, is above the (1 - b)-quantile of the last ones': so many
//! scores lie below the threshold as are b of them. If scores to come are like those in the window, the realised share is
//! within the DKW band of b (Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of Massart 1990).

use crate::sample::Noise;
use std::collections::VecDeque;
use thiserror::Error;

/// Scores that a window holds.
pub const WINDOW_MAX: usize = 1 << 16;

#[derive(Clone, Debug, PartialEq, Error)]
pub enum BudgetError {
    #[error("the cloud's share: a number of 0 to 1 expected, got {0}")]
    Share(f64),
    #[error("the window: 1 to {WINDOW_MAX} scores expected, got {0}")]
    Window(usize),
}

#[derive(Clone, Debug)]
pub struct Budget {
    cloud_share: f64,
    window: VecDeque<f64>,
    window_max: usize,
}

impl Budget {
    /// `cloud_share`: the share of requests that the large model may get, 0 to 1. `window`: how many scores are looked
    /// back on; the share is met to about ± 1.2 / √window.
    pub fn new(cloud_share: f64, window: usize) -> Result<Self, BudgetError> {
        if !(0.0..=1.0).contains(&cloud_share) {
            return Err(BudgetError::Share(cloud_share));
        }
        if !(1..=WINDOW_MAX).contains(&window) {
            return Err(BudgetError::Window(window));
        }
        Ok(Self { cloud_share, window: VecDeque::new(), window_max: window })
    }

    /// Hears of a request's score, whatever became of it. One that is no number counts as 0.
    pub fn saw(&mut self, score: f64) {
        if self.window.len() == self.window_max {
            self.window.pop_front();
        }
        self.window.push_back(if score.is_nan() { 0.0 } else { score });
    }

    /// Looks back on scores of a calibration before the first request comes: spread over them evenly, in an order of chance, since
    /// the first to be forgotten are to be like the others.
    pub fn after(mut self, rising: &[f64]) -> Self {
        let count = rising.len().min(self.window_max);
        let mut order: Vec<(u64, f64)> = (0..count)
            .map(|at| (Noise::new(0, at as u64).uniform(0).to_bits(), rising[at * rising.len() / count]))
            .collect();
        order.sort_by_key(|(chance, _)| *chance);
        order.into_iter().for_each(|(_, score)| self.saw(score));
        self
    }

    /// Requests below it may go to the large model. Before a score was seen none may.
    pub fn threshold(&self) -> f64 {
        if self.cloud_share == 1.0 {
            return f64::INFINITY;
        }
        if self.cloud_share == 0.0 || self.window.is_empty() {
            return f64::NEG_INFINITY;
        }
        let below = (self.cloud_share * self.window.len() as f64).floor() as usize;
        let mut scores: Vec<f64> = self.window.iter().copied().collect();
        let (_, threshold, _) = scores.select_nth_unstable_by(below, f64::total_cmp);
        *threshold
    }
}

/// How far an empirical distribution of `n` draws is from the true one at most, with a probability of 1 - `delta`:
/// √(ln(2/δ) / 2n).
pub fn dkw_band(n: usize, delta: f64) -> f64 {
    (libm::log(2.0 / delta) / (2.0 * n.max(1) as f64)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400 windows of 200 scores each, uniform, whose law is known: a threshold t sends exactly t of the traffic. The band at
    /// δ = 0.05 may be left by 5 %, 20 windows; three standard errors more are 33. One score of 200 is the floor's.
    #[test]
    fn the_realised_share_is_within_the_band() {
        for share in [0.0, 0.1, 0.37, 0.8, 1.0] {
            let left = (0..400u64).filter(|run| {
                let mut budget = Budget::new(share, 200).expect("a budget");
                (0..200).for_each(|at| budget.saw(Noise::new(*run, at).uniform(0)));
                let sent = budget.threshold().clamp(0.0, 1.0);
                (sent - share).abs() > dkw_band(200, 0.05) + 1.0 / 200.0
            });
            assert!(left.count() <= 33, "share {share}");
        }
        // ln 40 / 400.
        assert!((dkw_band(200, 0.05) - 0.096_03).abs() < 1e-5);
    }

    #[test]
    fn a_window_forgets_and_never_sends_more_than_its_share() {
        let mut budget = Budget::new(0.5, 4).expect("a budget");
        assert_eq!(budget.threshold(), f64::NEG_INFINITY);
        // Of one score none lies below it, of three one.
        for (score, threshold) in [(0.9, 0.9), (0.1, 0.9), (0.2, 0.2)] {
            budget.saw(score);
            assert_eq!(budget.threshold(), threshold);
        }
        budget.saw(f64::NAN);
        assert_eq!(budget.threshold(), 0.2);
        // Equal scores are all kept, or all sent: kept, since the share is a bound.
        (0..4).for_each(|_| budget.saw(0.7));
        assert_eq!(budget.threshold(), 0.7);
        let rising: Vec<f64> = (0..100).map(f64::from).collect();
        let budget = Budget::new(0.25, 8).expect("a budget").after(&rising);
        assert_eq!((budget.threshold(), budget.window.len()), (25.0, 8));
        assert!(budget.window[0] != 0.0);
        assert!(Budget::new(1.1, 4).is_err() && Budget::new(f64::NAN, 4).is_err() && Budget::new(0.5, 0).is_err());
    }
}
