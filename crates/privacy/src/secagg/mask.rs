//! Masks: streams of words that are added to a packed vector and taken from it again.
//!
//! Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning" (CCS), section 4: what a
//! device sends is x + PRG(b) + Σ ± PRG(s_ij) over Z_R, here with R = 2^bits. A mask is the generator's bytes read as
//! packed words: every residue is equally likely, because 2^bits divides the number of values of any whole bits.
//!
//! The layout of words: word i of a group of eight takes the bits `i * bits .. (i + 1) * bits` of the group's `bits` bytes,
//! bit 0 being the lowest of the first byte. Adding is the caller's, block by block; [`add_packed`] is the plain reference.

use super::prg::Prg;
use super::secret::Secret;
use std::fmt;
use std::ops::Range;
use thiserror::Error;
use zeroize::Zeroizing;

/// Masks are made in blocks of at most this many bytes, which stay in a processor's first cache.
pub const BLOCK_BYTES: usize = 16 << 10;

/// Streams that are kept from block to block; each takes about a kilobyte.
const STREAMS_KEPT_MAX: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Plus,
    Minus,
}

impl Sign {
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Plus => Self::Minus,
            Self::Minus => Self::Plus,
        }
    }
}

/// Masks over one packed vector, each with the sign with which it is to be applied. What is shown of them is their number.
pub struct Masks {
    prg: Prg,
    bits: u8,
    bytes: u64,
    list: Vec<(Sign, Secret<32>)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a range of masks begins and ends at whole groups of {bits} bytes within {bytes}, got {}..{}", got.start, got.end)]
pub struct RangeError {
    pub bits: u8,
    pub bytes: u64,
    pub got: Range<u64>,
}

impl Masks {
    pub(crate) fn new(prg: Prg, bits: u8, bytes: u64) -> Self {
        Self { prg, bits, bytes, list: Vec::new() }
    }

    pub(crate) fn push(&mut self, sign: Sign, seed: Secret<32>) {
        self.list.push((sign, seed));
    }

    /// The masks of `other`, of the same session, join these.
    pub fn append(&mut self, mut other: Self) {
        debug_assert_eq!((self.prg, self.bits, self.bytes), (other.prg, other.bits, other.bytes));
        self.list.append(&mut other.list);
    }

    /// How many masks.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bits of a word.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Bytes of the vector.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks begin at multiples of this: where a period of words does (64 words take 8 * bits bytes) and a block of the
    /// generator. Who shares a vector among threads cuts it there.
    pub fn block_bytes(&self) -> u64 {
        let period = 16 * u64::from(self.bits);
        BLOCK_BYTES as u64 / period * period
    }

    /// Hands over each mask's bytes of `range`, block by block: `apply(offset, sign, bytes)` adds or subtracts `bytes` at
    /// `offset` of the packed vector. All masks of a block come one after another, so that the block stays in the cache.
    ///
    /// Both ends of the range are multiples of `bits` bytes, within the vector. Ranges may be made in any order, by
    /// several threads: `&self` is only read.
    pub fn for_each_block(&self, range: Range<u64>, mut apply: impl FnMut(u64, Sign, &[u8])) -> Result<(), RangeError> {
        let group = u64::from(self.bits);
        if range.start > range.end
            || range.end > self.bytes
            || !range.start.is_multiple_of(group)
            || !range.end.is_multiple_of(group)
        {
            return Err(RangeError { bits: self.bits, bytes: self.bytes, got: range });
        }
        let block = self.block_bytes();
        let mut room = Zeroizing::new([0; BLOCK_BYTES]);
        // Keys are set up once, as long as they take less room than what they save.
        let again = range.end - range.start > block && self.list.len() <= STREAMS_KEPT_MAX;
        let stream = |seed: &Secret<32>| self.prg.stream(seed.bytes());
        let mut kept: Vec<_> = self.list.iter().filter(|_| again).map(|(_, seed)| stream(seed)).collect();
        let mut at = range.start;
        while at < range.end {
            let end = ((at / block + 1) * block).min(range.end);
            let room = &mut room[..(end - at) as usize];
            for (i, (sign, seed)) in self.list.iter().enumerate() {
                match kept.get_mut(i) {
                    Some(stream) => stream.fill(at, room),
                    None => stream(seed).fill(at, room),
                }
                apply(at, *sign, room);
            }
            at = end;
        }
        Ok(())
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} masks of {} bytes", self.list.len(), self.bytes)
    }
}

