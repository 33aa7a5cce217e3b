//! Federated algorithms on quadratics, where limits, fixed points and optima are known.

mod fleet;

use fleet::{Fleet, Quadratic, argmin, distance};
use littoral_fed::algorithm::{
    AlgorithmSpec, ApplyError, Began, Chunk, Start, State, StateError, StateSlice, apply_chunk,
};
use littoral_fed::learner::{Batch, Correct, Learner};
use littoral_fed::open::Totals;
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_fed::seal::Sent;

const FEDAVG: &str = "name = \"fedavg\"";
const FEDNOVA: &str = "name = \"fednova\"";
const SCAFFOLD: &str = "name = \"scaffold\"\ncontrol_range = 8.0";

/// Four devices that disagree about curvature and optimum.
fn heterogeneous(steps: usize, learning_rate: f32) -> Vec<Quadratic> {
    [([2.0, 0.5], [1.0, -1.0]), ([0.5, 1.0], [-1.0, 0.5]), ([1.0, 2.0], [0.25, 1.0]), ([0.25, 0.25], [2.0, -2.0])]
        .map(|(a, b)| Quadratic::new(&a, &b, steps, learning_rate))
        .into()
}

/// Where Σ k_i (w − b_i) = 0, coordinate by coordinate: the fixed point of a method that moves each device's share of
/// the model by k_i towards b_i.
fn balance(devices: &[Quadratic], k: impl Fn(&Quadratic, usize) -> f64) -> Vec<f64> {
    let coordinate = |j: usize| {
        let weights: Vec<f64> = devices.iter().map(|q| k(q, j)).collect();
        let pulls: f64 = weights.iter().zip(devices).map(|(k, q)| k * f64::from(q.b[j])).sum();
        pulls / weights.iter().sum::<f64>()
    };
    (0..devices[0].a.len()).map(coordinate).collect()
}

/// How much of the way to b_j all local steps go: 1 − (1 − η a_j)^τ.
fn way(q: &Quadratic, j: usize) -> f64 {
    1.0 - (1.0 - f64::from(q.learning_rate * q.a[j])).powi(q.steps as i32)
}

#[test]
fn one_full_batch_step_of_everybody_is_a_central_step_bit_for_bit() {
    // Every number is a multiple of a power of two and the weights add up to 8, so that nothing is rounded anywhere.
    let mut devices: Vec<Quadratic> = heterogeneous(1, 0.125)[..3].into();
    devices.iter_mut().zip([1, 3, 4]).for_each(|(q, examples)| q.examples = examples);
    let weighting = Weighting::ByExamples { examples_max: 4, weight_max: 4 };
    let mut fleet = Fleet::with(FEDAVG, weighting, Resolution::Levels(1 << 24), &devices, &[0.5, -0.75]);
    let mut central = fleet.model.clone();
    for _ in 0..3 {
        let gradients: Vec<Vec<f32>> = devices.iter().map(|q| q.gradient(&central)).collect();
        for (j, w) in central.iter_mut().enumerate() {
            let rows = devices.iter().zip(&gradients);
            let gradient: f64 = rows.map(|(q, g)| q.examples as f64 * f64::from(g[j])).sum::<f64>() / 8.0;
            *w = (f64::from(*w) - 0.125 * gradient) as f32;
        }
        fleet.rounds(1);
        assert_eq!(fleet.model, central);
    }
}

#[test]
fn limiting_cases_are_fedavg_bit_for_bit() {
    let run = |toml: &str| Fleet::new(toml, &heterogeneous(5, 0.1), &[0.3, 0.7]).rounds(20).bits();
    let fedavg = run(FEDAVG);
    assert_eq!(run("name = \"fedprox\"\nmu = 0.0"), fedavg);
    assert_eq!(run("name = \"fedavgm\"\nbeta = 0.0\nlearning_rate = 1.0"), fedavg);
    assert_eq!(run("name = \"fednova\"\nreference_steps = 5.0"), fedavg);
    assert_eq!(run("name = \"fedbuff\""), fedavg);
    assert_eq!(run("name = \"qfedavg\"\nq = 0.0"), fedavg);
    // Each of them is another algorithm elsewhere.
    assert_ne!(run("name = \"fedprox\"\nmu = 0.1"), fedavg);
    assert_ne!(run("name = \"fedavgm\"\nbeta = 0.5\nlearning_rate = 1.0"), fedavg);
}

