//! Exit codes and error objects, command by command: wrong words are 2, what is not there is 1, and every error has its
//! four parts, also when no word of the command line could be read.

use super::world::{Folder, littoral, parts};
use serde_json::Value;

/// The error object, its four parts not empty and on one line each; nothing else on stdout.
fn refused(args: &[&str], code: i32) -> [String; 4] {
    let (found, stdout, stderr) = parts(&littoral(&[args, &["--json"]].concat()));
    assert_eq!((found, stdout.lines().count()), (code, 1), "{args:?}\nstdout: {stdout}\nstderr: {stderr}");
    let error = serde_json::from_str::<Value>(&stdout).unwrap()["error"].clone();
    assert_eq!(error.as_object().map(|fields| fields.len()), Some(4), "{args:?}: {error}");
    ["what", "where", "expected", "got"].map(|part| {
        let text = error[part].as_str().unwrap_or_default().to_owned();
        assert!(!text.trim().is_empty() && !text.contains('\n'), "{args:?}: {part}: {error}");
        text
    })
}

#[test]
fn wrong_words_are_wrong_usage() {
    let folder = Folder::new("usage");
    let job = folder.write("job.toml", &parts(&littoral(&["job", "sample"])).1);
    let (job, dir) = (job.to_str().unwrap(), folder.path("none"));
    let dir = dir.to_str().unwrap();
    let key = "a".repeat(64);
    // Arguments; then the flag or argument, and a part of what is allowed.
    let wrong: &[(&[&str], &str, &str)] = &[
        (&[], "littoral", "up, cloud"),
        (&["job"], "littoral job", "submit, ls"),
        (&["fleet", "operator"], "littoral fleet operator", "new, add"),
        (&["zzz"], "zzz", "littoral --help"),
        (&["devise"], "devise", "device"),
        (&["job", "shw", "1"], "shw", "show"),
        (&["doctor", "--nope"], "--nope", "littoral doctor --help"),
        (&["inspect"], "<FILE>", "this argument"),
        (&["plan"], "--fleet <FILE>", "this argument"),
        (&["plan", "m", "--fleet", "f", "--objective", "both"], "--objective", "latency, throughput"),
        (&["plan", "m", "--fleet", "f", "--streams", "0"], "--streams", "1 to 1024"),
        (&["sim", job, "--device", "4"], "--device", "--devices"),
        (&["job", "submit"], "<FILE>", "this argument"),
        (&["job", "show", "x"], "<JOB>", "whole number"),
        (&["job", "show", "-1"], "-1", "littoral job show --help"),
        (&["job", "show", "1", "--cloud", "xx"], "--cloud", "key@host:port"),
        (&["job", "model", "1"], "--output <FILE>", "this argument"),
        (&["job", "sample", "--kind", "music"], "--kind", "table, regression, images"),
        (&["job", "ls", "--proxy", "here"], "--proxy", "host:port"),
        (&["job", "replay", "r.json"], "--devices <DIR>", "this argument"),
        (&["fleet", "ls", "--cloud", "me@host:1"], "--cloud", "key@host:port"),
        (&["fleet", "ticket"], "--role <ROLE>", "this argument"),
        (&["fleet", "ticket", "--role", "x"], "--role", "edge, device"),
        (&["fleet", "ticket", "--role", "edge", "--uses", "0"], "--uses", "1 to 4294967295"),
        (&["fleet", "ticket", "--role", "edge", "--valid", "3"], "--valid", "90s"),
        (&["fleet", "revoke", ""], "<NODE>", "value"),
        (&["fleet", "operator", "add", "xx", "--right", "observe"], "<KEY>", "64 hexadecimal digits"),
        (&["fleet", "operator", "add", &key, "--right", "all"], "--right", "observe, submit, administer"),
        (&["join", "xx"], "<TICKET>", "littoral fleet ticket"),
        (&["join", "littoral1-aaaa"], "<TICKET>", "check sum"),
        (&["cloud", "--dir", dir, "--listen", "here"], "--listen", "127.0.0.1:7400"),
        (&["cloud", "--dir", dir, "--listen", "0.0.0.0:0"], "--advertise", "a host name or address"),
        (&["edge", "--dir", dir, "--advertise", "!!"], "--advertise", "host or host:port"),
        (&["device", "--listen", "127.0.0.1:0"], "--listen", "littoral device --help"),
        (&["up", "--devices", "0"], "--devices", "1 to 256"),
        (&["up", "--rounds", "many"], "--rounds", "whole number"),
        (&["up", "--dataset", "iris"], "--dataset", "breast_cancer, digits"),
        (&["up", "--data", "x.csv"], "--label <COLUMN>", "this argument"),
        (&["up", "--data", "x.csv", "--label", "y", "--dataset", "digits"], "--data <FILE>", "one of two"),
        (&["sim", job, "--faults", "mild"], "--faults", "none, default, harsh"),
        (&["sim", job, "--algorithms", "fedfoo"], "--algorithms", "fedavg, fedprox"),
        (&["sim", job, "--algorithms", "fedavg,fedprox"], "--algorithms", "parameters have defaults"),
        (&["sim", job, "--attack", "flip"], "--attack", "sign_flip, scaled_replacement"),
        (&["sim", job, "--attack", "alie", "--attackers", "1.0"], "--attackers", "at least 0 and below 1"),
        (&["sim", job, "--devices", "0"], "--devices", "1 to 1000000"),
        (&["sim", job, "--devices", "5"], "--devices", "at least the job's cohort.min, 6"),
        (&["sim", job, "--seeds", "0"], "--seeds", "1 to 1000000"),
        (&["sim", job, "--rows", "0"], "--rows", "1 to 1000000"),
        (&["sim", job, "--edges", "100000"], "--edges", "0 to 1024"),
        (&["pull"], "<MODEL>", "this argument"),
        (&["pull", "hf:owner/file"], "<MODEL>", "hf:owner/repo/file.gguf"),
        (&["pull", "smollm2-135m-instruct", "--sha256", "b179"], "--sha256", "64 hexadecimal digits"),
        (&["pull", "https://files.example/x.gguf"], "--sha256", "SHA-256"),
        (&["models", "rm"], "<NAMES>", "this argument"),
        (&["run", "a", "b", "-p", "c"], "[PROMPT]", "one of two"),
        (&["run", "a", "--cache-type", "q4_0"], "--cache-type", "f16, q8_0"),
        (&["privacy", "epsilon", "--mechanism", "gauss"], "--mechanism", "gaussian, laplace"),
        (&["privacy", "epsilon", "--mechanism", "gaussian"], "--noise-multiplier", "this argument"),
        (&["privacy", "calibrate", "--mechanism", "laplace", "--epsilon", "-1"], "-1", "littoral privacy calibrate"),
        (&["bench"], "littoral bench", "fedavg, algorithms, route"),
        (&["bench", "round"], "--empty", "this argument"),
        (&["bench", "fedavg", "--rounds", "21"], "--rounds", "1 to 20"),
        (&["bench", "compress", "--recipe", "name = 'eden', bits = 5"], "--recipe", "allowed is 1 to 4"),
        (&["bench", "compress", "--recipe", "name = 'zip'"], "--recipe", "expected one of `eden`"),
        (&["bench", "aggregate", "--together", "1"], "--together", "2 to 32"),
        (&["bench", "deployed", "--nodes", "x"], "--nodes", "whole number"),
    ];
    for (args, place, expected) in wrong {
        let [what, at, allowed, _] = refused(args, 2);
        assert_eq!(what, "wrong usage", "{args:?}");
        assert!(at.contains(place), "{args:?}: where: {at}");
        assert!(allowed.contains(expected), "{args:?}: expected: {allowed}");
    }
    assert!(!folder.path("none").exists(), "wrong usage makes no folder");
    let (code, stdout, stderr) = parts(&littoral(&["sim", job, "--devices", "5"]));
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (2, "", 2), "one line and one hint: {stderr}");
}

