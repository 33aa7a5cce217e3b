//! What holds for every decoder, so that a target is a few lines.

use littoral_wire::Wire;

/// Decodes `bytes` as a `T`. If that works, the value must have exactly these bytes as its encoding, within the bounds
/// that its type declares, and must be printable.
pub fn canonical<T: Wire + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    match T::from_bytes(bytes) {
        Ok(value) => {
            assert_eq!(value.to_bytes(), bytes, "two encodings of one value");
            assert!((T::BYTES_MIN..=T::BYTES_MAX).contains(&bytes.len()), "outside the type's own bounds");
            let _ = format!("{value:?}");
            Some(value)
        }
        Err(error) => {
            let _ = error.to_string();
            None
        }
    }
}
