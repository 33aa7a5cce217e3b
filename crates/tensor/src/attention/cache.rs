//! How keys and values are kept, and where each element lies.
//!
//! ```text
//! f16, halves:
//!   keys:    blocks of sixteen positions: element d of position p at (p / 16) 16 D + 16 d + p mod 16
//!   values:  position after position: element d of position p at p D + d
//! q8_0, tiles of sixteen positions and 32 elements, 544 bytes: sixteen scales (f16), then 512 i8
//!   the D / 32 tiles of sixteen positions side by side, those of the next sixteen behind them
//!   keys:    element d of position p of a tile at 32 + 16 d + p
//!   values:  at 32 + 32 p + d
//! ```
//! So a vector holds one element of sixteen keys, or sixteen elements of one value, in both, and what is read with a tile's
//! elements stands before them.

use crate::processor::for_this_processor;
use crate::quant::half::f32_to_f16;
use std::fmt;

/// Positions in a block.
pub const BLOCK: usize = 16;
/// Elements of q8_0 that share a scale.
pub(super) const GROUP: usize = 32;
/// Bytes of a tile of q8_0: scales of sixteen positions, and their 32 elements.
pub(super) const TILE: usize = 2 * BLOCK + GROUP * BLOCK;
/// Bytes of a group in a row: a scale, 32 integers.
const GROUP_BYTES: usize = 2 + GROUP;

/// The type of cached keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(non_camel_case_types)] // The names that files and people use.
pub enum CacheType {
    /// Half precision.
    #[default]
    F16,
    /// 32 integers of eight bits with one scale in half precision, as ggml's type of that name: 8.5 bits an element.
    Q8_0,
}

impl CacheType {
    pub const ALL: [Self; 2] = [Self::F16, Self::Q8_0];

    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cache_type| cache_type.name() == name)
    }

    /// Elements of a head are a multiple of it.
    pub const fn elements(self) -> usize {
        match self {
            Self::F16 => 1,
            Self::Q8_0 => GROUP,
        }
    }

    /// Bytes of so many elements.
    const fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::Q8_0 => GROUP_BYTES,
        }
    }

    /// Bytes of one key or one value of `width` elements, a multiple of [`Self::elements`].
    pub const fn row_bytes(self, width: usize) -> usize {
        width / self.elements() * self.bytes()
    }

    /// Bytes that the cache of one head needs for `positions`: as many for keys as for values.
    pub fn head_bytes(self, positions: usize, width: usize) -> usize {
        positions.next_multiple_of(BLOCK) * self.row_bytes(width)
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The keys and values of one head.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    pub cache_type: CacheType,
    pub keys: &'a [u8],
    pub values: &'a [u8],
}

/// Where the elements of the keys of a head lie, or those of its values.
///
/// A *row* is one key or value by itself, as GGUF files have rows of that type: halves, or groups of a scale and 32
/// integers.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub cache_type: CacheType,
    /// Elements of a key or value.
    pub width: usize,
    /// Of keys; else of values.
    pub keys: bool,
}

impl Layout {
    /// Puts the key or value of a position in its place.
    pub fn store(self, cache: &mut [u8], position: usize, elements: &[f32]) {
        let mut row = [0; 2 * GROUP];
        for (group, elements) in elements.chunks(GROUP).enumerate() {
            let row = &mut row[..self.cache_type.row_bytes(elements.len())];
            match self.cache_type {
                CacheType::F16 => row
                    .chunks_exact_mut(2)
                    .zip(elements)
                    .for_each(|(half, x)| half.copy_from_slice(&f32_to_f16(*x).to_le_bytes())),
                CacheType::Q8_0 => quantise(elements.try_into().expect("whole groups"), row),
            }
            self.put_group(cache, position, group, row);
        }
    }

    /// Puts a row in the place of a position.
    pub fn put_row(self, cache: &mut [u8], position: usize, row: &[u8]) {
        for (group, row) in row.chunks(self.cache_type.row_bytes(GROUP)).enumerate() {
            self.put_group(cache, position, group, row);
        }
    }

    /// Appends the row of a position to `rows`.
    pub fn take_row(self, cache: &[u8], position: usize, rows: &mut Vec<u8>) {
        for group in 0..self.width.div_ceil(GROUP) {
            let (first, step) = self.places(position, group);
            let elements = (self.width - group * GROUP).min(GROUP);
            let places = (0..elements).map(|i| first + i * step);
            match self.cache_type {
                CacheType::F16 => rows.extend(places.flat_map(|at| [cache[at], cache[at + 1]])),
                CacheType::Q8_0 => {
                    let scale = self.scale_at(position, group);
                    rows.extend(&cache[scale..scale + 2]);
                    rows.extend(places.map(|at| cache[at]));
                }
            }
        }
    }

