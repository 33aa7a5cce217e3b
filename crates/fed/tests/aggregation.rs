//! Sums do not depend on order, tree or cutting; nobody counts twice.

use littoral_fed::aggregate::{Absorbing, Partial, Refused};
use littoral_fed::open::{OpenError, open_header, open_section};
use littoral_fed::plan::{Format, Plan, Resolution, Section, Weighting};
use littoral_fed::seal::{Raw, Sent};
use littoral_wire::message::Work;
use littoral_wire::{Collection, JobId, NodeId};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn device(i: usize) -> NodeId {
    NodeId([i as u8; 32])
}

/// Word `k` of packed bytes, bit by bit.
fn word(bytes: &[u8], bits: u32, k: usize) -> u64 {
    (0..bits as usize).fold(0, |word, i| {
        let at = k * bits as usize + i;
        word | u64::from(bytes[at / 8] >> (at % 8) & 1) << i
    })
}

fn flat(format: Format, updates: &[Vec<u8>]) -> Partial {
    let mut total = Partial::empty(format);
    updates.iter().enumerate().for_each(|(i, update)| total.absorb(device(i), update).unwrap());
    total
}

/// Some updates of any bytes at all, at any width.
fn updates() -> impl Strategy<Value = (Format, Vec<Vec<u8>>)> {
    (1u32..=64, 1u64..40, 1usize..9).prop_flat_map(|(bits, groups, devices)| {
        let format = Format::new(groups * 8, bits).unwrap();
        let update = prop::collection::vec(any::<u8>(), format.bytes());
        (Just(format), prop::collection::vec(update, devices))
    })
}

proptest! {
    #[test]
    fn any_order_and_any_tree_give_the_same_bits(
        (format, updates) in updates(),
        keys in prop::collection::vec(any::<u64>(), 16),
        edges in 1usize..4,
    ) {
        let total = flat(format, &updates);
        // It is the sum, word by word.
        for k in 0..format.words() as usize {
            let sum = updates.iter().fold(0u64, |sum, u| sum.wrapping_add(word(u, format.bits(), k)));
            let expected = sum & (u64::MAX >> (64 - format.bits()));
            prop_assert_eq!(word(total.bytes().unwrap(), format.bits(), k), expected);
        }

        // Devices in another order, each at some edge, the edges chained one into the other.
        let mut order: Vec<usize> = (0..updates.len()).collect();
        order.sort_by_key(|&i| keys[i]);
        let mut tree = vec![Partial::empty(format); edges];
        for i in order {
            tree[keys[8 + i % 8] as usize % edges].absorb(device(i), &updates[i]).unwrap();
        }
        let merged = tree.into_iter().reduce(|below, mut above| {
            above.merge(&below).unwrap();
            above
        });
        prop_assert_eq!(merged.unwrap(), total);
    }

    #[test]
    fn chunks_of_any_length_side_by_side_are_whole_updates(
        (format, updates) in updates(),
        lengths in prop::collection::vec(1usize..200, 1..8),
    ) {
        let mut total = Partial::empty(format);
        let devices: Vec<_> = (0..updates.len()).map(device).collect();
        let mut absorbing = Absorbing::begin(&mut total, &devices).unwrap();
        for length in lengths.iter().cycle() {
            let at = absorbing.offset();
            let end = (at + length).min(format.bytes());
            let chunks: Vec<&[u8]> = updates.iter().map(|u| &u[at..end]).collect();
            absorbing.chunk(&mut total, &chunks).unwrap();
            if end == format.bytes() {
                break;
            }
        }
        absorbing.finish(&mut total).unwrap();
        prop_assert_eq!(total, flat(format, &updates));
    }
}

#[test]
fn blocks_of_a_large_update_meet_their_neighbours() {
    // 37 bits: blocks of 442 groups, chunks of 131,072 bytes that end inside a group.
    let format = Format::new(8 * 20_000, 37).unwrap();
    let update = |seed: usize| (0..format.bytes()).map(|i| (i * 31 + i / 251 + seed * 97) as u8).collect::<Vec<u8>>();
    let updates = [update(1), update(2), update(3)];
    let mut total = Partial::empty(format);
    let mut absorbing = Absorbing::begin(&mut total, &[device(0), device(1), device(2)]).unwrap();
    for at in (0..format.bytes()).step_by(131_072) {
        let chunks = updates.each_ref().map(|u| &u[at..(at + 131_072).min(u.len())]);
        absorbing.chunk(&mut total, &chunks).unwrap();
    }
    absorbing.finish(&mut total).unwrap();
    assert_eq!(total, flat(format, &updates));
}