#[test]
fn what_is_not_there_is_a_failure() {
    let folder = Folder::new("absent");
    let sample = parts(&littoral(&["job", "sample"])).1;
    let job = folder.write("job.toml", &sample);
    let path = |name: &str| folder.path(name).display().to_string();
    folder.write("file", "not a folder");
    let (job, none, under) = (job.to_str().unwrap(), path("none"), path("file/state"));
    let table = path("none/x.csv");
    let absent: &[(&[&str], &str, &str)] = &[
        (&["cloud", "--config", &none], &none, "a readable file"),
        (&["cloud", "--dir", &under], &under, "a folder to write in"),
        (&["edge", "--dir", &none], &none, "an enrolment"),
        (&["device", "--dir", &none], &none, "an enrolment"),
        (&["fleet", "ls", "--dir", &none], &none, "a cloud that has run"),
        (&["fleet", "rotate", "--dir", &none], &none, "an enrolment"),
        (&["fleet", "operator", "new", &table], &table, "a key file"),
        (&["job", "submit", &none], &none, "a readable file"),
        (&["job", "show", "1", "--dir", &none], &none, "a cloud that has run"),
        (&["job", "replay", &none, "--devices", &none], &none, "a readable file"),
        (&["up", "--dir", &under], &under, "an empty or new folder"),
        (&["up", "--data", &none, "--label", "y"], &none, "a CSV file"),
        (&["sim", &none], &none, "a readable file"),
        (&["sim", job, "--csv", &table], &table, "a file that can be written"),
        (&["sim", job, "--svg", &under], &under, "a file that can be written"),
        (&["bench", "fedavg"], "LITTORAL_DATA", "a folder with mnist/"),
    ];
    for (args, place, expected) in absent {
        let [_, at, allowed, _] = refused(args, 1);
        assert!(at.contains(place) && allowed.contains(expected), "{args:?}: {at} | {allowed}");
    }
    assert!(!folder.path("none").exists(), "asking for what is not there makes no folder");
}

#[test]
fn damaged_state_is_one_error() {
    let folder = Folder::new("damaged");
    let cloud = folder.path("cloud").display().to_string();
    // A key that others can read, one that is none, and a database of which the middle is gone; each in a folder whose first
    // start was broken off, so that nothing is missing.
    folder.write("cloud/unfinished", "");
    folder.write("cloud/key", "no key\n");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    let [_, at, _, got] = refused(&["cloud", "--dir", &cloud, "--listen", "127.0.0.1:0"], 1);
    assert!(at.ends_with("cloud/key") && got == "mode 644", "{at} {got}");
    std::fs::set_permissions(folder.path("cloud/key"), closed).unwrap();
    let [_, at, expected, got] = refused(&["cloud", "--dir", &cloud, "--listen", "127.0.0.1:0"], 1);
    assert!(at.ends_with("cloud/key") && expected.contains("64 hex") && got == "7 bytes of others", "{at} {got}");
    let other = folder.path("other").display().to_string();
    folder.write("other/unfinished", "");
    let database = folder.write("other/littoral.sqlite", &"SQLite format 3\0".repeat(1_000));
    let [what, at, ..] = refused(&["cloud", "--dir", &other, "--listen", "127.0.0.1:0"], 1);
    assert_eq!((what.as_str(), at), ("the store is damaged", database.display().to_string()));
}
