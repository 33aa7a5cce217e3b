//! Privacy loss distributions: the law of ln(P(o) / Q(o)) for an outcome o of P, on a grid, composed by Fourier transform.
//!
//! Sommer, Meiser and Mohammadi 2019, "Privacy loss classes"; Koskela, Jälkö and Honkela 2020, "Computing tight differential
//! privacy guarantees using FFT". A pair (P, Q) *dominates* a mechanism if no two neighbours are told apart better than P
//! and Q; a composition is dominated by the pairs' product (Zhu, Dong and Wang 2022, "Optimal accounting of differential
//! privacy via characteristic function", theorem 10), whose loss is a sum of independent losses. Then
//! δ(ε) = Σ p(ℓ) (1 - e^(ε-ℓ))₊.
//!
//! Whatever is approximated here makes losses larger, never smaller:
//! - **discretisation**: [`Discretisation::Dots`] moves what lies between two grid points to both of them so that its
//!   masses under P *and* Q stay (Doroshenko et al. 2022, "Connect the dots", algorithm 1: the piecewise linear curve above
//!   the true δ(e^ε)); the error is of second order in the grid. [`Discretisation::Up`] rounds the loss up (privacy
//!   buckets; Meiser and Mohammadi 2018): half a grid step too much for each round.
//! - **truncation**: what a mechanism's tails hold beyond 10^-22 is counted as loss ∞; what a composition's window leaves out
//!   above is bounded by Chernoff and added to δ. What wraps around the transform is counted inside as well.
//!
//! What is not covered: floating-point rounding. It is relative to δ ([`Tilted`]): some 10^-16 for each round.

use super::fft::{Complex, Roots, each_pair};

/// How losses come onto the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discretisation {
    /// Connect the dots: tight.
    Dots,
    /// Privacy buckets: every loss is rounded up.
    Up,
}

/// What a composition leaves out on each side, as a share of the tilted law.
const TAIL: f64 = 1e-13;
/// The longest transform: 2^22 points take about a second.
const LENGTH_MAX: usize = 1 << 22;

/// The law of one loss on multiples of `grid`.
#[derive(Clone, Debug)]
pub(super) struct Pld {
    grid: f64,
    /// The first mass's multiple of the grid.
    first: i64,
    mass: Vec<f64>,
    infinite: f64,
}

/// What a mechanism's outcomes are, piece by piece: each with its mass under P and under Q. For both directions: `p` is the
/// law with the record.
pub(super) enum Piece {
    /// Losses that lie in (k · grid, (k + 1) · grid] for P over Q.
    Bucket { k: i64, p: f64, q: f64 },
    /// One loss.
    Atom { loss: f64, p: f64 },
    /// All of P that is not worth a place: loss ∞.
    Infinite { p: f64 },
}

impl Pld {
    pub fn of(pieces: impl Iterator<Item = Piece>, grid: f64, how: Discretisation) -> Self {
        let mut places: Vec<(i64, f64)> = Vec::new();
        let mut infinite = 0.0;
        // The share of (0, grid) that goes up, for a loss of x above the point below.
        let whole = -(-grid).exp_m1();
        for piece in pieces {
            match piece {
                Piece::Infinite { p } => infinite += p,
                Piece::Bucket { k, p, .. } if how == Discretisation::Up => places.push((k + 1, p)),
                Piece::Bucket { k, p, q } => {
                    // a + b = p and a e^-(k grid) + b e^-((k+1) grid) = q.
                    let up = ((p - q * (k as f64 * grid).exp()) / whole).clamp(0.0, p);
                    places.extend([(k, p - up), (k + 1, up)]);
                }
                Piece::Atom { loss, p } if how == Discretisation::Up => places.push(((loss / grid).ceil() as i64, p)),
                Piece::Atom { loss, p } => {
                    let k = (loss / grid).floor();
                    let up = (-(k * grid - loss).exp_m1() / whole).clamp(0.0, 1.0) * p;
                    places.extend([(k as i64, p - up), (k as i64 + 1, up)]);
                }
            }
        }
        let first = places.iter().map(|place| place.0).min().unwrap_or(0);
        let last = places.iter().map(|place| place.0).max().unwrap_or(0);
        let mut mass = vec![0.0; (last - first + 1) as usize];
        places.into_iter().for_each(|(k, p)| mass[(k - first) as usize] += p);
        Self { grid, first, mass, infinite }
    }

