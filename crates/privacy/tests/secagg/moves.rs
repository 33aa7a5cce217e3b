//! Each move of a malicious server, or of a device, is refused by its name.

use crate::world::{Misses, ROSTER_PROOF, SERVER_SECRET, Shared, Summed, Walk, World, on_roster, roster, verify};
use littoral_privacy::secagg::device::{Keyed, Masked};
use littoral_privacy::secagg::message::*;
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::prg::Prg;
use littoral_privacy::secagg::refused::Refused;
use littoral_privacy::secagg::server::{Directory, Gathering, Opening};
use std::collections::BTreeMap;

fn world(threat: Threat) -> World {
    // Rings: there are devices that are not neighbours.
    let parameters = Parameters::of_counts(12, 1, 2, threat).unwrap();
    assert!(parameters.degree < 11, "{parameters:?}");
    World::new(parameters, 7, 16)
}

/// The first device of a session that is about to hear of its neighbours, and what it hears.
fn before_neighbours(world: &World) -> (Keyed, Neighbours) {
    let walk = Walk::all(world);
    let (server, mut devices) = walk.graph().unwrap();
    let index = walk.place(server.directory(), 0);
    (devices.remove(&0).unwrap(), server.neighbours(index, &roster).unwrap())
}

fn refused_neighbours(world: &World, change: impl FnOnce(&mut Neighbours)) -> Refused {
    let (keyed, mut message) = before_neighbours(world);
    change(&mut message);
    keyed.neighbours(&message, &verify, &on_roster).unwrap_err()
}

#[test]
fn another_session_is_named() {
    for threat in [Threat::Honest, Threat::Active] {
        let world = world(threat);
        // The same in every way but its context: an attempt before this one.
        let mut old = self::world(threat);
        old.session.context = [8; 32];
        old.session.commitment = match threat {
            Threat::Active => littoral_privacy::secagg::session::commitment(&[8; 32], &SERVER_SECRET),
            Threat::Honest => [0; 32],
        };
        let (_, replayed) = before_neighbours(&old);
        let (keyed, _) = before_neighbours(&world);
        let refused = keyed.neighbours(&replayed, &verify, &on_roster).unwrap_err();
        assert!(matches!(refused, Refused::WrongContext { .. }), "{refused}");

        let (walk, old_walk) = (Walk::all(&world), Walk::all(&old));
        let (mut shared, old_shared) = (walk.share().unwrap(), old_walk.share().unwrap());
        let inbox = old_shared.inboxes.inbox(&old_shared.directory, 0).unwrap();
        let refused = shared.sharing.remove(&0).unwrap().mask(&inbox).unwrap_err();
        assert!(matches!(refused, Refused::WrongContext { .. }), "{refused}");

        let masked = walk.sum().unwrap().masked.remove(&0).unwrap();
        let survivors = old_walk.sum().unwrap().directory.open(0..12).unwrap().survivors();
        let refused = match threat {
            Threat::Honest => masked.reveal(&survivors).unwrap_err(),
            Threat::Active => masked.consent(&survivors, &|_| [0; 64]).unwrap_err(),
        };
        assert!(matches!(refused, Refused::WrongContext { .. }), "{refused}");
    }
}

#[test]
fn a_changed_parameter_is_named() {
    for threat in [Threat::Honest, Threat::Active] {
        let world = world(threat);
        type Change = fn(&mut Terms);
        let changes: [(&str, Change); 6] = [
            ("threshold", |t| t.threshold -= 1),
            ("degree", |t| t.degree -= 2),
            ("bits", |t| t.bits -= 1),
            ("bytes", |t| t.bytes += 7),
            ("generator", |t| t.prg = Prg::ChaCha20),
            ("min_group", |t| t.min_group -= 1),
        ];
        for (name, change) in changes {
            let refused = refused_neighbours(&world, |message| change(&mut message.terms));
            assert!(matches!(refused, Refused::ParameterChanged { what, .. } if what == name), "{name}: {refused}");
        }
    }
}

