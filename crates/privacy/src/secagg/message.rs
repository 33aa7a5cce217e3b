//! Every message between a device and the server, in the order of the protocol.
//!
//! Each begins with a byte that says which it is and the hash of its session; decoding is total (see [`codec`](super::codec)).
//! Edges relay them unread. The masked vector itself is no message here: it travels as any update does.

use super::codec::{Bitmap, DecodeError, Reader};
use super::keys::{SEALED_BYTES, Sealed};
use super::parameters::CLIENTS_MAX;
use super::prg::Prg;
use super::session::Session;
use super::shamir::{SHARE_BYTES, Share};
use std::fmt;

/// The most bytes of a roster's proof for one device.
pub const ROSTER_PROOF_BYTES_MAX: u32 = 4096;

/// Device to server, 1: its keys of this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub bound: [u8; 32],
    pub encryption_key: [u8; 32],
    pub masking_key: [u8; 32],
    /// Under the active threat.
    pub vouched: Option<Vouched>,
}

/// That these keys, and a nonce not yet shown, are of an identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Vouched {
    pub nonce_commitment: [u8; 32],
    pub signature: [u8; 64],
}

/// Server to device, 2 (active): the list is fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    pub bound: [u8; 32],
    /// Devices in the list.
    pub count: u32,
    pub root: [u8; 32],
}

/// Device to server, 3 (active): its nonce, now that nobody can choose keys by it.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce {
    pub bound: [u8; 32],
    pub nonce: [u8; 16],
}

/// Server to device, 4: its neighbours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbours {
    pub bound: [u8; 32],
    pub terms: Terms,
    /// Devices in the list, and the place of this one.
    pub count: u32,
    pub index: u32,
    pub source: Source,
    /// Ascending by place.
    pub peers: Vec<Peer>,
    /// Active: that this device and its peers are in the list's tree; all in one.
    pub proof: Vec<[u8; 32]>,
}

/// What a server believes the session to be, to compare; degree and threshold are those of the graph as it came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub context: [u8; 32],
    pub prg: Prg,
    pub bits: u8,
    pub bytes: u64,
    pub min_group: u32,
    pub degree: u32,
    pub threshold: u32,
}

/// Where the graph comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// Honest: the server drew it.
    Seed([u8; 32]),
    /// Active: the server's secret, the nonces that were shown, and the commitments to those that were not.
    Nonces { secret: [u8; 32], revealed: Bitmap, nonces: Vec<[u8; 16]>, withheld: Vec<[u8; 32]> },
}

/// A neighbour: where it stands in the list, and its keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    pub index: u32,
    pub encryption_key: [u8; 32],
    pub masking_key: [u8; 32],
    /// Active.
    pub identity: Option<PeerIdentity>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub identity: [u8; 32],
    pub signature: [u8; 64],
    /// At most [`ROSTER_PROOF_BYTES_MAX`] bytes.
    pub roster: Vec<u8>,
}

/// Device to server, 5: its two secrets in shares, sealed for each neighbour in their order.
#[derive(Clone, PartialEq, Eq)]
pub struct Shares {
    pub bound: [u8; 32],
    /// To the seed of the self mask: who opens it can tell wrong shares.
    pub self_mask_commitment: [u8; 32],
    pub sealed: Vec<[u8; SEALED_BYTES]>,
}

/// Server to device, 6: which neighbours completed sharing, and what they sealed for this device.
#[derive(Clone, PartialEq, Eq)]
pub struct Inbox {
    pub bound: [u8; 32],
    /// Over the neighbours, in their order.
    pub completed: Bitmap,
    pub sealed: Vec<[u8; SEALED_BYTES]>,
}

/// Server to device, 7: whose masked vectors are in the sum. Over the places of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    pub bound: [u8; 32],
    pub set: Bitmap,
}

/// Device to server, 8 (active): it saw this set of survivors and will see no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Consent {
    pub bound: [u8; 32],
    pub signature: [u8; 64],
}

/// Server to device, 9 (active): its neighbours saw the same.
#[derive(Clone, PartialEq, Eq)]
pub struct Consents {
    pub bound: [u8; 32],
    /// Over the neighbours, in their order.
    pub signers: Bitmap,
    pub signatures: Vec<[u8; 64]>,
}

/// Device to server, 10: one share for each neighbour that completed sharing: of the self mask if that one survived, of its
/// masking key if not.
#[derive(Clone, PartialEq, Eq)]
pub struct Reveal {
    pub bound: [u8; 32],
    pub shares: Vec<[u8; SHARE_BYTES]>,
}

