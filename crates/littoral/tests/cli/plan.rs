//! `littoral plan`: a tiny model over small fleets, as people and programs see it, and what is said when nothing fits.

use super::tiny;
use super::world::{Folder, json, littoral, parts};
use serde_json::{Value, json};
use std::fs;

/// 1 MB/s and nothing beside it: a layer of the tiny model, with the keys and values of 100 positions, takes 45.952 ms.
fn device(name: &str, memory_mb: f64, read_mb_per_s: f64, disk_free_mb: f64) -> String {
    format!(
        "[[device]]\nname = \"{name}\"\nmemory_mb = {memory_mb}\nread_mb_per_s = {read_mb_per_s}\nprefill_gflops = 1\n\
         overhead_us = 0\ndisk_free_mb = {disk_free_mb}\n"
    )
}

struct World {
    folder: Folder,
    args: [String; 6],
}

impl World {
    fn new(test: &str, devices: &[String]) -> Self {
        let folder = Folder::new(test);
        let model = folder.path("tiny.gguf");
        fs::write(&model, tiny::gguf(true)).unwrap();
        let network = "[network]\nrtt_ms = 2\nmbit_per_s = 8\n";
        let fleet = folder.write("fleet.toml", &format!("{network}{}", devices.concat()));
        let [model, fleet] = [model, fleet].map(|path| path.to_str().unwrap().to_owned());
        let args = ["plan".into(), model, "--fleet".into(), fleet, "--context".into(), "100".into()];
        Self { folder, args }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.args.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }
}

fn near(got: &Value, expected: f64) {
    let got = got.as_f64().unwrap_or(f64::NAN);
    assert!((got / expected - 1.0).abs() < 1e-6, "{got} is not {expected}");
}

/// `a` has room for both ends and one layer, `b` for what is left, and `c` could take its place.
fn three() -> [String; 3] {
    [device("a", 2.19, 1.0, 0.0), device("b", 2.3, 1.0, 0.0), device("c", 2.3, 0.5, 1.0)]
}

#[test]
fn a_program_sees_the_plan() {
    let world = World::new("plan-json", &three());
    let plan = json(&world.args(&[]));
    assert_eq!((&plan["order"], &plan["layers"]), (&json!(["a", "b"]), &json!([1, 1])), "{plan}");
    // The output matrix, two layers, and two hops of 1 ms and 256 bytes at 1 MB/s.
    near(&plan["predicted_tok_s"], 1e3 / (17.612 + 2.0 * 45.952 + 2.0 * 1.256));
    near(&plan["solo_tok_s"], 1e3 / (17.612 + 2.0 * 45.952));
    assert_eq!((&plan["solo_fits"], &plan["proof"]), (&json!(false), &json!("no plan is better")));
    let why: Vec<_> = plan["why"].as_array().unwrap().iter().map(|why| (&why["device"], &why["in"])).collect();
    assert_eq!(why, [(&json!("a"), &json!(true)), (&json!("b"), &json!(true)), (&json!("c"), &json!(false))]);
    near(&plan["why"][2]["otherwise_tok_s"], 1e3 / (17.612 + 3.0 * 45.952 + 2.0 * 1.256));
    assert_eq!((&plan["standby"][0]["lost"], &plan["standby"][0]["standby"]), (&json!("b"), &json!("c")));
    near(&plan["standby"][0]["load_s"], 0.033152 / 500.0);
    near(&plan["standby"][0]["tok_s"], plan["why"][2]["otherwise_tok_s"].as_f64().unwrap());
    for (used, usable) in plan["memory_mb"].as_array().unwrap().iter().zip(plan["usable_mb"].as_array().unwrap()) {
        assert!(used.as_f64().unwrap() <= usable.as_f64().unwrap(), "{plan}");
    }
    // Another head, by its name; and two streams at once.
    let fleet = fs::read_to_string(world.folder.path("fleet.toml")).unwrap();
    world.folder.write("fleet.toml", &format!("head = \"b\"\n{fleet}"));
    let plan = json(&world.args(&["--objective", "throughput", "--streams", "2", "--activations", "f16"]));
    assert_eq!(
        (&plan["order"][0], &plan["objective"], &plan["streams"]),
        (&json!("b"), &json!("throughput"), &json!(2))
    );
    assert!(plan["predicted_tok_s"].as_f64() > plan["one_stream_tok_s"].as_f64(), "{plan}");
}

