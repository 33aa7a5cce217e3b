//! Who is who: a machine, or an operator, *is* its Ed25519 public key (RFC 8032). Addresses come and go; keys do not.
//!
//! A signature is made over a domain name and the message, so that bytes signed for one purpose mean nothing for
//! another.

use crate::codec::{DecodeError, Reader, Wire};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// A public key: the name of a machine or an operator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// A secret key. It is never printed.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentityError {
    #[error("a key is 64 hexadecimal digits, got {got:?}")]
    NotHex { got: String },
    #[error("{signer} did not sign this {domain}")]
    BadSignature { signer: NodeId, domain: &'static str },
}

impl SecretKey {
    /// From 32 bytes of a cryptographic random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&bytes))
    }

    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn id(&self) -> NodeId {
        NodeId(self.0.verifying_key().to_bytes())
    }

    pub fn sign(&self, domain: &'static str, message: &[u8]) -> [u8; 64] {
        self.0.sign(&under(domain, message)).to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.id())
    }
}

impl NodeId {
    /// Strict: a signature has one form only (`s` below the group's order), and a key or nonce point of small order,
    /// under which one signature would fit many messages, is refused.
    pub fn verify(&self, domain: &'static str, message: &[u8], signature: &[u8; 64]) -> Result<(), IdentityError> {
        let bad = IdentityError::BadSignature { signer: *self, domain };
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| bad.clone())?;
        key.verify_strict(&under(domain, message), &Signature::from_bytes(signature)).map_err(|_| bad)
    }

    /// Eight hexadecimal digits: enough for a person to tell machines apart.
    pub fn short(&self) -> String {
        hex(&self.0[..4])
    }
}

/// `littoral/`, the domain, a zero byte, the message. The zero ends the domain, so no domain is the beginning of another.
fn under(domain: &'static str, message: &[u8]) -> Vec<u8> {
    debug_assert!(!domain.contains('\0'), "a domain is a plain name: {domain:?}");
    [b"littoral/", domain.as_bytes(), b"\0", message].concat()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    // Lower case only: an id has one spelling.
    let nibble = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for NodeId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        unhex(text).map(NodeId).ok_or_else(|| IdentityError::NotHex { got: text.chars().take(80).collect() })
    }
}

impl Wire for NodeId {
    const BYTES_MIN: usize = 32;
    const BYTES_MAX: usize = 32;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.array("node id")?))
    }
}
