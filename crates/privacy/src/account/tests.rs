//! Accounts against published figures and against each other; `tests/accounts.rs` has more against dp-accounting.

use super::*;

const DOTS: Method =
    Method { accountant: Accountant::Pld, adjacency: Adjacency::AddRemove, discrete: Discretisation::Dots };
const RDP: Method = Method { accountant: Accountant::Rdp, ..DOTS };
const REPLACE: Method = Method { adjacency: Adjacency::ReplaceOne, ..DOTS };

fn loss(mechanism: Mechanism, sampling: Sampling, count: u64) -> Loss {
    Loss { mechanism, sampling, count }
}

fn gaussian_of(noise_multiplier: f64) -> Mechanism {
    Mechanism::Gaussian { noise_multiplier }
}

fn poisson(rate: f64) -> Sampling {
    Sampling::Poisson { rate }
}

#[test]
fn unlike_rounds_compose_in_any_order() {
    // Two halves are the whole; a Gaussian over everybody folds with others; adding in another order changes nothing.
    let whole = Composition::of([loss(gaussian_of(1.0), poisson(0.05), 200)]).epsilon(1e-5, DOTS).unwrap();
    let halves = [loss(gaussian_of(1.0), poisson(0.05), 120), loss(gaussian_of(1.0 + 1e-12), poisson(0.05), 80)];
    let parts = Composition::of(halves).epsilon(1e-5, DOTS).unwrap();
    assert!((whole / parts - 1.0).abs() < 1e-8, "{whole} {parts}");

    let mixed = [
        loss(gaussian_of(2.0), poisson(0.1), 50),
        loss(Mechanism::Skellam { variance: 100.0, sensitivity: 2 }, Sampling::ALL, 3),
        loss(Mechanism::Laplace { scale: 8.0 }, Sampling::ALL, 2),
        loss(gaussian_of(6.0), Sampling::ALL, 4),
    ];
    let there = Composition::of(mixed.clone()).epsilon(1e-6, DOTS).unwrap();
    let back = Composition::of(mixed.clone().into_iter().rev()).epsilon(1e-6, DOTS).unwrap();
    assert!((there / back - 1.0).abs() < 1e-8, "{there} {back}");
    let renyi = Composition::of(mixed.clone()).epsilon(1e-6, RDP).unwrap();
    assert!(there < renyi && renyi < 1.4 * there, "{there} {renyi}");
    // Less is released: less is lost.
    let fewer = Composition::of(mixed[..3].to_vec()).epsilon(1e-6, DOTS).unwrap();
    assert!(fewer < there, "{fewer} {there}");
}

#[test]
fn the_adding_direction_counts() {
    // Randomised response of someone who is there against a sure answer: only one direction has a bounded loss.
    let one_sided = Mechanism::Outcomes(vec![(0.5, 0.0), (0.5, 1.0)]);
    let error = Composition::of([loss(one_sided.clone(), Sampling::ALL, 1)]).epsilon(1e-5, DOTS);
    assert_eq!(error, Err(AccountError::NoEpsilon { delta: 1e-5 }));
    let swapped = Mechanism::Outcomes(vec![(0.0, 0.5), (1.0, 0.5)]);
    let error = Composition::of([loss(swapped, Sampling::ALL, 1)]).epsilon(1e-5, DOTS);
    assert_eq!(error, Err(AccountError::NoEpsilon { delta: 1e-5 }));
    assert_eq!(Composition::of([loss(one_sided, Sampling::ALL, 1)]).epsilon(0.5, DOTS), Ok(0.0));
}

#[test]
fn randomised_response_has_its_closed_form() {
    // Truth with probability e^ε / (1 + e^ε): pure ε; δ below buys ln of (p - δ) / (1 - p).
    let pure = 1.2345f64;
    let p = pure.exp() / (1.0 + pure.exp());
    let response = Mechanism::Outcomes(vec![(p, 1.0 - p), (1.0 - p, p)]);
    let found = Composition::of([loss(response.clone(), Sampling::ALL, 1)]).epsilon(1e-3, DOTS).unwrap();
    let exact = ((p - 1e-3) / (1.0 - p)).ln();
    // Above the truth by at most a grid step.
    assert!(found >= exact - 1e-12 && found < exact + 1e-4, "{found} {exact}");
    // Discrete Laplace noise of sensitivity 1 is such a response, with the same divergences.
    let laplace = Mechanism::DiscreteLaplace { scale: 1.0 / pure, sensitivity: 1 };
    for method in [DOTS, RDP] {
        let a = Composition::of([loss(laplace.clone(), poisson(0.3), 20)]).epsilon(1e-6, method).unwrap();
        let b = Composition::of([loss(response.clone(), poisson(0.3), 20)]).epsilon(1e-6, method).unwrap();
        assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
    }
}