#[test]
fn nobody_counts_twice_and_nothing_half_done_is_used() {
    let format = Format::new(8, 20).unwrap();
    let update = [7; 20];
    let mut total = Partial::empty(format);
    total.absorb(device(1), &update).unwrap();
    let before = total.clone();
    let twice = |i| Err(Refused::Twice { device: device(i) });

    assert_eq!(total.absorb(device(1), &update), twice(1));
    assert_eq!(total.absorb(device(2), &update[..19]), Err(Refused::WrongLength { expected: 20, got: 19 }));
    assert_eq!(total.admits(device(2), u64::MAX), Err(Refused::WrongLength { expected: 20, got: usize::MAX }));
    assert_eq!(Absorbing::begin(&mut total, &[device(2), device(1)]).map(|_| ()), twice(1));
    assert_eq!(Absorbing::begin(&mut total, &[device(2), device(3), device(2)]).map(|_| ()), twice(2));
    let mut other = Partial::empty(format);
    other.absorb(device(1), &update).unwrap();
    assert_eq!(total.merge(&other), Err(Refused::Overlap { device: device(1) }));
    assert_eq!(total, before, "a refusal changes nothing");

    let mut absorbing = Absorbing::begin(&mut total, &[device(2)]).unwrap();
    assert_eq!(total.absorb(device(2), &update), twice(2));
    absorbing.chunk(&mut total, &[&update[..7]]).unwrap();
    let unfinished = || Refused::Unfinished { device: device(2) };
    assert_eq!(total.bytes(), Err(unfinished()));
    assert_eq!(other.merge(&total), Err(unfinished()));
    assert_eq!(total.merge(&Partial::empty(format)), Err(unfinished()));
    let wrong = Err(Refused::WrongLength { expected: 20, got: 27 });
    assert_eq!(absorbing.chunk(&mut total, &[&update]), wrong);
    assert_eq!(absorbing.chunk(&mut total, &[]), Err(Refused::WrongCount { expected: 1, got: 0 }));
    // Another device may finish in between.
    total.absorb(device(3), &update).unwrap();
    absorbing.chunk(&mut total, &[&update[7..]]).unwrap();
    assert_eq!(total.devices(), &BTreeSet::from([device(1), device(3)]));
    absorbing.finish(&mut total).unwrap();
    let mut expected = Partial::empty(format);
    (1..=3).for_each(|i| expected.absorb(device(i), &update).unwrap());
    assert_eq!(total, expected);
}

#[test]
fn updates_that_never_began_may_be_abandoned_and_others_may_not() {
    let format = Format::new(8, 20).unwrap();
    let mut total = Partial::empty(format);
    let absorbing = Absorbing::begin(&mut total, &[device(1), device(2)]).unwrap();
    absorbing.abandon(&mut total).unwrap();
    assert_eq!(total, Partial::empty(format));

    let mut absorbing = Absorbing::begin(&mut total, &[device(1)]).unwrap();
    let mut elsewhere = Partial::empty(format);
    let not_begun = Err(Refused::NotBegun { device: device(1) });
    assert_eq!(absorbing.chunk(&mut elsewhere, &[&[0; 20]]), not_begun);
    absorbing.chunk(&mut total, &[&[1; 3]]).unwrap();
    assert_eq!(absorbing.abandon(&mut total), Err(Refused::Unfinished { device: device(1) }));
}

