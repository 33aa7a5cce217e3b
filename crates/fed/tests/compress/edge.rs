//! What an edge makes of coded updates: the plan's words, in any order, or nothing.

use super::*;
use littoral_fed::aggregate::Partial;
use littoral_fed::compress::CompressError;
use littoral_fed::compress::accumulate::{AbsorbError, absorb, bytes_max, decode_into_words};
use littoral_fed::compress::eden::Eden;
use littoral_fed::compress::quantise::Quantise;
use littoral_fed::compress::topk::{TopK, Values};
use littoral_fed::open::open_header;
use littoral_fed::plan::{Plan, Resolution, Section, Weighting};
use littoral_fed::seal::{Raw, Sealed, Sent, l2_after_rounding};
use littoral_wire::message::Work;
use littoral_wire::{Collection, JobId, NodeId};

const LEN: usize = 4096 + 300;

fn plan() -> Plan {
    let weighting = Weighting::ByExamples { examples_max: 100, weight_max: 100 };
    let sections = vec![
        Section { name: "delta", len: LEN, range: 0.5, weighted: true },
        Section { name: "control", len: 77, range: 2.0, weighted: false },
    ];
    Plan::new(5, weighting, Resolution::Levels(1 << 20), sections, 1).unwrap()
}

fn raw(device: u64) -> Raw {
    let sections = vec![uneven(LEN, device), uneven(77, 100 + device)];
    Raw { examples: 20 * device + 7, loss: 0.5, wholes: vec![-3], sections }
}

fn collection() -> Collection {
    Collection { job: JobId(1), version: 3, work: Work::Train, attempt: 0 }
}

fn codecs() -> [Box<dyn Codec>; 3] {
    [
        Box::new(Eden::new(1).unwrap()),
        Box::new(Quantise::new(4, 256, true).unwrap()),
        Box::new(TopK::new(0.05, Values::Bits(4)).unwrap()),
    ]
}

fn node(i: u64) -> NodeId {
    NodeId([i as u8; 32])
}

fn sealed(codec: &dyn Codec, plan: &Plan, device: u64) -> Sealed {
    raw(device).unclipped().code(plan, codec, &seed(device)).unwrap().pack().seal(collection())
}

#[test]
fn decoded_words_are_those_of_an_update_that_was_never_coded() {
    let plan = plan();
    for codec in codecs() {
        let coded = raw(2).unclipped().code(&plan, &*codec, &seed(2)).unwrap();
        let sent = [0, 1].map(|section| coded.rounded().sent(section).unwrap());
        let saturated = coded.rounded().saturated().to_vec();
        assert!(saturated[0] > 0, "the range is narrow here");
        let update = coded.pack().seal(collection());
        assert!(update.bytes().len() <= bytes_max(&*codec, &plan));

        let (mut words, mut largest) = (Vec::new(), 0);
        let counted = decode_into_words(&*codec, &plan, update.bytes(), &mut |piece| {
            largest = largest.max(piece.len());
            words.extend_from_slice(piece);
            Ok(())
        });
        assert_eq!(counted.unwrap(), saturated);
        assert_eq!(words.len(), plan.format().bytes());
        assert!(largest <= 4096 / 8 * plan.bits() as usize, "a block at a time: {largest}");

        // The same coordinates, rounded by the road without compression, have the same words.
        let values =
            |section: usize| sent[section].iter().map(|&v| (f64::from(v) * plan.step(section)) as f32).collect();
        let plain = Raw { sections: vec![values(0), values(1)], ..raw(2) }.unclipped().round(&plan).unwrap();
        assert_eq!(words[plan.header_bytes()..], plain.pack().seal(collection()).bytes()[plan.header_bytes()..]);
    }
}

#[test]
fn coded_updates_add_up_in_any_order_and_over_any_tree() {
    let plan = plan();
    for codec in codecs() {
        let updates: Vec<Sealed> = (0..5).map(|device| sealed(&*codec, &plan, device)).collect();
        let sum = |order: &[u64]| {
            let mut partial = Partial::empty(plan.format());
            for &i in order {
                absorb(&mut partial, node(i), &*codec, &plan, updates[i as usize].bytes()).unwrap();
            }
            partial
        };
        let total = sum(&[0, 1, 2, 3, 4]);
        assert_eq!(sum(&[3, 1, 4, 0, 2]), total);
        let mut tree = sum(&[4, 2]);
        tree.merge(&sum(&[1])).unwrap();
        tree.merge(&sum(&[3, 0])).unwrap();
        assert_eq!(tree, total);
        let totals = open_header(&plan, 5, &total.bytes().unwrap()[..plan.header_bytes()]).unwrap();
        // 7 + 27 + 47 + 67 + 87
        assert_eq!((totals.weight_sum, &totals.wholes[..]), (235, &[-15][..]));
    }
}

#[test]
fn nothing_of_a_refused_update_is_in_the_sum() {
    let plan = plan();
    for codec in codecs() {
        let good = sealed(&*codec, &plan, 1);
        let mut partial = Partial::empty(plan.format());
        absorb(&mut partial, node(0), &*codec, &plan, sealed(&*codec, &plan, 0).bytes()).unwrap();
        let before = partial.clone();
        let mut refused = |bytes: &[u8]| absorb(&mut partial, node(1), &*codec, &plan, bytes).unwrap_err();
        for end in [0, 10, plan.header_bytes() + 3, good.bytes().len() - 1] {
            assert!(matches!(refused(&good.bytes()[..end]), AbsorbError::Code(_)), "{} cut to {end}", codec.name());
        }
        let longer = [good.bytes(), &[0]].concat();
        assert_eq!(refused(&longer), AbsorbError::Code(CompressError::LeftOver { left: 1 }));
        // A weight that no device may have would count for a cohort.
        let mut heavy = good.bytes().to_vec();
        heavy[1] |= 0x7f;
        assert!(matches!(refused(&heavy), AbsorbError::Code(CompressError::Weight { weight_max: 100, .. })));
        assert_eq!(partial, before);
        absorb(&mut partial, node(1), &*codec, &plan, good.bytes()).unwrap();
        assert!(matches!(absorb(&mut partial, node(1), &*codec, &plan, good.bytes()), Err(AbsorbError::Refused(_))));
    }
}

#[test]
fn a_bound_goes_through_only_where_it_is_proven() {
    let plan = plan();
    let bound = |codec: &dyn Codec| {
        let coded = raw(1).clip(0.25).unwrap().code(&plan, codec, &seed(1)).unwrap();
        let sent = coded.rounded().sent(0).unwrap();
        let norm = plan.step(0) * sent.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let told = codec.l2_bound(0.25, sent.len());
        (norm, told.map(|l2| l2_after_rounding(l2 as f32, plan.step(0), sent.len())))
    };
    let (norm, told) = bound(&TopK::new(0.1, Values::Signs).unwrap());
    // Half a step of 2^-21 in each of 4,396 coordinates.
    assert!(norm <= told.unwrap() && told.unwrap() < 0.25 + 1e-4, "{norm} {told:?}");
    let (norm, told) = bound(&Eden::new(1).unwrap());
    assert!(norm > 0.25 && told.is_none(), "an unbiased estimate is longer than what it estimates");
}
