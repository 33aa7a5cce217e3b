//! The pseudorandom generators that stretch a seed of 32 bytes to a mask.
//!
//! Which one is used is part of the protocol ([`Prg::id`]): all devices of a session use the same. AES-128 in counter mode
//! (NIST SP 800-38A, section 6.5) where processors have instructions for it, ChaCha20 (RFC 8439) where not. Both are
//! seekable: any range of a mask is made without what lies before it.
//!
//! What it does not do: a seed is used for one mask only, and that is the caller's to keep.

use aes::Aes128;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use ctr::Ctr128BE;

/// The most bytes of one stream: ChaCha20's block counter has 32 bits, and its last value is not used.
pub const STREAM_BYTES_MAX: u64 = (1 << 38) - 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prg {
    /// The seed is the key, then the first counter block.
    Aes128Ctr = 1,
    /// The seed is the key; the nonce is zero and blocks count from 0.
    ChaCha20 = 2,
}

/// The stream of one seed. Its key is zeroed when it is dropped.
pub struct Stream(Cipher);

enum Cipher {
    Aes128Ctr(Box<Ctr128BE<Aes128>>),
    ChaCha20(ChaCha20),
}

impl Prg {
    pub fn id(self) -> u8 {
        self as u8
    }

    pub fn from_id(id: u8) -> Option<Self> {
        [Self::Aes128Ctr, Self::ChaCha20].into_iter().find(|prg| prg.id() == id)
    }

    pub fn stream(self, seed: &[u8; 32]) -> Stream {
        Stream(match self {
            Self::Aes128Ctr => {
                let (key, counter) = seed.split_at(16);
                let (key, counter) = (key.try_into().unwrap_or([0; 16]), counter.try_into().unwrap_or([0; 16]));
                Cipher::Aes128Ctr(Box::new(Ctr128BE::new(&key.into(), &counter.into())))
            }
            Self::ChaCha20 => Cipher::ChaCha20(ChaCha20::new(&(*seed).into(), &[0; 12].into())),
        })
    }
}

impl Stream {
    /// Overwrites `out` with the bytes of the stream from `offset` on. The range ends at or before [`STREAM_BYTES_MAX`].
    pub fn fill(&mut self, offset: u64, out: &mut [u8]) {
        assert!(offset.saturating_add(out.len() as u64) <= STREAM_BYTES_MAX, "a stream has 2^38 - 64 bytes");
        match &mut self.0 {
            Cipher::Aes128Ctr(cipher) => {
                cipher.seek(offset);
                cipher.write_keystream(out);
            }
            Cipher::ChaCha20(cipher) => {
                cipher.seek(offset);
                cipher.write_keystream(out);
            }
        }
    }
}

/// Uniform numbers from a seed, one after another.
pub(crate) struct Uniform {
    stream: Stream,
    offset: u64,
    ready: [u8; 512],
    used: usize,
}

impl Uniform {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self { stream: Prg::ChaCha20.stream(seed), offset: 0, ready: [0; 512], used: 512 }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        if self.used == self.ready.len() {
            self.stream.fill(self.offset, &mut self.ready);
            self.offset += self.ready.len() as u64;
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.ready[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(bytes)
    }

    /// Uniform below `bound`, which is not 0 (Lemire 2019, "Fast Random Integer Generation in an Interval").
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }
}

impl Drop for Uniform {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    fn bytes(prg: Prg, seed: &str, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xaa; len];
        prg.stream(&unhex(seed).try_into().unwrap()).fill(offset, &mut out);
        out
    }

    #[test]
    fn aes_as_in_fips_197_and_sp_800_38a() {
        // FIPS-197, appendix C.1: one block.
        let seed = "000102030405060708090a0b0c0d0e0f 00112233445566778899aabbccddeeff";
        assert_eq!(bytes(Prg::Aes128Ctr, seed, 0, 16), unhex("69c4e0d86a7b0430d8cdb78070b4c55a"));
        // SP 800-38A, F.5.1: the output blocks of CTR-AES128.Encrypt.
        let seed = "2b7e151628aed2a6abf7158809cf4f3c f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";
        let blocks = "ec8cdf7398607cb0f2d21675ea9ea1e4 362b7c3c6773516318a077d7fc5073ae
                      6a2cc3787889374fbeb4c81b17ba6c44 e89c399ff0f198c6d40a31db156cabfe";
        assert_eq!(bytes(Prg::Aes128Ctr, seed, 0, 64), unhex(blocks));
    }

    #[test]
    fn chacha20_as_in_rfc_8439() {
        // RFC 8439, appendix A.1, test vectors 1, 2 and 4.
        let zero = "00".repeat(32);
        let first = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7
                     da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586";
        let second = "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
                      29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f";
        assert_eq!(bytes(Prg::ChaCha20, &zero, 0, 64), unhex(first));
        assert_eq!(bytes(Prg::ChaCha20, &zero, 64, 64), unhex(second));
        let seed = format!("00ff{}", "00".repeat(30));
        let third = "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca
                     13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096";
        assert_eq!(bytes(Prg::ChaCha20, &seed, 128, 64), unhex(third));
    }

    #[test]
    fn any_range_is_that_range_of_the_whole() {
        for prg in [Prg::Aes128Ctr, Prg::ChaCha20] {
            assert_eq!(Prg::from_id(prg.id()), Some(prg));
            // The counter of AES passes the end of its 128 bits here.
            let seed = "ff".repeat(32);
            let whole = bytes(prg, &seed, 0, 5000);
            for (offset, len) in [(0, 0), (0, 1), (15, 2), (16, 4096), (17, 4983), (63, 130), (64, 64), (4999, 1)] {
                assert_eq!(
                    bytes(prg, &seed, offset as u64, len),
                    whole[offset..offset + len],
                    "{prg:?} {offset} {len}"
                );
            }
            assert_eq!(bytes(prg, &seed, STREAM_BYTES_MAX - 64, 64).len(), 64);
        }
        assert_eq!(Prg::from_id(0), None);
    }

    #[test]
    fn numbers_below_a_bound_are_uniform() {
        let mut uniform = Uniform::new(&[7; 32]);
        let mut counts = [0u32; 6];
        (0..60_000).for_each(|_| counts[uniform.below(6) as usize] += 1);
        // Chi-square with 5 degrees of freedom: above 25.7 once in 10,000 seeds; this seed is fixed.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 25.7, "{counts:?}");
    }
}
