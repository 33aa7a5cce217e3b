//! `littoral route calibrate` as people and programs use it: the real binary and a tiny made-up model.

#[path = "../serve/tiny.rs"]
mod tiny;

use littoral_infer::route::features::When;
use littoral_infer::route::saved::Saved;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

struct World(PathBuf);

impl World {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("littoral-route-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tiny.gguf"), tiny::gguf(true)).unwrap();
        Self(dir)
    }

    /// Both models are the same one.
    fn calibrate(&self, prompts: &str, args: &[&str]) -> Output {
        fs::write(self.0.join("prompts.jsonl"), prompts).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
        command.env_clear().env("LITTORAL_HOME", self.0.join("home")).current_dir(&self.0);
        command.args([
            "route",
            "calibrate",
            "--small",
            "tiny.gguf",
            "--big",
            "tiny.gguf",
            "--prompts",
            "prompts.jsonl",
        ]);
        command.args(["--max-tokens", "3", "--threads", "1", "--json"]).args(args).output().unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// A model is never worse than itself: of 150 prompts 100 calibrate, without a failure, which bounds their share by
/// 1 - (δ/2)^(1/100), or by 1 - δ^(1/100) for the only router.
#[test]
fn a_model_may_always_answer_for_itself() {
    let world = World::new("itself");
    let prompts: String = (0..150).map(|i| format!("{{\"prompt\": \"{i} + {i}?\"}}\n")).collect();
    let said = json(&world.calibrate(&prompts, &["-o", "route.json", "--keep", "kept.json"]));
    assert_eq!((&said["agreement"], &said["worse"], &said["prompts"]), (&1.0.into(), &0.0.into(), &150.into()));
    let text = fs::read_to_string(world.0.join("route.json")).unwrap();
    let saved = Saved::parse(&text).unwrap();
    for (name, when) in [("before", When::Before), ("after", When::After)] {
        let found = saved.router(when).calibration.as_ref().unwrap();
        assert_eq!((found.threshold, found.kept, found.kept_worse), (0.0, 100, 0));
        assert!((found.upper_bound - (1.0 - 0.05f64.powf(0.01))).abs() < 1e-9 && found.delta == 0.05);
        assert_eq!(said[name]["threshold"], 0.0);
    }
    assert_eq!(saved.examples.len(), 150);
    // The second time nobody is asked, and nothing is different.
    let again = world.calibrate(&prompts, &["-o", "again.json", "--keep", "kept.json"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("150 of 150 prompts answered"), "{again:?}");
    assert_eq!(fs::read_to_string(world.0.join("again.json")).unwrap(), text);
    // One that was chosen before has all of it.
    let only = json(&world.calibrate(&prompts, &["-o", "only.json", "--keep", "kept.json", "--when", "after"]));
    assert!((only["after"]["upper_bound"].as_f64().unwrap() - (1.0 - 0.1f64.powf(0.01))).abs() < 1e-9, "{only}");
    assert_eq!(only["before"]["nothing"], "nothing is promised: --when was the other one");
    let saved = Saved::parse(&fs::read_to_string(world.0.join("only.json")).unwrap()).unwrap();
    assert!(saved.before.calibration.is_none() && saved.after.calibration.is_some_and(|found| found.delta == 0.1));
}

#[test]
fn what_cannot_be_promised_and_what_is_no_prompt() {
    let world = World::new("nothing");
    // Too few: the file is there, without a promise.
    let few: String = (0..12).map(|i| format!("{{\"prompt\": \"{i}?\"}}\n")).collect();
    let said = json(&world.calibrate(&few, &[]));
    assert!(said["after"]["nothing"].as_str().unwrap().starts_with("nothing can be promised: 0 of the "), "{said}");
    assert!(said["after"]["examples_needed"].as_u64().unwrap() >= 29);
    assert!(
        Saved::parse(&fs::read_to_string(world.0.join("route.json")).unwrap()).unwrap().after.calibration.is_none()
    );
    // Nobody is right: a promise that no answer is worse would be true, and of no use.
    let wrong: String = (0..60).map(|i| format!("{{\"prompt\": \"{i}?\", \"answer\": \"forty-two\"}}\n")).collect();
    let told = world.calibrate(&wrong, &[]);
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.contains("warning: the large model is right on 0 of 60 exact answers"), "{told}");
    let refused = world.calibrate("{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n", &[]);
    assert_eq!((refused.status.code(), &json(&refused)["error"]["where"]), (Some(1), &"prompts.jsonl, line 2".into()));
    let refused = world.calibrate(&few, &["--alpha", "1"]);
    assert_eq!(refused.status.code(), Some(2));
}
