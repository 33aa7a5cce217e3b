//! The dominating pair of a mechanism and a way of sampling, piece by piece, for [`pld`](super::pld).
//!
//! P is the law with the record, Q the one without; of symmetric noise added to numbers that differ by the sensitivity. Under
//! Poisson sampling at rate q, M = (1-q) Q + q P takes P's place: (M, Q) dominates removing, (Q, M) adding (Zhu, Dong and
//! Wang 2022, theorem 11). In a sample of fixed size, q of all, under replacing one, δ(ε) is that of (M, Q) for ε ≥ 0 and that of
//! (Q, M) for ε < 0 (there, proposition 30): one pair whose losses above 0 are of the first and below 0 of the second.

use super::pld::{Discretisation, Piece, Pld, Term};
use super::pmf::Symmetric;
use super::special::normal_below;
use super::{Mechanism, Sampling};

/// Outcomes beyond this many are refused: a hundred megabytes.
pub(super) const OUTCOMES_MAX: f64 = (1u32 << 22) as f64;

/// Deviations beyond which a Gaussian holds less than 10^-22.
const FAR: f64 = 9.8;

/// ln(1 - q + q e^loss).
fn mixed(q: f64, loss: f64) -> f64 {
    if q == 1.0 {
        loss
    } else if loss > 30.0 {
        loss + q.ln() + ((1.0 - q) / q * (-loss).exp()).ln_1p()
    } else {
        (q * loss.exp_m1()).ln_1p()
    }
}

/// The inverse of [`mixed`]; -∞ below its range.
fn unmixed(q: f64, loss: f64) -> f64 {
    if q == 1.0 {
        loss
    } else if loss > 1.0 {
        loss - q.ln() + (-(1.0 - q) * (-loss).exp()).ln_1p()
    } else {
        (loss.exp_m1() / q).max(-1.0).ln_1p()
    }
}

/// Masses of P and Q on the outcomes whose loss ln(P/Q) is at most some number, and on the others.
#[derive(Clone, Copy)]
struct Cut {
    p_below: f64,
    p_above: f64,
    q_below: f64,
    q_above: f64,
}

/// A density on a line whose loss grows along it.
#[derive(Clone, Copy)]
enum Line {
    Gaussian { z: f64 },
    Laplace { scale: f64 },
}

impl Line {
    fn cut(self, loss: f64) -> Cut {
        match self {
            Line::Gaussian { z } => {
                let x = loss * z + 0.5 / z;
                let y = x - 1.0 / z;
                Cut {
                    p_below: normal_below(y),
                    p_above: normal_below(-y),
                    q_below: normal_below(x),
                    q_above: normal_below(-x),
                }
            }
            Line::Laplace { scale } => {
                // The loss of x in [0, 1] is (2x - 1) / b; to the left and right of that it stays.
                if loss < -1.0 / scale {
                    return Cut { p_below: 0.0, p_above: 1.0, q_below: 0.0, q_above: 1.0 };
                }
                if loss >= 1.0 / scale {
                    return Cut { p_below: 1.0, p_above: 0.0, q_below: 1.0, q_above: 0.0 };
                }
                let x = (loss * scale + 1.0) / 2.0;
                let (p_below, q_above) = (0.5 * ((x - 1.0) / scale).exp(), 0.5 * (-x / scale).exp());
                Cut { p_below, p_above: 1.0 - p_below, q_below: 1.0 - q_above, q_above }
            }
        }
    }

    /// All losses but for a mass of 10^-22.
    fn range(self) -> (f64, f64) {
        match self {
            Line::Gaussian { z } => (-FAR / z - 0.5 / (z * z), FAR / z + 0.5 / (z * z)),
            Line::Laplace { scale } => (-1.0 / scale, 1.0 / scale),
        }
    }

    fn pieces(self, q: f64, add: bool, grid: f64) -> Vec<Piece> {
        let (low, high) = self.range();
        let (first, last) = ((mixed(q, low) / grid).floor() as i64, (mixed(q, high) / grid).ceil() as i64);
        let cut = |k: i64| self.cut(unmixed(q, k as f64 * grid));
        let mix = |p: f64, without: f64| (1.0 - q) * without + q * p;
        let mut pieces = Vec::with_capacity((last - first) as usize + 2);
        let mut here = cut(first);
        let (p, without) = (mix(here.p_below, here.q_below), here.q_below);
        pieces.push(if add { Piece::Infinite { p: without } } else { Piece::Atom { loss: first as f64 * grid, p } });
        for k in first..last {
            let next = cut(k + 1);
            // From the side on which less is left, so that differences of small numbers are taken.
            let part = |below: (f64, f64), above: (f64, f64)| {
                if below.1 < 0.5 { below.1 - below.0 } else { above.0 - above.1 }
            };
            let p = part((here.p_below, next.p_below), (here.p_above, next.p_above)).max(0.0);
            let without = part((here.q_below, next.q_below), (here.q_above, next.q_above)).max(0.0);
            let with = mix(p, without);
            pieces.push(if add {
                Piece::Bucket { k: -k - 1, p: without, q: with }
            } else {
                Piece::Bucket { k, p: with, q: without }
            });
            here = next;
        }
        let (p, without) = (mix(here.p_above, here.q_above), here.q_above);
        pieces.push(if add { Piece::Atom { loss: -last as f64 * grid, p: without } } else { Piece::Infinite { p } });
        pieces
    }
}

