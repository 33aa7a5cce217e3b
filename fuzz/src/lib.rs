//! What holds for every decoder, so that a target is a few lines.

pub mod host;
pub mod site;
/// A language model that answers at once, from the tests of `serve`.
#[path = "../../crates/littoral/tests/serve/tiny.rs"]
pub mod tiny;

use littoral_wire::Wire;
use std::fmt::{Debug, Display};

/// Decodes `bytes` as a `T`. If that works, the value must have exactly these bytes as its encoding, within the bounds
/// that its type declares, and must be printable.
pub fn canonical<T: Wire + Debug>(bytes: &[u8]) -> Option<T> {
    match T::from_bytes(bytes) {
        Ok(value) => {
            assert_eq!(value.to_bytes(), bytes, "two encodings of one value");
            assert!((T::BYTES_MIN..=T::BYTES_MAX).contains(&bytes.len()), "outside the type's own bounds");
            let _ = format!("{value:?}");
            Some(value)
        }
        Err(error) => {
            one_line(error);
            None
        }
    }
}

/// What people are told is one line, whatever was read: nothing of the input reaches the terminal as a control character.
pub fn one_line(said: impl Display) {
    let said = said.to_string();
    assert!(!said.is_empty() && !said.contains(char::is_control), "not one line: {said:?}");
}
