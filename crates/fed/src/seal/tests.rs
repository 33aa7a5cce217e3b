use super::*;
use crate::compress::randomk::{Kept, RandomK, Rescaled};
use crate::compress::{Linear, eden::Eden};
use crate::open::open_header;
use crate::plan::{Plan, Resolution, Section, Weight, Weighting};

fn plan() -> Plan {
    let delta = Section { name: "delta", len: 4, range: 2.0, weighted: true };
    let control = Section { name: "control", len: 2, range: 1.0, weighted: false };
    let weighting = Weighting::ByExamples { examples_max: 10, weight_max: 10 };
    Plan::new(4, weighting, Resolution::Levels(8), vec![delta, control], 1).unwrap()
}

fn raw() -> Raw {
    Raw { examples: 3, loss: 0.5, wholes: vec![-7], sections: vec![vec![0.25, -0.5, 3.0, -2.1], vec![0.125, 9.0]] }
}

#[test]
fn saturation_is_counted_and_what_is_sent_is_known() {
    let plan = plan();
    let rounded = raw().unclipped().round(&plan).unwrap();
    assert_eq!(rounded.sent(0).unwrap(), [1, -2, 7, -8]);
    assert_eq!(rounded.sent(1).unwrap(), [1, 7]);
    assert_eq!(rounded.saturated(), [1, 1], "3.0 and 9.0; -2.1 rounds to the range's end");
    assert_eq!(rounded.weight(), Weight { value: 3, saturated: false });
    assert_eq!(rounded.pack().plain().len(), plan.format().bytes());
}

#[test]
fn what_is_not_finite_is_refused_by_name() {
    let mut diverged = raw();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        diverged.sections[1][1] = value;
        let refused = diverged.clone().unclipped().round(&plan()).unwrap_err();
        assert!(matches!(refused, SealError::NotFinite { section: "control", index: 1, .. }), "{refused}");
    }
    let refused = Raw { loss: f32::INFINITY, ..raw() }.unclipped().round(&plan()).unwrap_err();
    assert_eq!(refused, SealError::Loss { value: f32::INFINITY });
}

#[test]
fn another_shape_is_refused() {
    let mut short = raw();
    short.sections[0].pop();
    let refused = short.unclipped().round(&plan()).unwrap_err();
    assert_eq!(refused, SealError::Shape { what: "delta", expected: 4, got: 3 });
    let refused = Raw { wholes: vec![], ..raw() }.unclipped().round(&plan()).unwrap_err();
    assert_eq!(refused, SealError::Shape { what: "wholes", expected: 1, got: 0 });
}

#[test]
fn the_bound_survives_rounding() {
    let plan = plan();
    let clipped = raw().clip(1.0).unwrap();
    assert!(clipped.norm().unwrap() > 3.6);
    assert_eq!(clipped.l2(), 1.0);
    let rounded = clipped.round(&plan).unwrap();
    let norm = plan.step(0) * rounded.sent(0).unwrap().iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let bound = rounded.l2();
    // Half a step of 0.25 in each of four coordinates, and the margin for scaling.
    assert!(norm <= bound && (bound - 1.25).abs() < 1e-6, "{norm} {bound}");
}

#[test]
fn a_map_keeps_a_proven_bound_and_has_no_other() {
    let (kept, rescaled) = (RandomK::<Kept>::new(0.5).unwrap(), RandomK::<Rescaled>::new(0.5).unwrap());
    let section = Section { name: "delta", len: kept.sent_len(4), range: 2.0, weighted: true };
    let plan = Plan::new(4, Weighting::Uniform, Resolution::Levels(8), vec![section], 1).unwrap();
    let delta = || Raw { sections: vec![raw().sections[0].clone()], ..raw() };
    let clipped = || delta().clip(1.0).unwrap();

    let bounded = clipped().transform_within(&kept, &[3; 32]).unwrap().round(&plan).unwrap();
    // Half a step of 0.25 in each of two coordinates, and the margin for scaling.
    assert!((bounded.l2() - (1.0 + 0.125 * 2f64.sqrt())).abs() < 1e-6, "{}", bounded.l2());
    let refused = clipped().transform_within(&rescaled, &[3; 32]).unwrap_err();
    assert_eq!(refused, SealError::Unbounded { map: "random-k, rescaled" });

    let chance = |seed| delta().unclipped().transform(&rescaled, &[3; 32]).unwrap().round_by_chance(&plan, &[seed; 32]);
    let exact = rescaled.forward(&delta().sections[0], &[3; 32]);
    for sent in (0..20).map(|seed| chance(seed).unwrap().sent(0).unwrap()) {
        let next_to = |(n, x): (&i32, &f32)| (f64::from(*n) * 0.25 - f64::from(*x).clamp(-2.0, 1.75)).abs() < 0.25;
        assert!(sent.iter().zip(&exact).all(next_to), "{sent:?} {exact:?}");
    }
    let mut diverged = delta();
    diverged.sections[0][2] = f32::NAN;
    let refused = diverged.unclipped().transform(&kept, &[3; 32]).unwrap_err();
    assert!(matches!(refused, SealError::NotFinite { section: "delta", index: 2, .. }), "{refused}");
}

#[test]
fn a_coded_update_tells_its_length_beside_what_it_told() {
    let delta = Section { name: "delta", len: 100, range: 2.0, weighted: true };
    let plan = Plan::new(4, Weighting::Uniform, Resolution::Levels(8), vec![delta], 2).unwrap();
    let raw = Raw { examples: 3, loss: 0.5, wholes: vec![-7, 0], sections: vec![vec![0.5; 100]] };
    let coded = raw.unclipped().code(&plan, &Eden::new(2).unwrap(), &[1; 32]).unwrap();
    let (saturated, len) = (coded.rounded().saturated()[0], coded.len());
    let sent = coded.rounded().sent(0).unwrap();
    let coded = coded.telling_its_length().unwrap();
    assert_eq!(coded.rounded().sent(0).unwrap(), sent);
    let update = coded.pack();
    let told = open_header(&plan, 1, &update.plain()[..plan.header_bytes()]).unwrap();
    assert_eq!((told.wholes, told.saturated, told.loss), (vec![-7, len as i128], saturated, Some(0.5)));
    assert_eq!(update.plain().len(), len);
}

#[test]
fn nothing_that_waits_is_lost_to_rounding() {
    let delta = Raw { sections: vec![vec![0.25, -1.0]], ..raw() };
    let (update, owed) = delta.with_residual_steps(&[3, -1], 0.125).unwrap();
    assert_eq!((update.delta(), owed), (&[0.625, -1.125][..], vec![5, -9]));
}
