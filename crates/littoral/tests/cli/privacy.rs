//! `privacy epsilon` and `privacy calibrate`: numbers for programs, and what is refused.

use super::kinds::trained;
use super::world::{Folder, json, littoral, parts};
use serde_json::Value;

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
        ("epsilon --mechanism discrete-gaussian --noise-multiplier 1 --dim 5", "got discrete-gaussian"),
    ] {
        let words: Vec<&str> = ["privacy"].into_iter().chain(words.split(' ')).collect();
        let (code, stdout, stderr) = parts(&littoral(&words));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 1), "{words:?}: {stderr}");
        assert!(stderr.contains(place), "{words:?}: {stderr}");
    }
}

#[test]
fn a_job_says_itself_how_it_is_accounted() {
    let folder = Folder::new("accounted");
    let job = folder.write("job.toml", EXAMPLES);
    let plain = ["--json", "privacy", "epsilon", "--job", job.to_str().unwrap()];
    assert_eq!(parts(&littoral(&plain)).0, 0);
    // Also with the value that a flag has without being given.
    for flag in [
        "--mechanism gaussian",
        "--noise-multiplier 1",
        "--steps 1",
        "--delta 1e-5",
        "--sampling-rate 1",
        "--sampling poisson",
        "--accountant pld",
        "--adjacency add-remove",
        "--discretisation up",
        "--clients 5",
        "--min-survivors 4",
        "--colluding 1",
        "--dim 9",
        "--clip 1",
        "--bits 20",
        "--rounding-beta 0.5",
    ] {
        let words: Vec<&str> = plain.into_iter().chain(flag.split(' ')).collect();
        let (code, stdout, _) = parts(&littoral(&words));
        assert_eq!((code, stdout.lines().count()), (2, 1), "{flag}: {stdout}");
        let error: Value = serde_json::from_str(&stdout).unwrap();
        let got = error["error"]["got"].as_str().unwrap();
        assert!(got.contains("--job") && got.contains(flag.split(' ').next().unwrap()), "{flag}: {stdout}");
    }
}

#[test]
fn no_epsilon_is_infinite_and_no_number_long() {
    let error = |words: &str| {
        let found = privacy(words);
        let part = |name: &str| found["error"][name].as_str().unwrap().to_owned();
        ["what", "where", "expected", "got"].map(part)
    };
    for more in ["", " --accountant rdp", " --sampling-rate 0.5 --accountant rdp"] {
        let found = error(&format!("epsilon --mechanism gaussian --noise-multiplier 1e-308{more}"));
        let wanted = ["no account", "--noise-multiplier", "one whose epsilon is finite for delta 1e-5", "1e-308"];
        assert_eq!(found, wanted, "{more}");
    }
    let [_, place, expected, got] = error("calibrate --mechanism gaussian --epsilon 1e-300");
    assert!(place == "--epsilon" && expected.starts_with("1e-300 with ") && got.len() < 40, "{expected}, {got}");
}

/// Ten rounds of a hundred steps.
const EXAMPLES: &str = r#"
name = "examples"
model = { kind = "mlp", hidden = [64] }
algorithm = { name = "fedavg" }
local = { batch = 4, optimiser = { name = "sgd", learning_rate = 0.1 } }
cohort = { target = 2 }
rounds = { count = 10 }

[data]
set = "clinic"
standardise = false
held_out = 0.0
schema = { label = { name = "ill", classes = ["no", "yes"] }, fields = [{ name = "age" }] }

[differential_privacy]
mechanism = "example-gaussian"
clip = 0.5
noise_multiplier = 1.0
sampling_rate = 0.01
epsilon = 2.0
attempts_max = 2
"#;

/// What a job with examples as its unit costs: models show 1,000 steps of a device, edges and cloud may see 2,000.
fn told_of_examples(privacy: &Value) {
    // A millionth for the last digit of the oracle, 10^-5 for what exact noise has beside a Gaussian's.
    let close = |found: &Value, wanted: f64| (found.as_f64().unwrap() / wanted - 1.0).abs() < 1.1e-5;
    let gaussian = "--mechanism gaussian --noise-multiplier 1 --sampling-rate 0.01";
    let twice = self::privacy(&format!("epsilon {gaussian} --steps 2000"))["epsilon"].as_f64().unwrap();
    let viewers = privacy["viewers"].as_array().unwrap();
    // Of 1,000 steps Google's dp-accounting 0.6.0 says this: see `oracles/dp_epsilon.py`.
    for (viewer, (name, wanted)) in
        viewers.iter().zip([("whoever gets the models", 1.828244), ("an edge", twice), ("the cloud", twice)])
    {
        assert_eq!((&viewer["viewer"], &viewer["delta"]), (&name.into(), &1e-5.into()), "{privacy}");
        assert!(close(&viewer["epsilon"], wanted), "{name}, {wanted}: {privacy}");
    }
    assert_eq!(viewers.len(), 3);
}

#[test]
fn a_job_whose_unit_is_an_example_is_accounted_for_each_viewer() {
    let folder = Folder::new("examples");
    let epsilon = |text: &str| {
        let job = folder.write("job.toml", text);
        json(&["privacy", "epsilon", "--job", job.to_str().unwrap()])
    };
    let found = epsilon(EXAMPLES);
    told_of_examples(&found);
    assert_eq!(found["unit"], "one example of one device");
    assert_eq!((&found["models"], &found["participations"], &found["budget"]), (&10.into(), &20.into(), &2.0.into()));
    assert_eq!(found["epsilon"], found["viewers"][0]["epsilon"]);
    // A device that takes part ten times at most is in ten versions, and shows nobody more than that.
    let capped = epsilon(&EXAMPLES.replace("attempts_max = 2", "participations_max = 10"));
    for viewer in capped["viewers"].as_array().unwrap() {
        assert_eq!(viewer["epsilon"], found["epsilon"], "{capped}");
    }

    // A fleet says the same of it, and what was spent.
    let rows = |first: u32| {
        let rows = (first..first + 20).map(|row| format!("{},{}\n", row % 7, if row % 7 > 3 { "yes" } else { "no" }));
        format!("age,ill\n{}", rows.collect::<String>())
    };
    folder.write("north/rows.csv", &rows(0));
    folder.write("south/rows.csv", &rows(5));
    let site = "[data.clinic]\nfiles = [\"rows.csv\"]";
    let done = trained(&folder, EXAMPLES, [("north", site), ("south", site)]);
    let privacy = &done["privacy"];
    told_of_examples(privacy);
    let told = privacy["told"].as_str().unwrap();
    let start = "What is seen hardly depends on one example of one device: whoever gets the models (ε = 1.83, δ = 1e-5), an edge (ε = ";
    assert!(told.starts_with(start) && told.contains("the device is not what is protected"), "{told}");
    assert_eq!((&privacy["models"], &privacy["participations"]), (&10.into(), &10.into()));
    assert!(done["last"]["accuracy"].is_null(), "{done}");
}
