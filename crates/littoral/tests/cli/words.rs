//! What people and programs are told when they ask for something wrong.

use super::world::{Folder, json, littoral, parts};
use serde_json::Value;

fn error(args: &[&str]) -> [String; 4] {
    let error = json(args)["error"].clone();
    assert_eq!(error.as_object().map(|fields| fields.len()), Some(4), "{error}");
    ["what", "where", "expected", "got"].map(|part| error[part].as_str().unwrap().to_owned())
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    for args in [
        &["nope"][..],
        &["job"],
        &["job", "show", "x"],
        &["fleet", "ticket"],
        &["--nope"],
        &["run", "m", "--seed", "x"],
    ] {
        let (code, stdout, stderr) = parts(&littoral(args));
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}");
        assert!(stderr.contains("--help"), "{args:?}: {stderr}");
    }
    assert_eq!(parts(&littoral(&["--help"])).0, 0);
}

#[test]
fn a_wrong_configuration_is_named_by_file_line_and_field() {
    let folder = Folder::new("config");
    let file = folder.write("cloud/cloud.toml", "name = \"c\"\n\n[network]\ntransprt = \"tcp\"\n");
    let dir = folder.path("cloud").display().to_string();
    let [what, place, expected, got] = error(&["cloud", "--dir", &dir]);
    assert_eq!(what, "the configuration was refused");
    assert_eq!(place, format!("{}, line 4, network.transprt", file.display()));
    assert!(expected.starts_with("transport? known: transport, proxy"), "{expected}");
    assert_eq!(got, "unknown field transprt");

    folder.write("cloud/cloud.toml", "listen = \"127.0.0.1\"\n");
    let [_, place, expected, got] = error(&["cloud", "--dir", &dir]);
    assert!(place.ends_with("line 1, listen"), "{place}");
    assert_eq!((expected.as_str(), got.as_str()), ("an IP address and a port such as 127.0.0.1:7400", "\"127.0.0.1\""));
}

#[test]
fn a_wrong_job_is_named_by_field_value_and_what_is_allowed() {
    let folder = Folder::new("job");
    let sample = parts(&littoral(&["job", "sample"])).1;
    let file = folder.path("job.toml");
    let submit = ["job", "submit", file.to_str().unwrap()];
    for (from, to, place, expected, got) in [
        ("epochs = 2", "epochs = 0", "local.epochs", "1 to 1000", "0"),
        ("held_out = 0.2", "held_out = 1.5", "data.held_out", "a fraction of at least 0 and below 1", "1.5"),
        ("[cohort]", "[chohort]", "line 33, chohort", "cohort? known: name", "unknown field chohort"),
    ] {
        folder.write("job.toml", &sample.replace(from, to));
        let [what, at, allowed, found] = error(&submit);
        assert_eq!(what, "the job was refused");
        assert!(at.contains("job.toml, ") && at.contains(place), "{at}");
        assert!(allowed.contains(expected) && found.contains(got), "{allowed} | {found}");
    }
    // What is wrong by itself is said at once.
    folder.write("job.toml", &sample.replace("epochs = 2", "epochs = 0").replace("count = 10", "count = 0"));
    let [_, at, allowed, found] = error(&submit);
    assert!(at.ends_with("job.toml, local.epochs; rounds.count"), "{at}");
    assert_eq!((allowed.as_str(), found.as_str()), ("1 to 1000; 1 to 1000000", "0; 0"));
    let (code, stdout, stderr) = parts(&littoral(&submit));
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 2), "one line and one hint: {stderr}");
}

#[test]
fn machines_without_an_enrolment_and_clouds_that_are_not_there() {
    let folder = Folder::new("nobody");
    let dir = folder.path("nowhere");
    let [what, place, ..] = error(&["device", "--dir", dir.to_str().unwrap()]);
    assert_eq!((what.as_str(), place.as_str()), ("this machine is not enrolled", dir.to_str().unwrap()));
    assert!(!dir.exists(), "a machine that nobody let in makes no folder");
    let [what, ..] = error(&["fleet", "ls", "--dir", dir.to_str().unwrap()]);
    assert_eq!(what, "the cloud was not found");
}

