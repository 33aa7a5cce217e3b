use super::*;
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
