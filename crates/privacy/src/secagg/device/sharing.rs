//! Middle steps: secrets shared among neighbours, theirs received, the vector's masks.

use super::keyed::Secrets;
use super::masked::{Held, HeldOf};
use super::{Masked, Place};
use crate::secagg::keys::{End, For, Pair, pairwise_seed};
use crate::secagg::mask::{Masks, Sign};
use crate::secagg::message::{Inbox, Peer, Shares};
use crate::secagg::refused::Refused;
use crate::secagg::session::self_mask_commitment;
use crate::secagg::shamir::{self, Share};
use std::fmt;
use zeroize::Zeroizing;

/// A device that shared its secrets and waits for those of its neighbours.
pub struct Sharing {
    place: Place,
    secrets: Secrets,
    peers: Vec<Peer>,
}

impl Sharing {
    pub(super) fn begin(place: Place, secrets: Secrets, peers: &[Peer]) -> Result<(Self, Shares), Refused> {
        let bound = place.bound;
        let self_mask = secrets.of(For::SelfMask, &bound);
        let points: Vec<u32> = peers.iter().map(|peer| point(peer.index)).collect();
        let split = |secret: &[u8; 32], purpose| -> Zeroizing<Vec<Share>> {
            Zeroizing::new(shamir::split(secret, place.threshold, &points, secrets.of(purpose, &bound).bytes()))
        };
        let of_self_mask = split(self_mask.bytes(), For::SplitSelfMask);
        let of_masking_key = split(secrets.masking.bytes(), For::SplitMaskingKey);
        let mut sealed = Vec::with_capacity(peers.len());
        for (i, peer) in peers.iter().enumerate() {
            let pair = pair(&place, &secrets, peer)?;
            sealed.push(pair.seal(&of_self_mask[i], &of_masking_key[i]));
        }
        let self_mask_commitment = self_mask_commitment(&bound, place.index, self_mask.bytes());
        let sharing = Self { place, secrets, peers: peers.to_vec() };
        Ok((sharing, Shares { bound, self_mask_commitment, sealed }))
    }

    /// Takes in the neighbours' shares; gives the masks for this device's vector, to be added with their signs.
    ///
    /// Before the first masked byte leaves, the masked vector and [`Masked::to_bytes`] must be durable, together: who has
    /// lost one of them drops out, and never masks a second vector.
    pub fn mask(self, inbox: &Inbox) -> Result<(Masked, Masks), Refused> {
        let Self { place, secrets, peers } = self;
        if inbox.bound != place.bound {
            return Err(Refused::WrongContext { what: "the shares of neighbours" });
        }
        let (expected, got) = (peers.len() as u32, inbox.completed.len());
        if expected != got {
            return Err(Refused::WrongLength { what: "the set of neighbours that completed", expected, got });
        }
        let (expected, got) = (inbox.completed.count(), inbox.sealed.len() as u32);
        if expected != got {
            return Err(Refused::WrongLength { what: "the list of sealed shares", expected, got });
        }
        if got < place.threshold {
            return Err(Refused::TooFewNeighbours { what: "completed sharing", threshold: place.threshold, got });
        }
        let session = &place.session;
        let mut masks = Masks::new(session.prg, session.bits, session.bytes);
        masks.push(Sign::Plus, secrets.of(For::SelfMask, &place.bound));
        let mut held = Vec::with_capacity(peers.len());
        let mut sealed = inbox.sealed.iter();
        for (slot, peer) in peers.iter().enumerate() {
            let mut shares = Held::Nothing;
            if inbox.completed.contains(slot as u32)
                && let Some(sealed) = sealed.next()
            {
                let opened = pair(&place, &secrets, peer)?.open(sealed);
                let (self_mask, masking_key) = opened.ok_or(Refused::BadCiphertext { peer: peer.index })?;
                shares = Held::Both { self_mask, masking_key };
                let mine = End { index: place.index, key: &secrets.masking_key };
                let theirs = End { index: peer.index, key: &peer.masking_key };
                let seed = pairwise_seed(&place.bound, &secrets.masking, mine, theirs);
                masks.push(sign(place.index, peer.index), seed.ok_or(Refused::BadKey { peer: peer.index })?);
            }
            let identity = peer.identity.as_ref().map_or([0; 32], |peer| peer.identity);
            held.push(HeldOf { index: peer.index, identity, shares });
        }
        Ok((Masked::new(place, held), masks))
    }
}

/// The sign with which `index` applies its mask with `peer`; that one applies the other.
pub(in crate::secagg) fn sign(index: u32, peer: u32) -> Sign {
    if index < peer { Sign::Plus } else { Sign::Minus }
}

/// The point of a device's shares; 0 is the secret's.
pub(in crate::secagg) fn point(index: u32) -> u32 {
    index + 1
}

fn pair<'a>(place: &'a Place, secrets: &'a Secrets, peer: &'a Peer) -> Result<Pair<'a>, Refused> {
    let mine = End { index: place.index, key: &secrets.encryption_key };
    let theirs = End { index: peer.index, key: &peer.encryption_key };
    Pair::new(&place.bound, &secrets.encryption, mine, theirs).ok_or(Refused::BadKey { peer: peer.index })
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = self.peers.len();
        f.debug_struct("Sharing").field("place", &self.place).field("peers", &peers).finish_non_exhaustive()
    }
}
