//! Who may tell a cloud what: rights, from real processes; commands that are repeated, stale or of somebody else.

use super::world::{Folder, Machine, json, littoral, parts, until};
use littoral_node::config::Network;
use littoral_node::deploy::Session;
use littoral_node::host::keys;
use littoral_wire::message::{COMMAND_DOMAIN, command_bytes};
use littoral_wire::{Blob, Message, NodeId, SecretKey};
use serde_json::Value;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn jobs_of(folder: &Folder) -> std::path::PathBuf {
    folder.write("job.toml", &parts(&littoral(&["job", "sample"])).1)
}

#[test]
fn observers_see_jobs_and_models_and_change_nothing() {
    let folder = Folder::new("operators");
    folder.write("cloud/cloud.toml", "listen = \"127.0.0.1:0\"\n");
    let dir = folder.path("cloud");
    let cloud = Machine::start("cloud", &dir);
    let key_file = folder.path("eve.key");
    let key = json(&["fleet", "operator", "new", text(&key_file)])["key"].as_str().unwrap().to_owned();
    let address = cloud.ready["address"].as_str().unwrap();
    let eve = ["--cloud", address, "--key", text(&key_file)];
    let as_eve = |args: &[&str]| json(&[args, &eve].concat());

    assert!(as_eve(&["job", "ls"])["error"]["expected"].as_str().unwrap().contains("administrator let in"));
    json(&["fleet", "operator", "add", &key, "--right", "observe", "--name", "eve", "--dir", text(&dir)]);
    assert_eq!(as_eve(&["job", "ls"])["jobs"], serde_json::json!([]));
    let refused = as_eve(&["fleet", "ticket", "--role", "edge"]);
    assert_eq!(refused["error"]["expected"], "the right to administer");
    assert_eq!(refused["error"]["got"], "the right to observe");

    // A job that waits says for what; stopping it ends those who watch.
    let job = jobs_of(&folder);
    assert_eq!(json(&["job", "submit", text(&job), "--dir", text(&dir)])["job"], 1);
    let shown = until("the job waits", || as_eve(&["job", "show", "1"]), |job| job["state"] == "waiting");
    assert!(shown["why"].as_str().unwrap().contains("needs 6 devices with data set `hospitals`"), "{}", shown["why"]);
    assert_eq!(as_eve(&["job", "stop", "1"])["error"]["got"], "the right to observe");
    json(&["job", "stop", "1", "--dir", text(&dir)]);
    let (code, stdout, _) = parts(&littoral(&[&["--json", "job", "watch", "1"][..], &eve].concat()));
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((code, last["summary"]["state"].as_str()), (0, Some("stopped")));

    // Each right has those before it, and no more.
    json(&["fleet", "operator", "add", &key, "--right", "submit", "--name", "eve", "--dir", text(&dir)]);
    assert_eq!(as_eve(&["job", "submit", text(&job)])["job"], 2);
    assert_eq!(as_eve(&["job", "stop", "2"])["state"], "stopped");
    for administers in [
        &["fleet", "revoke", "x"][..],
        &["fleet", "operator", "add", &key, "--right", "administer"],
        &["fleet", "ticket", "--role", "edge"],
    ] {
        assert_eq!(as_eve(administers)["error"]["expected"], "the right to administer", "{administers:?}");
    }
    json(&["fleet", "operator", "add", &key, "--right", "administer", "--name", "eve", "--dir", text(&dir)]);
    assert!(as_eve(&["fleet", "ticket", "--role", "edge"])["ticket"].as_str().unwrap().starts_with("littoral1-"));
    assert_eq!(as_eve(&["fleet", "ls"])["machines"], serde_json::json!([]));
    json(&["fleet", "operator", "add", &key, "--right", "observe", "--name", "eve", "--dir", text(&dir)]);
    assert_eq!(as_eve(&["job", "submit", text(&job)])["error"]["got"], "the right to observe");

    // Its first version is there to be taken away, and its record has no version to repeat.
    let file = folder.path("model.safetensors");
    assert_eq!(as_eve(&["job", "model", "1", "-o", text(&file)])["version"], 0);
    let bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    assert!(header.as_object().unwrap().len() > 4, "{header}");
    let record = folder.path("record.json");
    assert_eq!(as_eve(&["job", "record", "1", "-o", text(&record)])["versions"], 0);
    std::fs::create_dir(folder.path("devices")).unwrap();
    let replayed = json(&["job", "replay", text(&record), "--devices", text(&folder.path("devices"))]);
    assert_eq!(replayed["error"]["where"], "versions");
    // A name must not reach into the terminal of whoever lists jobs.
    let sample = std::fs::read_to_string(&job).unwrap();
    let (above, rest) = sample.split_once("\nname = ").unwrap();
    let below = rest.split_once('\n').unwrap().1;
    let coloured = folder.write("coloured.toml", &format!("{above}\nname = \"a\\u001b[31mb\"\n{below}"));
    let refused = json(&["job", "submit", text(&coloured), "--dir", text(&dir)]);
    assert_eq!(refused["error"]["where"].as_str().unwrap().rsplit(", ").next(), Some("name"), "{refused}");
    assert!(refused["error"]["expected"].as_str().unwrap().contains("control characters"), "{refused}");
}

