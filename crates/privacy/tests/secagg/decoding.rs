//! Decoding is total: any bytes give a value or an error, and a value has one encoding.

use crate::world::{Walk, World, roster};
use littoral_privacy::secagg::device::Masked;
use littoral_privacy::secagg::message::*;
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::server::Directory;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Every message and every stored state as bytes, and how its type reads bytes back to bytes.
type Again = fn(&[u8]) -> Option<Vec<u8>>;

macro_rules! read {
    ($type:ty) => {
        (|bytes| <$type>::decode(bytes).ok().map(|value| value.encode())) as Again
    };
}

static SAMPLES: LazyLock<Vec<(Vec<u8>, Again)>> = LazyLock::new(|| {
    let mut samples: Vec<(Vec<u8>, Again)> = Vec::new();
    for threat in [Threat::Honest, Threat::Active] {
        let world = World::new(Parameters::of_counts(6, 1, 1, threat).unwrap(), 7, 16);
        let walk = Walk::all(&world);
        samples.push((world.keyed(0).1.encode(), read!(Advertised)));
        let (listing, mut keyed) = walk.listing().unwrap();
        let fixed = listing.fixed();
        samples.push((fixed.encode(), read!(Fixed)));
        if threat == Threat::Active {
            samples.push((keyed.remove(&0).unwrap().fix(&fixed).unwrap().1.encode(), read!(Nonce)));
        }
        let (server, mut keyed) = walk.graph().unwrap();
        let neighbours = server.neighbours(0, &roster).unwrap();
        samples.push((neighbours.encode(), read!(Neighbours)));
        let device = (0..6).find(|&device| walk.place(server.directory(), device) == 0).unwrap();
        let (_, shares) =
            keyed.remove(&device).unwrap().neighbours(&neighbours, &|_, _, _| true, &|_, _| true).unwrap();
        samples.push((shares.encode(), read!(Shares)));
        let shared = walk.share().unwrap();
        samples.push((shared.inboxes.inbox(&shared.directory, 0).unwrap().encode(), read!(Inbox)));
        let summed = walk.sum().unwrap();
        let stored: Again = |bytes| Directory::from_bytes(bytes).ok().map(|value| value.to_bytes());
        samples.push((summed.directory.to_bytes(), stored));
        let opening = summed.directory.open(0..6).unwrap();
        let survivors = opening.survivors();
        samples.push((survivors.encode(), read!(Survivors)));
        let state: Again = |bytes| Masked::from_bytes(bytes).ok().map(|value| value.to_bytes().to_vec());
        for masked in summed.masked.into_values() {
            samples.push((masked.to_bytes().to_vec(), state));
            let (masked, message, read) = match threat {
                Threat::Honest => {
                    let (masked, reveal) = masked.reveal(&survivors).unwrap();
                    (masked, reveal.encode(), read!(Reveal))
                }
                Threat::Active => {
                    let (masked, consent) = masked.consent(&survivors, &|_| [3; 64]).unwrap();
                    (masked, consent.encode(), read!(Consent))
                }
            };
            samples.push((masked.to_bytes().to_vec(), state));
            samples.push((message, read));
        }
        let mut signers = littoral_privacy::secagg::codec::Bitmap::new(5);
        signers.insert(2);
        let consents = Consents { bound: [1; 32], signers, signatures: vec![[7; 64]] };
        samples.push((consents.encode(), read!(Consents)));
    }
    samples
});

#[test]
fn every_sample_is_read_back_and_every_cut_is_an_error() {
    for (bytes, read) in SAMPLES.iter() {
        assert_eq!(read(bytes).as_ref(), Some(bytes));
        for cut in 0..bytes.len() {
            assert_eq!(read(&bytes[..cut]), None);
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()), None);
    }
}

#[test]
fn a_lying_count_costs_nothing() {
    // All ones in every place where a count may stand: an allocation of 2^32 items would end the test.
    for (bytes, read) in SAMPLES.iter() {
        for at in 0..bytes.len().saturating_sub(4) {
            let mut lying = bytes.clone();
            lying[at..at + 4].fill(0xff);
            let _ = read(&lying);
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let (bytes, read) = &SAMPLES[which.index(SAMPLES.len())];
        let mut changed = bytes.clone();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        for bytes in [changed, noise] {
            if let Some(again) = read(&bytes) {
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