#[test]
fn a_small_group_is_named() {
    let mut world = world(Threat::Active);
    world.session.min_group = 10;
    let walk = Walk::all(&world);
    let (listing, mut devices) = walk.listing().unwrap();
    let fixed = Fixed { count: 9, ..listing.fixed() };
    let refused = devices.remove(&0).unwrap().fix(&fixed).unwrap_err();
    assert_eq!(refused, Refused::GroupTooSmall { minimum: 10, got: 9 });
    // Too few in the graph, though the list is long: the others' nonces are said to be withheld.
    let refused = refused_neighbours(&world, |message| {
        let Source::Nonces { revealed, nonces, withheld, .. } = &mut message.source else { panic!() };
        let mut fewer = littoral_privacy::secagg::codec::Bitmap::new(12);
        (0..9).for_each(|place| fewer.insert(place));
        *revealed = fewer;
        nonces.truncate(9);
        *withheld = vec![[0; 32]; 3];
    });
    assert_eq!(refused, Refused::GroupTooSmall { minimum: 10, got: 9 });
    let mut honest = self::world(Threat::Honest);
    honest.session.min_group = 10;
    let refused = refused_neighbours(&honest, |message| message.count = 9);
    assert_eq!(refused, Refused::GroupTooSmall { minimum: 10, got: 9 });
}

#[test]
fn other_neighbours_than_the_graphs_are_named() {
    for threat in [Threat::Honest, Threat::Active] {
        let world = world(threat);
        let stranger = |message: &Neighbours| {
            (0..12).find(|&i| i != message.index && message.peers.iter().all(|peer| peer.index != i)).unwrap()
        };
        let refused = refused_neighbours(&world, |message| {
            message.peers[0].index = stranger(message);
            message.peers.sort_by_key(|peer| peer.index);
        });
        assert_eq!(refused, Refused::WrongNeighbours);
        let refused = refused_neighbours(&world, |message| message.peers.truncate(1));
        assert_eq!(refused, Refused::WrongNeighbours);
    }
}

#[test]
fn a_list_that_was_not_fixed_is_named() {
    let world = world(Threat::Active);
    let walk = Walk::all(&world);
    // A second list after the first.
    let (listing, mut devices) = walk.listing().unwrap();
    let (keyed, _) = devices.remove(&0).unwrap().fix(&listing.fixed()).unwrap();
    let (keyed, _) = keyed.fix(&listing.fixed()).unwrap();
    let other = Fixed { root: [9; 32], ..listing.fixed() };
    assert!(matches!(keyed.fix(&other), Err(Refused::NotFixed { .. })));
    // Neighbours before any list.
    let (_, message) = before_neighbours(&world);
    let refused = world.keyed(0).0.neighbours(&message, &verify, &on_roster).unwrap_err();
    assert!(matches!(refused, Refused::NotFixed { .. }), "{refused}");

    type Change = fn(&mut Neighbours);
    type OfSource<'a> = &'a dyn Fn(&mut [u8; 32], &mut Vec<[u8; 16]>);
    let nonces = |message: &mut Neighbours, change: OfSource| {
        let Source::Nonces { secret, nonces, .. } = &mut message.source else { panic!() };
        change(secret, nonces);
    };
    let changes: [(&str, Change); 5] = [
        ("a neighbour's key", |m| m.peers[1].masking_key[0] ^= 1),
        ("the other key", |m| m.peers[0].encryption_key[5] ^= 1),
        ("a path", |m| m.proof[0][0] ^= 1),
        ("a missing path", |m| m.proof.truncate(1)),
        ("its place", |m| m.index = (m.index + 1) % 12),
    ];
    for (name, change) in changes {
        let refused = refused_neighbours(&world, change);
        let named = matches!(refused, Refused::NotFixed { .. } | Refused::WrongNeighbours);
        assert!(named && (name == "its place" || refused != Refused::WrongNeighbours), "{name}: {refused}");
    }
    // Another secret of the server, and grinding the graph by a device that is no neighbour: whatever nonce is put in its
    // place, and even if the graph then has the same neighbours, it is not what the root says.
    let refused = refused_neighbours(&world, |m| nonces(m, &|secret, _| secret[0] ^= 1));
    assert!(matches!(refused, Refused::NotFixed { .. }), "{refused}");
    let mut named = 0;
    for trial in 1..=255u8 {
        let refused = refused_neighbours(&world, |m| {
            let far = (0..12).find(|&i| i != m.index && m.peers.iter().all(|peer| peer.index != i)).unwrap();
            nonces(m, &|_, nonces| nonces[far as usize][0] ^= trial);
        });
        named += usize::from(matches!(refused, Refused::NotFixed { .. }));
        assert!(matches!(refused, Refused::NotFixed { .. } | Refused::WrongNeighbours), "{refused}");
        if named > 0 && trial > 20 {
            break;
        }
    }
    // This device's own nonce is another, or left out.
    let refused = refused_neighbours(&world, |m| {
        let own = m.index as usize;
        nonces(m, &|_, nonces| nonces[own][0] ^= 1);
    });
    assert!(matches!(refused, Refused::NotFixed { .. }), "{refused}");
}

