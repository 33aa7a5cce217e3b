//! The first frame in each direction, the only one whose layout never changes: which protocol is spoken.
//!
//! Layout, for all versions to come: `b"LTRL"`, `u16` protocol, then a text of at most 64 bytes naming the software.
//! A peer of another protocol is told both versions, in words, and the connection ends there.

use crate::bounded::Text;
use crate::codec::{DecodeError, Reader, Wire};
use thiserror::Error;

/// The protocol that this build speaks. It grows when a message changes or a tag is added.
pub const PROTOCOL: u16 = 3;
/// No hello of any protocol is longer: what a listener need read of a stranger before it knows the protocol.
pub const HELLO_BYTES_MAX: usize = 4096;
const MAGIC: [u8; 4] = *b"LTRL";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub protocol: u16,
    /// For people and logs, e.g. `littoral 0.1.0`.
    pub software: Text<64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HelloError {
    #[error("the peer does not speak Littoral: {0}")]
    NotLittoral(#[from] DecodeError),
    #[error(
        "protocol versions differ: this machine ({our_software}) speaks {ours}, the peer ({their_software}) speaks \
         {theirs}; install the same release on both"
    )]
    OtherProtocol { ours: u16, our_software: Text<64>, theirs: u16, their_software: Text<64> },
}

impl Hello {
    pub fn new(software: &str) -> Self {
        Self { protocol: PROTOCOL, software: Text::new(software) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.protocol.put(&mut out);
        self.software.put(&mut out);
        out
    }

    /// Bytes after the text are ignored: a later protocol may add some.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > HELLO_BYTES_MAX {
            let (maximum, got) = (HELLO_BYTES_MAX, bytes.len());
            return Err(DecodeError::TooLong { what: "hello", offset: 0, maximum, got });
        }
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("hello")? != MAGIC {
            return Err(DecodeError::Invalid { what: "hello", offset: 0, why: "the bytes LTRL expected" });
        }
        Ok(Self { protocol: u16::take(&mut reader)?, software: Text::take(&mut reader)? })
    }

    /// Can we talk?
    pub fn agree(&self, theirs: &[u8]) -> Result<Hello, HelloError> {
        let theirs = Self::decode(theirs)?;
        if theirs.protocol != self.protocol {
            return Err(HelloError::OtherProtocol {
                ours: self.protocol,
                our_software: self.software.clone(),
                theirs: theirs.protocol,
                their_software: theirs.software,
            });
        }
        Ok(theirs)
    }
}
