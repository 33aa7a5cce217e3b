//! Secrets in shares: any `threshold` of them give the secret, fewer tell nothing.
//!
//! Shamir 1979, "How to Share a Secret" (CACM 22/11), over GF(p) with p = 2^61 - 1: the secret is the value at 0 of a random
//! polynomial of degree `threshold - 1`, a share its value at the holder's point. A secret of 32 bytes is five limbs of 52
//! bits (the last has 48), each with a polynomial of its own; a share is five values of 8 bytes.
//!
//! A share that is wrong gives a wrong secret, and who opens it must be able to tell. [`decode`] then finds the wrong ones:
//! Gao 2003, "A New Algorithm for Decoding Reed-Solomon Codes", algorithm 1; (shares - threshold) / 2 of them, rounded down.

use super::prg::Uniform;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a share.
pub const SHARE_BYTES: usize = 40;
pub type Share = [u8; SHARE_BYTES];

const P: u64 = (1 << 61) - 1;
const LIMBS: usize = 5;
const LIMB_BITS: usize = 52;
type Limbs = [u64; LIMBS];

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShamirError {
    #[error("{needed} shares open a secret, got {got}")]
    TooFew { needed: u32, got: u32 },
    #[error("the share at point {point} is not one of this field, or the point comes twice or is 0")]
    Malformed { point: u32 },
    #[error("the shares do not belong to one secret")]
    Inconsistent,
}

/// The shares of `secret` at `points`, which are distinct and not 0; `threshold` of them, at least 1, open it. `random` is
/// fresh for each secret.
pub fn split(secret: &[u8; 32], threshold: u32, points: &[u32], random: &[u8; 32]) -> Vec<Share> {
    let mut uniform = Uniform::new(random);
    let secret = Zeroizing::new(limbs(secret));
    let mut polynomial = Zeroizing::new(vec![*secret]);
    for _ in 1..threshold {
        polynomial.push(std::array::from_fn(|_| element(&mut uniform)));
    }
    let value_at = |&point: &u32| {
        let mut values = [0; LIMBS];
        for coefficients in polynomial.iter().rev() {
            for (value, &c) in values.iter_mut().zip(coefficients) {
                *value = add(mul(*value, u64::from(point)), c);
            }
        }
        to_bytes(&values)
    };
    points.iter().map(value_at).collect()
}

/// The secret from the first `threshold` of the shares, each with its point.
pub fn combine(shares: &[(u32, &Share)], threshold: u32) -> Result<[u8; 32], ShamirError> {
    let too_few = ShamirError::TooFew { needed: threshold, got: shares.len() as u32 };
    let shares = shares.get(..threshold as usize).ok_or(too_few)?;
    let points: Vec<u64> = shares.iter().map(|(point, _)| u64::from(*point)).collect();
    // The value at 0 is Σ y_i Π_{j≠i} x_j / (x_j - x_i).
    let product = points.iter().fold(1, |product, &x| mul(product, x));
    let mut secret = Zeroizing::new([0; LIMBS]);
    for (i, (point, share)) in shares.iter().enumerate() {
        let values = Zeroizing::new(from_bytes(share).ok_or(ShamirError::Malformed { point: *point })?);
        let others = points.iter().enumerate().filter(|(j, _)| *j != i);
        let below = others.fold(points[i], |below, (_, &x)| mul(below, sub(x, points[i])));
        if below == 0 {
            return Err(ShamirError::Malformed { point: *point });
        }
        let weight = mul(product, inverse(below));
        for (limb, &value) in secret.iter_mut().zip(values.iter()) {
            *limb = add(*limb, mul(weight, value));
        }
    }
    unlimbs(&secret).ok_or(ShamirError::Inconsistent)
}

