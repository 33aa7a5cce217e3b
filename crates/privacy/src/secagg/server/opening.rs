//! Last steps: one set of survivors, one share of each secret that is needed, the masks to take from the sum.
//!
//! Of a survivor the seed of its self mask is opened, checked against the commitment that came with its shares; of a device
//! that dropped out after sharing its masking key, checked against the key that it advertised, and from it the masks that
//! its surviving neighbours added with it. Wrong shares are noticed by this, and their senders named.

use super::Directory;
use crate::secagg::codec::Bitmap;
use crate::secagg::device::{point, sign};
use crate::secagg::keys::{End, pairwise_seed, public_key};
use crate::secagg::mask::{Masks, Sign};
use crate::secagg::message::{Consent, Consents, Reveal, Survivors};
use crate::secagg::refused::Refused;
use crate::secagg::secret::Secret;
use crate::secagg::session::{Verifier, consent_statement, self_mask_commitment, survivors_hash};
use crate::secagg::shamir::{self, Share};
use std::fmt;

/// Of this many shares every subset is tried when some are wrong.
const SHARES_TRIED_MAX: usize = 14;

/// The survivors are known; consents and shares come in.
pub struct Opening {
    directory: Directory,
    survivors: Bitmap,
    hash: [u8; 32],
    consents: Vec<Option<[u8; 64]>>,
    /// Of each device that revealed: whose share, and the share; ascending.
    revealed: Vec<Option<Vec<(u32, Share)>>>,
}

/// A device whose secret is needed, and how many more of its neighbours must reveal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub index: u32,
    pub shares: u32,
}

/// What makes a masked sum the sum.
#[derive(Debug)]
pub struct Unmask {
    /// To be applied to the masked sum, each with its sign.
    pub masks: Masks,
    /// Devices that revealed wrong shares; the masks are right all the same.
    pub wrong: Vec<u32>,
}

