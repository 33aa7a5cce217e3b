//! What things cost here, measured while they happen: a pass over so many drafted tokens, a drafted token, the way there
//! and back.

/// `fixed_s + tokens * per_token_s`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    pub fixed_s: f64,
    pub per_token_s: f64,
}

impl Affine {
    pub fn at(&self, tokens: usize) -> f64 {
        self.fixed_s + self.per_token_s * tokens as f64
    }
}

/// Costs of speculating, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// Drafting one token.
    pub draft_s: f64,
    /// A pass that looks at so many drafted tokens; at none it is a pass of plain decoding.
    pub verify: Affine,
    /// From asking the verifier to its answer, less the pass. 0 on one machine.
    pub round_trip_s: f64,
}

impl Costs {
    /// Over a link, before anything was measured.
    pub const GUESS: Self =
        Self { draft_s: 0.01, verify: Affine { fixed_s: 0.03, per_token_s: 0.001 }, round_trip_s: 0.02 };
}

/// Least squares over passes, recent ones more, with a slope that is drawn towards a guess as long as passes of one length only
/// were seen.
#[derive(Clone, Debug)]
pub(super) struct PassTimes {
    /// The guess: a drafted token costs this part of a plain pass.
    ratio: f64,
    /// Sums of w, w n, w n^2, w t, w n t.
    sums: [f64; 5],
    seen: u32,
}

/// What a pass weighs after the next: 32 passes count.
const KEPT: f64 = 1.0 - 1.0 / 32.0;
/// The guess of the slope weighs as much as half a pass over four drafted tokens.
const RIDGE: f64 = 8.0;

impl PassTimes {
    pub fn new(guess: Affine) -> Self {
        let ratio = (guess.per_token_s / guess.fixed_s).clamp(0.0, 1.0);
        let mut own = Self { ratio: if ratio.is_finite() { ratio } else { 0.05 }, sums: [0.0; 5], seen: 0 };
        own.add(0, guess.fixed_s, 0.5);
        own
    }

    pub fn hear(&mut self, tokens: usize, seconds: f64) {
        let expected = self.fit().at(tokens);
        // A pass that waited for something else is no measure; a machine that has become slow shows soon all the same.
        let seconds = if self.seen < 4 { seconds } else { seconds.clamp(expected / 2.0, expected * 2.0) };
        self.sums.iter_mut().for_each(|sum| *sum *= KEPT);
        self.add(tokens, seconds, 1.0);
        self.seen = self.seen.saturating_add(1);
    }

    fn add(&mut self, tokens: usize, seconds: f64, weight: f64) {
        let n = tokens as f64;
        let terms = [1.0, n, n * n, seconds, n * seconds];
        self.sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += weight * term);
    }

    /// Minimises the weighted squares plus `RIDGE (slope - ratio fixed)^2`.
    pub fn fit(&self) -> Affine {
        let [w, wn, wnn, wt, wnt] = self.sums;
        let r = self.ratio;
        let (a, b, d) = (w + RIDGE * r * r, wn - RIDGE * r, wnn + RIDGE);
        let determinant = a * d - b * b;
        let per_token_s = ((a * wnt - b * wt) / determinant).max(0.0);
        let fixed_s = (wt - per_token_s * b) / a;
        Affine { fixed_s: fixed_s.max(1e-9), per_token_s }
    }
}

/// A mean over recent values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mean {
    sum: f64,
    weight: f64,
}

impl Mean {
    /// A guess that weighs as much as two values.
    pub fn new(guess: f64) -> Self {
        Self { sum: 2.0 * guess, weight: 2.0 }
    }

    pub fn hear(&mut self, value: f64) {
        self.sum = self.sum * KEPT + value;
        self.weight = self.weight * KEPT + 1.0;
    }

    pub fn get(&self) -> f64 {
        self.sum / self.weight
    }
}

/// The least of the last eight: what comes on top is waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Least {
    last: [f64; 8],
    at: usize,
}

impl Least {
    pub fn new(guess: f64) -> Self {
        Self {
            last: [
                guess,
                f64::INFINITY,
                f64::INFINITY,
                f64::INFINITY,
                f64::INFINITY,
                f64::INFINITY,
                f64::INFINITY,
                f64::INFINITY,
            ],
            at: 0,
        }
    }

    pub fn hear(&mut self, value: f64) {
        self.last[self.at % 8] = value.max(0.0);
        self.at += 1;
    }

    pub fn get(&self) -> f64 {
        self.last.iter().fold(f64::INFINITY, |least, &value| least.min(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_and_a_slope_is_guessed_until_it_shows() {
        let mut times = PassTimes::new(Affine { fixed_s: 0.010, per_token_s: 0.001 });
        (0..100).for_each(|_| times.hear(0, 0.030));
        // Only plain passes: the guess is a tenth of one.
        let fit = times.fit();
        assert!((fit.fixed_s - 0.030).abs() < 1e-4 && (fit.per_token_s - 0.003).abs() < 1e-4, "{fit:?}");
        (0..200).for_each(|i| times.hear(i % 9, 0.030 + 0.0005 * (i % 9) as f64));
        let fit = times.fit();
        // 32 passes count, of 6.7 squared tokens about their mean each: the ridge pulls by RIDGE / 213 of 0.0025.
        assert!((fit.per_token_s - 0.0005).abs() < 1.5e-4, "{fit:?}");
        // A stall of two seconds counts as two passes.
        times.hear(0, 2.0);
        assert!(times.fit().fixed_s < 0.033, "{:?}", times.fit());
    }
}