#[test]
fn a_person_reads_it() {
    let world = World::new("plan-text", &three());
    let (code, stdout, stderr) = parts(&littoral(&world.args(&[])));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in [
        "tiny: 2 layers over 2 of 3 devices, 1 stream of 100 positions\n",
        "a split for memory: a alone needs 1.77 MB and may use 1.75 MB; with enough, solo would be faster: 1.023x\n",
        "a       ends, 1 (0)  1.75 of 1.75 MB  63.56 ms  1.26 ms\n",
        "one stream     8.9 tok/s (112.03 ms a token)\n",
        "b: in: a token takes 112.0 ms with it and 158.0 ms without (1.41x)\n",
        "c: out: each token would compute 46.0 ms longer\n",
        "if a is lost: nobody goes on, it has the requests\n",
        "if b is lost: c goes on after 0.69 s (0.60 noticed, 0.00 loaded, 0.09 replayed), then 6.3 tok/s\n",
    ] {
        assert!(stdout.contains(part), "{part:?} in\n{stdout}");
    }
    let alone = World::new("plan-two", &three()[..2]);
    let (_, stdout, _) = parts(&littoral(&alone.args(&[])));
    assert!(stdout.contains("if b is lost: nobody goes on, a lacks "), "{stdout}");
}

#[test]
fn what_is_wrong_is_said_in_four_parts() {
    let refused = |world: &World, more: &[&str]| {
        let error = json(&world.args(more))["error"].clone();
        ["what", "where", "expected", "got"].map(|part| error[part].as_str().unwrap().to_owned())
    };
    let world = World::new("plan-refused", &[device("a", 2.19, 1.0, 0.0), device("b", 1.0, 1.0, 0.0)]);
    let [what, place, expected, got] = refused(&world, &[]);
    assert_eq!((what.as_str(), expected.as_str()), ("there is no plan", "memory for 2 layers"));
    assert!(place.contains("a ") && place.contains("b 0 bytes") && got.starts_with("room for 1 ("), "{place} {got}");
    world.folder.write("fleet.toml", "[network]\nrtt_ms = 1\nmbit_per_s = 1\n[[device]]\nname = \"a\"\nmemory = 1\n");
    let [what, place, expected, got] = refused(&world, &[]);
    assert_eq!((what.as_str(), got.as_str()), ("the fleet was refused", "unknown field memory"));
    assert!(place.ends_with("fleet.toml, line 6, device.memory") && expected.starts_with("memory_mb? "), "{place}");
    // More positions than the model was trained for; more of them in a prompt than in all.
    let usual = World::new("plan-usage", &three());
    for (more, flag, expected) in [
        (["--context", "65537"], "--context", "at most the model's 65536 positions"),
        (["--prompt", "101"], "--prompt", "at most the context's 100 positions"),
    ] {
        let args: Vec<_> = match flag {
            "--context" => usual.args(&[]).into_iter().take(4).chain(more).chain(["--json"]).collect(),
            _ => usual.args(&more).into_iter().chain(["--json"]).collect(),
        };
        let (code, stdout, _) = parts(&littoral(&args));
        let error = serde_json::from_str::<Value>(&stdout).unwrap()["error"].clone();
        assert_eq!((code, &error["where"], &error["expected"]), (2, &json!(flag), &json!(expected)), "{error}");
    }
    fs::write(usual.folder.path("tiny.gguf"), b"GGUF").unwrap();
    assert_eq!(refused(&usual, &[])[0], "the model was not loaded");
}

/// The sample is a fleet as it stands.
#[test]
fn the_sample_plans() {
    let world = World::new("plan-sample", &[]);
    let (code, sample, _) = parts(&littoral(&["plan", "--sample"]));
    world.folder.write("fleet.toml", &sample);
    let plan = json(&world.args(&[]));
    assert_eq!((code, &plan["order"]), (0, &json!(["desk"])), "{plan}");
    assert!(plan["summary"].as_str().unwrap().starts_with("solo is faster: "), "{plan}");
}
