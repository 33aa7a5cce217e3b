//! Entropy coding: an adaptive range coder for small alphabets. Martin 1979, "Range encoding: an algorithm for removing
//! redundancy from a digitised message"; the carry is held back as in LZMA's coder.
//!
//! A symbol that has probability p costs log2(1/p) bits, whole bits or not. Probabilities are counts of what went before
//! ([`Frequencies`]), so no table travels: learning the alphabet costs some bytes once, and the counts follow a vector
//! whose parts differ. Everything is integer arithmetic.
//!
//! **Total**: any bytes decode to symbols or to an error. A decoder makes no more symbols than it is asked for, reads
//! each byte once, and [`Decoder::finish`] refuses bytes left over.
//!
//! What it does not protect: lengths tell how an update was distributed, so coded updates cannot be masked.

use super::CompressError;

/// Below this the range gets its next byte.
const RANGE_MIN: u32 = 1 << 24;
/// The most that counts add up to: a range of 2^24 still tells each of them apart.
const TOTAL_MAX: u32 = 1 << 16;
/// What one more sight of a symbol counts. The counts forget half whenever they reach the top, after some 4,000 symbols.
const SEEN: u32 = 16;

/// How often each symbol of an alphabet was seen, as both sides have counted.
#[derive(Clone, Debug)]
pub struct Frequencies {
    counts: Vec<u32>,
    total: u32,
}

impl Frequencies {
    /// An alphabet of 1 to 4,096 symbols, all equally likely at first.
    pub fn new(symbols: usize) -> Self {
        let symbols = symbols.clamp(1, 4096);
        Self { counts: vec![1; symbols], total: symbols as u32 }
    }

    fn see(&mut self, symbol: usize) {
        self.counts[symbol] += SEEN;
        self.total += SEEN;
        if self.total > TOTAL_MAX {
            self.counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
            self.total = self.counts.iter().sum();
        }
    }
}

/// Writes symbols; the bytes are complete after [`Encoder::finish`].
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    low: u64,
    range: u32,
    /// The last byte that a carry may still raise, and how many bytes of 255 follow it.
    held: u8,
    run: usize,
    first: bool,
}

impl<'a> Encoder<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, low: 0, range: u32::MAX, held: 0, run: 0, first: true }
    }

    /// Panics if the alphabet has no such symbol.
    pub fn symbol(&mut self, symbol: usize, frequencies: &mut Frequencies) {
        let below: u32 = frequencies.counts[..symbol].iter().sum();
        self.part(below, frequencies.counts[symbol], frequencies.total);
        frequencies.see(symbol);
    }

    /// The low `bits` bits of `value`, each as likely as not; at most 32.
    pub fn raw(&mut self, value: u32, bits: u32) {
        for piece in pieces(bits) {
            let digit = (value >> piece.start) & ((1 << piece.len()) - 1);
            self.part(digit, 1, 1 << piece.len());
        }
    }

    fn part(&mut self, below: u32, count: u32, total: u32) {
        let unit = self.range / total;
        self.low += u64::from(below) * u64::from(unit);
        self.range = unit * count;
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        if self.low < 0xff00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            // The very first byte is 0 and says nothing.
            if !std::mem::take(&mut self.first) {
                self.out.push(self.held.wrapping_add(carry));
            }
            self.out.extend(std::iter::repeat_n(0xffu8.wrapping_add(carry), std::mem::take(&mut self.run)));
            self.held = (self.low >> 24) as u8;
        } else {
            self.run += 1;
        }
        self.low = (self.low & 0x00ff_ffff) << 8;
    }

    pub fn finish(mut self) {
        (0..5).for_each(|_| self.shift());
    }
}

/// Reads what an [`Encoder`] wrote, with the same frequencies in the same order.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    code: u32,
    range: u32,
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, CompressError> {
        let mut decoder = Self { bytes, at: 0, code: 0, range: u32::MAX };
        for _ in 0..4 {
            decoder.next()?;
        }
        Ok(decoder)
    }

    pub fn symbol(&mut self, frequencies: &mut Frequencies) -> Result<usize, CompressError> {
        let unit = self.range / frequencies.total;
        // Bytes that no encoder wrote may point beyond the last symbol: they mean the last one.
        let point = (self.code / unit).min(frequencies.total - 1);
        let (mut symbol, mut below) = (0, 0);
        while below + frequencies.counts[symbol] <= point {
            below += frequencies.counts[symbol];
            symbol += 1;
        }
        self.part(below, frequencies.counts[symbol], unit)?;
        frequencies.see(symbol);
        Ok(symbol)
    }

    pub fn raw(&mut self, bits: u32) -> Result<u32, CompressError> {
        let mut value = 0;
        for piece in pieces(bits) {
            let unit = self.range >> piece.len();
            let digit = (self.code / unit).min((1 << piece.len()) - 1);
            self.part(digit, 1, unit)?;
            value |= digit << piece.start;
        }
        Ok(value)
    }

    fn part(&mut self, below: u32, count: u32, unit: u32) -> Result<(), CompressError> {
        // Within the range for an encoder's bytes; for others the difference stays below 2^32 all the same.
        self.code -= below * unit;
        self.range = unit * count;
        while self.range < RANGE_MIN {
            self.range <<= 8;
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(), CompressError> {
        let &byte = self.bytes.get(self.at).ok_or(CompressError::Short { got: self.bytes.len() })?;
        self.at += 1;
        self.code = self.code << 8 | u32::from(byte);
        Ok(())
    }

    /// Nothing may be left over.
    pub fn finish(self) -> Result<(), CompressError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            left => Err(CompressError::LeftOver { left }),
        }
    }
}