/// `acc[i] ± other[i] mod 2^bits`, word by word and bit by bit: the meaning of what faster adders do. Whole words that
/// both slices hold are added; `bits` is 1 to 64.
pub fn add_packed(acc: &mut [u8], other: &[u8], bits: u8, sign: Sign) {
    let bits = usize::from(bits);
    let bit = |bytes: &[u8], at: usize| u64::from(bytes[at / 8] >> (at % 8) & 1);
    let word = |bytes: &[u8], i: usize| (0..bits).fold(0, |word, b| word | bit(bytes, i * bits + b) << b);
    for i in 0..acc.len().min(other.len()) * 8 / bits {
        let sum = match sign {
            Sign::Plus => word(acc, i).wrapping_add(word(other, i)),
            Sign::Minus => word(acc, i).wrapping_sub(word(other, i)),
        };
        for b in 0..bits {
            let at = i * bits + b;
            acc[at / 8] = acc[at / 8] & !(1 << (at % 8)) | ((sum >> b & 1) as u8) << (at % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masks(bits: u8, bytes: u64, seeds: &[(Sign, u8)]) -> Masks {
        let mut masks = Masks::new(Prg::Aes128Ctr, bits, bytes);
        seeds.iter().for_each(|(sign, seed)| masks.push(*sign, Secret::from([*seed; 32])));
        masks
    }

    fn applied(masks: &Masks, range: Range<u64>, acc: &mut [u8], bits: u8) {
        let add = |at: u64, sign, mask: &[u8]| {
            let at = at as usize;
            add_packed(&mut acc[at..at + mask.len()], mask, bits, sign);
        };
        masks.for_each_block(range, add).unwrap();
    }

    #[test]
    fn ranges_in_any_order_are_the_whole() {
        for bits in [1, 7, 22, 64] {
            let bytes = 6000 * u64::from(bits);
            let masks = masks(bits, bytes, &[(Sign::Plus, 1), (Sign::Minus, 2), (Sign::Plus, 3)]);
            let mut whole = vec![0; bytes as usize];
            applied(&masks, 0..bytes, &mut whole, bits);
            let mut parts = vec![0; bytes as usize];
            let cut = 777 * u64::from(bits);
            applied(&masks, cut..bytes, &mut parts, bits);
            applied(&masks, 0..cut, &mut parts, bits);
            assert!(whole == parts, "{bits} bits");
            // And the opposite signs take everything away again.
            let mut opposite = Masks::new(Prg::Aes128Ctr, bits, bytes);
            masks.list.iter().for_each(|(sign, seed)| opposite.push(sign.opposite(), seed.clone()));
            applied(&opposite, 0..bytes, &mut whole, bits);
            assert!(whole.iter().all(|&b| b == 0), "{bits} bits");
        }
    }

    #[test]
    fn a_broken_range_is_refused() {
        let masks = masks(7, 70, &[(Sign::Plus, 1)]);
        #[allow(clippy::reversed_empty_ranges)]
        for range in [1..7, 0..6, 0..77, 14..7] {
            assert!(masks.for_each_block(range, |_, _, _| ()).is_err());
        }
    }

    #[test]
    fn three_bits_by_hand() {
        let packed = |words: [u32; 8]| {
            let all = words.iter().enumerate().fold(0, |all, (i, word)| all | word << (3 * i));
            [all as u8, (all >> 8) as u8, (all >> 16) as u8]
        };
        let (a, b) = ([1, 7, 3, 0, 2, 4, 1, 6], [1, 1, 1, 1, 4, 4, 0, 3]);
        assert_eq!(packed(a), [0b1111_1001, 0b0010_0000, 0b1100_0110]);
        let mut acc = packed(a);
        add_packed(&mut acc, &packed(b), 3, Sign::Plus);
        assert_eq!(acc, packed([2, 0, 4, 1, 6, 0, 1, 1]));
        add_packed(&mut acc, &packed(a), 3, Sign::Minus);
        assert_eq!(acc, packed(b));
    }
}
