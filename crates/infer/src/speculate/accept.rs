//! Which drafted tokens hold, where drafts declare what they were drawn from: speculative sampling, Leviathan et al., "Fast
//! Inference from Transformers via Speculative Decoding", 2023, algorithm 1.
//!
//! A token x was drawn from q, and the model would draw from p. It holds with probability min(1, p(x)/q(x)); if it does not,
//! the token in its place is drawn from what p has more than q, norm((p - q)+). Its law is then p, for any q, as long as q is
//! *exactly* what was drawn from. So a draft is not drawn from the small model's distribution and then described: the
//! distribution is cut to its 32 best tokens and rounded to 65,536ths first ([`declare`]), and the draw is from that
//! ([`draw`]).
//!
//! All noise is a function of (seed, position), of a purpose of its own for each of the three draws: a draw that shared its
//! noise with the decision over it would not be independent of it.

use crate::sample::{Noise, Purpose};
use littoral_wire::speculation::{DECLARED_MAX, Declared, Share};

/// What became of a drafted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// This token stands in its place, and what was drafted after it is void.
    Rejected {
        instead: u32,
    },
}

/// The verdict over the token at `position`. `p` is what the model would draw it from, as `Sampler::distribution` tells it:
/// each id once, probabilities that add up to 1. None if `p` is empty.
pub fn judge(p: &[(u32, f64)], q: &Declared, drafted: u32, seed: u64, position: u64) -> Option<Verdict> {
    let uniform = |purpose| Noise::for_purpose(seed, position, purpose).uniform(0);
    if accepts(p, q, drafted, uniform(Purpose::Accept)) {
        return Some(Verdict::Accepted);
    }
    residual(p, q, uniform(Purpose::Residual)).map(|instead| Verdict::Rejected { instead })
}

/// Does a drafted token hold, `uniform` between 0 and 1? A token that `q` does not name was not drawn from it, and never does.
pub fn accepts(p: &[(u32, f64)], q: &Declared, drafted: u32, uniform: f64) -> bool {
    let mass = q.mass(drafted);
    let probability = p.iter().find(|(id, _)| *id == drafted).map_or(0.0, |(_, probability)| *probability);
    mass > 0 && uniform * share(mass) < probability
}

/// A draw from norm((p - q)+), in the order of `p`. Where p has no more than q anywhere a token can be rejected only by
/// rounding; it is p's first then. None if `p` is empty.
pub fn residual(p: &[(u32, f64)], q: &Declared, uniform: f64) -> Option<u32> {
    let more = |&(id, probability): &(u32, f64)| (probability - share(q.mass(id))).max(0.0);
    let total: f64 = p.iter().map(more).sum();
    let mut left = uniform * total;
    let mut last = p.first().map(|(id, _)| *id);
    for token in p {
        let more = more(token);
        if more > 0.0 {
            last = Some(token.0);
            if left < more {
                break;
            }
            left -= more;
        }
    }
    last
}

fn share(mass: u32) -> f64 {
    f64::from(mass) / f64::from(Declared::ONE)
}

/// The best tokens of a distribution, as it can be declared. `distribution` is as `Sampler::distribution` tells it: the most
/// probable first, each id once. None if it is empty.
///
/// Masses are rounded by largest remainders, earlier ones first among equals; a token that is rounded to nothing is left out.
pub fn declare(distribution: &[(u32, f64)]) -> Option<Declared> {
    let best = &distribution[..distribution.len().min(DECLARED_MAX)];
    let total: f64 = best.iter().map(|(_, probability)| probability).sum();
    let one = f64::from(Declared::ONE);
    let exact: Vec<f64> = best.iter().map(|(_, probability)| probability / total * one).collect();
    let mut masses: Vec<u32> = exact.iter().map(|exact| exact.floor() as u32).collect();
    let missing = Declared::ONE.checked_sub(masses.iter().sum())?;
    let mut order: Vec<usize> = (0..best.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    order.iter().take(missing as usize).for_each(|&at| masses[at] += 1);
    let named = best.iter().zip(masses).filter(|(_, mass)| *mass > 0);
    let mut shares: Vec<Share> = named.map(|((id, _), mass)| Share { id: *id, less_one: (mass - 1) as u16 }).collect();
    shares.sort_unstable_by_key(|share| share.id);
    Declared::new(shares)
}

/// A draft from what is declared, for the token at `position`.
pub fn draw(q: &Declared, seed: u64, position: u64) -> u32 {
    draw_by(q, Noise::for_purpose(seed, position, Purpose::Draft).uniform(0))
}

/// By a number between 0 and 1: the least id with more than this share at or before it. Uniforms of [`Noise`] are finer than
/// 65,536ths, so each token has exactly its mass.
pub fn draw_by(q: &Declared, uniform: f64) -> u32 {
    let mut left = (uniform * f64::from(Declared::ONE)) as u32;
    for share in q.iter() {
        match left.checked_sub(share.mass()) {
            None => return share.id,
            Some(less) => left = less,
        }
    }
    q.last().map_or(0, |share| share.id)
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