#[test]
fn a_tree_opens_to_the_exact_weighted_mean() {
    let weighting = Weighting::ByExamples { examples_max: 1000, weight_max: 1000 };
    let sections = vec![
        Section { name: "delta", len: 11, range: 2.0, weighted: true },
        Section { name: "control", len: 3, range: 1.0, weighted: false },
    ];
    for resolution in
        [Resolution::Levels(3), Resolution::Levels(1 << 15), Resolution::Fit32, Resolution::Levels(1 << 31)]
    {
        let plan = Plan::new(5, weighting, resolution, sections.clone(), 2).unwrap();
        let (mut edges, mut expected) = (vec![Partial::empty(plan.format()); 2], vec![vec![0i64; 11], vec![0; 3]]);
        for (i, examples) in [17u64, 999, 1000, 0, 5000].into_iter().enumerate() {
            let wave = |len: usize| (0..len).map(|j| ((i * 31 + j) as f32).sin() * 1.9).collect::<Vec<f32>>();
            let wholes = vec![-(i as i128) << 90, 1 << 100];
            let raw = Raw { examples, loss: 0.25 * (i + 1) as f32, wholes, sections: vec![wave(11), wave(3)] };
            let rounded = raw.unclipped().round(&plan).unwrap();
            let sent = rounded.sent(0).unwrap();
            let weight = i64::from(rounded.weight().value);
            for (j, sum) in expected[0].iter_mut().enumerate() {
                *sum += weight * i64::from(sent[j]);
            }
            expected[1].iter_mut().zip(rounded.sent(1).unwrap()).for_each(|(sum, v)| *sum += i64::from(v));
            let collection = Collection { job: JobId(0), version: 0, work: Work::Train, attempt: 0 };
            let sealed = rounded.pack().seal(collection);
            assert_eq!(sealed.manifest().bytes() as usize, plan.format().bytes());
            edges[i % 2].absorb(device(i), sealed.bytes()).unwrap();
        }
        let mut total = Partial::empty(plan.format());
        edges.iter().for_each(|edge| total.merge(edge).unwrap());
        let bytes = total.bytes().unwrap();

        let totals = open_header(&plan, 5, &bytes[..plan.header_bytes()]).unwrap();
        assert_eq!((totals.weight_sum, totals.devices), (17 + 999 + 1000 + 1000, 5));
        assert_eq!(totals.wholes, [-10 << 90, 5 << 100]);
        let loss = (17.0 * 0.25 + 999.0 * 0.5 + 1000.0 * 0.75 + 1000.0 * 1.25) / 3016.0;
        // The sum is exact; the mean is two divisions in f64.
        assert!((totals.loss.unwrap() - loss).abs() < 1e-15);
        // Five waves of amplitude 1.9 in a range of 1: the control section saturates often.
        assert!(totals.saturated > 0);
        for (section, expected) in expected.iter().enumerate() {
            for start in 0..expected.len() {
                for end in start..=expected.len() {
                    let place = plan.section_bytes(section, start..end);
                    let mut sum = vec![0; end - start];
                    open_section(&plan, section, start..end, &bytes[place], &mut sum).unwrap();
                    assert_eq!(sum, expected[start..end], "section {section}, {start}..{end}, {} bits", plan.bits());
                }
            }
            let mean = totals.mean(&plan, section).unwrap();
            let divisor = if section == 0 { 3016.0 } else { 5.0 };
            assert_eq!(mean.of(expected[0] as f64), expected[0] as f64 * plan.step(section) / divisor);
        }
    }
}

#[test]
fn totals_that_cannot_be_are_refused() {
    let section = Section { name: "delta", len: 9, range: 1.0, weighted: true };
    let plan = Plan::new(2, Weighting::Uniform, Resolution::Levels(100), vec![section], 0).unwrap();
    let header = vec![0xFF; plan.header_bytes()];
    let open = |devices, header: &[u8]| open_header(&plan, devices, header).map(|totals| totals.weight_sum);
    assert_eq!(open(2, &vec![0; plan.header_bytes()]), Ok(0));
    assert_eq!(open(2, &header), Err(OpenError::Weight { devices: 2, weight_max: 1, got: -1 }));
    assert_eq!(open(3, &header), Err(OpenError::TooManyDevices { cohort_max: 2, got: 3 }));
    assert!(matches!(open(1, &header[1..]), Err(OpenError::Length { .. })));

    let bytes = vec![0; 2 * plan.bits() as usize];
    let refused =
        |section, range, bytes, len| open_section(&plan, section, range, bytes, &mut vec![0; len]).unwrap_err();
    assert!(matches!(refused(0, 0..10, &bytes, 10), OpenError::Coordinates { len: 9, end: 10, .. }));
    assert!(matches!(refused(1, 0..9, &bytes, 9), OpenError::Coordinates { section: 1, .. }));
    assert!(matches!(refused(0, 0..9, &bytes[1..], 9), OpenError::Length { .. }));
    assert!(matches!(refused(0, 0..9, &bytes, 8), OpenError::Length { .. }));
}