/// The secret though some shares are wrong, and the points of those. Slower than [`combine`]: for when that was refuted.
pub fn decode(shares: &[(u32, &Share)], threshold: u32) -> Result<([u8; 32], Vec<u32>), ShamirError> {
    if shares.len() < threshold as usize {
        return Err(ShamirError::TooFew { needed: threshold, got: shares.len() as u32 });
    }
    let points: Vec<u64> = shares.iter().map(|(point, _)| u64::from(*point)).collect();
    let mut values = Vec::with_capacity(shares.len());
    for (i, (point, share)) in shares.iter().enumerate() {
        let twice = points[i] == 0 || points[..i].contains(&points[i]);
        values.push(from_bytes(share).filter(|_| !twice).ok_or(ShamirError::Malformed { point: *point })?);
    }
    let mut secret = Zeroizing::new([0; LIMBS]);
    let mut wrong = vec![false; shares.len()];
    for limb in 0..LIMBS {
        let word: Vec<u64> = values.iter().map(|values| values[limb]).collect();
        let polynomial = reed_solomon(&points, &word, threshold as usize).ok_or(ShamirError::Inconsistent)?;
        secret[limb] = polynomial.first().copied().unwrap_or(0);
        for (i, wrong) in wrong.iter_mut().enumerate() {
            *wrong |= evaluate(&polynomial, points[i]) != word[i];
        }
    }
    let wrong = shares.iter().zip(wrong).filter(|(_, wrong)| *wrong).map(|((point, _), _)| *point).collect();
    Ok((unlimbs(&secret).ok_or(ShamirError::Inconsistent)?, wrong))
}

/// The polynomial of fewer than `dimension` coefficients that agrees with `word` but in (n - dimension) / 2 points.
fn reed_solomon(points: &[u64], word: &[u64], dimension: usize) -> Option<Vec<u64>> {
    // g0 = Π (x - x_i), g1 interpolates all of the word (Newton's way); Euclid's algorithm stops half way.
    let (mut g0, mut g1) = (vec![1], Vec::new());
    for (&x, &y) in points.iter().zip(word) {
        let step = mul(sub(y, evaluate(&g1, x)), inverse(evaluate(&g0, x)));
        g1.resize(g0.len(), 0);
        g1.iter_mut().zip(&g0).for_each(|(c, &g)| *c = add(*c, mul(step, g)));
        g0.insert(0, 0);
        for i in 0..g0.len() - 1 {
            g0[i] = sub(g0[i], mul(x, g0[i + 1]));
        }
    }
    trim(&mut g1);
    let (mut v0, mut v1) = (Vec::new(), vec![1]);
    while !g1.is_empty() && 2 * (g1.len() - 1) >= points.len() + dimension {
        let (quotient, rest) = divide(g0, &g1);
        (g0, g1) = (g1, rest);
        let product = multiply(&quotient, &v1);
        v0.resize(v0.len().max(product.len()), 0);
        v0.iter_mut().zip(&product).for_each(|(c, &p)| *c = sub(*c, p));
        trim(&mut v0);
        (v0, v1) = (v1, v0);
    }
    let (message, rest) = divide(g1, &v1);
    (rest.is_empty() && message.len() <= dimension).then_some(message)
}

fn trim(polynomial: &mut Vec<u64>) {
    while polynomial.last() == Some(&0) {
        polynomial.pop();
    }
}

fn evaluate(polynomial: &[u64], x: u64) -> u64 {
    polynomial.iter().rev().fold(0, |value, &c| add(mul(value, x), c))
}

fn multiply(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut product = vec![0; (a.len() + b.len()).saturating_sub(1)];
    for (i, &a) in a.iter().enumerate() {
        product[i..].iter_mut().zip(b).for_each(|(c, &b)| *c = add(*c, mul(a, b)));
    }
    product
}

/// Quotient and rest; `by` is not zero and has no leading zero.
fn divide(mut rest: Vec<u64>, by: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let lead = inverse(by.last().copied().unwrap_or(1));
    let mut quotient = vec![0; (rest.len() + 1).saturating_sub(by.len())];
    for at in (0..quotient.len()).rev() {
        let q = mul(rest[at + by.len() - 1], lead);
        quotient[at] = q;
        rest[at..].iter_mut().zip(by).for_each(|(r, &b)| *r = sub(*r, mul(q, b)));
    }
    trim(&mut rest);
    trim(&mut quotient);
    (quotient, rest)
}

// GF(2^61 - 1), without branches on values.