/// Of a sum of one device's Δ, with the cloud at `w`.
fn fedasync(toml: &str, w: &[f32], delta: &[f64], began: Option<Began<'_>>) -> Vec<f32> {
    let algorithm = toml::from_str::<AlgorithmSpec>(toml).unwrap().build().unwrap();
    let plan =
        Plan::new(1, Weighting::Uniform, Resolution::Levels(1 << 20), algorithm.sections(w.len(), 4.0), 0).unwrap();
    let sum: Vec<f64> = delta.iter().map(|delta| delta / plan.step(0)).collect();
    let totals = Totals { devices: 1, weight_sum: 1, saturated: 0, loss: None, wholes: Vec::new() };
    let mut model = w.to_vec();
    let chunk = Chunk { first: 0, model: &mut model, state: &mut [], sum: &sum, began };
    apply_chunk(&*algorithm, &plan, &totals, 0, chunk).unwrap();
    model
}

#[test]
fn fedasync_becomes_the_device_or_moves_towards_it() {
    let (w, old, delta) = ([0.5, -0.25], [1.0, 0.0], [0.25, 0.5]);
    let all = "name = \"fedasync\"\nalpha = 1.0";
    // Fresh: exactly what the device has. Old with constant weight: the same, wherever the cloud is by now.
    assert_eq!(fedasync(all, &w, &delta, None), [0.75, 0.25]);
    let began = |weight| Some(Began { model: &old, weight });
    assert_eq!(fedasync(all, &w, &delta, began(1.0)), [1.25, 0.5]);
    // Half as far for half the weight, by α or by age.
    assert_eq!(fedasync(all, &w, &delta, began(0.5)), [0.875, 0.125]);
    assert_eq!(fedasync("name = \"fedasync\"\nalpha = 0.5", &w, &delta, began(1.0)), [0.875, 0.125]);
}

/// Two devices that disagree: the one with the larger loss gets more of its way, and q decides how much more.
#[test]
fn qfedavg_evens_losses_out() {
    let devices = [Quadratic::new(&[1.0], &[1.0], 1, 0.1), Quadratic::new(&[4.0], &[-1.0], 1, 0.1)];
    let spread = |q: f32| {
        let mut fleet = Fleet::new(&format!("name = \"qfedavg\"\nq = {q:.1}"), &devices, &[0.0]);
        fleet.rounds(600);
        let loss = |device: &Quadratic| device.clone().loss(&fleet.model);
        (loss(&devices[0]) - loss(&devices[1])).abs()
    };
    let spreads = [0.0, 1.0, 4.0].map(spread);
    assert!(spreads[0] > 2.0 * spreads[1] && spreads[1] > 2.0 * spreads[2], "{spreads:?}");
    // One step by hand: F = ½, 2; L = 10; Δ = 0.1, −0.4 from w = 0.
    let mut fleet = Fleet::new("name = \"qfedavg\"\nq = 1.0", &devices, &[0.0]);
    fleet.rounds(1);
    let (a, h) = (0.5 * 10.0 * -0.1 + 2.0 * 10.0 * 0.4, (100.0 * 0.01 + 10.0 * 0.5) + (100.0 * 0.16 + 10.0 * 2.0));
    // Deltas are rounded to half a step of 4 / 2^30 and h to one of 2^-32.
    assert!((f64::from(fleet.model[0]) + a / h).abs() < 1e-7, "{} {}", fleet.model[0], -a / h);
}

/// Every number is a multiple of a power of two, so that nothing is rounded anywhere.
#[test]
fn an_old_update_counts_as_its_weight_says() {
    let q = Quadratic::new(&[1.0, 1.0], &[1.0, -1.0], 1, 0.5);
    let fleet = Fleet::with("name = \"fedbuff\"", Weighting::Uniform, Resolution::Levels(1 << 20), &[q], &[0.0, 0.5]);
    let raw = || {
        let start = Start { w: &fleet.model, broadcast: &[], device_state: None, population: 1, plan: &fleet.plan };
        fleet.algorithm.local(&start, &mut fleet.devices[0].clone()).unwrap()
    };
    let sent = |times| raw().unclipped().weigh(times).round(&fleet.plan).unwrap().sent(0).unwrap();
    let (fresh, quarter) = (sent(256), sent(64));
    assert_eq!(fresh, raw().unclipped().round(&fleet.plan).unwrap().sent(0).unwrap());
    assert_eq!(quarter, fresh.iter().map(|v| v / 4).collect::<Vec<_>>());
    // Noise is calibrated to a fresh one: an old one is never longer.
    let l2 = |times| raw().clip(0.25).unwrap().weigh(times).l2();
    assert!(l2(256) == 0.25 && l2(255) < 0.25 && l2(1) < 0.25 / 255.0);
}