/// Job 1 of one cloud is not job 1 of another: what a device keeps between rounds must not meet it.
#[test]
fn a_machine_of_one_cloud_joins_no_other() {
    use littoral_wire::message::Role;
    let folder = Folder::new("two-clouds");
    let before = "a".repeat(64);
    let file = folder.write("d/enrolment.toml", &format!("name = \"d\"\ncloud = \"{before}\"\nupstreams = []\n"));
    let (cloud, secret) = (littoral_wire::NodeId([7; 32]), [0; 16]);
    let ticket = littoral_wire::ticket::Ticket {
        cloud,
        secret,
        role: Role::Device,
        addresses: Default::default(),
        roster: None,
    };
    let [what, place, _, got] = error(&["join", &ticket.to_string(), "--dir", folder.path("d").to_str().unwrap()]);
    assert_eq!((what, place), ("join refused".into(), file.display().to_string()));
    assert_eq!(got, "one that cloud aaaaaaaa let in");
}

#[test]
fn a_simulation_is_its_seed() {
    let folder = Folder::new("sim");
    let job = folder.write("job.toml", &parts(&littoral(&["job", "sample"])).1);
    let job = job.to_str().unwrap();
    let run = |seed: &str| json(&["sim", job, "--devices", "12", "--seed", seed, "--faults", "default"]);
    let (first, again, other) = (run("3"), run("3"), run("4"));
    assert_eq!(first["state_hash"], again["state_hash"]);
    assert_ne!(first["state_hash"], other["state_hash"]);
    assert_eq!((first["rounds_completed"].as_u64(), &first["checks_broken"]), (Some(10), &serde_json::json!([])));

    // A sweep is JSON Lines; its runs are those of the seeds alone, and the last line adds them up.
    let sweep = ["--json", "sim", job, "--devices", "12", "--seed", "3", "--seeds", "2", "--faults", "default"];
    let (code, stdout, _) = parts(&littoral(&sweep));
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (0, 3));
    for (seed, alone) in [(3, &first), (4, &other)] {
        let line = lines[..2].iter().find(|line| line["seed"] == seed).unwrap();
        assert_eq!(line["state_hash"], alone["state_hash"]);
    }
    let both = first["device_rounds"].as_u64().unwrap() + other["device_rounds"].as_u64().unwrap();
    assert_eq!(lines[2]["summary"]["device_rounds"], both);

    // A table and a curve appear whole; the job's own algorithm keeps its parameters.
    let (table, curve) = (folder.path("rounds.csv"), folder.path("rounds.svg"));
    let files = ["--csv", table.to_str().unwrap(), "--svg", curve.to_str().unwrap()];
    let compared = ["--json", "sim", job, "--devices", "12", "--seed", "3", "--algorithms", "fedavg,fedavgm"];
    let (code, stdout, _) = parts(&littoral(&[&compared[..], &files].concat()));
    assert_eq!((code, stdout.lines().count()), (0, 3), "{stdout}");
    assert!(std::fs::read_to_string(table).unwrap().lines().count() > 20);
    assert!(std::fs::read_to_string(curve).unwrap().starts_with("<svg"));
    assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 3, "nothing else is left there");
}

#[test]
fn doctor_looks_and_has_no_nulls() {
    let found = json(&["doctor"]);
    assert!(found["cores"].as_u64().unwrap() >= 1);
    assert_eq!(found["tcp"], "loopback works");
    assert!(!found.to_string().contains("null"));
    // What peers compare is told the same everywhere.
    let version = json(&["--version"]);
    for told in [&found, &version] {
        assert_eq!(told["kernels"], littoral_tensor::quant::KERNELS);
        assert_eq!(told["protocol"], littoral_wire::hello::PROTOCOL);
    }
}

/// A machine's key is known before it is started, so that others can let it in; it stays the same.
#[test]
fn a_machines_key_is_made_and_printed() {
    let folder = Folder::new("key");
    let dir = folder.path("two").display().to_string();
    let key = json(&["key", "--dir", &dir])["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), 64);
    assert_eq!(parts(&littoral(&["key", "--dir", &dir])), (0, format!("{key}\n"), String::new()));
}
