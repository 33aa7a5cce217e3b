//! A small cohort: devices with Ed25519 identities, one server, vectors of a few words; who drops out when is given.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use littoral_privacy::secagg::device::{self, Keyed, Masked};
use littoral_privacy::secagg::mask::add_packed;
use littoral_privacy::secagg::message::*;
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::prg::Prg;
use littoral_privacy::secagg::refused::Refused;
use littoral_privacy::secagg::server::{Directory, Gathering, Inboxes, Listing, Opening, Sharing};
use littoral_privacy::secagg::session::{Session, commitment};
use std::collections::BTreeMap;

/// The first step that a device does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misses {
    Advertising,
    /// Under the active threat.
    Nonce,
    Sharing,
    Upload,
    /// Under the active threat.
    Consent,
    Reveal,
    Nothing,
}

pub const SERVER_SECRET: [u8; 32] = [0x51; 32];
pub const ROSTER_PROOF: &[u8] = b"an operator put it there";

pub struct World {
    /// Of all devices.
    pub parameters: Parameters,
    pub session: Session,
    keys: BTreeMap<[u8; 32], SigningKey>,
}

pub fn verify(identity: &[u8; 32], statement: &[u8], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_bytes(identity);
    key.is_ok_and(|key| key.verify_strict(statement, &Signature::from_bytes(signature)).is_ok())
}

pub fn on_roster(_: &[u8; 32], proof: &[u8]) -> bool {
    proof == ROSTER_PROOF
}

pub fn roster(_: &[u8; 32]) -> Vec<u8> {
    ROSTER_PROOF.to_vec()
}

/// Encoded and decoded again.
macro_rules! sent {
    ($type:ty, $message:expr) => {
        <$type>::decode(&<$type>::encode(&$message)).unwrap()
    };
}

impl World {
    pub fn new(parameters: Parameters, bits: u8, words: u64) -> Self {
        let context = [7; 32];
        let active = parameters.threat == Threat::Active;
        let session = Session {
            context,
            threat: parameters.threat,
            adversary: f64::from(parameters.adversaries) / f64::from(parameters.clients),
            dropout: f64::from(parameters.dropouts) / f64::from(parameters.clients),
            prg: Prg::Aes128Ctr,
            bytes: words.div_ceil(8) * u64::from(bits),
            bits,
            min_group: 2,
            commitment: if active { commitment(&context, &SERVER_SECRET) } else { [0; 32] },
        };
        let keys = (0..parameters.clients).map(|i| SigningKey::from_bytes(&[i as u8 + 1; 32]));
        Self { parameters, session, keys: keys.map(|key| (key.verifying_key().to_bytes(), key)).collect() }
    }

    pub fn is_active(&self) -> bool {
        self.session.threat == Threat::Active
    }

    pub fn identities(&self) -> Vec<[u8; 32]> {
        self.keys.keys().copied().collect()
    }

    pub fn sign(&self, identity: &[u8; 32], statement: &[u8]) -> [u8; 64] {
        self.keys[identity].sign(statement).to_bytes()
    }

    pub fn keyed(&self, device: usize) -> (Keyed, Advertised) {
        let identity = self.identities()[device];
        let random = [device as u8 + 100; 32];
        Keyed::new(self.session.clone(), identity, random, &|statement| self.sign(&identity, statement)).unwrap()
    }

    /// The vector of a device: every word is another, the top residue among them.
    pub fn vector(&self, device: usize) -> Vec<u8> {
        let mix = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(device as u64 * 0x1234_5677);
        let mut bytes: Vec<u8> = (0..self.session.bytes).map(|i| (mix(i) >> 32) as u8).collect();
        bytes.iter_mut().take(self.session.bits.into()).for_each(|byte| *byte = 0xff);
        bytes
    }

    pub fn plain_sum(&self, devices: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut sum = vec![0; self.session.bytes as usize];
        for device in devices {
            add_packed(&mut sum, &self.vector(device), self.session.bits, littoral_privacy::secagg::mask::Sign::Plus);
        }
        sum
    }
}