/// Time is up after some steps of many: the answer is that of the steps that were made.
#[test]
fn fednova_of_a_device_whose_time_is_up_counts_the_steps_it_made() {
    struct Hurried(Quadratic, usize);
    impl Learner for Hurried {
        fn examples(&self) -> u64 {
            1
        }
        fn steps(&self) -> usize {
            1000
        }
        fn spent(&self) -> bool {
            self.1 == 0
        }
        fn loss(&mut self, w: &[f32]) -> f64 {
            self.0.loss(w)
        }
        fn learning_rate(&self) -> f32 {
            self.0.learning_rate
        }
        fn momentum(&self) -> f32 {
            0.0
        }
        fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32 {
            self.1 -= 1;
            self.0.step(w, correct)
        }
        fn gradient(&mut self, w: &[f32], batch: Batch, gradient: &mut [f32]) -> f32 {
            Learner::gradient(&mut self.0, w, batch, gradient)
        }
        fn descend(&mut self, w: &mut [f32], gradient: &mut [f32]) {
            self.1 -= 1;
            self.0.descend(w, gradient);
        }
        fn restart(&mut self) {
            self.0.restart();
        }
    }
    let q = |steps| Quadratic::new(&[1.0, 0.5], &[1.0, -1.0], steps, 0.1);
    for toml in [FEDAVG, FEDNOVA, "name = \"fedprox\"\nmu = 0.1"] {
        let fleet = Fleet::new(toml, &[q(3)], &[0.25, 0.5]);
        let start = Start { w: &fleet.model, broadcast: &[], device_state: None, population: 1, plan: &fleet.plan };
        let all = fleet.algorithm.local(&start, &mut q(3)).unwrap();
        assert_eq!(fleet.algorithm.local(&start, &mut Hurried(q(1000), 3)).unwrap(), all, "{toml}");
    }
}

#[test]
fn fednova_with_equal_steps_is_fedavg_to_the_resolution_of_the_plan() {
    let run = |toml: &str| Fleet::new(toml, &heterogeneous(5, 0.1), &[0.3, 0.7]).rounds(20).model.clone();
    let fedavg: Vec<f64> = run(FEDAVG).into_iter().map(f64::from).collect();
    // 20 rounds of 5 · half a step of 4 / 2^29, and of two roundings to f32 below 1 (2^-25 each).
    let tolerance = 20.0 * (5.0 * 2f64.powi(-28) + 2f64.powi(-24));
    assert!(distance(&run(FEDNOVA), &fedavg) <= tolerance);
}

#[test]
fn fedprox_local_optimum_is_its_closed_form() {
    let q = Quadratic::new(&[2.0, 0.5], &[1.0, -1.0], 1000, 0.1);
    let (mu, w) = (0.5, [0.25f32, 0.5]);
    let mut fleet = Fleet::new("name = \"fedprox\"\nmu = 0.5", std::slice::from_ref(&q), &w);
    fleet.rounds(1);
    // (A + μI)⁻¹ (A b + μ w)
    let expected: Vec<f64> = (0..2).map(|j| f64::from((q.a[j] * q.b[j] + mu * w[j]) / (q.a[j] + mu))).collect();
    // Gradient descent stops where η (a + μ) · error is half an ulp of w (2^-25): error ≤ 2^-25 / 0.1.
    assert!(distance(&fleet.model, &expected) <= 2f64.powi(-25) / 0.1 + 1e-7);
}

#[test]
fn fednova_removes_the_bias_of_unequal_steps_and_fedavg_keeps_it() {
    let (b, spread) = ([-1.0, 0.0, 2.0], 3.0);
    let unequal = |learning_rate| -> Vec<Quadratic> {
        b.iter().zip([1, 4, 16]).map(|(&b, steps)| Quadratic::new(&[1.0], &[b], steps, learning_rate)).collect()
    };
    let error = |learning_rate: f32, rounds| {
        let devices = unequal(learning_rate);
        let optimum = argmin(&devices);
        let fedavg = Fleet::new(FEDAVG, &devices, &[0.0]).rounds(rounds).model.clone();
        let fednova = Fleet::new(FEDNOVA, &devices, &[0.0]).rounds(rounds).model.clone();
        // Both end at their own fixed points. The last of the way is lost where a round moves the model by less than
        // half an ulp (2^-25): 2^-25 / (η τ_eff) at η = 0.002, τ_eff = 7, and again for the devices' own f32 steps.
        assert!(distance(&fedavg, &balance(&devices, way)) < 2e-5);
        assert!(distance(&fednova, &balance(&devices, |q, j| way(q, j) / q.steps as f64)) < 2e-5);
        assert!(distance(&fedavg, &optimum) > 0.3 * spread);
        distance(&fednova, &optimum)
    };
    // Devices move while they step, which costs FedNova η τ / 2 of the spread at most; it vanishes with η.
    let (coarse, fine) = (error(0.004, 1500), error(0.002, 3000));
    assert!(coarse <= 0.004 * 16.0 / 2.0 * spread, "{coarse}");
    assert!((1.8..2.2).contains(&(coarse / fine)), "{coarse} {fine}");
}

