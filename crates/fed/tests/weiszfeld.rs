//! The geometric median by sums: the same points as by hand, and a model that one bad device cannot drag away.

#[allow(dead_code)] // Not all of it is used here.
mod fleet;

use fleet::{Fleet, Quadratic};
use littoral_fed::algorithm::{AlgorithmSpec, State};
use littoral_fed::robust::weiszfeld::Weiszfeld;
use std::sync::Arc;

const SMOOTHING: f32 = 0.05;
const STEPS: usize = 3;

/// One gradient step with a rate of 1 leads from w = 0 to b: that is Δ.
const UPDATES: [[f32; 2]; 5] = [[0.5, 0.25], [0.75, 0.0], [0.25, 0.5], [0.5, 0.5], [-3.5, 3.0]];

fn devices() -> Vec<Quadratic> {
    UPDATES.iter().map(|b| Quadratic::new(&[1.0, 1.0], b, 1, 1.0)).collect()
}

fn step(toml: &str, norm_bound: Option<f32>, last: bool) -> Weiszfeld {
    let inner = toml::from_str::<AlgorithmSpec>(toml).unwrap().build().unwrap();
    Weiszfeld { inner: Arc::from(inner), smoothing: SMOOTHING, norm_bound, last }
}

/// A version, made in all its steps.
fn version(toml: &str, norm_bound: Option<f32>) -> Fleet {
    let mut fleet = Fleet::around(Box::new(step(toml, norm_bound, false)), &devices(), &[0.0, 0.0]);
    fleet.rounds(STEPS - 1);
    assert_eq!(fleet.model, [0.0, 0.0], "weights stay as they are until the last step");
    fleet.algorithm = Box::new(step(toml, norm_bound, true));
    fleet.rounds(1);
    fleet
}

/// In f64, with the updates at hand.
fn by_hand(updates: &[[f64; 2]]) -> [f64; 2] {
    let mut v = [0.0; 2];
    for _ in 0..STEPS {
        let weight = |x: &[f64; 2]| 1.0 / (x[0] - v[0]).hypot(x[1] - v[1]).max(f64::from(SMOOTHING));
        let sum: f64 = updates.iter().map(weight).sum();
        v = [0, 1].map(|j| updates.iter().map(|x| weight(x) * x[j]).sum::<f64>() / sum);
    }
    v
}

fn near(got: &[f32], expected: [f64; 2]) -> bool {
    // A coordinate is sent in steps of 4 / 2^28 and divided by a sum of weights of at least 0.2; v is told in f32.
    got.iter().zip(expected).all(|(got, expected)| (f64::from(*got) - expected).abs() < 1e-6)
}

#[test]
fn three_sums_are_three_steps_of_weiszfeld() {
    let fleet = version("name = \"fedavg\"", None);
    let expected = by_hand(&UPDATES.map(|x| x.map(f64::from)));
    assert!(near(&fleet.model, expected), "{:?} {expected:?}", fleet.model);
    // The mean of all is (-0.3, 0.85): 0.96 away from that of the honest ones.
    let off = f64::hypot(expected[0] - 0.5, expected[1] - 0.3125);
    assert!(off < 0.2, "{expected:?}");
    assert_eq!(fleet.state[0], State::Real(vec![0.0; 2]), "the next version begins anew");
}

#[test]
fn an_algorithm_gets_the_median_once_as_if_it_were_a_mean() {
    let plain = version("name = \"fedavg\"", None);
    let fleet = version("name = \"fedavgm\"\nbeta = 0.5\nlearning_rate = 0.5", None);
    let half: Vec<f32> = plain.model.iter().map(|w| w / 2.0).collect();
    assert_eq!((&fleet.model, &fleet.state[1]), (&half, &State::Real(plain.model)));
}

#[test]
fn devices_clip_before_they_weigh() {
    let clipped = UPDATES.map(|x| {
        let x = x.map(f64::from);
        let norm = x[0].hypot(x[1]);
        x.map(|x| x * (0.6 / norm).min(1.0))
    });
    let fleet = version("name = \"fedavg\"", Some(0.6));
    assert!(near(&fleet.model, by_hand(&clipped)), "{:?}", fleet.model);
}