fn reduce(x: u64) -> u64 {
    let x = (x & P) + (x >> 61);
    let minus = x.wrapping_sub(P);
    // All ones if x < P.
    let below = ((minus as i64) >> 63) as u64;
    minus.wrapping_add(P & below)
}

fn add(a: u64, b: u64) -> u64 {
    reduce(a + b)
}

fn sub(a: u64, b: u64) -> u64 {
    reduce(a + P - b)
}

fn mul(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    reduce((product as u64 & P) + (product >> 61) as u64)
}

/// a^(p - 2), Fermat's inverse; that of 0 is 0.
fn inverse(a: u64) -> u64 {
    let (mut power, mut result) = (a, 1);
    for bit in 0..61 {
        if (P - 2) >> bit & 1 == 1 {
            result = mul(result, power);
        }
        power = mul(power, power);
    }
    result
}

/// A uniform element: 61 bits, again if they are p itself.
fn element(uniform: &mut Uniform) -> u64 {
    loop {
        let candidate = uniform.next_u64() >> 3;
        if candidate < P {
            return candidate;
        }
    }
}

/// Limb i holds the bits 52 i .. 52 (i + 1) of the secret, least significant byte first.
fn limbs(secret: &[u8; 32]) -> Limbs {
    let mut bytes = Zeroizing::new([0; 40]);
    bytes[..32].copy_from_slice(secret);
    std::array::from_fn(|i| {
        let (byte, bit) = (i * LIMB_BITS / 8, i * LIMB_BITS % 8);
        let mut window = [0; 8];
        window.copy_from_slice(&bytes[byte..byte + 8]);
        u64::from_le_bytes(window) >> bit & ((1 << LIMB_BITS) - 1)
    })
}

/// The secret, if each limb is one.
fn unlimbs(limbs: &Limbs) -> Option<[u8; 32]> {
    let mut bytes = Zeroizing::new([0u8; 40]);
    for (i, &limb) in limbs.iter().enumerate() {
        if limb >> LIMB_BITS != 0 {
            return None;
        }
        let (byte, bit) = (i * LIMB_BITS / 8, i * LIMB_BITS % 8);
        for (out, part) in bytes[byte..].iter_mut().zip((limb << bit).to_le_bytes()) {
            *out |= part;
        }
    }
    let mut secret = [0; 32];
    secret.copy_from_slice(&bytes[..32]);
    bytes[32..].iter().all(|&b| b == 0).then_some(secret)
}

fn to_bytes(values: &Limbs) -> Share {
    let mut share = [0; SHARE_BYTES];
    share.as_chunks_mut::<8>().0.iter_mut().zip(values).for_each(|(out, value)| *out = value.to_le_bytes());
    share
}

fn from_bytes(share: &Share) -> Option<Limbs> {
    let mut values = [0; LIMBS];
    values.iter_mut().zip(share.as_chunks::<8>().0).for_each(|(value, bytes)| *value = u64::from_le_bytes(*bytes));
    values.iter().all(|&value| value < P).then_some(values)
}