impl Opening {
    pub(super) fn new(directory: Directory, survivors: impl IntoIterator<Item = u32>) -> Result<Self, Refused> {
        let mut set = Bitmap::new(directory.count());
        for index in survivors {
            if !directory.has_completed(index) {
                return Err(Refused::NeverCompleted { peer: index });
            }
            set.insert(index);
        }
        let (minimum, got) = (directory.minimum(), set.count());
        if got < minimum {
            return Err(Refused::TooFewSurvivors { minimum, got });
        }
        let hash = survivors_hash(&directory.bound, &set);
        let len = directory.list.len();
        Ok(Self { directory, survivors: set, hash, consents: vec![None; len], revealed: vec![None; len] })
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// For every survivor.
    pub fn survivors(&self) -> Survivors {
        Survivors { bound: self.directory.bound, set: self.survivors.clone() }
    }

    /// Active: a survivor agreed to the set.
    pub fn consent(&mut self, index: u32, consent: &Consent, verify: Verifier<'_>) -> Result<(), Refused> {
        let Directory { bound, root, list, .. } = &self.directory;
        if consent.bound != *bound {
            return Err(Refused::WrongContext { what: "a consent" });
        }
        if !self.survivors.contains(index) {
            return Err(Refused::UnknownDevice { index });
        }
        let statement = consent_statement(bound, root, &self.hash);
        if !verify(&list[index as usize].0, &statement, &consent.signature) {
            return Err(Refused::BadSignature { peer: index });
        }
        self.consents[index as usize] = Some(consent.signature);
        Ok(())
    }

    /// Active: as many consents of its neighbours as the device at `index` needs; an error while there are fewer.
    pub fn consents_for(&self, index: u32) -> Result<Consents, Refused> {
        let directory = &self.directory;
        let threshold = directory.parameters.threshold;
        let neighbours = directory.neighbours(index);
        let mut signers = Bitmap::new(neighbours.len() as u32);
        let mut signatures = Vec::new();
        for (slot, &peer) in neighbours.iter().enumerate() {
            if let Some(signature) = self.consents[peer as usize].filter(|_| signatures.len() < threshold as usize) {
                signers.insert(slot as u32);
                signatures.push(signature);
            }
        }
        let got = signatures.len() as u32;
        if got < threshold {
            return Err(Refused::TooFewConsents { threshold, got });
        }
        Ok(Consents { bound: directory.bound, signers, signatures })
    }

    /// A survivor revealed its shares. The first answer stands.
    pub fn reveal(&mut self, index: u32, reveal: &Reveal) -> Result<(), Refused> {
        let what = "revealed shares";
        if reveal.bound != self.directory.bound {
            return Err(Refused::WrongContext { what });
        }
        if !self.survivors.contains(index) {
            return Err(Refused::UnknownDevice { index });
        }
        let owners = self.directory.completed_neighbours(index);
        let (expected, got) = (owners.len() as u32, reveal.shares.len() as u32);
        if expected != got {
            return Err(Refused::WrongLength { what, expected, got });
        }
        let shares: Vec<(u32, Share)> = owners.into_iter().zip(reveal.shares.iter().copied()).collect();
        match &self.revealed[index as usize] {
            Some(known) if *known != shares => Err(Refused::Again { what }),
            _ => {
                self.revealed[index as usize] = Some(shares);
                Ok(())
            }
        }
    }

    /// Whose secrets are needed: of survivors, and of devices that dropped out after sharing beside a survivor.
    pub fn wanted(&self) -> Vec<u32> {
        let beside_survivor = |index: u32| self.directory.neighbours(index).iter().any(|&p| self.survivors.contains(p));
        let wanted = |&index: &u32| {
            self.directory.has_completed(index) && (self.survivors.contains(index) || beside_survivor(index))
        };
        (0..self.directory.count()).filter(wanted).collect()
    }

    /// Who still lacks shares; nobody when the sum can be opened.
    pub fn missing(&self) -> Vec<Missing> {
        let threshold = self.directory.parameters.threshold;
        let lacking = self.wanted().into_iter().filter_map(|index| {
            let got = self.holders(index).count() as u32;
            (got < threshold).then(|| Missing { index, shares: threshold - got })
        });
        lacking.collect()
    }

    /// Everything at once, on one thread. [`Opening::masks_of`] for each of [`Opening::wanted`] gives the same in parts.
    pub fn unmask(&self) -> Result<Unmask, Refused> {
        let session = &self.directory.session;
        let mut all = Unmask { masks: Masks::new(session.prg, session.bits, session.bytes), wrong: Vec::new() };
        for index in self.wanted() {
            all.append(self.masks_of(index)?);
        }
        Ok(all)
    }

    /// The masks that the secret of one wanted device takes from the sum.
    pub fn masks_of(&self, index: u32) -> Result<Unmask, Refused> {
        let Directory { session, bound, list, completed, .. } = &self.directory;
        let mut masks = Masks::new(session.prg, session.bits, session.bytes);
        if self.survivors.contains(index) {
            let commitment = completed[index as usize];
            let is_it = |seed: &[u8; 32]| Some(self_mask_commitment(bound, index, seed)) == commitment;
            let (seed, wrong) = self.secret_of(index, is_it)?;
            masks.push(Sign::Minus, seed);
            return Ok(Unmask { masks, wrong });
        }
        let keys = &list.get(index as usize).ok_or(Refused::UnknownDevice { index })?.1;
        let is_it = |secret: &[u8; 32]| public_key(&Secret::from(*secret)) == keys.masking_key;
        let (secret, wrong) = self.secret_of(index, is_it)?;
        let mine = End { index, key: &keys.masking_key };
        for peer in self.directory.neighbours(index).into_iter().filter(|&peer| self.survivors.contains(peer)) {
            let theirs = End { index: peer, key: &list[peer as usize].1.masking_key };
            let seed = pairwise_seed(bound, &secret, mine, theirs).ok_or(Refused::BadKey { peer })?;
            masks.push(sign(peer, index).opposite(), seed);
        }
        Ok(Unmask { masks, wrong })
    }

    /// The shares of the secret of `owner` that came, with their holders.
    fn holders(&self, owner: u32) -> impl Iterator<Item = (u32, &Share)> {
        self.directory.neighbours(owner).into_iter().filter_map(move |holder| {
            let shares = self.revealed[holder as usize].as_ref()?;
            let at = shares.binary_search_by_key(&owner, |(index, _)| *index).ok()?;
            Some((holder, &shares[at].1))
        })
    }

    /// The secret that `is_it` recognises, and the holders whose shares are wrong.
    fn secret_of(&self, owner: u32, is_it: impl Fn(&[u8; 32]) -> bool) -> Result<(Secret<32>, Vec<u32>), Refused> {
        let threshold = self.directory.parameters.threshold;
        let shares: Vec<(u32, &Share)> = self.holders(owner).map(|(holder, share)| (point(holder), share)).collect();
        let got = shares.len() as u32;
        if got < threshold {
            return Err(Refused::TooFewShares { peer: owner, got, missing: threshold - got });
        }
        let right = |shares: &[(u32, &Share)]| shamir::combine(shares, threshold).ok().filter(|secret| is_it(secret));
        if let Some(secret) = right(&shares) {
            return Ok((secret.into(), Vec::new()));
        }
        // As many wrong shares as a code corrects.
        if let Some((secret, wrong)) = shamir::decode(&shares, threshold).ok().filter(|(secret, _)| is_it(secret)) {
            return Ok((secret.into(), wrong.into_iter().map(|point| point - 1).collect()));
        }
        // More, where the subsets are few: whichever is all right gives the secret.
        let subsets = if shares.len() <= SHARES_TRIED_MAX { 1u32 << shares.len() } else { 0 };
        for subset in (0..subsets).filter(|subset| subset.count_ones() == threshold) {
            let mut chosen = shares.clone();
            let mut bits = (0..shares.len()).map(|i| subset >> i & 1 == 1);
            chosen.retain(|_| bits.next() == Some(true));
            if let Some(secret) = right(&chosen) {
                let swapped = |share| [&chosen[1..], &[share]].concat();
                let others = shares.iter().filter(|share| !chosen.contains(share));
                let wrong = others.filter(|share| right(&swapped(**share)).is_none());
                return Ok((secret.into(), wrong.map(|(point, _)| point - 1).collect()));
            }
        }
        Err(Refused::WrongShares { peer: owner })
    }
}

impl Unmask {
    /// What another part gave joins this one.
    pub fn append(&mut self, other: Self) {
        self.masks.append(other.masks);
        self.wrong.extend(other.wrong);
        self.wrong.sort_unstable();
        self.wrong.dedup();
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("directory", &self.directory)
            .field("survivors", &self.survivors)
            .field("consents", &self.consents.iter().flatten().count())
            .field("revealed", &self.revealed.iter().flatten().count())
            .finish()
    }
}