#[test]
fn identities_are_checked_by_name() {
    let world = world(Threat::Active);
    // A server in the middle: it listed a key of its own for device 5, before the list was fixed.
    let walk = Walk::all(&world);
    let mut gathering = Gathering::new(world.session.clone(), SERVER_SECRET).unwrap();
    let mut devices = BTreeMap::new();
    for (device, identity) in world.identities().into_iter().enumerate() {
        let (keyed, mut advertised) = world.keyed(device);
        if device == 5 {
            let refused = |advertised: &Advertised| {
                let mut gathering = Gathering::new(world.session.clone(), SERVER_SECRET).unwrap();
                gathering.add(identity, advertised, &verify)
            };
            assert_eq!(refused(&advertised), Ok(()));
            advertised.masking_key = [9; 32];
            assert!(matches!(refused(&advertised), Err(Refused::BadSignature { .. })));
        }
        gathering.add(identity, &advertised, &|_, _, _| true).unwrap();
        devices.insert(device, keyed);
    }
    let mut listing = gathering.fix().unwrap();
    let mut fixed = BTreeMap::new();
    for (device, keyed) in devices {
        let (keyed, nonce) = keyed.fix(&listing.fixed()).unwrap();
        listing.nonce(listing.index_of(&world.identities()[device]).unwrap(), &nonce).unwrap();
        fixed.insert(device, keyed);
    }
    let server = listing.graph().unwrap();
    let liar = walk.place(server.directory(), 5);
    let mut noticed = 0;
    for (device, keyed) in fixed {
        let index = walk.place(server.directory(), device);
        let message = server.neighbours(index, &roster).unwrap();
        match keyed.neighbours(&message, &verify, &on_roster) {
            Err(Refused::BadSignature { peer }) => {
                assert!(peer == liar && server.directory().neighbours(index).contains(&liar));
                noticed += 1;
            }
            // Its keys were changed on the way.
            Err(Refused::NotFixed { .. }) => assert_eq!(device, 5),
            other => assert!(other.is_ok() && !server.directory().neighbours(index).contains(&liar)),
        }
    }
    assert_eq!(noticed, world.parameters.degree);

    // Not on the roster.
    let refused =
        refused_neighbours(&world, |m| m.peers[2].identity.as_mut().unwrap().roster = ROSTER_PROOF[1..].to_vec());
    assert!(matches!(refused, Refused::NotOnRoster { .. }), "{refused}");
    // One identity in two places of the list.
    let refused = refused_neighbours(&world, |m| m.peers[1].identity = m.peers[0].identity.clone());
    assert!(matches!(refused, Refused::ListedTwice { .. }), "{refused}");
    // Messages of the other threat.
    let refused = refused_neighbours(&world, |m| m.source = Source::Seed([0; 32]));
    assert!(matches!(refused, Refused::OtherThreat { .. }), "{refused}");
}

#[test]
fn keys_and_ciphertexts_are_checked_by_name() {
    let world = world(Threat::Honest);
    let refused = refused_neighbours(&world, |m| m.peers[0].encryption_key = [0; 32]);
    assert!(matches!(refused, Refused::BadKey { .. }), "{refused}");

    let walk = Walk::all(&world);
    let mask = |change: &dyn Fn(&mut Inbox)| {
        let Shared { directory, inboxes, mut sharing } = walk.share().unwrap();
        let index = walk.place(&directory, 3);
        let mut inbox = inboxes.inbox(&directory, index).unwrap();
        change(&mut inbox);
        (sharing.remove(&3).unwrap().mask(&inbox).map(|_| ()).unwrap_err(), directory.neighbours(index))
    };
    let (refused, neighbours) = mask(&|inbox| inbox.sealed[1][20] ^= 1);
    assert_eq!(refused, Refused::BadCiphertext { peer: neighbours[1] });
    // Two neighbours' ciphertexts in each other's place.
    let (refused, neighbours) = mask(&|inbox| inbox.sealed.swap(0, 1));
    assert_eq!(refused, Refused::BadCiphertext { peer: neighbours[0] });
    let threshold = world.parameters.threshold;
    let (refused, _) = mask(&|inbox| {
        let mut few = littoral_privacy::secagg::codec::Bitmap::new(inbox.completed.len());
        (0..threshold - 1).for_each(|slot| few.insert(slot));
        inbox.completed = few;
        inbox.sealed.truncate(threshold as usize - 1);
    });
    assert_eq!(refused, Refused::TooFewNeighbours { what: "completed sharing", threshold, got: threshold - 1 });
    let (refused, _) = mask(&|inbox| inbox.sealed.truncate(1));
    assert!(matches!(refused, Refused::WrongLength { .. }), "{refused}");
}

