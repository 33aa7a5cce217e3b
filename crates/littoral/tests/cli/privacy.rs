//! `privacy epsilon` and `privacy calibrate`: numbers for programs, and what is refused.

use super::world::{json, littoral, parts};

fn privacy(words: &str) -> serde_json::Value {
    json(&[&["privacy"], words.split(' ').collect::<Vec<_>>().as_slice()].concat())
}

#[test]
fn epsilons_are_those_of_the_library() {
    // Google's dp-accounting 0.6.0, to the sixth digit: see `oracles/dp_epsilon.py`.
    for (words, wanted) in [
        ("--mechanism gaussian --noise-multiplier 1 --sampling-rate 0.01 --steps 1000 --accountant rdp", 2.101367),
        ("--mechanism gaussian --noise-multiplier 1 --sampling-rate 0.01 --steps 1000", 1.828244),
        ("--mechanism laplace --noise-multiplier 2.8284271247461903 --steps 20 --delta 1e-6", 9.670920),
        ("--mechanism discrete-gaussian --noise-multiplier 1 --sampling-rate 0.05 --steps 200", 4.777200),
        ("--mechanism skellam --noise-multiplier 2 --steps 16", 9.637884),
        (
            "--mechanism gaussian --noise-multiplier 1 --sampling-rate 0.05 --steps 200 --sampling fixed \
             --adjacency replace-one --accountant rdp",
            9.279486,
        ),
    ] {
        let epsilon = privacy(&format!("epsilon {words}"))["epsilon"].as_f64().unwrap();
        assert!((epsilon / wanted - 1.0).abs() < 1e-6, "{words}: {epsilon}");
    }
}

#[test]
fn a_sum_over_devices_says_what_each_adds() {
    let setting = "--clients 100 --min-survivors 90 --colluding 10 --dim 1000 --bits 24 --steps 10";
    for mechanism in ["distributed-discrete-gaussian", "distributed-skellam"] {
        let found = privacy(&format!("epsilon --mechanism {mechanism} {setting} --noise-multiplier 2"));
        let number = |name: &str| found[name].as_f64().unwrap();
        assert_eq!(number("honest_shares"), 80.0);
        let z = number("share_sigma") * 80f64.sqrt() / number("l2_sensitivity");
        assert!((z - 2.0).abs() < 1e-6, "{found}");
        // A Gaussian of that noise multiplier, by the same accountant, and no less.
        let gaussian = privacy("epsilon --mechanism gaussian --noise-multiplier 2 --steps 10 --accountant rdp");
        let ratio = number("epsilon") / gaussian["epsilon"].as_f64().unwrap();
        assert!((1.0 - 1e-9..1.01).contains(&ratio), "{mechanism}: {ratio}");
    }
}

#[test]
fn calibrated_noise_meets_its_target() {
    let setting = "--mechanism skellam --sampling-rate 0.05 --steps 50 --delta 1e-6";
    let z = privacy(&format!("calibrate --epsilon 2 {setting}"))["noise_multiplier"].as_f64().unwrap();
    let epsilon = |z: f64| privacy(&format!("epsilon --noise-multiplier {z} {setting}"))["epsilon"].as_f64().unwrap();
    assert!(epsilon(z) <= 2.0 && epsilon(z * 0.999) > 2.0, "{z}");
}

#[test]
fn combinations_that_mean_nothing_are_one_line() {
    for (words, place) in [
        ("epsilon --mechanism gaussian --noise-multiplier 1 --clients 5", "--clients"),
        ("epsilon --mechanism distributed-skellam --noise-multiplier 1 --clients 5", "--dim"),
        ("epsilon --mechanism distributed-skellam --noise-multiplier 1 --clients 5 --dim 9 --bits 4", "--bits"),
        (
            "epsilon --mechanism distributed-skellam --noise-multiplier 1 --clients 5 --dim 9 --accountant pld",
            "--accountant",
        ),
        (
            "epsilon --mechanism gaussian --noise-multiplier 1 --sampling-rate 0.1 --adjacency replace-one",
            "--adjacency",
        ),
    ] {
        let words: Vec<&str> = ["privacy"].into_iter().chain(words.split(' ')).collect();
        let (code, stdout, stderr) = parts(&littoral(&words));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{words:?}: {stderr}");
        assert!(stderr.contains(place), "{words:?}: {stderr}");
    }
}
