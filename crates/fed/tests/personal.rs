//! Algorithms with a model for each device, where limits, fixed points and rates are known.

// What stays may well be one range.
#![allow(clippy::single_range_in_vec_init)]

mod fleet;

use fleet::{Fleet, Quadratic, argmin, distance};
use littoral_fed::Learner;
use littoral_fed::algorithm::{AlgorithmSpec, Keeps, Personal, Start, perfedavg};
use littoral_fed::home::{Home, HomeError, Places};
use littoral_fed::learner::{Batch, Correct};
use littoral_fed::plan::{Plan, Resolution, Weighting};
use littoral_fed::seal::Raw;

fn start<'a>(w: &'a [f32], plan: &'a Plan) -> Start<'a> {
    Start { w, broadcast: &[], device_state: None, population: 1, plan }
}

fn plan(params: usize) -> Plan {
    let section = littoral_fed::plan::Section { name: "delta", len: params, range: 4.0, weighted: true };
    Plan::new(1, Weighting::Uniform, Resolution::Fit32, vec![section], 0).unwrap()
}

fn build(toml: &str) -> Box<dyn littoral_fed::algorithm::Algorithm> {
    toml::from_str::<AlgorithmSpec>(toml).unwrap().build().unwrap()
}

/// One participation: what would be sent, and what is kept.
fn participate(toml: &str, w: &[f32], home: &Home, own: &[f32], learner: &mut dyn Learner) -> (Raw, Vec<f32>) {
    let (plan, mut personal) = (plan(w.len()), Personal { home, own: own.into() });
    let raw = build(toml).local_personal(&start(w, &plan), &mut personal, learner).unwrap();
    (raw, personal.own)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `k` steps by hand, `extra(v)` added to the gradient.
fn by_hand(q: &Quadratic, v: &[f32], k: usize, extra: impl Fn(usize, f32) -> f32) -> Vec<f32> {
    let mut v = v.to_vec();
    for _ in 0..k {
        let g = q.gradient(&v);
        for j in 0..v.len() {
            v[j] -= q.learning_rate * (g[j] + extra(j, v[j]));
        }
    }
    v
}

#[test]
fn parts_that_stay_are_those_of_the_algorithm_and_what_does_not_fit_is_refused() {
    let places =
        Places { params: 20, norms: vec![4..8, 18..20], layers: vec![vec![0..8, 18..20], vec![8..12], vec![12..18]] };
    let own = |toml: &str| build(toml).home(&places).map(|home| home.own().to_vec());
    assert_eq!(own("name = \"fedavg\""), Ok(vec![]));
    assert_eq!(own("name = \"ditto\""), Ok(vec![]));
    assert_eq!(own("name = \"fedbn\""), Ok(vec![4..8, 18..20]));
    assert_eq!(own("name = \"fedper\""), Ok(vec![12..18]));
    assert_eq!(own("name = \"fedrep\"\nlayers = 2"), Ok(vec![8..18]));
    for layers in [0, 3, 4_000_000_000] {
        assert_eq!(
            own(&format!("name = \"fedper\"\nlayers = {layers}")),
            Err(HomeError::Layers { most: 2, got: layers })
        );
    }
    let plain = Places { norms: vec![], ..places.clone() };
    assert_eq!(build("name = \"fedbn\"").home(&plain), Err(HomeError::NoNorm));
}

/// What is kept and what is sent are together exactly one training of the whole model.
#[test]
fn fedbn_and_fedper_train_the_whole_and_send_what_is_shared() {
    let q = Quadratic { momentum: 0.5, ..Quadratic::new(&[1.0, 2.0, 0.5, 1.5], &[1.0, -1.0, 2.0, 0.5], 5, 0.1) };
    let home = Home::of(4, [1..3]);
    let (w, own) = ([0.3, 0.7], [0.1, -0.2]);
    let mut whole = home.whole(&w, &own).unwrap();
    let mut learner = q.clone();
    for _ in 0..5 {
        learner.step(&mut whole, None);
    }
    for toml in ["name = \"fedbn\"", "name = \"fedper\""] {
        let (raw, kept) = participate(toml, &w, &home, &own, &mut q.clone());
        assert_eq!(bits(&kept), bits(&whole[1..3]), "{toml}");
        assert_eq!(raw.sections, [vec![whole[0] - w[0], whole[3] - w[1]]]);
        // Nothing is left that depends on what came before: again it is the same.
        assert_eq!(participate(toml, &w, &home, &own, &mut q.clone()), (raw, kept));
    }
}

/// Moves by momentum and by weight decay, as a real optimiser does.
#[derive(Clone)]
struct Decaying(Quadratic);

impl Learner for Decaying {
    fn examples(&self) -> u64 {
        1
    }
    fn steps(&self) -> usize {
        self.0.steps
    }
    fn loss(&mut self, w: &[f32]) -> f64 {
        self.0.loss(w)
    }
    fn learning_rate(&self) -> f32 {
        self.0.learning_rate
    }
    fn momentum(&self) -> f32 {
        self.0.momentum
    }
    fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32 {
        let mut g = vec![0.0; w.len()];
        let loss = Learner::gradient(self, w, Batch::Next, &mut g);
        if let Some(correct) = correct {
            correct(w, &mut g);
        }
        self.descend(w, &mut g);
        loss
    }
    fn gradient(&mut self, w: &[f32], batch: Batch, gradient: &mut [f32]) -> f32 {
        Learner::gradient(&mut self.0, w, batch, gradient)
    }
    fn descend(&mut self, w: &mut [f32], gradient: &mut [f32]) {
        gradient.iter_mut().zip(&*w).for_each(|(g, w)| *g += 0.1 * w);
        self.0.descend(w, gradient);
    }
    fn restart(&mut self) {
        self.0.restart();
    }
}

#[test]
fn fedrep_moves_the_head_under_a_still_body_and_then_the_body_under_a_still_head() {
    let q = Quadratic { momentum: 0.9, ..Quadratic::new(&[1.0, 2.0, 0.5], &[1.0, -1.0, 2.0], 4, 0.05) };
    let (home, w, own) = (Home::of(3, [2..3]), [0.3, 0.7], [0.5]);
    let (raw, kept) = participate("name = \"fedrep\"\nhead_steps = 7", &w, &home, &own, &mut Decaying(q.clone()));
    // Coordinates of a quadratic know nothing of each other: each went its own way, so many steps from rest.
    let alone = |j: usize, w: f32, steps: usize| {
        let mut learner =
            Decaying(Quadratic { momentum: 0.9, ..Quadratic::new(&q.a[j..=j], &q.b[j..=j], steps, 0.05) });
        let mut w = [w];
        for _ in 0..steps {
            learner.step(&mut w, None);
        }
        w[0]
    };
    assert_eq!(kept, [alone(2, 0.5, 7)]);
    assert_eq!(raw.sections, [vec![alone(0, 0.3, 4) - 0.3, alone(1, 0.7, 4) - 0.7]]);
}

#[test]
fn ditto_sends_what_fedavg_sends_and_its_own_model_is_its_closed_form() {
    let q = Quadratic { momentum: 0.5, ..Quadratic::new(&[2.0, 0.5], &[1.0, -1.0], 6, 0.05) };
    let (home, w, v) = (Home::empty(2), [0.25f32, 0.5], [0.75f32, -0.25]);
    let fedavg = build("name = \"fedavg\"").local(&start(&w, &plan(2)), &mut q.clone()).unwrap();
    // λ = 0 is local training from v, bit for bit, and momentum of one training is not that of the other.
    let (raw, own) = participate("name = \"ditto\"\nlambda = 0.0", &w, &home, &v, &mut q.clone());
    let (mut alone, mut learner) = (v, q.clone());
    for _ in 0..6 {
        learner.step(&mut alone, None);
    }
    assert_eq!((&raw, bits(&own)), (&fedavg, bits(&alone)));
    // Any λ: what is sent stays FedAvg's.
    let plain = Quadratic { momentum: 0.0, ..q.clone() };
    let (_, own) = participate("name = \"ditto\"\nlambda = 0.5", &w, &home, &v, &mut plain.clone());
    assert!(
        distance(&own, &by_hand(&plain, &v, 6, |j, v| 0.5 * (v - w[j])).iter().map(|&v| v.into()).collect::<Vec<_>>())
            < 1e-6
    );
    let (raw, _) = participate("name = \"ditto\"\nlambda = 0.5", &w, &home, &v, &mut q.clone());
    assert_eq!(raw, fedavg);

    // At rest: v = (A + λ I)⁻¹ (A b + λ w), which goes to w as λ grows.
    let mut last = f64::INFINITY;
    for (lambda, rate) in [(0.5f32, 0.1), (8.0, 0.05), (100.0, 0.005), (1000.0, 0.0005)] {
        let mut slow = Quadratic::new(&q.a, &q.b, 2000, rate);
        let (_, own) = participate(&format!("name = \"ditto\"\nlambda = {lambda:.1}"), &w, &home, &v, &mut slow);
        let rest: Vec<f64> = (0..2).map(|j| f64::from((q.a[j] * q.b[j] + lambda * w[j]) / (q.a[j] + lambda))).collect();
        // Descent stops where η (a + λ) · error is half an ulp (2^-25), here η (a + λ) ≥ 0.1.
        assert!(distance(&own, &rest) <= 2f64.powi(-25) / 0.1 + 1e-6, "{lambda}: {own:?} {rest:?}");
        let apart = distance(&own, &w.map(f64::from));
        let steepest = f64::from(q.gradient(&w).iter().fold(0f32, |most, g| most.max(g.abs())));
        assert!(apart <= steepest / f64::from(lambda) + 1e-6 && apart < last, "{lambda}: {apart}");
        last = apart;
    }
    assert!(last < 2e-3);
}

const FIRST: &str = "name = \"perfedavg\"\nalpha = 0.4";
const SECOND: &str = "name = \"perfedavg\"\nalpha = 0.4\norder = \"hessian_vector\"";

/// F_i after one step of size α from w.
fn adapted_loss(devices: &[Quadratic], w: &[f32], alpha: f32) -> f64 {
    let loss = |q: &Quadratic| {
        let near: Vec<f32> = w.iter().zip(q.gradient(w)).map(|(w, g)| w - alpha * g).collect();
        (0..w.len()).map(|j| f64::from(0.5 * q.a[j] * (near[j] - q.b[j]).powi(2))).sum::<f64>()
    };
    devices.iter().map(loss).sum::<f64>() / devices.len() as f64
}

#[test]
fn perfedavg_ends_where_one_step_leads_to_a_lower_loss_than_from_fedavg() {
    // α a is 0.8, 0.4, 0.2 and 0.08: some devices go most of the way in one step, others hardly move.
    let devices: Vec<Quadratic> =
        [(2.0, 1.0), (1.0, -1.0), (0.5, 3.0), (0.2, -2.0)].map(|(a, b)| Quadratic::new(&[a], &[b], 5, 0.02)).into();
    let end = |toml: &str| Fleet::new(toml, &devices, &[0.0]).rounds(800).model.clone();
    let (fedavg, first, second) = (end("name = \"fedavg\""), end(FIRST), end(SECOND));
    let loss = |w: &[f32]| adapted_loss(&devices, w, 0.4);
    // Σ a (1 − α a)² (w − b) = 0 is where the meta gradient vanishes; with local steps it is so up to terms in η.
    let stationary = |power: i32| {
        let weight = |q: &Quadratic| f64::from(q.a[0]) * (1.0 - 0.4 * f64::from(q.a[0])).powi(power);
        devices.iter().map(|q| weight(q) * f64::from(q.b[0])).sum::<f64>() / devices.iter().map(weight).sum::<f64>()
    };
    // Five local steps of 0.02 bend the fixed point by less than 5 · 0.02 · a / 2 of the spread between devices.
    assert!(distance(&fedavg, &argmin(&devices)) < 0.1, "{fedavg:?}");
    assert!(distance(&second, &[stationary(2)]) < 0.1, "{second:?} {}", stationary(2));
    assert!(distance(&first, &[stationary(1)]) < 0.1, "{first:?} {}", stationary(1));
    assert!(loss(&second) < loss(&first) && loss(&first) < loss(&fedavg), "{second:?} {first:?} {fedavg:?}");

    // α = 0 is FedAvg, bit for bit.
    for toml in ["name = \"perfedavg\"\nalpha = 0.0", "name = \"perfedavg\"\nalpha = 0.0\norder = \"hessian_vector\""] {
        let run = |toml: &str| Fleet::new(toml, &devices, &[0.0]).rounds(20).bits();
        assert_eq!(run(toml), run("name = \"fedavg\""));
    }
    // The device's model is one step from the version.
    let home = Home::empty(1);
    let own = build(FIRST).own_model(&first, &Personal { home: &home, own: vec![] }, &mut devices[0].clone()).unwrap();
    assert_eq!(own, [first[0] - 0.4 * devices[0].gradient(&first)[0]]);
    assert_eq!(build(FIRST).keeps(), Some(Keeps::Nothing));
}

/// F(w) = Σ a_j w_j² / 2 + w_j⁴ / 4, and a coupling w_0 w_1: its Hessian is known and changes with w.
struct Quartic([f32; 2]);

impl Learner for Quartic {
    fn examples(&self) -> u64 {
        1
    }
    fn steps(&self) -> usize {
        1
    }
    fn loss(&mut self, _: &[f32]) -> f64 {
        0.0
    }
    fn learning_rate(&self) -> f32 {
        1.0
    }
    fn momentum(&self) -> f32 {
        0.0
    }
    fn step(&mut self, _: &mut [f32], _: Option<Correct<'_>>) -> f32 {
        0.0
    }
    fn gradient(&mut self, w: &[f32], _: Batch, gradient: &mut [f32]) -> f32 {
        (0..2).for_each(|j| gradient[j] = self.0[j] * w[j] + w[j].powi(3) + w[1 - j]);
        0.0
    }
    fn descend(&mut self, _: &mut [f32], _: &mut [f32]) {}
    fn restart(&mut self) {}
}

#[test]
fn the_product_of_hessian_and_vector_is_that_of_the_second_derivatives() {
    for (w, v) in [([0.5f32, -0.25], [1.0f32, 2.0]), ([1.5, 1.0], [-0.01, 0.003]), ([0.0, 0.0], [1000.0, 1.0])] {
        let product = perfedavg::hessian_vector(&w, &v, &mut Quartic([2.0, 0.5]));
        let a = [2.0, 0.5];
        let exact = [0, 1].map(|j| f64::from((a[j] + 3.0 * w[j] * w[j]) * v[j] + v[1 - j]));
        // The central difference leaves δ² v_j³, with δ ‖v‖ = (1 + ‖w‖) / 256 at most 0.011, so 1.2e-4 of ‖v‖; f32 rounds gradients of
        // up to 8 by 2^-22, over 2δ that is 3e-5 of ‖v‖.
        let length = v.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
        assert!(distance(&product, &exact) < 2e-4 * length, "{product:?} {exact:?}");
    }
    assert_eq!(perfedavg::hessian_vector(&[1.0, 1.0], &[0.0, 0.0], &mut Quartic([1.0, 1.0])), [0.0, 0.0]);
}

const INPUTS: usize = 6;
const FEATURES: usize = 2;

/// The paper's linear model, with all rows there are: x standard normal, y = h*ᵀ B*ᵀ x, so that F(B, h) = ½ ‖B h − B* h*‖². The
/// body B is (inputs, features), row by row; the head h comes last.
#[derive(Clone)]
struct Linear {
    target: [f32; INPUTS],
    steps: usize,
}

impl Learner for Linear {
    fn examples(&self) -> u64 {
        1
    }
    fn steps(&self) -> usize {
        self.steps
    }
    fn loss(&mut self, w: &[f32]) -> f64 {
        Learner::gradient(self, w, Batch::Next, &mut vec![0.0; w.len()]).into()
    }
    fn learning_rate(&self) -> f32 {
        0.3
    }
    fn momentum(&self) -> f32 {
        0.0
    }
    fn step(&mut self, w: &mut [f32], correct: Option<Correct<'_>>) -> f32 {
        let mut g = vec![0.0; w.len()];
        let loss = self.gradient(w, Batch::Next, &mut g);
        if let Some(correct) = correct {
            correct(w, &mut g);
        }
        self.descend(w, &mut g);
        loss
    }
    fn gradient(&mut self, w: &[f32], _: Batch, gradient: &mut [f32]) -> f32 {
        let (body, head) = w.split_at(INPUTS * FEATURES);
        gradient.fill(0.0);
        let mut loss = 0.0;
        for i in 0..INPUTS {
            let row = &body[i * FEATURES..][..FEATURES];
            let error = row.iter().zip(head).map(|(b, h)| b * h).sum::<f32>() - self.target[i];
            loss += 0.5 * error * error;
            for j in 0..FEATURES {
                gradient[i * FEATURES + j] = error * head[j];
                gradient[INPUTS * FEATURES + j] += error * row[j];
            }
        }
        loss
    }
    fn descend(&mut self, w: &mut [f32], gradient: &mut [f32]) {
        w.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.3 * *g);
    }
    fn restart(&mut self) {}
}

