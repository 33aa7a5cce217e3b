//! Data and conditions of the field: `partition`, `traces`, and `sim` with both.

use super::world::{Folder, json, littoral, parts};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/digits.csv");

/// A job over the shipped digits in which `devices` take part.
fn job(folder: &Folder, devices: usize, more: &str) -> String {
    let fields: Vec<String> = (0..64).map(|i| format!("{{ name = \"pixel_{}_{}\" }}", i / 8, i % 8)).collect();
    let classes: Vec<String> = (0..10).map(|class| format!("\"{class}\"")).collect();
    let text = format!(
        "name = \"digits\"\nmodel = {{ kind = \"softmax\" }}\nalgorithm = {{ name = \"fedavg\" }}\n\
         local = {{ batch = 16, optimiser = {{ name = \"sgd\", learning_rate = 0.2 }} }}\n\
         cohort = {{ target = {devices}, min = {devices} }}\nrounds = {{ count = 3 }}\n{more}\n[data]\nset = \"digits\"\n\
         [data.schema]\nlabel = {{ name = \"digit\", classes = [{}] }}\nfields = [{}]\n",
        classes.join(", "),
        fields.join(", ")
    );
    folder.write("job.toml", &text).to_str().unwrap().to_owned()
}

/// All files below a folder.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes))),
            false => drop(found.insert(name, fs::read(&path).unwrap())),
        }
    }
    found
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

/// The folders hold every row once, and training over them makes the model that a partition in memory makes.
#[test]
fn a_partition_in_files_is_the_one_in_memory() {
    let folder = Folder::new("partition");
    // Eight of twelve in each round: the same eight, since names, keys and numbers are the same.
    let job = job(&folder, 8, "");
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let split = ["--by", "dirichlet:0.3", "--by", "feature:affine:0.5", "--devices", "12"];
    let cut = |into: &str, more: &[&str]| {
        json(&[&["partition", DIGITS, "--label", "digit", "--into", &path(into)], more].concat())
    };
    let told = cut("one", &split);
    assert_eq!((&told["rows"], &told["devices"]), (&1_797.into(), &12.into()));
    assert!(told["label_distance"].as_f64().unwrap() > 0.3, "{told}");
    cut("two", &split);
    let one = files(&folder.path("one"));
    assert_eq!(one, files(&folder.path("two")), "the same seed, the same bytes");
    let table = lines(&one["partition.csv"]);
    let rows = |line: &String| line.split(',').nth(1).unwrap().parse::<usize>().unwrap();
    assert_eq!((table.len(), table[1..].iter().map(rows).sum::<usize>()), (13, 1_797));

    let models = |args: &[&str]| {
        let table = path("models.csv");
        let (code, _, stderr) = parts(&littoral(&[&["sim", &job, "--csv", &table], args].concat()));
        assert_eq!(code, 0, "{stderr}");
        let last = |line: &String| line.rsplit(',').next().unwrap().to_owned();
        lines(&fs::read(&table).unwrap()).iter().map(last).collect::<Vec<_>>()
    };
    let of_files = models(&["--fleet", &path("one")]);
    assert_eq!(of_files.len(), 6, "a header, statistics, three rounds, an evaluation");
    assert_eq!(of_files, models(&[&["--data", DIGITS][..], &split].concat()));
    assert_eq!(of_files, models(&split), "the table that ships is the same");

    // Without changes every line of the whole is there once, as it was.
    cut("plain", &["--by", "label:2", "--devices", "9"]);
    let plain = files(&folder.path("plain"));
    let mut all: Vec<String> = plain
        .iter()
        .filter(|(name, _)| name.ends_with("digits.csv"))
        .flat_map(|(_, bytes)| lines(bytes).split_off(1))
        .collect();
    let mut whole = lines(&fs::read(DIGITS).unwrap()).split_off(1);
    all.sort();
    whole.sort();
    assert_eq!(all, whole);
}

#[test]
fn what_cannot_be_cut_leaves_nothing() {
    let folder = Folder::new("uncut");
    let into = folder.path("into").to_str().unwrap().to_owned();
    for (args, place, got) in [
        (&["--by", "dirichlet:1", "--devices", "3"][..], "dirichlet:1", "none"),
        (&["--label", "digit", "--by", "label:2", "--devices", "3"], "--devices", "3"),
        (&["--label", "digit", "--by", "dirichlet:1", "--devices", "1000"], "--devices", "1000"),
        (&["--by", "column:site"], DIGITS, "pixel_0_0"),
        (&["--by", "feature:contrast:1", "--devices", "3"], "--by", "feature:contrast:1"),
    ] {
        let refused = json(&[&["partition", DIGITS, "--into", &into], args].concat());
        let part = |name: &str| refused["error"][name].as_str().unwrap().to_owned();
        assert!(part("where").contains(place) && part("got").contains(got), "{args:?}: {refused}");
        assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 0, "{args:?}");
    }
    folder.write("into/mine.txt", "mine");
    let refused = json(&["partition", DIGITS, "--into", &into, "--by", "iid", "--devices", "3"]);
    assert_eq!(refused["error"]["got"], "one with files in it");
    assert_eq!(fs::read(folder.path("into/mine.txt")).unwrap(), b"mine");
}

#[test]
fn traces_drive_the_simulator() {
    let folder = Folder::new("traces");
    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
    let make = |into: &str, speeds: &str| {
        let more = ["--speeds", "lognormal:1.0", "--speeds-into", speeds, "--outages-per-day", "20"];
        json(&[&["traces", "--devices", "60", "--days", "1", "--seed", "3", "--into", into][..], &more].concat())
    };
    let told = make(&path("a.csv"), &path("s.csv"));
    make(&path("b.csv"), &path("t.csv"));
    assert!((0.1..0.9).contains(&told["mean_availability"].as_f64().unwrap()), "{told}");
    let read = |name: &str| fs::read(folder.path(name)).unwrap();
    assert_eq!((read("a.csv"), read("s.csv")), (read("b.csv"), read("t.csv")), "the same seed, the same bytes");

    let job = job(&folder, 5, "eligibility = { charging = true }");
    let run = |more: &[&str]| json(&[&["sim", &job, "--devices", "60", "--by", "quantity:lognormal:1"], more].concat());
    let field = ["--traces", &path("a.csv"), "--speeds", &path("s.csv"), "--step-us", "500000"];
    let one = run(&[&field[..], &["--threads", "1"]].concat());
    assert_eq!((&one["rounds_completed"], &one["checks_broken"]), (&3.into(), &serde_json::json!([])), "{one}");
    assert_eq!(one["state_hash"], run(&[&field[..], &["--threads", "2"]].concat())["state_hash"]);
    assert_ne!(one["state_hash"], run(&[])["state_hash"]);

    let torn = String::from_utf8(read("a.csv")).unwrap().replacen(",1,1,1,1", ",1,yes,1,1", 1);
    let torn = folder.write("torn.csv", &torn);
    let refused = run(&["--traces", torn.to_str().unwrap()])["error"].clone();
    let place = refused["where"].as_str().unwrap();
    assert!(place.contains(", line ") && place.ends_with("column charging") && refused["got"] == "yes", "{refused}");
}
