//! Last steps: which devices survived, and one share for each neighbour.
//!
//! This state outlives the process: it is written before the first masked byte leaves, and again before each answer. It
//! holds no secret of the device itself any more, only the shares of others; once a set of survivors is agreed to, of each
//! neighbour the share that is not asked for is erased. So no later request, and no later theft, can have both.

use super::Place;
use crate::secagg::codec::{Bitmap, DecodeError, Reader};
use crate::secagg::message::{Consent, Consents, Reveal, Survivors};
use crate::secagg::parameters::CLIENTS_MAX;
use crate::secagg::refused::Refused;
use crate::secagg::secret::Secret;
use crate::secagg::session::{Session, Signer, Verifier, consent_statement, survivors_hash};
use crate::secagg::shamir::{SHARE_BYTES, Share, is_share};
use std::fmt;
use zeroize::Zeroizing;

/// A device whose vector is masked.
#[derive(Clone, PartialEq)]
pub struct Masked {
    place: Place,
    /// The neighbours, ascending by place.
    peers: Vec<HeldOf>,
    agreed: Option<Agreed>,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct HeldOf {
    pub(super) index: u32,
    pub(super) identity: [u8; 32],
    pub(super) shares: Held,
}

/// What is held of a neighbour's secrets.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Held {
    /// It did not complete sharing.
    Nothing,
    Both {
        self_mask: Secret<SHARE_BYTES>,
        masking_key: Secret<SHARE_BYTES>,
    },
    /// It survived.
    SelfMask(Secret<SHARE_BYTES>),
    /// It dropped out.
    MaskingKey(Secret<SHARE_BYTES>),
}

/// The one set of survivors that this device answers to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Agreed {
    survivors: [u8; 32],
    /// Shares left, or may have left.
    revealed: bool,
}

const VERSION: u8 = 1;

impl Masked {
    pub(super) fn new(place: Place, peers: Vec<HeldOf>) -> Self {
        Self { place, peers, agreed: None }
    }

    pub fn session(&self) -> &Session {
        &self.place.session
    }

    /// This device's place in the list.
    pub fn index(&self) -> u32 {
        self.place.index
    }