/// How far the body's columns reach out of the span of the first two axes, where the true ones lie: the sine of the largest
/// principal angle, by its Frobenius norm.
fn outside(body: &[f32]) -> f64 {
    let column = |j: usize| (0..INPUTS).map(|i| f64::from(body[i * FEATURES + j])).collect::<Vec<f64>>();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let unit = |v: Vec<f64>| {
        let length = dot(&v, &v).sqrt();
        v.into_iter().map(|x| x / length).collect::<Vec<f64>>()
    };
    let first = unit(column(0));
    let second = column(1);
    let along = dot(&first, &second);
    let second = unit(second.iter().zip(&first).map(|(s, f)| s - along * f).collect());
    (dot(&first[2..], &first[2..]) + dot(&second[2..], &second[2..])).sqrt()
}

#[test]
fn fedrep_finds_what_devices_share_by_a_factor_in_each_round() {
    // Heads around the circle: together they see both directions of the true span equally well.
    let devices: Vec<Linear> = (0..8)
        .map(|i| {
            let angle = std::f32::consts::TAU * i as f32 / 8.0;
            let mut target = [0.0; INPUTS];
            (target[0], target[1]) = (angle.cos(), angle.sin());
            Linear { target, steps: 1 }
        })
        .collect();
    let params = INPUTS * FEATURES;
    let home = Home::of(params + FEATURES, [params..params + FEATURES]);
    // Columns that are as far outside as inside, and orthogonal.
    let mut body = vec![0.0; params];
    for (at, value) in [(0, 0.7), (4, 0.7), (3, 0.7), (7, 0.7)] {
        body[at] = value;
    }
    let mut heads = vec![vec![0.0; FEATURES]; devices.len()];
    let mut distances = vec![outside(&body)];
    for _ in 0..25 {
        let mut mean = vec![0.0; params];
        for (device, head) in devices.iter().zip(&mut heads) {
            let toml = "name = \"fedrep\"\nhead_steps = 60";
            let (raw, own) = participate(toml, &body, &home, head, &mut device.clone());
            *head = own;
            mean.iter_mut().zip(&raw.sections[0]).for_each(|(mean, d)| *mean += d / devices.len() as f32);
        }
        body.iter_mut().zip(mean).for_each(|(b, d)| *b += d);
        distances.push(outside(&body));
    }
    // With heads at their optimum a body column's part outside the span shrinks by 1 − η λ(mean h hᵀ), λ about ½ here.
    let worst = distances.windows(2).map(|two| two[1] / two[0]).fold(0.0, f64::max);
    assert!(worst < 0.97, "{distances:?}");
    assert!(distances[25] < 0.1 * distances[0], "{distances:?}");
    // What FedAvg makes of the same: one head for all, whose best is no prediction at all, and the body stays.
    let mut whole = [&body[..], &[0.1, 0.1]].concat();
    let begun = outside(&whole[..params]);
    for _ in 0..25 {
        let deltas = devices.iter().map(|device| {
            let plan = plan(params + FEATURES);
            build("name = \"fedavg\"").local(&start(&whole, &plan), &mut device.clone()).unwrap().sections[0].clone()
        });
        let mean = deltas.fold(vec![0.0; whole.len()], |mut mean, delta| {
            mean.iter_mut().zip(delta).for_each(|(m, d)| *m += d / devices.len() as f32);
            mean
        });
        whole.iter_mut().zip(mean).for_each(|(w, d)| *w += d);
    }
    assert!(outside(&whole[..params]) > 0.5 * begun);
}