/// Bits lowest first, sixteen at a time at most: a total fits the coder.
fn pieces(bits: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    (0..bits.min(32)).step_by(16).map(move |start| start..(start + 16).min(bits.min(32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::random::Draws;
    use proptest::prelude::*;

    fn encode(symbols: &[usize], alphabet: usize) -> Vec<u8> {
        let (mut out, mut frequencies) = (Vec::new(), Frequencies::new(alphabet));
        let mut encoder = Encoder::new(&mut out);
        symbols.iter().for_each(|&s| encoder.symbol(s, &mut frequencies));
        encoder.finish();
        out
    }

    /// Bytes that the symbols' own frequencies would cost: n · H.
    fn entropy_bytes(symbols: &[usize], alphabet: usize) -> f64 {
        let mut counts = vec![0f64; alphabet];
        symbols.iter().for_each(|&s| counts[s] += 1.0);
        let n = symbols.len() as f64;
        counts.iter().filter(|&&c| c > 0.0).map(|c| c * (n / c).log2()).sum::<f64>() / 8.0
    }

    #[test]
    fn costs_the_empirical_entropy_and_one_percent() {
        let mut draws = Draws::new(&[3; 32]);
        // Ternary with 2 % not zero, int4 with a peak, a uniform byte: halving probabilities by `shift` per symbol.
        let mut ternary = || match draws.word() % 100 {
            0 => 1usize,
            1 => 2,
            _ => 0,
        };
        let ternary: Vec<usize> = (0..200_000).map(|_| ternary()).collect();
        let geometric: Vec<usize> = (0..200_000).map(|_| (draws.word().trailing_zeros() as usize).min(14)).collect();
        let uniform: Vec<usize> = (0..200_000).map(|_| draws.word() as usize % 255).collect();
        for (symbols, alphabet) in [(ternary, 3), (geometric, 15), (uniform, 255)] {
            let (bytes, least) = (encode(&symbols, alphabet).len() as f64, entropy_bytes(&symbols, alphabet));
            // A table of counts would be two bytes per symbol; the counts that are learnt instead cost no more.
            assert!(
                bytes <= 1.01 * least + 2.0 * alphabet as f64,
                "{alphabet} symbols: {bytes} bytes, entropy {least}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            symbols in prop::collection::vec((0usize..17, any::<u32>(), 0u32..=32), 0..600),
        ) {
            let (mut out, mut frequencies) = (Vec::new(), Frequencies::new(17));
            let mut encoder = Encoder::new(&mut out);
            for &(symbol, value, bits) in &symbols {
                encoder.symbol(symbol, &mut frequencies);
                encoder.raw(value, bits);
            }
            encoder.finish();
            let (mut decoder, mut frequencies) = (Decoder::new(&out).unwrap(), Frequencies::new(17));
            for &(symbol, value, bits) in &symbols {
                prop_assert_eq!(decoder.symbol(&mut frequencies).unwrap(), symbol);
                prop_assert_eq!(decoder.raw(bits).unwrap(), value & (((1u64 << bits) - 1) as u32));
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
        }

        #[test]
        fn any_bytes_end_in_symbols_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let Ok(mut decoder) = Decoder::new(&bytes) else {
                prop_assert!(bytes.len() < 4);
                return Ok(());
            };
            let mut frequencies = Frequencies::new(5);
            for _ in 0..10_000 {
                match decoder.symbol(&mut frequencies).and_then(|s| Ok((s, decoder.raw(20)?))) {
                    Ok((symbol, value)) => prop_assert!(symbol < 5 && value < 1 << 20),
                    Err(error) => {
                        prop_assert_eq!(error, CompressError::Short { got: bytes.len() });
                        return Ok(());
                    }
                }
            }
            prop_assert!(false, "300 bytes do not hold 10,000 symbols with 20 bits each");
        }
    }

    #[test]
    fn cut_or_longer_bytes_are_refused() {
        let symbols: Vec<usize> = (0..500).map(|i| i * i % 7).collect();
        let whole = encode(&symbols, 7);
        let decode = |bytes: &[u8]| {
            let (mut decoder, mut frequencies) = (Decoder::new(bytes)?, Frequencies::new(7));
            for _ in 0..500 {
                decoder.symbol(&mut frequencies)?;
            }
            decoder.finish()
        };
        assert_eq!(decode(&whole), Ok(()));
        assert!(matches!(decode(&whole[..whole.len() - 1]), Err(CompressError::Short { .. })));
        assert_eq!(decode(&[&whole[..], &[0]].concat()), Err(CompressError::LeftOver { left: 1 }));
    }

    #[test]
    fn a_carry_runs_through_bytes_of_255() {
        // Always the last symbol of a large alphabet: `low` climbs as close to a carry as it can, then passes it.
        for last in [[254usize, 254], [0, 254], [254, 0]] {
            let symbols: Vec<usize> = (0..4000).map(|i| last[i / 8 % 2]).collect();
            let (bytes, mut frequencies) = (encode(&symbols, 255), Frequencies::new(255));
            let mut decoder = Decoder::new(&bytes).unwrap();
            assert!(symbols.iter().all(|&s| decoder.symbol(&mut frequencies) == Ok(s)));
        }
    }
}
