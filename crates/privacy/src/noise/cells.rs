//! Exact sampling from a unimodal law on the integers by rejection from a staircase.
//!
//! The law is known up to a constant by the ratio ρ(x) = p(x) / p(0) ≤ 1, which does not grow away from 0. The range
//! around 0 is cut into cells of 2^s integers. A cell's hat is an *integer* h with h / 2^54 ≥ ρ at its end nearest to 0,
//! so over the whole cell. Beyond the last cell, at x₀, the hat is geometric: h₀ / 2^54 · gᵏ at x₀ ± k, where g ≥ the
//! ratio of the first step, which does not grow either (the laws here are log-concave).
//!
//! 1. Choose a cell, or a tail, with probability proportional to its integer weight; choose x in it uniformly, or by coins
//!    of bias g.
//! 2. Accept x with probability ρ(x) / hat(x); else begin again.
//!
//! **Why the law is exact.** Step 1 compares uniform integers with integers and tosses rational coins. In step 2 the
//! question is whether U · h < 2^54 ρ(x), with U uniform in [0, 1) of which n bits are known: u / 2^n ≤ U < (u + 1) / 2^n.
//! It is answered "yes" only if (u + 1) h ≤ 2^n · low and "no" only if u · h ≥ 2^n · high for integers (then
//! fixed-point numbers) low ≤ 2^54 ρ(x) ≤ high; else U gets more bits and ρ(x) tighter bounds until one of the two holds.
//! So each answer is the one that real numbers would give, whatever hat, cell or bound was used: those decide only how
//! often we begin again. There is no floating point here. What depends on the law are its bounds ([`Law`]).
//!
//! Cost: about 97 of 100 proposals are accepted, most by comparing with the hat at the cell's far end, which bounds ρ(x)
//! from below without looking at x. Big numbers are needed about once in 2^45 samples.

use super::bits::Bits;
use super::fixed::Fixed;
use rand_core::CryptoRng;
use std::cmp::Ordering;

/// Hats and bounds are in units of 2^-54: some hundreds of hats add up to less than 2^64.
pub(super) const UNIT_BITS: u32 = 54;

/// What is asked of a law.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// ρ(x).
    Mass(i64),
    /// ρ of the neighbour of x that lies farther from 0, over ρ(x); `up` says on which side.
    Step { x: i64, up: bool },
}

pub(super) trait Law {
    /// Integers low ≤ 2^54 · value ≤ high, close together.
    fn bounds(&self, of: Of) -> (u64, u64);
    /// The same value to 64 `places` bits: (low, high), both with `places` limbs.
    fn enclose(&self, of: Of, places: usize) -> (Fixed, Fixed);
    /// About where ρ has fallen to exp(-1/2) on either side: it sets the cells' width, nothing else.
    fn width(&self) -> u64;
    /// There is nothing below this.
    fn least(&self) -> i64;
}

#[derive(Clone, Debug)]
struct Cell {
    /// The smallest integer of the cell; the middle of a tail.
    start: i64,
    hat: u64,
    /// At most 2^54 ρ at the end far from 0.
    far: u64,
    /// Weights of all cells up to this one, it included.
    until: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Cell,
    /// From `start` away from 0. `step` / 2^54 is g; `weight` its weight in cells.
    Tail {
        up: bool,
        step: u64,
        weight: u64,
    },
}

/// Tails begin where the hat is below 2^-20: rare, but met by every test of a million samples.
const TAIL: u64 = 1 << (UNIT_BITS - 20);
const GUIDE_BITS: u32 = 10;

#[derive(Clone, Debug)]
pub(super) struct Cells<L> {
    law: L,
    cells: Vec<Cell>,
    /// The cell in which the weight `i << guide_shift` lies, so that the search is short.
    guide: Vec<u16>,
    guide_shift: u32,
    total: u64,
    /// log2 of a cell's length.
    shift: u32,
}

impl<L: Law> Cells<L> {
    pub fn new(law: L) -> Self {
        let shift = (law.width() / 16).max(1).ilog2();
        let length = 1i64 << shift;
        let mut cells = Vec::new();
        for up in [true, false] {
            // Downwards the first cell ends at -1.
            let mut near = if up { 0 } else { -1 };
            loop {
                let far = if up { near + (length - 1) } else { near - (length - 1) };
                let start = near.min(far);
                if near < law.least() {
                    break;
                }
                // One more than the bound: not exceeded by a later, wider bound of the same value.
                let hat = law.bounds(Of::Mass(near)).1 + 1;
                if hat < TAIL {
                    cells.push(tail(&law, near, up, hat, shift));
                    break;
                }
                let lowest = if far < law.least() { 0 } else { law.bounds(Of::Mass(far)).0.saturating_sub(1) };
                cells.push(Cell { start, hat, far: lowest, until: hat, kind: Kind::Cell });
                near = if up { far + 1 } else { far - 1 };
            }
        }
        // Heavy cells first: the search ends sooner.
        cells.sort_by_key(|cell| std::cmp::Reverse(cell.until));
        let mut total = 0u64;
        for cell in &mut cells {
            total = total.checked_add(cell.until).expect("hats of some hundreds of cells fit into 64 bits");
            cell.until = total;
        }
        let guide_shift = total.ilog2().saturating_sub(GUIDE_BITS - 1);
        let lies = |weight: u64| cells.partition_point(|cell| cell.until <= weight) as u16;
        let guide = (0..=(total - 1) >> guide_shift).map(|i| lies(i << guide_shift)).collect();
        Self { law, cells, guide, guide_shift, total, shift }
    }