#[test]
fn operators_are_listed_and_withdrawn_and_one_who_administers_stays() {
    let folder = Folder::new("withdrawn");
    folder.write("cloud/cloud.toml", "listen = \"127.0.0.1:0\"\n");
    let dir = folder.path("cloud");
    let cloud = Machine::start("cloud", &dir);
    let key_file = folder.path("eve.key");
    let key = json(&["fleet", "operator", "new", text(&key_file)])["key"].as_str().unwrap().to_owned();
    let as_admin = |args: &[&str]| json(&[&["fleet", "operator"], args, &["--dir", text(&dir)]].concat());
    let names = |reply: Value| -> Vec<(String, String)> {
        let part = |operator: &Value, field: &str| operator[field].as_str().unwrap().to_owned();
        let all = reply["operators"].as_array().unwrap().iter();
        let mut all: Vec<_> = all.map(|operator| (part(operator, "name"), part(operator, "right"))).collect();
        all.sort();
        all
    };
    let pairs = |all: &[(&str, &str)]| -> Vec<(String, String)> {
        all.iter().map(|(name, right)| ((*name).to_owned(), (*right).to_owned())).collect()
    };

    as_admin(&["add", &key, "--right", "observe", "--name", "eve"]);
    let address = cloud.ready["address"].as_str().unwrap().to_owned();
    let as_eve = |address: &str, args: &[&str]| json(&[args, &["--cloud", address, "--key", text(&key_file)]].concat());
    let listed = as_eve(&address, &["fleet", "operator", "ls"]);
    assert!(listed["operators"].as_array().unwrap().iter().any(|o| o["key"] == key.as_str()), "{listed}");
    assert_eq!(names(listed), pairs(&[("admin", "administer"), ("eve", "observe")]));
    let refused = as_eve(&address, &["fleet", "operator", "revoke", "admin"]);
    assert_eq!(refused["error"]["expected"], "the right to administer");

    // The only administrator stays one, whichever way it is tried.
    let admin = keys::load_or_create(&dir.join("operator.key")).unwrap().id().to_string();
    for last in [&["revoke", "admin"][..], &["add", &admin, "--right", "submit", "--name", "admin"]] {
        let error = as_admin(last)["error"].clone();
        assert_eq!((error["where"].as_str(), error["got"].as_str()), (Some("admin"), Some("the last one")), "{error}");
    }
    assert_eq!(as_admin(&["revoke", "nobody"])["error"]["what"], "no such operator");
    assert_eq!(as_admin(&["revoke", "eve"])["revoked"], key.as_str());
    assert!(as_eve(&address, &["job", "ls"])["error"]["expected"].as_str().unwrap().contains("administrator let in"));

    assert_eq!(cloud.terminate(), 0);
    let _cloud = Machine::start("cloud", &dir);
    assert_eq!(names(as_admin(&["ls"])), pairs(&[("admin", "administer")]));
    // With another who administers, the first one may go.
    as_admin(&["add", &key, "--right", "administer", "--name", "eve"]);
    assert_eq!(as_admin(&["revoke", &admin[..8]])["revoked"], admin.as_str());
    assert!(as_admin(&["ls"])["error"]["expected"].as_str().unwrap().contains("administrator let in"));
}

/// A command as an operator's machine sends it, and the cloud's answer.
fn send(by: &SecretKey, signer: &SecretKey, address: &str, nonce: u64, issued_at_ms: u64) -> Value {
    let order = |cloud: NodeId| {
        let body = serde_json::to_vec(&serde_json::json!({"command": "job_stop", "job": 7})).unwrap();
        let signature = signer.sign(COMMAND_DOMAIN, &command_bytes(cloud, &body, nonce, issued_at_ms));
        Message::Command { body: Blob::new(body).unwrap(), nonce, issued_at_ms, signature }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = address.parse::<littoral_node::transport::Address>().unwrap();
        let mut session = Session::dial(by, &address, &Network::default()).await.unwrap();
        session.send(&order(NodeId(address.id.0))).await.unwrap();
        let Message::Reply { body, .. } = session.answer().await.unwrap() else { panic!("no reply") };
        session.close().await;
        serde_json::from_slice(&body).unwrap()
    })
}

#[test]
fn a_command_is_carried_out_once_and_now_and_for_its_signer() {
    let folder = Folder::new("replayed");
    folder.write("cloud/cloud.toml", "listen = \"127.0.0.1:0\"\n");
    let cloud = Machine::start("cloud", &folder.path("cloud"));
    let address = cloud.ready["address"].as_str().unwrap().to_owned();
    let operator = keys::load_or_create(&folder.path("cloud/operator.key")).unwrap();
    let stranger = keys::load_or_create(&folder.path("stranger.key")).unwrap();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let refusal = |by, signer, nonce, at_ms| {
        let answer = send(by, signer, &address, nonce, at_ms);
        answer["error"]["expected"].as_str().unwrap_or_default().to_owned()
    };
    // There is no job 7: to be told so, a command must have passed all checks.
    assert_eq!(refusal(&operator, &operator, 1, now_ms), "a number that `littoral job ls` shows");
    assert_eq!(refusal(&operator, &operator, 1, now_ms), "a command that was not carried out before");
    for other_ms in [now_ms - 600_000, now_ms + 600_000] {
        assert_eq!(refusal(&operator, &operator, 2, other_ms), "clocks within five minutes");
    }
    assert_eq!(refusal(&operator, &stranger, 3, now_ms), "the operator's signature");
    assert!(refusal(&stranger, &stranger, 4, now_ms).contains("an administrator let in"));

    // What was carried out stays known when the cloud comes back.
    assert_eq!(cloud.terminate(), 0);
    let _cloud = Machine::start("cloud", &folder.path("cloud"));
    assert_eq!(refusal(&operator, &operator, 1, now_ms), "a command that was not carried out before");
    assert_eq!(refusal(&operator, &operator, 5, now_ms), "a number that `littoral job ls` shows");
}
