//! How good a router is, in the measures of RouteLLM (Ong et al. 2024): what part of the gap between the two models it
//! recovers (PGR), over all shares of requests that go to the large one (APGR), and how small a share suffices (CPT).
//!
//! With w and s the mean quality of the small and the large model's answers and r the router's, PGR = (r - w) / (s - w). It
//! may be above 1: where the small model is right and the large one is not, a router can be better than either.

use crate::sample::Noise;
use thiserror::Error;

/// A request that both models answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The greater, the later it goes to the large model.
    pub score: f64,
    /// Quality of the small model's answer and of the large one's: 1 for right and 0 for wrong, or anything finite.
    pub small: f64,
    pub large: f64,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum MeasureError {
    #[error("no measure: at least one request expected, got none")]
    Empty,
    #[error("request {at}: finite numbers expected, got {got}")]
    NotFinite { at: usize, got: String },
    #[error("no measure: a large model that is better expected, got {large} against the small one's {small}")]
    NoGap { small: f64, large: f64 },
}

/// PGR over the share of requests that the large model answers.
#[derive(Clone, Debug)]
pub struct Curve {
    /// (share, PGR), from (0, 0) to (1, 1), shares rising.
    points: Vec<(f64, f64)>,
    pub small: f64,
    pub large: f64,
}

impl Curve {
    /// Requests of equal scores go together: between the ends of such a group the curve is a straight line, which is what
    /// sending some of them by chance gives on average.
    pub fn new(outcomes: &[Outcome]) -> Result<Self, MeasureError> {
        let finite = |o: &Outcome| o.score.is_finite() && o.small.is_finite() && o.large.is_finite();
        if let Some(at) = outcomes.iter().position(|outcome| !finite(outcome)) {
            return Err(MeasureError::NotFinite { at, got: format!("{:?}", outcomes[at]) });
        }
        if outcomes.is_empty() {
            return Err(MeasureError::Empty);
        }
        let n = outcomes.len() as f64;
        let small = outcomes.iter().map(|o| o.small).sum::<f64>() / n;
        let large = outcomes.iter().map(|o| o.large).sum::<f64>() / n;
        // Sums of quality are rounded; a gap of rounding is none.
        let gap = large - small;
        if gap <= 1e-12 {
            return Err(MeasureError::NoGap { small, large });
        }
        let mut sorted = outcomes.to_vec();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let (mut points, mut sent, mut gained) = (vec![(0.0, 0.0)], 0, 0.0);
        for group in sorted.chunk_by(|a, b| a.score == b.score) {
            sent += group.len();
            gained += group.iter().map(|o| o.large - o.small).sum::<f64>();
            points.push((sent as f64 / n, gained / n / gap));
        }
        Ok(Self { points, small, large })
    }

    /// The area under the curve, by trapezoids. A router by chance has one half on average.
    pub fn apgr(&self) -> f64 {
        self.points.windows(2).map(|pair| (pair[1].0 - pair[0].0) * (pair[0].1 + pair[1].1) / 2.0).sum()
    }

    /// The least share of requests to the large model at which the router's PGR is `target`, linear between points. `None`
    /// above what it ever reaches.
    pub fn cpt(&self, target: f64) -> Option<f64> {
        if target <= 0.0 {
            return Some(0.0);
        }
        self.points.windows(2).find_map(|pair| {
            let [(from, before), (to, after)] = [pair[0], pair[1]];
            (after >= target).then(|| from + (to - from) * (target - before) / (after - before))
        })
    }
}

/// PGR of the router that keeps what has this score or a greater one, and the share of requests that it sends to the large model.
pub fn pgr(outcomes: &[Outcome], threshold: f64) -> Result<(f64, f64), MeasureError> {
    let Curve { small, large, .. } = Curve::new(outcomes)?;
    let n = outcomes.len() as f64;
    let sent = |outcome: &&Outcome| outcome.score < threshold;
    let gained: f64 = outcomes.iter().filter(sent).map(|o| o.large - o.small).sum();
    Ok((gained / n / (large - small), outcomes.iter().filter(sent).count() as f64 / n))
}