    #[inline]
    pub fn sample<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> i64 {
        loop {
            if let Some(x) = self.attempt(bits) {
                return x;
            }
        }
    }

    #[inline]
    fn attempt<R: CryptoRng>(&self, bits: &mut Bits<'_, R>) -> Option<i64> {
        let chosen = bits.below(self.total);
        let mut at = usize::from(self.guide[(chosen >> self.guide_shift) as usize]);
        while self.cells[at].until <= chosen {
            at += 1;
        }
        let cell = &self.cells[at];
        if cell.kind != Kind::Cell {
            return self.tail(cell, bits);
        }
        let word = bits.word();
        let x = cell.start + (word & ((1 << self.shift) - 1)) as i64;
        // The rest of the word is U so far.
        let (u, known) = (word >> self.shift, 64 - self.shift);
        if (u128::from(u) + 1) * u128::from(cell.hat) <= u128::from(cell.far) << known {
            return Some(x);
        }
        self.decide(Of::Mass(x), cell.hat, u, known, bits).then_some(x)
    }

    #[cold]
    fn tail<R: CryptoRng>(&self, cell: &Cell, bits: &mut Bits<'_, R>) -> Option<i64> {
        let Kind::Tail { up, step, weight } = cell.kind else { return None };
        // The hat over the tail sums to hat / (1 - g) points, and was rounded up to `weight` cells.
        let points = u128::from(cell.hat) << UNIT_BITS;
        let room = u128::from((1 << UNIT_BITS) - step) << self.shift;
        if !bits.coin(points, room * u128::from(weight)) {
            return None;
        }
        let mut x = cell.start;
        while bits.word() >> (64 - UNIT_BITS) < step {
            // Out by one more, kept with probability (true step) / g.
            let of = Of::Step { x, up };
            let u = bits.word();
            if !self.decide(of, step, u, 64, bits) {
                return None;
            }
            x += if up { 1 } else { -1 };
        }
        let u = bits.word();
        self.decide(Of::Mass(cell.start), cell.hat, u, 64, bits).then_some(x)
    }

    /// Whether U · hat < 2^54 · value, where U begins with the `known` bits u.
    #[cold]
    fn decide<R: CryptoRng>(&self, of: Of, hat: u64, u: u64, known: u32, bits: &mut Bits<'_, R>) -> bool {
        let (low, high) = self.law.bounds(of);
        let wide = |n: u64| u128::from(n) * u128::from(hat);
        let mut u = u;
        if known < 64 {
            if (u128::from(u) + 1) * u128::from(hat) <= u128::from(low) << known {
                return true;
            }
            if wide(u) >= u128::from(high) << known {
                return false;
            }
            u = u << (64 - known) | bits.word() >> known;
        }
        // hat < 2^55, so u · hat + hat fits.
        if wide(u) + u128::from(hat) <= u128::from(low) << 64 {
            return true;
        }
        if wide(u) >= u128::from(high) << 64 {
            return false;
        }
        self.decide_exactly(of, hat, u, bits)
    }

    fn decide_exactly<R: CryptoRng>(&self, of: Of, hat: u64, first: u64, bits: &mut Bits<'_, R>) -> bool {
        let mut u = vec![first];
        loop {
            u.push(bits.word());
            let (mut low, mut high) = self.law.enclose(of, u.len());
            low.times(1 << UNIT_BITS);
            high.times(1 << UNIT_BITS);
            let mut at_least = Fixed::fraction(&u);
            let mut at_most = at_least.clone();
            at_most.add_ulp();
            at_least.times(hat);
            at_most.times(hat);
            if at_most.compare(&low) != Ordering::Greater {
                return true;
            }
            if at_least.compare(&high) != Ordering::Less {
                return false;
            }
        }
    }
}

/// The tail from `near` on, whose hat is geometric.
fn tail<L: Law>(law: &L, near: i64, up: bool, hat: u64, shift: u32) -> Cell {
    let step = law.bounds(Of::Step { x: near, up }).1 + 1;
    assert!(step < 1 << UNIT_BITS, "five deviations out the law falls by more than 2^-54 a step");
    // ⌈hat / ((1 - g) 2^shift)⌉
    let weight = (u128::from(hat) << UNIT_BITS).div_ceil(u128::from((1u64 << UNIT_BITS) - step) << shift);
    let weight = u64::try_from(weight).expect("a tail is lighter than the middle");
    Cell { start: near, hat, far: 0, until: weight, kind: Kind::Tail { up, step, weight } }
}