#[test]
fn wide_integer_noise_is_nearly_gaussian() {
    // σ = 40, sensitivity 20: noise multiplier 2. The discrete Gaussian never costs more than the continuous one's Rényi bound.
    let gaussian = Composition::of([loss(gaussian_of(2.0), poisson(0.1), 500)]).epsilon(1e-6, DOTS).unwrap();
    let mechanisms = [
        (Mechanism::DiscreteGaussian { sigma: 40.0, sensitivity: 20 }, 1e-4),
        // Skellam's tails are heavier by 1/σ².
        (Mechanism::Skellam { variance: 1600.0, sensitivity: 20 }, 5e-3),
    ];
    for (mechanism, near) in mechanisms {
        let found = Composition::of([loss(mechanism.clone(), poisson(0.1), 500)]).epsilon(1e-6, DOTS).unwrap();
        assert!((found / gaussian - 1.0).abs() < near, "{mechanism:?}: {found} {gaussian}");
        let renyi = Composition::of([loss(mechanism, poisson(0.1), 500)]).epsilon(1e-6, RDP).unwrap();
        assert!(found < renyi && renyi < 1.2 * found, "{found} {renyi}");
    }
}

#[test]
fn samples_of_fixed_size() {
    let fixed = |rate, method| {
        Composition::of([loss(gaussian_of(1.0), Sampling::Fixed { rate }, 200)]).epsilon(1e-5, method).unwrap()
    };
    // Everybody is no sample.
    let all = Composition::of([loss(gaussian_of(1.0), Sampling::ALL, 200)]).epsilon(1e-5, DOTS).unwrap();
    assert_eq!(fixed(1.0, REPLACE), all);
    // Both accountants bound one thing: the tight one is lower than the Rényi bound, which its authors call loose, and not
    // lower than Poisson sampling with the same noise, whose worst direction it contains.
    let renyi = Method { accountant: Accountant::Rdp, ..REPLACE };
    let poisson = Composition::of([loss(gaussian_of(1.0), poisson(0.05), 200)]).epsilon(1e-5, DOTS).unwrap();
    assert!(fixed(0.05, REPLACE) < fixed(0.05, renyi));
    assert!(fixed(0.05, REPLACE) >= poisson * (1.0 - 1e-9), "{} {poisson}", fixed(0.05, REPLACE));
    // Adding one to the data changes a sample by at most one replaced record.
    assert_eq!(fixed(0.05, REPLACE), fixed(0.05, DOTS));
}

#[test]
fn what_cannot_be_accounted_is_refused() {
    let mut all = Composition::new();
    assert_eq!(all.epsilon(1e-5, DOTS), Ok(0.0), "nothing was released");
    for (mechanism, sampling) in [
        (gaussian_of(0.0), Sampling::ALL),
        (gaussian_of(f64::NAN), Sampling::ALL),
        (gaussian_of(1.0), poisson(0.0)),
        (gaussian_of(1.0), Sampling::Fixed { rate: 1.5 }),
        (Mechanism::Skellam { variance: 1.0, sensitivity: 0 }, Sampling::ALL),
        (Mechanism::Outcomes(vec![(0.5, 1.0)]), Sampling::ALL),
    ] {
        assert!(all.add(loss(mechanism, sampling, 1)).is_err());
    }
    all.add(loss(gaussian_of(1.0), poisson(0.1), 1)).unwrap();
    assert!(matches!(all.epsilon(1e-5, REPLACE), Err(AccountError::Impossible { .. })));
    for delta in [0.0, 1e-16, 1.0, f64::NAN] {
        assert!(matches!(all.epsilon(delta, DOTS), Err(AccountError::Range { .. })));
    }
    let wide = Composition::of([loss(Mechanism::Skellam { variance: 1e15, sensitivity: 1 }, Sampling::ALL, 1)]);
    assert!(matches!(wide.epsilon(1e-5, DOTS), Err(AccountError::Range { .. })));
    assert!(wide.epsilon(1e-5, RDP).is_ok());
}
