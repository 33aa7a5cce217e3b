//! The first frame in each direction, the only one whose layout never changes: which protocol is spoken.
//!
//! Layout, for all versions to come: `b"LTRL"`, `u16` protocol, then a text of at most 64 bytes naming the software.
//! A peer of another protocol is told both versions, in words, and the connection ends there.
//!
//! Protocol 4 adds a text of at most 64 bytes: the arithmetic with which this machine runs language models. Two machines may
//! talk whatever theirs is, but share work whose bits must be the same only if both names are equal.

use crate::bounded::Text;
use crate::codec::{DecodeError, Reader, Wire};
use thiserror::Error;

/// The protocol that this build speaks. It grows when a message changes or a tag is added.
pub const PROTOCOL: u16 = 8;
/// The first protocol whose hello names kernels.
const KERNELS_SINCE: u16 = 4;
/// No hello of any protocol is longer: what a listener need read of a stranger before it knows the protocol.
pub const HELLO_BYTES_MAX: usize = 4096;
const MAGIC: [u8; 4] = *b"LTRL";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub protocol: u16,
    /// For people and logs, e.g. `littoral 0.1.0`.
    pub software: Text<64>,
    /// The arithmetic of language models, e.g. `littoral-kernels-1`; empty where the peer's protocol is another one.
    pub kernels: Text<64>,
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
    pub fn new(software: &str, kernels: &str) -> Self {
        Self { protocol: PROTOCOL, software: Text::new(software), kernels: Text::new(kernels) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        self.protocol.put(&mut out);
        self.software.put(&mut out);
        if self.protocol >= KERNELS_SINCE {
            self.kernels.put(&mut out);
        }
        out
    }

    /// Bytes after what our protocol knows are ignored: a later one may add some. Of another protocol nothing is read but its
    /// number and the software.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > HELLO_BYTES_MAX {
            let (maximum, got) = (HELLO_BYTES_MAX, bytes.len());
            return Err(DecodeError::TooLong { what: "hello", offset: 0, maximum, got });
        }
        let mut reader = Reader::new(bytes);
        if reader.array::<4>("hello")? != MAGIC {
            return Err(DecodeError::Invalid { what: "hello", offset: 0, why: "the bytes LTRL expected" });
        }
        let (protocol, software) = (u16::take(&mut reader)?, Text::take(&mut reader)?);
        let kernels = if protocol == PROTOCOL { Text::take(&mut reader)? } else { Text::default() };
        Ok(Self { protocol, software, kernels })
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
