//! What both sides of a session agree on before it begins, and what is hashed and signed.

use super::codec::{Bitmap, DecodeError, Reader};
use super::keys::{For, derive};
use super::merkle::Hash;
use super::parameters::{CLIENTS_MAX, Parameters, Threat};
use super::prg::{Prg, STREAM_BYTES_MAX};
use super::refused::Refused;

/// Signs a statement with a device's long-lived identity.
pub type Signer<'a> = &'a dyn Fn(&[u8]) -> [u8; 64];
/// Is this the identity's signature of the statement?
pub type Verifier<'a> = &'a dyn Fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;
/// Does the proof (opaque here) show that an operator put the identity on the roster?
pub type OnRoster<'a> = &'a dyn Fn(&[u8; 32], &[u8]) -> bool;

/// A session, as a device knows it before the first message. Every key, signature and ciphertext is bound to all of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// The caller's hash of job, version, attempt, work and plan. No two sessions have the same.
    pub context: [u8; 32],
    pub threat: Threat,
    /// At most this share of the devices in the graph colludes with the server, and at most this share drops out once the graph
    /// is drawn; both in [0, 1).
    pub adversary: f64,
    pub dropout: f64,
    pub prg: Prg,
    /// Length of the packed vector: whole groups of `bits` bytes.
    pub bytes: u64,
    /// Bits of a word, 1 to 64.
    pub bits: u8,
    /// A sum over fewer devices is not opened, 2 or more; [`Parameters::min_survivors`] is a floor beside it.
    pub min_group: u32,
    /// [`commitment`] to the server's secret, fixed before anybody's keys are known; zeros under [`Threat::Honest`].
    pub commitment: [u8; 32],
}

/// What a server binds itself to before a session: hands it out with the session, opens it with the neighbours.
pub fn commitment(context: &[u8; 32], secret: &[u8; 32]) -> [u8; 32] {
    derive(For::ServerCommitment, &[context, secret])
}

impl Session {
    /// Can there be such a session?
    pub fn check(&self) -> Result<(), Refused> {
        let refuse = |what, expected, got| Err(Refused::Session { what, expected, got });
        if !(1..=64).contains(&self.bits) {
            return refuse("bits", "1 to 64", self.bits.into());
        }
        if self.bytes == 0 || self.bytes > STREAM_BYTES_MAX || !self.bytes.is_multiple_of(self.bits.into()) {
            return refuse("bytes", "whole groups of `bits` bytes, at most 2^38 - 64", self.bytes);
        }
        if !(2..=CLIENTS_MAX).contains(&self.min_group) {
            return refuse("min_group", "2 to 2^20", self.min_group.into());
        }
        for share in [self.adversary, self.dropout] {
            if !(0.0..1.0).contains(&share) {
                return refuse("adversary or dropout", "a share of at least 0 and below 1", share.to_bits());
            }
        }
        Ok(())
    }

    /// Degree and threshold of a graph over so many devices.
    pub fn parameters(&self, present: u32) -> Result<Parameters, Refused> {
        Ok(Parameters::find(present, self.adversary, self.dropout, self.threat)?)
    }

    /// The fewest devices whose sum is opened, in a graph with these parameters.
    pub fn minimum(&self, parameters: &Parameters) -> u32 {
        self.min_group.max(parameters.min_survivors())
    }

    /// The hash that stands for the session in every message, key and signature.
    pub fn bound(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        derive(For::Session, &[&bytes])
    }

    pub(crate) fn is_active(&self) -> bool {
        self.threat == Threat::Active
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.context);
        out.push(self.threat as u8);
        for share in [self.adversary, self.dropout] {
            out.extend_from_slice(&share.to_bits().to_le_bytes());
        }
        out.extend_from_slice(&self.min_group.to_le_bytes());
        out.extend_from_slice(&[self.prg.id(), self.bits]);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.commitment);
    }

    pub(crate) fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let context = reader.array("context")?;
        let threat = if reader.flag("threat")? { Threat::Active } else { Threat::Honest };
        let mut share = |what| Ok(f64::from_bits(reader.u64(what)?));
        let (adversary, dropout) = (share("adversary")?, share("dropout")?);
        let min_group = reader.u32("min_group")?;
        let id = reader.u8("generator")?;
        let prg = Prg::from_id(id).ok_or_else(|| reader.unknown("generator", id))?;
        let session = Self {
            context,
            threat,
            adversary,
            dropout,
            prg,
            min_group,
            bits: reader.u8("bits")?,
            bytes: reader.u64("bytes")?,
            commitment: reader.array("commitment")?,
        };
        session.check().map_err(|_| reader.invalid("session", "there cannot be such a session"))?;
        Ok(session)
    }
}

// What is signed: a name that no other statement has, then parts of fixed length.

pub(crate) fn advertised_statement(
    bound: &[u8; 32],
    identity: &[u8; 32],
    [encryption_key, masking_key]: [&[u8; 32]; 2],
    nonce_commitment: &[u8; 32],
) -> Vec<u8> {
    [b"littoral secagg 1: my keys", &bound[..], identity, encryption_key, masking_key, nonce_commitment].concat()
}

pub(crate) fn consent_statement(bound: &[u8; 32], root: &Hash, survivors: &[u8; 32]) -> Vec<u8> {
    [b"littoral secagg 1: i saw these survivors", &bound[..], root, survivors].concat()
}

// What is hashed.

pub(crate) fn leaf(
    bound: &[u8; 32],
    index: u32,
    identity: &[u8; 32],
    [encryption_key, masking_key]: [&[u8; 32]; 2],
) -> Hash {
    derive(For::Leaf, &[bound, &index.to_le_bytes(), identity, encryption_key, masking_key])
}

pub(crate) fn nonce_commitment(bound: &[u8; 32], nonce: &[u8; 16]) -> [u8; 32] {
    derive(For::NonceCommitment, &[bound, nonce])
}

pub(crate) fn self_mask_commitment(bound: &[u8; 32], index: u32, seed: &[u8; 32]) -> [u8; 32] {
    derive(For::SelfMaskCommitment, &[bound, &index.to_le_bytes(), seed])
}

/// The root of the list: over the tree of keys, and over all commitments to nonces, so that who has all nonces can check
/// each of them against it.
pub(crate) fn list_root(bound: &[u8; 32], tree: &Hash, commitments: &[[u8; 32]]) -> Hash {
    let commitments = derive(For::NonceCommitments, &[commitments.as_flattened()]);
    derive(For::List, &[bound, tree, &commitments])
}

/// The seed of the graph from the server's secret, fixed before keys, and nonces, fixed with the keys and shown after.
pub(crate) fn graph_seed(
    session: &Session,
    bound: &[u8; 32],
    secret: &[u8; 32],
    root: &Hash,
    revealed: &Bitmap,
    nonces: &[[u8; 16]],
) -> [u8; 32] {
    let count = revealed.len().to_le_bytes();
    let parts: [&[u8]; 7] =
        [bound, &session.commitment, secret, root, &count, revealed.as_bytes(), nonces.as_flattened()];
    derive(For::Graph, &parts)
}

pub(crate) fn survivors_hash(bound: &[u8; 32], survivors: &Bitmap) -> [u8; 32] {
    derive(For::Survivors, &[bound, &survivors.len().to_le_bytes(), survivors.as_bytes()])
}

/// The places of the list that are in the graph, and back: a graph's vertex is the rank of a place among those in it.
pub(crate) fn vertices(present: &Bitmap) -> Vec<u32> {
    present.iter().collect()
}