macro_rules! messages {
    ($($name:ident = $tag:literal,)*) => {$(
        impl $name {
            pub fn encode(&self) -> Vec<u8> {
                let mut out = vec![$tag];
                out.extend_from_slice(&self.bound);
                self.put(&mut out);
                out
            }

            /// Exactly one message; what is allocated is backed by `bytes`.
            pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(bytes);
                match reader.u8(stringify!($name))? {
                    $tag => {}
                    got => return Err(DecodeError::Unknown { what: stringify!($name), offset: 0, got }),
                }
                let bound = reader.array("session")?;
                let message = Self::get(bound, &mut reader)?;
                reader.finish()?;
                Ok(message)
            }
        }
    )*};
}
messages! {
    Advertised = 1, Fixed = 2, Nonce = 3, Neighbours = 4, Shares = 5,
    Inbox = 6, Survivors = 7, Consent = 8, Consents = 9, Reveal = 10,
}

/// A `u32` count and as many items.
fn put_list<const N: usize>(items: &[[u8; N]], out: &mut Vec<u8>) {
    out.extend_from_slice(&(items.len() as u32).to_le_bytes());
    out.extend_from_slice(items.as_flattened());
}

fn get_list<const N: usize>(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<[u8; N]>, DecodeError> {
    let count = reader.count(what, CLIENTS_MAX, N)?;
    get_items(reader, what, count)
}

fn get_items<const N: usize>(
    reader: &mut Reader<'_>,
    what: &'static str,
    count: usize,
) -> Result<Vec<[u8; N]>, DecodeError> {
    Ok(reader.take(what, count * N)?.as_chunks::<N>().0.to_vec())
}

impl Advertised {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.encryption_key);
        out.extend_from_slice(&self.masking_key);
        out.push(self.vouched.is_some().into());
        if let Some(vouched) = &self.vouched {
            out.extend_from_slice(&vouched.nonce_commitment);
            out.extend_from_slice(&vouched.signature);
        }
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (encryption_key, masking_key) = (reader.array("encryption key")?, reader.array("masking key")?);
        let vouched = match reader.flag("vouched")? {
            true => Some(Vouched {
                nonce_commitment: reader.array("commitment to a nonce")?,
                signature: reader.array("signature")?,
            }),
            false => None,
        };
        Ok(Self { bound, encryption_key, masking_key, vouched })
    }
}

impl Fixed {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.root);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bound, count: reader.u32("devices")?, root: reader.array("root")? })
    }
}

impl Nonce {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nonce);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bound, nonce: reader.array("nonce")? })
    }
}

impl Terms {
    pub(crate) fn of(session: &Session, degree: u32, threshold: u32) -> Self {
        let Session { context, prg, bits, bytes, min_group, .. } = *session;
        Self { context, prg, bits, bytes, min_group, degree, threshold }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.context);
        out.extend_from_slice(&[self.prg.id(), self.bits]);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        for number in [self.min_group, self.degree, self.threshold] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let context = reader.array("context")?;
        let id = reader.u8("generator")?;
        Ok(Self {
            context,
            prg: Prg::from_id(id).ok_or_else(|| reader.unknown("generator", id))?,
            bits: reader.u8("bits")?,
            bytes: reader.u64("bytes")?,
            min_group: reader.u32("min_group")?,
            degree: reader.u32("degree")?,
            threshold: reader.u32("threshold")?,
        })
    }
}

impl Source {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Seed(seed) => {
                out.push(0);
                out.extend_from_slice(seed);
            }
            Self::Nonces { secret, revealed, nonces, withheld } => {
                out.push(1);
                out.extend_from_slice(secret);
                revealed.put(out);
                out.extend_from_slice(nonces.as_flattened());
                out.extend_from_slice(withheld.as_flattened());
            }
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if !reader.flag("source of the graph")? {
            return Ok(Self::Seed(reader.array("seed")?));
        }
        let secret = reader.array("secret")?;
        let revealed = Bitmap::get(reader, "who showed a nonce", CLIENTS_MAX)?;
        let shown = revealed.count() as usize;
        let nonces = get_items(reader, "nonces", shown)?;
        let withheld = get_items(reader, "withheld nonces", revealed.len() as usize - shown)?;
        Ok(Self::Nonces { secret, revealed, nonces, withheld })
    }
}