/// A set of survivors as the server may claim it.
fn claimed(bound: [u8; 32], len: u32, survivors: impl IntoIterator<Item = u32>) -> Survivors {
    let mut set = littoral_privacy::secagg::codec::Bitmap::new(len);
    survivors.into_iter().for_each(|place| set.insert(place));
    Survivors { bound, set }
}

#[test]
fn a_set_of_survivors_is_checked_by_name() {
    let world = world(Threat::Honest);
    let mut walk = Walk::all(&world);
    walk.misses[7] = Misses::Sharing;
    let Summed { directory, mut masked, .. } = walk.sum().unwrap();
    let (seven, own) = (walk.place(&directory, 7), walk.place(&directory, 3));
    let masked: Masked = masked.remove(&3).unwrap();
    let bound = world.session.bound();
    let others: Vec<u32> = (0..12).filter(|&place| place != seven).collect();
    let ask = |survivors: &Survivors| masked.clone().reveal(survivors).map(|_| ());
    assert_eq!(ask(&claimed(bound, 12, others.clone())), Ok(()));
    let without = |gone: &[u32]| claimed(bound, 12, others.iter().copied().filter(|place| !gone.contains(place)));
    assert_eq!(ask(&without(&[own])), Err(Refused::NotSurvivor));
    let far: Vec<u32> = others.iter().copied().filter(|&p| p != own).take(2).collect();
    assert_eq!(ask(&without(&far)), Err(Refused::TooFewSurvivors { minimum: 10, got: 9 }));
    assert!(matches!(ask(&claimed(bound, 11, 0..11)), Err(Refused::WrongSurvivors { .. })));
    let neighbour_of_seven = directory.neighbours(seven)[0];
    let device = (0..12).find(|&d| walk.place(&directory, d) == neighbour_of_seven).unwrap();
    let beside = walk.sum().unwrap().masked.remove(&device).unwrap();
    assert_eq!(beside.reveal(&claimed(bound, 12, 0..12)).unwrap_err(), Refused::NeverCompleted { peer: seven });

    // After an answer: the same again, no other; and not both shares of anybody.
    let everybody = claimed(bound, 12, others.clone());
    let (revealed, first) = masked.clone().reveal(&everybody).unwrap();
    let (revealed, again) = revealed.reveal(&everybody).unwrap();
    assert_eq!(first, again);
    let neighbours = directory.neighbours(own);
    let peer = *neighbours.iter().find(|&&peer| peer != seven).unwrap();
    assert_eq!(revealed.clone().reveal(&without(&[peer])).unwrap_err(), Refused::BothShares { peer });
    let stranger = *others.iter().find(|place| **place != own && !neighbours.contains(place)).unwrap();
    assert_eq!(revealed.clone().reveal(&without(&[stranger])).unwrap_err(), Refused::OtherSurvivors);
    // It could not even if it were asked politely: the other shares are not there any more.
    let completed = neighbours.iter().filter(|&&peer| peer != seven).count();
    assert_eq!(revealed.to_bytes().len(), masked.to_bytes().len() + 32 - 40 * completed);
}

#[test]
fn consents_are_needed_and_checked() {
    let world = world(Threat::Active);
    let walk = Walk::all(&world);
    let Summed { directory, mut masked, .. } = walk.sum().unwrap();
    let threshold = directory.parameters().threshold;
    let mut opening = directory.clone().open(0..12).unwrap();
    let survivors = opening.survivors();
    // Without consents, by whichever door.
    let one: Masked = masked[&3].clone();
    let own = one.index();
    let none = Refused::TooFewConsents { threshold, got: 0 };
    assert_eq!(one.clone().reveal(&survivors).unwrap_err(), none);
    assert_eq!(opening.consents_for(own).unwrap_err(), none);
    // Two sets, to two halves of the cohort: what a lying server would try. Its peers at 0..12 all say the one thing.
    let mut other: Opening = directory.clone().open(1..12).unwrap();
    for (device, state) in std::mem::take(&mut masked) {
        let identity = world.identities()[device];
        let sign = |statement: &[u8]| world.sign(&identity, statement);
        let (state, consent) = state.consent(&survivors, &sign).unwrap();
        opening.consent(state.index(), &consent, &verify).unwrap();
        assert!(other.consent(state.index(), &consent, &verify).is_err());
        let refused = state.clone().consent(&other.survivors(), &sign).unwrap_err();
        assert_eq!(refused, Refused::OtherSurvivors);
        masked.insert(device, state);
    }
    let good = opening.consents_for(own).unwrap();
    // The device at the other half agreed to the other set: these consents do not count for it.
    let identity = world.identities()[3];
    let (misled, _) = one.consent(&other.survivors(), &|statement| world.sign(&identity, statement)).unwrap();
    assert_eq!(misled.reveal_confirmed(&good, &verify).unwrap_err(), none);
    // One forged is one too few.
    let agreed = masked.remove(&3).unwrap();
    let mut forged = good.clone();
    forged.signatures[0][3] ^= 1;
    let refused = agreed.clone().reveal_confirmed(&forged, &verify).unwrap_err();
    assert_eq!(refused, Refused::TooFewConsents { threshold, got: threshold - 1 });
    assert!(agreed.reveal_confirmed(&good, &verify).is_ok());
}

