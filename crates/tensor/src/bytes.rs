//! Floats as little-endian bytes, four each, and back.
//!
//! These copy; on a little-endian machine the compiler turns the loops into one `memcpy`.

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
#[error("bytes of f32: expected {expected} bytes ({values} values), got {got}")]
pub struct LengthMismatch {
    pub values: usize,
    pub expected: usize,
    pub got: usize,
}

/// Writes `values` into `out`, which must be four times as long.
pub fn write_f32(values: &[f32], out: &mut [u8]) -> Result<(), LengthMismatch> {
    check(values.len(), out.len())?;
    for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    Ok(())
}

/// Reads `bytes` into `out`, which must be a quarter as long.
pub fn read_f32(bytes: &[u8], out: &mut [f32]) -> Result<(), LengthMismatch> {
    check(out.len(), bytes.len())?;
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*bytes);
    }
    Ok(())
}

/// The bytes of `values`, in a new vector.
pub fn to_le_bytes(values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; values.len() * 4];
    for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    out
}

/// The values in `bytes`, in a new vector; an error if the length is not a multiple of four.
pub fn from_le_bytes(bytes: &[u8]) -> Result<Vec<f32>, LengthMismatch> {
    check(bytes.len() / 4, bytes.len())?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect())
}

fn check(values: usize, got: usize) -> Result<(), LengthMismatch> {
    // `values` slices exist in memory, so the product cannot overflow.
    let expected = values * 4;
    if got == expected { Ok(()) } else { Err(LengthMismatch { values, expected, got }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_survive_the_journey_bit_for_bit() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE / 2.0, f32::INFINITY, f32::from_bits(0x7fc0_1234)];
        let bytes = to_le_bytes(&values);
        assert_eq!(&bytes[8..12], &[0, 0, 0xc0, 0x3f]);
        let back = from_le_bytes(&bytes).unwrap();
        assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));

        let mut out = [0; 24];
        write_f32(&values, &mut out).unwrap();
        assert_eq!(out, bytes[..]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert_eq!(from_le_bytes(&[0; 7]), Err(LengthMismatch { values: 1, expected: 4, got: 7 }));
        assert_eq!(read_f32(&[0; 8], &mut [0.0]), Err(LengthMismatch { values: 1, expected: 4, got: 8 }));
        assert_eq!(write_f32(&[0.0; 2], &mut [0; 4]), Err(LengthMismatch { values: 2, expected: 8, got: 4 }));
    }
}