    /// Fewer masses, for moments: those of a block stand at its two ends such that their mean stays, which makes every
    /// E e^(t · loss) larger. A block's width is at most a 64th of its distance from 0, where most losses are.
    fn blocks(&self) -> Blocks {
        let mut blocks = Vec::new();
        let (mut start, end) = (0, self.mass.len());
        while start < end {
            let near = self.first + start as i64;
            // Negative blocks shrink towards 0.
            let width = (near.unsigned_abs() / if near < 0 { 65 } else { 64 }).max(1) as usize;
            let stop = end.min(start + width);
            let mass: f64 = self.mass[start..stop].iter().sum();
            let moment: f64 = self.mass[start..stop].iter().enumerate().map(|(i, p)| p * i as f64).sum();
            let far = if stop - start > 1 { moment / (stop - start - 1) as f64 } else { 0.0 };
            let places = [(near as f64, mass - far), ((near + (stop - start) as i64 - 1) as f64, far)];
            blocks.extend(places.into_iter().filter(|place| place.1 > 0.0));
            start = stop;
        }
        blocks
    }

    /// ln E e^(t · loss) of what is finite, t in units of 1 / grid.
    fn ln_moment(&self, t: f64) -> f64 {
        let exponent = |i: usize| t * (self.first + i as i64) as f64;
        let peak = exponent(0).max(exponent(self.mass.len() - 1));
        peak + self.mass.iter().enumerate().map(|(i, p)| p * (exponent(i) - peak).exp()).sum::<f64>().ln()
    }

    /// The masses with their multiples of the grid, tilted so that they sum to 1.
    fn tilted(&self, t: f64) -> impl Iterator<Item = (i64, f64)> {
        let moment = self.ln_moment(t);
        (self.first..).zip(&self.mass).map(move |(k, p)| (k, p * (t * k as f64 - moment).exp()))
    }

    /// The smallest ε ≥ 0 with δ(ε) ≤ `delta`; None if there is none.
    fn epsilon(&self, delta: f64) -> Option<f64> {
        if self.infinite > delta {
            return None;
        }
        // From above: the mass so far, and Σ p(ℓ) e^(here - ℓ) over it.
        let (mut above, mut lower) = (0.0, 0.0);
        let shrink = (-self.grid).exp();
        for (i, &p) in self.mass.iter().enumerate().rev() {
            let here = (self.first + i as i64) as f64 * self.grid;
            // δ at `here`, to which this point adds nothing.
            lower *= shrink;
            if self.infinite + above - lower > delta {
                // Between here and the point above: there `lower` was larger by 1 / shrink.
                let next = here + self.grid;
                let lower = lower / shrink;
                return Some((next + ((self.infinite + above - delta) / lower).ln()).max(0.0));
            }
            if here < 0.0 {
                return Some(0.0);
            }
            above += p;
            lower += p;
        }
        // The whole law is at or above 0.
        let bottom = self.first as f64 * self.grid;
        Some((bottom + ((self.infinite + above - delta) / lower).ln()).max(0.0))
    }
}

/// One mechanism in both directions (of the same grid), taken `count` times. `add` is None if both are one law.
pub(super) struct Term {
    pub remove: Pld,
    pub add: Option<Pld>,
    pub count: u64,
}

/// One direction of a composition, tilted: masses are multiplied by e^(t ℓ) / E e^(t ℓ), which composes too and is undone
/// at the end. It moves the middle of the sum to where δ(ε) is small, so that the transform's rounding, which is relative
/// to the largest masses, is relative to δ (Gopi, Lee and Wutschitz 2021 and others use the same device).
struct Tilted<'a> {
    terms: Vec<(&'a Pld, u64)>,
    /// In units of 1 / grid.
    tilt: f64,
    /// ln E e^(t · sum), by which the composition's masses were divided.
    cumulant: f64,
    /// The first and last multiple of the grid between which lies all but [`TAIL`] of the tilted sum, on either side.
    window: (i64, i64),
}