/// Bytes of a peer without its identity.
const PEER_BYTES_MIN: usize = 4 + 32 + 32 + 1;

impl Peer {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.encryption_key);
        out.extend_from_slice(&self.masking_key);
        out.push(self.identity.is_some().into());
        if let Some(PeerIdentity { identity, signature, roster }) = &self.identity {
            out.extend_from_slice(identity);
            out.extend_from_slice(signature);
            out.extend_from_slice(&(roster.len() as u32).to_le_bytes());
            out.extend_from_slice(roster);
        }
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let index = reader.u32("neighbour")?;
        let (encryption_key, masking_key) = (reader.array("encryption key")?, reader.array("masking key")?);
        let identity = match reader.flag("identity")? {
            true => {
                let (identity, signature) = (reader.array("identity")?, reader.array("signature")?);
                let len = reader.count("proof of the roster", ROSTER_PROOF_BYTES_MAX, 1)?;
                let roster = reader.take("proof of the roster", len)?.to_vec();
                Some(PeerIdentity { identity, signature, roster })
            }
            false => None,
        };
        Ok(Self { index, encryption_key, masking_key, identity })
    }
}

impl Neighbours {
    fn put(&self, out: &mut Vec<u8>) {
        self.terms.put(out);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        self.source.put(out);
        out.extend_from_slice(&(self.peers.len() as u32).to_le_bytes());
        self.peers.iter().for_each(|peer| peer.put(out));
        put_list(&self.proof, out);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let terms = Terms::get(reader)?;
        let (count, index) = (reader.u32("devices")?, reader.u32("place")?);
        let source = Source::get(reader)?;
        let len = reader.count("neighbours", CLIENTS_MAX, PEER_BYTES_MIN)?;
        let mut peers = Vec::with_capacity(len);
        for _ in 0..len {
            peers.push(Peer::get(reader)?);
        }
        Ok(Self { bound, terms, count, index, source, peers, proof: get_list(reader, "proof of the list")? })
    }
}

impl Shares {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.self_mask_commitment);
        put_list(&self.sealed, out);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let self_mask_commitment = reader.array("commitment to a self mask")?;
        Ok(Self { bound, self_mask_commitment, sealed: get_list::<SEALED_BYTES>(reader, "sealed shares")? })
    }
}

impl Inbox {
    fn put(&self, out: &mut Vec<u8>) {
        self.completed.put(out);
        out.extend_from_slice(self.sealed.as_flattened());
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let completed = Bitmap::get(reader, "who completed", CLIENTS_MAX)?;
        let sealed: Vec<Sealed> = get_items(reader, "sealed shares", completed.count() as usize)?;
        Ok(Self { bound, completed, sealed })
    }
}

impl Survivors {
    fn put(&self, out: &mut Vec<u8>) {
        self.set.put(out);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bound, set: Bitmap::get(reader, "survivors", CLIENTS_MAX)? })
    }
}

impl Consent {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.signature);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bound, signature: reader.array("signature")? })
    }
}

impl Consents {
    fn put(&self, out: &mut Vec<u8>) {
        self.signers.put(out);
        out.extend_from_slice(self.signatures.as_flattened());
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let signers = Bitmap::get(reader, "signers", CLIENTS_MAX)?;
        let signatures = get_items(reader, "signatures", signers.count() as usize)?;
        Ok(Self { bound, signers, signatures })
    }
}

impl Reveal {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(&self.shares, out);
    }

    fn get(bound: [u8; 32], reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let shares: Vec<Share> = get_list(reader, "shares")?;
        Ok(Self { bound, shares })
    }
}

// Long bytes tell a reader nothing, and some of them are secrets.

macro_rules! short_debug {
    ($($name:ident($self:ident) $text:expr,)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&$self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {{ {} }}", stringify!($name), $text)
            }
        }
    )*};
}
short_debug! {
    Vouched(self) "signed",
    Nonce(self) "16 bytes",
    Source(self) match self {
        Self::Seed(_) => "seed".to_owned(),
        Self::Nonces { revealed, .. } => format!("nonces: {revealed:?}"),
    },
    Peer(self) self.index,
    PeerIdentity(self) format_args!("{:02x?}…", &self.identity[..4]),
    Shares(self) format_args!("{} sealed", self.sealed.len()),
    Inbox(self) format_args!("{:?} sealed", self.completed),
    Consent(self) "signed",
    Consents(self) format_args!("{:?} signed", self.signers),
    Reveal(self) format_args!("{} shares", self.shares.len()),
}