/// All devices' halves and the server's, from step to step.
pub struct Walk<'a> {
    pub world: &'a World,
    pub misses: Vec<Misses>,
}

/// After the graph: each device that is in it with its place.
pub struct Shared {
    pub directory: Directory,
    pub inboxes: Inboxes,
    /// By device.
    pub sharing: BTreeMap<usize, device::Sharing>,
}

pub struct Summed {
    pub directory: Directory,
    pub masked: BTreeMap<usize, Masked>,
    pub sum: Vec<u8>,
    /// Devices whose vectors are in the sum.
    pub survivors: Vec<usize>,
}

impl<'a> Walk<'a> {
    pub fn all(world: &'a World) -> Self {
        Self { world, misses: vec![Misses::Nothing; world.identities().len()] }
    }

    pub fn misses(&self, device: usize, step: Misses) -> bool {
        self.misses[device] <= step
    }

    pub fn listing(&self) -> Result<(Listing, BTreeMap<usize, Keyed>), Refused> {
        let mut gathering = Gathering::new(self.world.session.clone(), SERVER_SECRET)?;
        let mut devices = BTreeMap::new();
        // In another order than the list's.
        for (device, identity) in self.world.identities().into_iter().enumerate().rev() {
            if self.misses(device, Misses::Advertising) {
                continue;
            }
            let (keyed, advertised) = self.world.keyed(device);
            let advertised = sent!(Advertised, advertised);
            gathering.add(identity, &advertised, &verify)?;
            gathering.add(identity, &advertised, &verify)?;
            devices.insert(device, keyed);
        }
        Ok((gathering.fix()?, devices))
    }

    pub fn graph(&self) -> Result<(Sharing, BTreeMap<usize, Keyed>), Refused> {
        let (mut listing, mut devices) = self.listing()?;
        if self.world.is_active() {
            devices.retain(|&device, _| !self.misses(device, Misses::Nonce));
            for (&device, keyed) in &mut devices {
                let (fixed, old) = (sent!(Fixed, listing.fixed()), self.world.keyed(device).0);
                let (next, nonce) = std::mem::replace(keyed, old).fix(&fixed)?;
                *keyed = next;
                let index = listing.index_of(&self.world.identities()[device]).unwrap();
                listing.nonce(index, &sent!(Nonce, nonce))?;
            }
        }
        Ok((listing.graph()?, devices))
    }

    pub fn place(&self, directory: &Directory, device: usize) -> u32 {
        directory.index_of(&self.world.identities()[device]).unwrap()
    }

    pub fn share(&self) -> Result<Shared, Refused> {
        let (mut server, devices) = self.graph()?;
        let mut sharing = BTreeMap::new();
        for (device, keyed) in devices {
            if self.misses(device, Misses::Sharing) {
                continue;
            }
            let index = self.place(server.directory(), device);
            let neighbours = sent!(Neighbours, server.neighbours(index, &roster)?);
            let (next, shares) = keyed.neighbours(&neighbours, &verify, &on_roster)?;
            server.add(index, sent!(Shares, shares))?;
            server.add(index, shares)?;
            sharing.insert(device, next);
        }
        let (directory, inboxes) = server.close()?;
        Ok(Shared { directory, inboxes, sharing })
    }

    /// Masks and sums. A device that refuses its inbox because too few neighbours completed drops out.
    pub fn sum(&self) -> Result<Summed, Refused> {
        let Shared { directory, inboxes, sharing } = self.share()?;
        let bits = self.world.session.bits;
        let mut summed = Summed {
            masked: BTreeMap::new(),
            sum: vec![0; self.world.session.bytes as usize],
            survivors: Vec::new(),
            // The server restarts here.
            directory: Directory::from_bytes(&directory.to_bytes()).unwrap(),
        };
        assert_eq!(summed.directory, directory);
        for (device, sharing) in sharing {
            if self.misses(device, Misses::Upload) {
                continue;
            }
            let inbox = sent!(Inbox, inboxes.inbox(&directory, self.place(&directory, device))?);
            let (masked, masks) = match sharing.mask(&inbox) {
                Err(Refused::TooFewNeighbours { .. }) => continue,
                other => other?,
            };
            let mut vector = self.world.vector(device);
            let add =
                |at: u64, sign, mask: &[u8]| add_packed(&mut vector[at as usize..][..mask.len()], mask, bits, sign);
            masks.for_each_block(0..masks.bytes(), add).unwrap();
            add_packed(&mut summed.sum, &vector, bits, littoral_privacy::secagg::mask::Sign::Plus);
            summed.masked.insert(device, revived(masked));
            summed.survivors.push(device);
        }
        Ok(summed)
    }