#[test]
fn moves_of_devices_are_named() {
    let world = world(Threat::Active);
    let walk = Walk::all(&world);
    // Other keys, another nonce.
    let mut gathering = Gathering::new(world.session.clone(), SERVER_SECRET).unwrap();
    let identity = world.identities()[0];
    let sign = |statement: &[u8]| world.sign(&identity, statement);
    for (random, again) in [([1; 32], false), ([1; 32], false), ([2; 32], true)] {
        let (_, advertised) = Keyed::new(world.session.clone(), identity, random, &sign).unwrap();
        let added = gathering.add(identity, &advertised, &verify);
        assert_eq!(added, if again { Err(Refused::Again { what: "keys" }) } else { Ok(()) });
    }
    let (mut listing, _) = walk.listing().unwrap();
    let nonce = Nonce { bound: world.session.bound(), nonce: [0; 16] };
    assert_eq!(listing.nonce(3, &nonce), Err(Refused::BadNonce { peer: 3 }));
    assert_eq!(listing.nonce(12, &nonce), Err(Refused::UnknownDevice { index: 12 }));
    // A server's secret that it was not bound to.
    assert!(matches!(Gathering::new(world.session.clone(), [0; 32]), Err(Refused::NotFixed { .. })));
}

#[test]
fn wrong_shares_are_corrected_or_named() {
    // The complete graph of seven, any three of six shares open.
    let parameters =
        Parameters { clients: 7, adversaries: 2, dropouts: 2, threat: Threat::Honest, degree: 6, threshold: 3 };
    let world = World::new(parameters, 7, 16);
    let mut walk = Walk::all(&world);
    walk.misses[6] = Misses::Upload;
    let opening = |liars: &[usize]| {
        let Summed { directory, masked, survivors, .. } = walk.sum().unwrap();
        let places: Vec<u32> = survivors.iter().map(|&device| walk.place(&directory, device)).collect();
        let mut opening: Opening = Directory::open(directory, places).unwrap();
        let set = opening.survivors();
        for (device, state) in masked {
            let index = state.index();
            let (_, mut reveal) = state.reveal(&set).unwrap();
            if liars.contains(&device) {
                // Still shares of the field, but others.
                reveal.shares.iter_mut().for_each(|share| share[0] ^= 1);
            }
            let fewer = Reveal { shares: reveal.shares[1..].to_vec(), ..reveal.clone() };
            assert!(matches!(opening.reveal(index, &fewer), Err(Refused::WrongLength { .. })));
            opening.reveal(index, &reveal).unwrap();
        }
        opening
    };
    let right = opening(&[]).unmask().unwrap();
    let bytes_of = |unmask: &littoral_privacy::secagg::server::Unmask| {
        let mut all = Vec::new();
        unmask
            .masks
            .for_each_block(0..unmask.masks.bytes(), |at, sign, mask| all.push((at, sign, mask.to_vec())))
            .unwrap();
        all
    };
    for liars in [vec![2], vec![0, 4]] {
        let found = opening(&liars).unmask().unwrap();
        let opened = opening(&liars);
        let named: Vec<usize> = found
            .wrong
            .iter()
            .map(|&index| {
                world.identities().iter().position(|id| opened.directory().identity(index) == Some(id)).unwrap()
            })
            .collect();
        assert_eq!(named, liars);
        assert!(bytes_of(&found) == bytes_of(&right));
    }
    // Four liars of six leave two: nobody can tell who is right, and nothing wrong is opened.
    let refused = opening(&[0, 1, 2, 3]).unmask().unwrap_err();
    assert!(matches!(refused, Refused::WrongShares { .. }), "{refused}");
}