    fn put_group(self, cache: &mut [u8], position: usize, group: usize, row: &[u8]) {
        let (first, step) = self.places(position, group);
        match self.cache_type {
            CacheType::F16 => {
                for (i, half) in row.chunks_exact(2).enumerate() {
                    cache[first + i * step..][..2].copy_from_slice(half);
                }
            }
            CacheType::Q8_0 => {
                let (scale, integers) = row.split_at(2);
                cache[self.scale_at(position, group)..][..2].copy_from_slice(scale);
                for (i, integer) in integers.iter().enumerate() {
                    cache[first + i * step] = *integer;
                }
            }
        }
    }

    /// The byte where a group's first element begins, and the bytes from one element to the next.
    fn places(self, position: usize, group: usize) -> (usize, usize) {
        let (block, p, width) = (position / BLOCK, position % BLOCK, self.width);
        match (self.cache_type, self.keys) {
            (CacheType::F16, true) => (2 * (block * BLOCK * width + group * GROUP * BLOCK + p), 2 * BLOCK),
            (CacheType::F16, false) => (2 * (position * width + group * GROUP), 2),
            (CacheType::Q8_0, true) => (self.tile_at(position, group) + 2 * BLOCK + p, BLOCK),
            (CacheType::Q8_0, false) => (self.tile_at(position, group) + 2 * BLOCK + p * GROUP, 1),
        }
    }

    fn tile_at(self, position: usize, group: usize) -> usize {
        (position / BLOCK * (self.width / GROUP) + group) * TILE
    }

    fn scale_at(self, position: usize, group: usize) -> usize {
        self.tile_at(position, group) + position % BLOCK * 2
    }
}

/// A group of q8_0, as ggml's `quantize_row_q8_0_ref` makes it; the scale of one with a NaN is NaN.
fn quantise(elements: &[f32; GROUP], row: &mut [u8]) {
    let mut integers = [0; GROUP];
    let scale = integers_of(elements, &mut integers);
    row[..2].copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    row[2..].copy_from_slice(&integers);
}

for_this_processor! {
    /// The scale max|x| / 127, before it is rounded, and the integers nearest to x / scale, ties away from zero.
    fn integers_of(elements: &[f32; GROUP], integers: &mut [u8; GROUP]) -> f32 {
        // Without their signs, floats have the order of their bits, with NaN above all.
        let most = elements.iter().fold(0, |most, x| x.abs().to_bits().max(most));
        let most = f32::from_bits(most);
        let scale = most / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        // 1.5 2^23: adding it rounds to the nearest integer, ties to even, which then is in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        for (integer, x) in integers.iter_mut().zip(elements) {
            let size = (x.abs() * inverse).min(127.0);
            let even = size + MAGIC - MAGIC;
            // A tie that went down goes up; the difference is exact.
            let away = even + if size - even == 0.5 { 1.0 } else { 0.0 };
            *integer = (away.copysign(*x) + MAGIC).to_bits() as u8;
        }
        scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::half::f16_to_f32;

    #[test]
    fn integers_are_ggmls() {
        // The scale is 1, so ties are ties: 0.5, 1.5, … go away from zero.
        let mut elements = [0f32; GROUP];
        for (i, x) in elements.iter_mut().enumerate() {
            *x = (i as f32 - 15.5) * if i % 2 == 0 { 1.0 } else { 0.999 };
        }
        elements[0] = 127.0;
        elements[1] = -126.5;
        elements[2] = 0.49999997;
        let check = |elements: &[f32; GROUP]| {
            let (mut row, mut plain) = ([0; GROUP_BYTES], [0; GROUP]);
            quantise(elements, &mut row);
            let most = elements.iter().fold(0f32, |most, x| most.max(x.abs()));
            let scale = most / 127.0;
            assert_eq!(row[..2], f32_to_f16(scale).to_le_bytes());
            let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
            // Where 1 / scale is no number any more, ggml's result is undefined.
            let expected = elements.map(|x| (x * inverse).clamp(-127.0, 127.0).round() as i8 as u8);
            assert_eq!(row[2..], expected, "{elements:?}");
            assert_eq!((integers_of::plain(elements, &mut plain), plain), (scale, expected));
        };
        check(&elements);
        check(&[0.0; GROUP]);
        check(&elements.map(|x| x * 1e-41));
        let mut seed = 1u32;
        for size in [1e-6, 1.0, 3e4] {
            for _ in 0..1000 {
                check(&elements.map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed as i32) as f32 / 2f32.powi(31) * size
                }));
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for wrong in [f32::NAN, f32::INFINITY] {
            let mut elements = [1.0; GROUP];
            elements[7] = wrong;
            let mut row = [0; GROUP_BYTES];
            quantise(&elements, &mut row);
            let scale = f16_to_f32(u16::from_le_bytes([row[0], row[1]]));
            assert!(row[2..].iter().all(|q| !(scale * f32::from(*q as i8)).is_finite()), "{wrong}");
        }
    }
}