    /// Did shares leave? Then the session is over for this device but for repeating them.
    pub fn has_revealed(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.revealed)
    }

    /// Active: agrees to this set of survivors, and to no other ever. The state must be durable before the consent leaves.
    pub fn consent(mut self, survivors: &Survivors, sign: Signer<'_>) -> Result<(Self, Consent), Refused> {
        if !self.place.session.is_active() {
            return Err(Refused::OtherThreat { what: "a request for consent" });
        }
        let hash = self.agree(survivors)?;
        let Place { bound, root, .. } = self.place;
        let signature = sign(&consent_statement(&bound, &root, &hash));
        Ok((self, Consent { bound, signature }))
    }

    /// Active: enough neighbours agreed to the same set; the shares for it. The state must be durable before they leave.
    pub fn reveal_confirmed(mut self, consents: &Consents, verify: Verifier<'_>) -> Result<(Self, Reveal), Refused> {
        let Place { bound, root, threshold, .. } = self.place;
        if consents.bound != bound {
            return Err(Refused::WrongContext { what: "consents of neighbours" });
        }
        let Some(agreed) = self.agreed.as_mut().filter(|_| self.place.session.is_active()) else {
            return Err(Refused::TooFewConsents { threshold, got: 0 });
        };
        let (expected, got) = (self.peers.len() as u32, consents.signers.len());
        if expected != got {
            return Err(Refused::WrongLength { what: "the set of consents", expected, got });
        }
        let statement = consent_statement(&bound, &root, &agreed.survivors);
        let signers = consents.signers.iter().zip(&consents.signatures);
        let valid = signers.filter(|(slot, signature)| {
            let peer = &self.peers[*slot as usize];
            matches!(peer.shares, Held::SelfMask(_)) && verify(&peer.identity, &statement, signature)
        });
        let got = valid.count() as u32;
        if got < threshold {
            return Err(Refused::TooFewConsents { threshold, got });
        }
        agreed.revealed = true;
        let reveal = self.shares();
        Ok((self, reveal))
    }

    /// Honest: the shares for this set of survivors, and for no other ever. The state must be durable before they leave.
    pub fn reveal(mut self, survivors: &Survivors) -> Result<(Self, Reveal), Refused> {
        if self.place.session.is_active() {
            return Err(Refused::TooFewConsents { threshold: self.place.threshold, got: 0 });
        }
        self.agree(survivors)?;
        if let Some(agreed) = &mut self.agreed {
            agreed.revealed = true;
        }
        let reveal = self.shares();
        Ok((self, reveal))
    }

    /// Checks a set of survivors, erases what it does not ask for, and gives its hash.
    fn agree(&mut self, message: &Survivors) -> Result<[u8; 32], Refused> {
        let (place, set) = (&self.place, &message.set);
        if message.bound != place.bound {
            return Err(Refused::WrongContext { what: "the set of survivors" });
        }
        let hash = survivors_hash(&place.bound, set);
        if let Some(agreed) = &self.agreed {
            if agreed.survivors == hash {
                return Ok(hash);
            }
            let other = self.peers.iter().find(|peer| match peer.shares {
                Held::SelfMask(_) => !set.contains(peer.index),
                Held::MaskingKey(_) => set.contains(peer.index),
                Held::Nothing | Held::Both { .. } => false,
            });
            return Err(match other.filter(|_| agreed.revealed) {
                Some(peer) => Refused::BothShares { peer: peer.index },
                None => Refused::OtherSurvivors,
            });
        }
        if set.len() != place.present.len() {
            return Err(Refused::WrongSurvivors { why: "the set is not over the devices of the list" });
        }
        if !set.is_subset_of(&place.present) {
            return Err(Refused::WrongSurvivors { why: "one of them is not in the graph" });
        }
        if !set.contains(place.index) {
            return Err(Refused::NotSurvivor);
        }
        let (minimum, got) = (place.minimum, set.count());
        if got < minimum {
            return Err(Refused::TooFewSurvivors { minimum, got });
        }
        let nothing_of = |peer: &&HeldOf| set.contains(peer.index) && peer.shares == Held::Nothing;
        if let Some(peer) = self.peers.iter().find(nothing_of) {
            return Err(Refused::NeverCompleted { peer: peer.index });
        }
        let (threshold, got) = (place.threshold, self.peers.iter().filter(|peer| set.contains(peer.index)).count());
        if (got as u32) < threshold {
            return Err(Refused::TooFewNeighbours { what: "survive", threshold, got: got as u32 });
        }
        for peer in &mut self.peers {
            let shares = std::mem::replace(&mut peer.shares, Held::Nothing);
            peer.shares = match shares {
                Held::Both { self_mask, .. } if set.contains(peer.index) => Held::SelfMask(self_mask),
                Held::Both { masking_key, .. } => Held::MaskingKey(masking_key),
                other => other,
            };
        }
        self.agreed = Some(Agreed { survivors: hash, revealed: false });
        Ok(hash)
    }

    fn shares(&self) -> Reveal {
        let shares = self.peers.iter().filter_map(|peer| match &peer.shares {
            Held::SelfMask(share) | Held::MaskingKey(share) => Some(*share.bytes()),
            Held::Nothing | Held::Both { .. } => None,
        });
        Reveal { bound: self.place.bound, shares: shares.collect() }
    }

    /// What must be durable. It holds shares of others' secrets: keep it where a device keeps its keys.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let place = &self.place;
        // As large as it can become, so that no copy is left behind by growing.
        let room = 512 + place.present.as_bytes().len() + self.peers.len() * (4 + 32 + 1 + 2 * SHARE_BYTES);
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        out.push(VERSION);
        place.session.put(&mut out);
        out.extend_from_slice(&place.index.to_le_bytes());
        out.extend_from_slice(&place.threshold.to_le_bytes());
        out.extend_from_slice(&place.minimum.to_le_bytes());
        out.extend_from_slice(&place.root);
        place.present.put(&mut out);
        out.extend_from_slice(&(self.peers.len() as u32).to_le_bytes());
        for peer in &self.peers {
            out.extend_from_slice(&peer.index.to_le_bytes());
            out.extend_from_slice(&peer.identity);
            let (kind, shares): (u8, [Option<&Secret<SHARE_BYTES>>; 2]) = match &peer.shares {
                Held::Nothing => (0, [None, None]),
                Held::Both { self_mask, masking_key } => (1, [Some(self_mask), Some(masking_key)]),
                Held::SelfMask(share) => (2, [Some(share), None]),
                Held::MaskingKey(share) => (3, [Some(share), None]),
            };
            out.push(kind);
            shares.into_iter().flatten().for_each(|share| out.extend_from_slice(share.bytes()));
        }
        match &self.agreed {
            None => out.push(0),
            Some(Agreed { survivors, revealed }) => {
                out.push(1 + u8::from(*revealed));
                out.extend_from_slice(survivors);
            }
        }
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("version")? {
            VERSION => {}
            got => return Err(reader.unknown("version", got)),
        }
        let session = Session::get(&mut reader)?;
        let bound = session.bound();
        let (index, threshold) = (reader.u32("place")?, reader.u32("threshold")?);
        let minimum = reader.u32("minimum")?;
        let root = reader.array("root")?;
        let present = Bitmap::get(&mut reader, "who is in the graph", CLIENTS_MAX)?;
        let place = Place { session, bound, index, present, threshold, minimum, root };
        let count = reader.count("neighbours", CLIENTS_MAX, 4 + 32 + 1)?;
        let mut peers = Vec::with_capacity(count);
        for _ in 0..count {
            let (index, identity) = (reader.u32("neighbour")?, reader.array("identity")?);
            let kind = reader.u8("shares")?;
            let mut share = || -> Result<Secret<SHARE_BYTES>, DecodeError> {
                let share: Share = reader.array("share")?;
                if is_share(&share) { Ok(share.into()) } else { Err(reader.invalid("share", "not one of this field")) }
            };
            let shares = match kind {
                0 => Held::Nothing,
                1 => Held::Both { self_mask: share()?, masking_key: share()? },
                2 => Held::SelfMask(share()?),
                3 => Held::MaskingKey(share()?),
                got => return Err(reader.unknown("shares", got)),
            };
            peers.push(HeldOf { index, identity, shares });
        }
        let agreed = match reader.u8("agreed")? {
            0 => None,
            got @ (1 | 2) => Some(Agreed { survivors: reader.array("survivors")?, revealed: got == 2 }),
            got => return Err(reader.unknown("agreed", got)),
        };
        let held = |peer: &HeldOf| match peer.shares {
            Held::Nothing => true,
            Held::Both { .. } => agreed.is_none(),
            Held::SelfMask(_) | Held::MaskingKey(_) => agreed.is_some(),
        };
        if !peers.is_sorted_by(|a, b| a.index < b.index) || !peers.iter().all(held) {
            return Err(reader.invalid("neighbours", "they do not fit together"));
        }
        reader.finish()?;
        Ok(Self { place, peers, agreed })
    }
}

/// No share is shown.
impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.peers.iter().map(|peer| (peer.index, peer.shares.name())).collect();
        f.debug_struct("Masked")
            .field("place", &self.place)
            .field("held", &peers)
            .field("agreed", &self.agreed.is_some())
            .field("revealed", &self.has_revealed())
            .finish()
    }
}

impl Held {
    fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Both { .. } => "both",
            Self::SelfMask(_) => "self mask",
            Self::MaskingKey(_) => "masking key",
        }
    }
}
