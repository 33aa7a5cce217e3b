//! How long a request that comes now would wait for a place, by how long answers have taken of late.
//!
//! Places that are taken are given back one after the other, each after the time of an answer on average: with as many of them as
//! there are, so many times as often. How long the answers that are written now will be is not known; but where all of them have
//! been written for longer than that they are long ones, and as long again is what is to be expected.

use std::time::Duration;

/// What an answer weighs after the next: eight count.
const KEPT: f64 = 1.0 - 1.0 / 8.0;

#[derive(Default)]
pub struct Load {
    /// Of answers that have given their place back: the sum of what they took, weighted, and of the weights.
    took_s: f64,
    weight: f64,
}

impl Load {
    /// An answer has given its place back.
    pub fn heard(&mut self, took: Duration) {
        self.took_s = self.took_s * KEPT + took.as_secs_f64();
        self.weight = self.weight * KEPT + 1.0;
    }

    /// `before`: requests that come first; `free` of the `places` are free. `least`: each of the answers that are written now
    /// has taken so long.
    pub fn wait_ms(&self, before: usize, free: usize, places: usize, least: Duration) -> f64 {
        let given_back = (before + 1).saturating_sub(free);
        let ended_s = if self.weight > 0.0 { self.took_s / self.weight } else { 0.0 };
        let answer_s = ended_s.max(least.as_secs_f64());
        given_back as f64 * answer_s / places.max(1) as f64 * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_as_fast_as_answers_end() {
        let (mut load, second) = (Load::default(), Duration::from_secs(1));
        assert_eq!(load.wait_ms(0, 1, 4, second), 0.0);
        // Nothing has ended yet.
        assert_eq!(load.wait_ms(0, 0, 4, second), 250.0);
        (0..50).for_each(|_| load.heard(2 * second));
        let near = |got: f64, ms: f64| assert!((got - ms).abs() < 1e-6, "{got}");
        near(load.wait_ms(0, 0, 4, second), 500.0);
        // All that run are long ones.
        near(load.wait_ms(0, 0, 4, 8 * second), 2_000.0);
        near(load.wait_ms(5, 2, 4, Duration::ZERO), 2_000.0);
        near(load.wait_ms(1, 2, 4, Duration::ZERO), 0.0);
        // Answers have become longer.
        (0..20).for_each(|_| load.heard(6 * second));
        assert!(load.wait_ms(0, 0, 4, second) > 1_300.0);
    }
}