/// APGRs of routers by chance, `draws` of them, for the same requests.
pub fn random_apgrs(outcomes: &[Outcome], draws: u32, seed: u64) -> Result<Vec<f64>, MeasureError> {
    let one = |draw: u32| {
        let noise = Noise::new(seed, draw.into());
        let by_chance = |(at, outcome): (usize, &Outcome)| Outcome { score: noise.uniform(at as u32), ..*outcome };
        let outcomes: Vec<Outcome> = outcomes.iter().enumerate().map(by_chance).collect();
        Curve::new(&outcomes).map(|curve| curve.apgr())
    };
    (0..draws).map(one).collect()
}

/// The value below which that part of them lies, 0 to 1, linear between ranks; 0 of none.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let rank = part.clamp(0.0, 1.0) * last as f64;
    let below = rank as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (rank - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(of: &[(f64, u8, u8)]) -> Vec<Outcome> {
        of.iter().map(|&(score, small, large)| Outcome { score, small: small.into(), large: large.into() }).collect()
    }

    /// Worked by hand: w = 1/4, s = 3/4. Sent in order of score: the gain +1, 0, +1, 0 of 4 requests makes PGR 1/2, 1/2, 1, 1.
    #[test]
    fn a_curve_by_hand() {
        let curve = Curve::new(&outcomes(&[(0.9, 1, 1), (0.1, 0, 1), (0.5, 0, 1), (0.3, 0, 0)])).expect("a curve");
        assert_eq!((curve.small, curve.large), (0.25, 0.75));
        assert_eq!(curve.points, [(0.0, 0.0), (0.25, 0.5), (0.5, 0.5), (0.75, 1.0), (1.0, 1.0)]);
        assert_eq!(curve.apgr(), 0.25 * (0.25 + 0.5 + 0.75 + 1.0));
        assert_eq!([curve.cpt(0.5), curve.cpt(0.75), curve.cpt(1.0)], [Some(0.25), Some(0.625), Some(0.75)]);
        assert_eq!([curve.cpt(0.0), curve.cpt(1.01)], [Some(0.0), None]);
        let outcomes = outcomes(&[(0.9, 1, 1), (0.1, 0, 1), (0.5, 0, 1), (0.3, 0, 0)]);
        let of = |threshold| pgr(&outcomes, threshold);
        assert_eq!([of(0.0), of(0.3), of(0.6), of(2.0)], [(0.0, 0.0), (0.5, 0.25), (1.0, 0.75), (1.0, 1.0)].map(Ok));
    }

    #[test]
    fn a_score_that_says_nothing_has_one_half() {
        let mut all = outcomes(&[(0.5, 1, 1), (0.5, 0, 1), (0.5, 0, 1), (0.5, 1, 0), (0.5, 0, 0)]);
        let curve = Curve::new(&all).expect("a curve");
        assert!((curve.apgr() - 0.5).abs() < 1e-15);
        // By chance: the mean of 2000 has a standard error below 0.02.
        let random = random_apgrs(&all, 2000, 7).expect("curves");
        let mean = random.iter().sum::<f64>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.06, "{mean}");
        assert_eq!(random, random_apgrs(&all, 2000, 7).expect("curves"));
        // Who knows exactly where the large model is better sends those alone, and is better than either.
        for outcome in &mut all {
            outcome.score = outcome.small - outcome.large;
        }
        let best = Curve::new(&all).expect("a curve");
        assert!(best.apgr() > 1.0 && best.apgr() >= quantile(&random, 1.0), "{}", best.apgr());
    }

    #[test]
    fn what_has_no_measure() {
        assert_eq!(Curve::new(&[]).map(|_| ()), Err(MeasureError::Empty));
        assert!(matches!(Curve::new(&outcomes(&[(0.1, 1, 1)])), Err(MeasureError::NoGap { .. })));
        let nan = [Outcome { score: f64::NAN, small: 0.0, large: 1.0 }];
        assert!(matches!(Curve::new(&nan), Err(MeasureError::NotFinite { at: 0, .. })));
        assert_eq!(
            [quantile(&[3.0, 1.0, 2.0], 0.5), quantile(&[1.0, 2.0], 0.25), quantile(&[], 0.5)],
            [2.0, 1.25, 0.0]
        );
    }
}