/// Is this a share of this field?
pub(crate) fn is_share(share: &Share) -> bool {
    from_bytes(share).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every way to take `t` of `n`.
    fn subsets(n: usize, t: usize) -> impl Iterator<Item = Vec<usize>> {
        (0u32..1 << n)
            .filter(move |s| s.count_ones() as usize == t)
            .map(move |s| (0..n).filter(|i| s >> i & 1 == 1).collect())
    }

    #[test]
    fn any_threshold_of_them_is_exact() {
        let secrets = [[0; 32], [0xff; 32], std::array::from_fn(|i| (i * 37 + 5) as u8)];
        for (n, t) in [(2, 2), (5, 3), (6, 6), (7, 1), (8, 4)] {
            for (seed, secret) in secrets.iter().enumerate() {
                let points: Vec<u32> = (0..n).map(|i| i * i + 3).collect();
                let shares = split(secret, t, &points, &[seed as u8; 32]);
                for chosen in subsets(n as usize, t as usize) {
                    let some: Vec<_> = chosen.iter().map(|&i| (points[i], &shares[i])).collect();
                    assert_eq!(combine(&some, t), Ok(*secret));
                }
                let few: Vec<_> = (1..t as usize).map(|i| (points[i], &shares[i])).collect();
                assert_eq!(combine(&few, t), Err(ShamirError::TooFew { needed: t, got: t - 1 }));
            }
        }
    }

    #[test]
    fn fewer_are_consistent_with_every_secret() {
        // Of one limb: whatever t - 1 shares are, there is exactly one polynomial through them for each secret, because
        // the map from secrets to the next share is one to one. Here for t = 3 over some secrets and a fixed further point.
        let shares = [(2u64, 123_456_789), (5, P - 3)];
        let mut seen = std::collections::BTreeSet::new();
        for secret in (0..1000).chain(P - 1000..P) {
            let points = [(0, secret), shares[0], shares[1]];
            // Lagrange at 9.
            let third = points.iter().enumerate().fold(0, |sum, (i, &(x, y))| {
                let others = points.iter().enumerate().filter(|(j, _)| *j != i);
                let (above, below) = others.fold((1, 1), |(a, b), (_, &(o, _))| (mul(a, sub(9, o)), mul(b, sub(x, o))));
                add(sum, mul(y, mul(above, inverse(below))))
            });
            assert!(third < P && seen.insert(third));
        }
        // And the coefficients that hide the secret take every residue alike: those of a small range, top included.
        let mut uniform = Uniform::new(&[3; 32]);
        let mut counts = [0u32; 16];
        (0..32_000).for_each(|_| counts[(u128::from(element(&mut uniform)) * 16 / u128::from(P)) as usize] += 1);
        // Chi-square, 15 degrees of freedom: above 44.3 once in 10,000 seeds; this one is fixed.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi < 44.3, "{counts:?}");
    }

    #[test]
    fn wrong_shares_are_found() {
        let secret = [0x5a; 32];
        let points: Vec<u32> = (1..=11).collect();
        let right = split(&secret, 5, &points, &[9; 32]);
        for bad in [vec![], vec![0], vec![10], vec![0, 1, 2], vec![3, 6, 9]] {
            let mut shares = right.clone();
            bad.iter().for_each(|&i: &usize| shares[i] = split(&[i as u8; 32], 5, &points, &[i as u8; 32])[i]);
            let shares: Vec<_> = points.iter().copied().zip(&shares).collect();
            let wrong: Vec<u32> = bad.iter().map(|&i| points[i]).collect();
            assert_eq!(decode(&shares, 5), Ok((secret, wrong)));
        }
        // Four of eleven are too many for threshold 5, and this is noticed.
        let mut shares = right.clone();
        (0..4).for_each(|i| shares[i][7] ^= 1);
        let shares: Vec<_> = points.iter().copied().zip(&shares).collect();
        assert_eq!(decode(&shares, 5), Err(ShamirError::Inconsistent));
    }

    #[test]
    fn what_is_no_share_is_refused() {
        let good = split(&[1; 32], 2, &[1, 2], &[0; 32]);
        let bad = [0xff; SHARE_BYTES];
        assert_eq!(combine(&[(1, &good[0]), (2, &bad)], 2), Err(ShamirError::Malformed { point: 2 }));
        assert_eq!(combine(&[(1, &good[0]), (1, &good[0])], 2), Err(ShamirError::Malformed { point: 1 }));
        assert_eq!(combine(&[(0, &good[0]), (2, &good[1])], 2), Err(ShamirError::Malformed { point: 0 }));
    }

    proptest! {
        #[test]
        fn limbs_and_the_field_are_right(secret: [u8; 32], a in 0..P, b in 0..P) {
            prop_assert_eq!(unlimbs(&limbs(&secret)), Some(secret));
            let p = u128::from(P);
            prop_assert_eq!(u128::from(add(a, b)), (u128::from(a) + u128::from(b)) % p);
            prop_assert_eq!(u128::from(sub(a, b)), (u128::from(a) + p - u128::from(b)) % p);
            prop_assert_eq!(u128::from(mul(a, b)), u128::from(a) * u128::from(b) % p);
            prop_assert_eq!(mul(a, inverse(a)), u64::from(a != 0));
        }
    }
}