/// Places in grid steps and their masses.
type Blocks = Vec<(f64, f64)>;

impl<'a> Tilted<'a> {
    fn new(terms: Vec<(&'a Pld, u64)>, delta: Option<f64>) -> Self {
        let blocks: Vec<(Blocks, f64)> = terms.iter().map(|(pld, count)| (pld.blocks(), *count as f64)).collect();
        let tilt = delta.and_then(|delta| tilt(&blocks, delta)).unwrap_or(0.0);
        let exact = |(pld, count): &(&Pld, u64)| *count as f64 * pld.ln_moment(tilt);
        let cumulant = terms.iter().map(exact).sum();
        let window = window(&terms, &blocks, tilt, cumulant);
        Self { terms, tilt, cumulant, window }
    }

    fn points(&self) -> usize {
        (self.window.1 - self.window.0 + 1).max(2) as usize
    }

    /// What this makes of the composed masses that stand, modulo the transform's length, at `value(place)`.
    fn untilt(&self, value: impl Fn(i64) -> f64) -> Pld {
        let (first, last) = self.window;
        let back = |k: i64| (self.cumulant - self.tilt * k as f64).exp();
        let mass = (first..=last).map(|k| value(k) * back(k)).collect();
        let finite: f64 = self.terms.iter().map(|(pld, count)| *count as f64 * (-pld.infinite).ln_1p()).sum();
        Pld { grid: self.terms[0].0.grid, first, mass, infinite: TAIL * back(last) - finite.exp_m1() }
    }
}

/// ln E e^(t · sum), from above by a hair.
fn ln_moment(blocks: &[(Blocks, f64)], t: f64) -> f64 {
    let one = |(blocks, count): &(Blocks, f64)| {
        let peak = blocks.iter().map(|b| t * b.0).fold(f64::NEG_INFINITY, f64::max);
        count * (peak + blocks.iter().map(|b| b.1 * (t * b.0 - peak).exp()).sum::<f64>().ln())
    };
    blocks.iter().map(one).sum()
}

/// The t at which Chernoff's bound on the mass above the tilted mean, exp(K(t) - t K'(t)), is about δ; None if none is.
fn tilt(blocks: &[(Blocks, f64)], delta: f64) -> Option<f64> {
    let ln_bound = |ln_t: f64| {
        let (t, step) = (ln_t.exp(), 1e-4);
        let slope = (ln_moment(blocks, t * (1.0 + step)) - ln_moment(blocks, t * (1.0 - step))) / (2.0 * step);
        ln_moment(blocks, t) - slope
    };
    let (mut low, mut high) = (-23.0, 0.0);
    if ln_bound(high) > delta.ln() {
        return None;
    }
    for _ in 0..30 {
        let middle = (low + high) / 2.0;
        if ln_bound(middle) > delta.ln() { low = middle } else { high = middle }
    }
    Some(low.exp())
}

/// P(sum ≥ u) ≤ exp(K(t) - t u) for every t > 0, so u = (K(t) - ln TAIL) / t is far enough; the best of many t, of which that is a
/// unimodal function. Downwards alike.
fn window(terms: &[(&Pld, u64)], blocks: &[(Blocks, f64)], tilt: f64, cumulant: f64) -> (i64, i64) {
    let least: f64 = terms.iter().map(|(pld, count)| pld.first as f64 * *count as f64).sum();
    let most: f64 =
        terms.iter().map(|(pld, count)| (pld.first + pld.mass.len() as i64 - 1) as f64 * *count as f64).sum();
    let bound = |sign: f64| {
        let at = |ln_t: f64| {
            let t = sign * ln_t.exp();
            (ln_moment(blocks, tilt + t) - cumulant - TAIL.ln()) / ln_t.exp()
        };
        // Sums of losses deviate by 1 to 10^10 grid steps.
        let (mut low, mut high) = (-23.0f64, 5.0f64);
        for _ in 0..40 {
            let (a, b) = (low + (high - low) * 0.382, low + (high - low) * 0.618);
            if at(a) < at(b) { high = b } else { low = a }
        }
        at((low + high) / 2.0)
    };
    let upper = bound(1.0).ceil().min(most);
    let lower = (-bound(-1.0)).floor().max(least).min(upper);
    (lower as i64, upper as i64)
}

fn direction(terms: &[Term], add: bool) -> Vec<(&Pld, u64)> {
    let of = |term: &'_ Term| add && term.add.is_some();
    let pld = |term| if of(term) { term.add.as_ref().unwrap_or(&term.remove) } else { &term.remove };
    terms.iter().map(|term| (pld(term), term.count)).collect()
}

/// The directions that differ: removing, and adding if any term has it apart.
fn directions(terms: &[Term]) -> &'static [bool] {
    if terms.iter().any(|term| term.add.is_some()) { &[false, true] } else { &[false] }
}