    pub fn open(&self) -> Result<(Vec<u8>, Vec<usize>), Refused> {
        let Summed { directory, mut masked, mut sum, survivors } = self.sum()?;
        let places: BTreeMap<usize, u32> = survivors.iter().map(|&d| (d, self.place(&directory, d))).collect();
        let mut opening = directory.open(places.values().copied())?;
        let set = sent!(Survivors, opening.survivors());
        let first = if self.world.is_active() { Misses::Consent } else { Misses::Reveal };
        masked.retain(|&device, _| !self.misses(device, first));
        if self.world.is_active() {
            self.consents(&mut opening, &set, &mut masked, &places)?;
            masked.retain(|&device, _| !self.misses(device, Misses::Reveal));
        }
        for (device, masked) in masked {
            let place = places[&device];
            let reveal = |masked: Masked| match self.world.is_active() {
                true => masked.reveal_confirmed(&sent!(Consents, opening.consents_for(place)?), &verify),
                false => masked.reveal(&set),
            };
            let (masked, first) = match reveal(masked) {
                // What a device refuses because too few neighbours are left, it does not reveal.
                Err(Refused::TooFewConsents { .. } | Refused::TooFewNeighbours { .. }) => continue,
                other => other?,
            };
            // After a crash the same request has the same answer.
            let (_, second) = reveal(revived(masked))?;
            assert_eq!(first, second);
            opening.reveal(place, &sent!(Reveal, first))?;
            opening.reveal(place, &second)?;
        }
        let missing = opening.missing();
        let unmask = match opening.unmask() {
            Ok(unmask) => unmask,
            Err(refused) => {
                let Refused::TooFewShares { peer, missing: shares, .. } = refused else { return Err(refused) };
                let named = missing.iter().find(|missing| missing.index == peer).unwrap();
                assert_eq!(named.shares, shares);
                return Err(refused);
            }
        };
        assert!(missing.is_empty() && unmask.wrong.is_empty());
        let bits = self.world.session.bits;
        let add = |at: u64, sign, mask: &[u8]| add_packed(&mut sum[at as usize..][..mask.len()], mask, bits, sign);
        unmask.masks.for_each_block(0..unmask.masks.bytes(), add).unwrap();
        Ok((sum, survivors))
    }

    fn consents(
        &self,
        opening: &mut Opening,
        set: &Survivors,
        masked: &mut BTreeMap<usize, Masked>,
        places: &BTreeMap<usize, u32>,
    ) -> Result<(), Refused> {
        let mut left = BTreeMap::new();
        for (device, state) in std::mem::take(masked) {
            let identity = self.world.identities()[device];
            let sign = |statement: &[u8]| self.world.sign(&identity, statement);
            let (state, first) = match state.consent(set, &sign) {
                Err(Refused::TooFewNeighbours { .. }) => continue,
                other => other?,
            };
            let (state, second) = revived(state).consent(set, &sign)?;
            assert_eq!(first, second);
            opening.consent(places[&device], &sent!(Consent, first), &verify)?;
            left.insert(device, revived(state));
        }
        *masked = left;
        Ok(())
    }
}

/// As after a crash.
pub fn revived(masked: Masked) -> Masked {
    let revived = Masked::from_bytes(&masked.to_bytes()).unwrap();
    assert!(revived == masked);
    revived
}
