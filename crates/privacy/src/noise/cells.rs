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
//! Step 1 is exact in the same way, with one word: its first 24 bits c leave the point T = U · total in
//! [c, c + 1) · total / 2^24. If that lies in one cell, this is the cell, and the other 40 bits are as fresh as ever. Else, once in
//! some ten thousand samples, the whole part of 2^24 T is drawn, c · total + an integer below total, which tells all cells apart:
//! they end at integers.
//!
//! Cost: a word for most samples. About 97 of 100 proposals are accepted, most by comparing with the hat at the cell's far end,
//! which bounds ρ(x) from below without looking at x. Big numbers are needed about once in 2^45 samples.

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
    /// Of the 2^24 parts of the total weight, those from `first` to before `end` lie in this cell, whole. Parts between one cell's
    /// end and the next one's first are shared.
    first: u32,
    end: u32,
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
/// The bits of a word that choose a cell. What is left has room for the 22 bits that choose among the widest cell's integers.
const CHOICE_BITS: u32 = 24;
const REST_BITS: u32 = 64 - CHOICE_BITS;

#[derive(Clone, Debug)]
pub(super) struct Cells<L> {
    law: L,
    cells: Vec<Cell>,
    /// Where to begin to look for a part whose first bits are i.
    guide: Vec<u16>,
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
                cells.push(Cell { start, hat, far: lowest, until: hat, first: 0, end: 0, kind: Kind::Cell });
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
        let mut before = 0u64;
        for cell in &mut cells {
            cell.first = (u128::from(before) << CHOICE_BITS).div_ceil(total.into()) as u32;
            cell.end = ((u128::from(cell.until) << CHOICE_BITS) / u128::from(total)) as u32;
            before = cell.until;
        }
        let lies = |part: u32| cells.partition_point(|cell| cell.end <= part) as u16;
        let guide = (0..1 << GUIDE_BITS).map(|i| lies(i << (CHOICE_BITS - GUIDE_BITS))).collect();
        Self { law, cells, guide, total, shift }
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
        let word = bits.word();
        let part = (word >> REST_BITS) as u32;
        let mut at = usize::from(self.guide[(part >> (CHOICE_BITS - GUIDE_BITS)) as usize]);
        while self.cells[at].end <= part {
            at += 1;
        }
        let mut cell = &self.cells[at];
        if part < cell.first {
            cell = self.shared(part, bits);
        }
        if cell.kind != Kind::Cell {
            return self.tail(cell, bits);
        }
        let rest = word & ((1 << REST_BITS) - 1);
        let x = cell.start + (rest & ((1 << self.shift) - 1)) as i64;
        // What is left of the word is U so far.
        let (u, known) = (rest >> self.shift, REST_BITS - self.shift);
        if (u128::from(u) + 1) * u128::from(cell.hat) <= u128::from(cell.far) << known {
            return Some(x);
        }
        self.decide(Of::Mass(x), cell.hat, u, known, bits).then_some(x)
    }

    /// The cell of a point in a part that several cells share.
    #[cold]
    fn shared<R: CryptoRng>(&self, part: u32, bits: &mut Bits<'_, R>) -> &Cell {
        let point = u128::from(part) * u128::from(self.total) + u128::from(bits.below(self.total));
        &self.cells[self.cells.partition_point(|cell| u128::from(cell.until) << CHOICE_BITS <= point)]
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
    let kind = Kind::Tail { up, step, weight };
    Cell { start: near, hat, far: 0, until: weight, first: 0, end: 0, kind }
}

#[cfg(test)]
mod tests {
    use super::super::discrete_gaussian::Bell;
    use super::super::ratio::Ratio;
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn parts_that_cells_share_fall_to_each_by_its_share() {
        let draws = 2000;
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut bits = Bits::new(&mut rng, draws);
        for (numerator, denominator) in [(1, 4), (1600, 3), (1 << 40, 1)] {
            let cells = Cells::new(Bell::new(Ratio::new(numerator, denominator).unwrap()));
            let total = u128::from(cells.total);
            let (mut before, mut shared) = (0, 0);
            for cell in &cells.cells {
                let until = u128::from(cell.until) << CHOICE_BITS;
                let (first, end) = (u128::from(cell.first) * total, u128::from(cell.end) * total);
                assert!(before <= first && end <= until, "what is taken for whole is whole");
                assert!(first - before < total && until - end < total, "and no whole part is missing");
                let share = (until - end) as f64 / total as f64;
                if share > 0.0 {
                    let mine = |_: &usize| cells.shared(cell.end, &mut bits).until <= cell.until;
                    let found = (0..draws).filter(mine).count() as f64;
                    let (wanted, deviation) = (share * draws as f64, (share * (1.0 - share) * draws as f64).sqrt());
                    // Some hundreds of cells, whose shares deviate by more than five once in a million.
                    assert!((found - wanted).abs() <= 5.0 * deviation + 1.0, "{found} {wanted}");
                    shared += 1;
                }
                before = until;
            }
            assert!(shared > 2 && cells.cells.last().is_some_and(|cell| cell.end == 1 << CHOICE_BITS));
        }
    }
}