/// How many points a transform needs for these terms.
pub(super) fn length(terms: &[Term], delta: f64) -> usize {
    let points = |&add: &bool| Tilted::new(direction(terms, add), Some(delta)).points();
    directions(terms).iter().map(points).max().unwrap_or(2).checked_next_power_of_two().unwrap_or(usize::MAX)
}

pub(super) fn fits(length: usize) -> bool {
    length <= LENGTH_MAX
}

/// The smallest ε at which both directions of the composition have δ(ε) ≤ `delta`; None if no ε is enough.
pub(super) fn epsilon(terms: &[Term], delta: f64) -> Option<f64> {
    if let [Term { remove, add, count: 1 }] = terms {
        let epsilons = [Some(remove), add.as_ref()].into_iter().flatten().map(|pld| pld.epsilon(delta));
        return epsilons.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max);
    }
    let composed = compose(terms, Some(delta));
    let inside = |pld: &Pld| pld.epsilon(delta).is_some_and(|epsilon| epsilon > (pld.first + 1) as f64 * pld.grid);
    // A tilt that cut off the answer was too strong.
    let composed = if composed.iter().all(inside) { composed } else { compose(terms, None) };
    composed.iter().map(|pld| pld.epsilon(delta)).collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
}

/// The sum's law in each direction that differs.
fn compose(terms: &[Term], delta: Option<f64>) -> Vec<Pld> {
    let both: Vec<Tilted<'_>> =
        directions(terms).iter().map(|&add| Tilted::new(direction(terms, add), delta)).collect();
    let n = both.iter().map(Tilted::points).max().unwrap_or(2).next_power_of_two();
    let place = |k: i64| k.rem_euclid(n as i64) as usize;
    let roots = Roots::new(n);
    // The product of the terms' spectra to the power of their counts; adding is the imaginary part.
    let mut product: Option<Vec<Complex>> = None;
    for (i, term) in terms.iter().enumerate() {
        let mut z = vec![Complex::default(); n];
        // Place i stands for all multiples of the grid that are i modulo n.
        both[0].terms[i].0.tilted(both[0].tilt).for_each(|(k, p)| z[place(k)].re += p);
        if let Some(add) = both.get(1) {
            add.terms[i].0.tilted(add.tilt).for_each(|(k, p)| z[place(k)].im += p);
        }
        roots.forward(&mut z);
        each_pair(&mut z, |x, y| (x.power(term.count), if both.len() == 2 { y.power(term.count) } else { y }));
        match &mut product {
            None => product = Some(z),
            Some(so_far) => multiply(so_far, &z),
        }
    }
    let mut z = product.unwrap_or_default();
    roots.inverse(&mut z);
    let untilt = |(i, tilted): (usize, &Tilted<'_>)| {
        tilted.untilt(|k| if i == 1 { z[place(k)].im } else { z[place(k)].re } / n as f64)
    };
    both.iter().enumerate().map(untilt).collect()
}

/// Multiplies two packed pairs of spectra, pair by pair.
fn multiply(so_far: &mut [Complex], z: &[Complex]) {
    // The pairs of z, in the order in which `each_pair` asks.
    let mut pairs = Vec::with_capacity(z.len() / 2 + 2);
    each_pair(&mut z.to_vec(), |x, y| {
        pairs.push((x, y));
        (x, y)
    });
    let mut pairs = pairs.into_iter();
    each_pair(so_far, |x, y| {
        let (a, b) = pairs.next().unwrap_or_default();
        (x.times(a), y.times(b))
    });
}
