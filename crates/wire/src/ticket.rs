//! Tickets: one line of text that lets a machine enrol.
//!
//! `littoral1-` and lower-case base 32 (RFC 4648, no padding) of: the cloud's key, a 16-byte secret, the role, the
//! addresses to dial and perhaps the key that signs rosters, then four bytes of BLAKE3 over all that, so that a mistyped
//! ticket is told from a spent one.

use crate::bounded::{List, Text};
use crate::codec::{DecodeError, Wire, wire_struct};
use crate::identity::NodeId;
use crate::message::Role;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

const PREFIX: &str = "littoral1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const TICKET_CHARS_MAX: usize = 4096;

wire_struct! {
    /// What a ticket says.
    pub struct Ticket {
        pub cloud: NodeId,
        pub secret: [u8; 16],
        pub role: Role,
        /// `host:port` of the cloud, in the order to try.
        pub addresses: List<Text<264>, 8>,
        /// Who says which devices there are (see [`crate::message::Roster`]); a key that the cloud does not hold.
        pub roster: Option<NodeId>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TicketError {
    #[error("not a ticket: it begins with {PREFIX:?}, this begins with {got:?}")]
    NoPrefix { got: String },
    #[error("ticket: {0:?} is not a character of base 32; was it copied whole?")]
    BadCharacter(char),
    #[error("ticket: at most {TICKET_CHARS_MAX} characters, got {got}")]
    TooLong { got: usize },
    /// Characters at the end that no byte needs: cut in the middle of a byte, or not made by this code.
    #[error("ticket: the last characters make no whole byte; was it copied whole?")]
    LooseEnd,
    #[error("ticket: the check sum does not match; was it copied whole?")]
    BadChecksum,
    #[error("ticket: the check sum is right, the content is not: {0}")]
    Malformed(#[from] DecodeError),
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.to_bytes();
        let check = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&check[..4]);
        f.write_str(PREFIX)?;
        f.write_str(&base32(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;
    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let digits = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| TicketError::NoPrefix { got: text.chars().take(PREFIX.len()).collect() })?;
        if digits.len() > TICKET_CHARS_MAX {
            return Err(TicketError::TooLong { got: digits.len() });
        }
        let bytes = unbase32(digits)?;
        let Some((body, check)) = bytes.split_last_chunk::<4>() else {
            return Err(TicketError::BadChecksum);
        };
        if blake3::hash(body).as_bytes()[..4] != check[..] {
            return Err(TicketError::BadChecksum);
        }
        Ok(Self::from_bytes(body)?)
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut held, mut bits) = (0u32, 0);
    for &byte in bytes {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(ALPHABET[(held >> bits & 31) as usize] as char);
        }
    }
    if bits > 0 {
        out.push(ALPHABET[(held << (5 - bits) & 31) as usize] as char);
    }
    out
}

fn unbase32(text: &str) -> Result<Vec<u8>, TicketError> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0u32, 0);
    for c in text.chars() {
        let value =
            ALPHABET.iter().position(|&a| a as char == c.to_ascii_lowercase()).ok_or(TicketError::BadCharacter(c))?
                as u32;
        held = held << 5 | value;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    // What is left must be the padding that `base32` writes, so that a ticket has one text (but for case).
    if bits >= 5 || held & ((1 << bits) - 1) != 0 {
        return Err(TicketError::LooseEnd);
    }
    Ok(out)
}