#[test]
fn fednova_counts_the_echoes_of_momentum() {
    // So flat that the gradient is 1 wherever the steps lead, to 1e-6.
    let flat = |steps, momentum| {
        let (a, b) = (2f32.powi(-20), -(2f32.powi(20)));
        Quadratic { momentum, ..Quadratic::new(&[a], &[b], steps, 0.125) }
    };
    for (steps, momentum) in [(1, 0.0), (1, 0.9), (3, 0.0), (7, 0.5), (40, 0.9)] {
        let fleet = Fleet::new(FEDNOVA, &[flat(steps, momentum)], &[0.0]);
        let start = Start { w: &[0.0], broadcast: &[], device_state: None, population: 1, plan: &fleet.plan };
        let raw = fleet.algorithm.local(&start, &mut fleet.devices[0].clone()).unwrap();
        // One plain step of η · 1. Tolerance: the flatness, and f32 over at most 40 steps.
        assert!((raw.sections[0][0] + 0.125).abs() < 1e-5, "{steps} {momentum}: {}", raw.sections[0][0]);
    }
}

#[test]
fn scaffold_reaches_the_optimum_and_fedavg_its_own_fixed_point() {
    let devices = heterogeneous(10, 0.05);
    let optimum = argmin(&devices);
    let fedavg = Fleet::new(FEDAVG, &devices, &[0.0, 0.0]).rounds(600).model.clone();
    let mut scaffold = Fleet::new(SCAFFOLD, &devices, &[0.0, 0.0]);
    scaffold.rounds(600);

    // f32 steps of 2^-24 around 1 stall that far over η a ≥ 0.0125 from a fixed point: below 5e-6.
    assert!(distance(&fedavg, &balance(&devices, way)) < 1e-5);
    assert!(distance(&fedavg, &optimum) > 0.03, "{}", distance(&fedavg, &optimum));
    assert!(distance(&scaffold.model, &optimum) < 1e-5, "{:?} {optimum:?}", scaffold.model);
    // There, each control variate is the device's own gradient.
    for (q, kept) in scaffold.devices.iter().zip(&scaffold.kept) {
        let step = scaffold.plan.step(1);
        let control: Vec<f32> = kept.as_ref().unwrap().iter().map(|&v| (f64::from(v) * step) as f32).collect();
        let gradient: Vec<f64> = q.gradient(&scaffold.model).into_iter().map(f64::from).collect();
        assert!(distance(&control, &gradient) < 1e-4, "{control:?} {gradient:?}");
    }
}

#[test]
fn scaffold_sums_hold_in_integers_under_partial_and_lost_participation() {
    let devices: Vec<Quadratic> = (0..3).flat_map(|_| heterogeneous(4, 0.05)).collect();
    let mut fleet = Fleet::new(SCAFFOLD, &devices, &[0.1, -0.2]);
    let mut seed = 1u64;
    for round in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = seed >> 32;
        // Some are asked, some of those are lost on the way; one is always there so that there is a mean.
        let cohort: Vec<usize> = (0..12).filter(|&i| i == round % 12 || bits >> i & 1 == 1).collect();
        fleet.round(&cohort, |i| i == round % 12 || bits >> (12 + i) & 1 == 1);

        let State::Whole(sum) = &fleet.state[0] else { panic!("an integer vector") };
        for j in 0..2 {
            let kept: i64 = fleet.kept.iter().flatten().map(|state| i64::from(state[j])).sum();
            assert_eq!(i64::from(sum[j]), kept, "after round {round}");
        }
    }
    assert!(distance(&fleet.model, &argmin(&devices)) < 0.1, "it still trains");
}

