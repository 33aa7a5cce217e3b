//! Running stages are measured and planned over, and the text is that of one process wherever the plan puts the layers.
//! How fast they were is asserted nowhere.

use super::server::{Folder, Server, binary};
use super::stages::{Stage, ground, written};
use super::tiny;
use serde_json::{Value, json};
use std::path::Path;

const SAID: &str = "The tide comes in.";

fn plan(args: &[&str]) -> (Value, bool) {
    let out = binary().args(["--json", "plan"]).args(args).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    (serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?}")), out.status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All but the head's; and its own.
fn names(of: &Value, field: &str) -> (Value, Vec<String>) {
    let names = of.as_array().unwrap().iter().map(|one| if field.is_empty() { one } else { &one[field] });
    let mut rest: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
    let head = rest.remove(0);
    rest.sort();
    (json!(head), rest)
}

#[test]
fn a_plan_over_running_stages_is_one_over_what_was_measured() {
    let (dir, _folder, head) = ground();
    let stages = ["one", "two"].map(|name| Stage::of(&dir, name, "127.0.0.1:0", &head, &["--standby-mb", "7"]));
    let (model, own, saved) = (dir.join("tiny.gguf"), dir.join("head"), dir.join("fleet.toml"));
    let dir_args = ["--dir", text(&own), "--threads", "1"];
    let fleet_args = ["--stage", &stages[0].address, "--stage", &stages[1].address, "--save", text(&saved)];
    let (live, planned) = plan(&[&[text(&model)][..], &dir_args, &fleet_args].concat());
    assert!(planned, "{live}");
    assert_eq!(live["order"][0], "head");
    let layers: u64 = live["layers"].as_array().unwrap().iter().map(|layers| layers.as_u64().unwrap()).sum();
    assert_eq!(layers, 2);
    assert!(live["predicted_tok_s"].as_f64().unwrap() > 0.0);
    assert_eq!(names(&live["why"], "device"), (json!("head"), vec!["one".into(), "two".into()]));
    assert_eq!(names(&live["measured"], "device"), (json!("head"), vec!["one".into(), "two".into()]));
    for (at, device) in live["measured"].as_array().unwrap().iter().enumerate() {
        for rate in ["read_mb_per_s", "prefill_gflops", "timed_mb", "memory_mb"] {
            assert!(device[rate].as_f64().unwrap() > 0.0, "{rate} in {device}");
        }
        assert_eq!(device["rtt_ms"].is_null(), at == 0, "{device}");
        // All run on this machine, and share its cores.
        assert!(device["host"].is_string() && device["host"] == live["measured"][0]["host"], "{device}");
    }
    assert!(live["measured"][1]["disk_free_mb"].as_f64().unwrap() <= 7.4);
    // What was saved is the same fleet.
    let (again, _) = plan(&[text(&model), "--fleet", text(&saved)]);
    for field in ["order", "layers", "summary", "proof"] {
        assert_eq!(again[field], live[field], "{field}");
    }
    // A stage that does not know this key, and one that is not there.
    let other = dir.join("other");
    let (refused, planned) = plan(&[text(&model), "--dir", text(&other), "--stage", &stages[0].address]);
    assert!(!planned && refused["error"]["what"] == "the fleet was not measured", "{refused}");
    let nobody = format!("{}@127.0.0.1:1", stages[0].address.split_once('@').unwrap().0);
    let (refused, planned) = plan(&[text(&model), "--dir", text(&own), "--stage", &nobody]);
    assert!(!planned && refused["error"]["where"] == json!(nobody), "{refused}");
}

#[test]
fn places_by_a_plan_write_the_text_of_one_process_and_its_spares_may_go() {
    let (dir, folder, head) = ground();
    let (model, own) = (dir.join("tiny.gguf"), dir.join("head"));
    let expected = written(&Server::of(Folder::new(), &model, &[]), SAID, || {});
    let mut stages = ["one", "two"].map(|name| Stage::of(&dir, name, "127.0.0.1:0", &head, &[]));
    let (first, second) = (stages[0].address.clone(), stages[1].address.clone());
    for goal in ["latency", "throughput"] {
        let args = ["--dir", text(&own), "--place", goal, "--stage", &first, "--stage", &second];
        let server = Server::of(Folder::new(), &model, &args);
        assert_eq!(server.ready["plan"]["order"][0], "head", "{}", server.ready);
        assert_eq!(written(&server, SAID, || {}), expected, "{goal}");
    }
    let server = Server::of(folder, &model, &["--dir", text(&own), "--stage", &first, "--stage", &second]);
    assert_eq!(written(&server, SAID, || stages.iter_mut().for_each(Stage::kill)), expected);
    assert_eq!(written(&server, SAID, || {}), expected);
}

/// Of six layers with their keys and values the head has room for none, and each stage for three.
#[test]
fn a_model_too_big_for_one_is_split_by_the_plan_and_a_loss_is_a_pause() {
    let (dir, folder, head) = ground();
    let (model, own) = (dir.join("tiny.gguf"), dir.join("head"));
    folder.write("tiny.gguf", tiny::gguf_layers(Some(tiny::TEMPLATE), 7, 6));
    let expected = written(&Server::of(Folder::new(), &model, &[]), SAID, || {});
    let mut stages = ["one", "two"].map(|name| Stage::of(&dir, name, "127.0.0.1:0", &head, &["--memory-mb", "6"]));
    let (first, second) = (stages[0].address.clone(), stages[1].address.clone());
    let args = ["--dir", text(&own), "--memory-mb", "4", "--stage", &first, "--stage", &second];
    let server = Server::of(folder, &model, &args);
    assert_eq!(server.ready["plan"]["layers"], json!([0, 3, 3]), "{}", server.ready);
    assert_eq!(names(&server.ready["plan"]["order"], ""), (json!("head"), vec!["one".into(), "two".into()]));
    assert_eq!(written(&server, SAID, || {}), expected);
    assert_eq!(written(&server, SAID, || stages[1].kill()), expected);
}