/// Outcomes one by one: P, Q and ln(P/Q).
fn atoms(outcomes: &[(f64, f64, f64)], q: f64, add: bool) -> Vec<Piece> {
    let piece = |&(p, without, loss): &(f64, f64, f64)| {
        let with = (1.0 - q) * without + q * p;
        let (upper, lower) = if add { (without, with) } else { (with, without) };
        if upper == 0.0 {
            return None;
        }
        let loss = if add { -mixed(q, loss) } else { mixed(q, loss) };
        Some(if lower == 0.0 { Piece::Infinite { p: upper } } else { Piece::Atom { loss, p: upper } })
    };
    outcomes.iter().filter_map(piece).collect()
}

/// Noise on the integers, shifted by the sensitivity.
fn shifted(noise: &Symmetric, sensitivity: u32) -> Vec<(f64, f64, f64)> {
    let by = i64::from(sensitivity);
    (-noise.far()..=noise.far() + by).map(|x| (noise.at(x - by), noise.at(x), noise.ln_ratio(x - by, x))).collect()
}

/// Discrete Laplace noise: all outcomes up to 0 have one loss, and all from the sensitivity on.
pub(super) fn discrete_laplace(scale: f64, sensitivity: u32) -> Vec<(f64, f64, f64)> {
    let r = (-1.0 / scale).exp();
    let far = f64::from(sensitivity);
    let power = |x: f64| (-x / scale).exp();
    let half = 1.0 / (1.0 + r);
    let point = (1.0 - r) / (1.0 + r);
    let inner = (1..sensitivity).map(|x| {
        let x = f64::from(x);
        (point * power(far - x), point * power(x), (2.0 * x - far) / scale)
    });
    let ends = [(half * power(far), half, -far / scale), (half, half * power(far), far / scale)];
    inner.chain(ends).collect()
}

/// All outcomes of a mechanism that has finitely many, or as many as matter.
pub(super) fn outcomes(mechanism: &Mechanism) -> Option<Vec<(f64, f64, f64)>> {
    match mechanism {
        Mechanism::DiscreteGaussian { sigma, sensitivity } => {
            Some(shifted(&Symmetric::discrete_gaussian(*sigma), *sensitivity))
        }
        Mechanism::Skellam { variance, sensitivity } => Some(shifted(&Symmetric::skellam(*variance), *sensitivity)),
        Mechanism::DiscreteLaplace { scale, sensitivity } => Some(discrete_laplace(*scale, *sensitivity)),
        Mechanism::Outcomes(pairs) => Some(pairs.iter().map(|&(p, q)| (p, q, (p / q).ln())).collect()),
        Mechanism::Gaussian { .. } | Mechanism::Laplace { .. } | Mechanism::Distributed(_) => None,
    }
}

/// Both directions of a mechanism, `count` times. None for a mechanism without a pair.
pub(super) fn term(
    mechanism: &Mechanism,
    sampling: Sampling,
    count: u64,
    grid: f64,
    discrete: Discretisation,
) -> Option<Term> {
    let line = match mechanism {
        Mechanism::Gaussian { noise_multiplier } => Some(Line::Gaussian { z: *noise_multiplier }),
        Mechanism::Laplace { scale } => Some(Line::Laplace { scale: *scale }),
        _ => None,
    };
    let outcomes = outcomes(mechanism);
    let how = if line.is_some() { Discretisation::Dots } else { discrete };
    let pieces = |add: bool| match (line, &outcomes) {
        (Some(line), _) => Some(line.pieces(sampling.rate(), add, grid)),
        (None, Some(outcomes)) => Some(atoms(outcomes, sampling.rate(), add)),
        (None, None) => None,
    };
    let remove = pieces(false)?;
    // Reflecting symmetric noise swaps P and Q: without sampling both directions are one.
    let symmetric = sampling.rate() == 1.0 && !matches!(mechanism, Mechanism::Outcomes(_));
    Some(match sampling {
        _ if symmetric => Term { remove: Pld::of(remove.into_iter(), grid, how), add: None, count },
        Sampling::Poisson { .. } => Term {
            remove: Pld::of(remove.into_iter(), grid, how),
            add: Some(Pld::of(pieces(true)?.into_iter(), grid, how)),
            count,
        },
        Sampling::Fixed { .. } => {
            let joined = replaced(remove, pieces(true)?);
            Term { remove: Pld::of(joined.into_iter(), grid, how), add: None, count }
        }
    })
}

/// Losses above 0 of the first, below 0 of the second; what is missing to a law is at 0.
fn replaced(remove: Vec<Piece>, add: Vec<Piece>) -> Vec<Piece> {
    let above = |piece: &Piece| match piece {
        Piece::Bucket { k, .. } => *k >= 0,
        Piece::Atom { loss, .. } => *loss > 0.0,
        Piece::Infinite { .. } => true,
    };
    let below = |piece: &Piece| match piece {
        Piece::Bucket { k, .. } => *k < 0,
        Piece::Atom { loss, .. } => *loss < 0.0,
        Piece::Infinite { .. } => false,
    };
    let mut joined: Vec<Piece> = remove.into_iter().filter(above).chain(add.into_iter().filter(below)).collect();
    let mass = |piece: &Piece| match piece {
        Piece::Bucket { p, .. } | Piece::Atom { p, .. } | Piece::Infinite { p } => *p,
    };
    let missing = 1.0 - joined.iter().map(mass).sum::<f64>();
    joined.push(Piece::Atom { loss: 0.0, p: missing.max(0.0) });
    joined
}