#[test]
fn scaffold_refuses_sums_that_leave_32_bits() {
    let fleet = Fleet::new(SCAFFOLD, &heterogeneous(1, 0.1), &[0.0, 0.0]);
    let totals = Totals { devices: 1, weight_sum: 1, saturated: 0, loss: None, wholes: vec![] };
    let (mut model, mut controls) = ([0.0; 2], [5, i32::MAX - 3]);
    let mut state = [StateSlice::Whole(&mut controls)];
    let chunk = Chunk { first: 100, model: &mut model, state: &mut state, sum: &[-9.0, 4.0], began: None };
    match apply_chunk(&*fleet.algorithm, &fleet.plan, &totals, 1, chunk) {
        Err(ApplyError::State(StateError::Overflow { index: 101, added: 4, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_diverged_model_is_refused_by_parameter() {
    let fleet = Fleet::new(FEDAVG, &heterogeneous(1, 0.1), &[0.0, 0.0]);
    let totals = Totals { devices: 1, weight_sum: 1, saturated: 0, loss: None, wholes: vec![] };
    let mut model = [0.0, f32::INFINITY];
    let chunk = Chunk { first: 8, model: &mut model, state: &mut [], sum: &[0.0, 0.0], began: None };
    let refused = apply_chunk(&*fleet.algorithm, &fleet.plan, &totals, 0, chunk);
    assert_eq!(refused, Err(ApplyError::Diverged { index: 9, value: f32::INFINITY }));
}

#[test]
fn adaptive_methods_meet_numpy_bit_for_bit() {
    // From oracles/fedopt.py, which runs in float32 too and rounds where we round.
    let oracle: [(&str, [f32; 4]); 3] = [
        ("fedadagrad\"\nbeta1 = 0.9", [1.0341659, -0.99026734, 0.49552363, 0.011801958]),
        ("fedadam\"", [1.2931578, -0.89312375, 0.47093785, 0.0999421]),
        ("fedyogi\"", [1.2919295, -0.8938456, 0.47117192, 0.09976981]),
    ];
    let deltas: [[f32; 4]; 5] = [
        [0.5, -0.25, 0.03125, 0.0],
        [0.125, 0.75, -0.0625, 0.0],
        [-0.375, 0.25, 0.0078125, 0.5],
        [0.25, -0.5, 0.015625, -0.5],
        [0.0625, 0.125, -0.03125, 0.25],
    ];
    for (name, expected) in oracle {
        let toml = format!("name = \"{name}\nlearning_rate = 0.1\ntau = 0.01");
        let algorithm = toml::from_str::<AlgorithmSpec>(&toml).unwrap().build().unwrap();
        // One device, and steps of 1/128 that every delta is a multiple of.
        let plan = Plan::new(1, Weighting::Uniform, Resolution::Levels(128), algorithm.sections(4, 1.0), 0).unwrap();
        let totals = Totals { devices: 1, weight_sum: 1, saturated: 0, loss: None, wholes: vec![] };
        let mut model = [1.0, -1.0, 0.5, 0.0];
        let mut state: Vec<State> = algorithm.cloud_state().iter().map(|v| v.initial.state(4)).collect();
        for delta in deltas {
            let sum = delta.map(|d: f32| f64::from(d * 128.0));
            let mut state: Vec<StateSlice<'_>> = state.iter_mut().map(|s| s.slice(0, 4)).collect();
            let chunk = Chunk { first: 0, model: &mut model, state: &mut state, sum: &sum, began: None };
            apply_chunk(&*algorithm, &plan, &totals, 0, chunk).unwrap();
        }
        assert_eq!(model.map(f32::to_bits), expected.map(f32::to_bits), "{name} {model:?}");
    }
}

#[test]
fn no_bit_depends_on_how_the_cloud_cuts_the_model() {
    let params = 37;
    let devices: Vec<Quadratic> = (0..3)
        .map(|i| {
            let vector = |scale: f32, shift: f32| -> Vec<f32> {
                (0..params).map(|j| ((j * 7 + i * 13) as f32 * 0.37).sin() * scale + shift).collect()
            };
            Quadratic { examples: 1 + i as u64, ..Quadratic::new(&vector(0.4, 0.6), &vector(1.0, 0.0), 3, 0.1) }
        })
        .collect();
    let weighting = Weighting::ByExamples { examples_max: 3, weight_max: 100 };
    for name in littoral_fed::algorithm::NAMES {
        let toml = format!("name = \"{name}\"\n{}", if *name == "fedprox" { "mu = 0.1" } else { "" });
        // 22 and 37 bits, which no chunk below is aligned with.
        for resolution in [Resolution::Levels(5000), Resolution::Levels(1 << 28)] {
            let run = |chunk_len| {
                let mut fleet = Fleet::with(&toml, weighting, resolution, &devices, &vec![0.5; params]);
                fleet.chunk_len = chunk_len;
                fleet.rounds(4);
                (fleet.bits(), fleet.state)
            };
            let whole = run(params);
            for chunk_len in [1, 3, 7, 8, 9, 16, 36] {
                assert_eq!(run(chunk_len), whole, "{name} in chunks of {chunk_len}");
            }
        }
    }
}
