//! `sim --sweep`: a grid in one go, in two goes, and what is refused before anything runs.

use super::world::{Folder, json, littoral, parts};
use serde_json::Value;
use std::fs;

const JOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../jobs/robust.toml");
const GRID: &str = r#"
seeds = [4, 5]

[grid]
attack = ["none", "sign_flip"]
rule = [
    { name = "sum", set = { robust = { norm_bound = 3.0 } } },
    { name = "trimmed", set = { "robust.trim" = 3 } },
]
"#;

#[test]
fn a_sweep_goes_on_where_it_was_cut_off() {
    let folder = Folder::new("sweep");
    let grid = folder.write("grid.toml", GRID);
    let run = |into: &str, more: &[&str]| {
        let into = folder.path(into);
        let args = ["--json", "sim", JOB, "--sweep", grid.to_str().unwrap(), "--into", into.to_str().unwrap()];
        let fixed = ["--devices", "18", "--rows", "16", "--target", "0.5", "--date", "a <day>"];
        let (code, stdout, stderr) = parts(&littoral(&[&args[..], &fixed, more].concat()));
        assert_eq!(code, 0, "{stderr}");
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let read = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    let told = run("one", &["--threads", "1"]);
    assert_eq!(told.len(), 9, "a line per run, and the summary");
    assert!(told[..8].iter().all(|run| run["combination"]["rule"].is_string() && run["seed"].is_u64()));
    let summary = &told[8]["summary"];
    assert_eq!((&summary["runs"], &summary["runs_from_earlier"]), (&8.into(), &0.into()));
    assert_eq!(summary["table"].as_array().unwrap().len(), 4);

    let table = read("one/table.csv");
    assert!(table.starts_with("combination,attack,rule,runs,accuracy,accuracy_ci95,worst_decile,"), "{table}");
    assert_eq!(table.lines().count(), 5);
    let page = read("one/report.html");
    assert!(page.contains("a &lt;day&gt;") && page.contains("norm_bound = 3.0") && page.matches("<svg").count() >= 2);
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="));

    // Cut off inside the fourth run, with a file that was not renamed.
    let runs = read("one/runs.csv");
    let rows_of_a_run = runs.lines().filter(|line| line.contains(",none,sum,4,")).count();
    let end = runs.lines().take(1 + 3 * rows_of_a_run + 2).map(|line| line.len() + 1).sum::<usize>() - 20;
    folder.write("two/runs.csv", &runs[..end]);
    folder.write("two/runs.csv.unfinished-1", "torn");
    let told = run("two", &["--threads", "3"]);
    assert_eq!(told.last().unwrap()["summary"]["runs_from_earlier"], 3);
    assert_eq!((told.len(), read("two/runs.csv"), read("two/table.csv")), (6, runs, table));
    let names = |dir: &str| fs::read_dir(folder.path(dir)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    let (mut one, mut two) = (names("one"), names("two"));
    one.sort();
    two.sort();
    assert_eq!(one, two);
    assert_eq!(run("two", &[]).len(), 1, "nothing is left to run");
}

#[test]
fn nothing_runs_of_a_grid_that_cannot() {
    let folder = Folder::new("sweep-refused");
    let into = folder.path("into").to_str().unwrap().to_owned();
    let run = |text: &str| {
        let grid = folder.write("grid.toml", text);
        json(&["sim", JOB, "--devices", "20", "--sweep", grid.to_str().unwrap(), "--into", &into])
    };
    let refused = run("[grid]\n\"local.batch\" = [8, 100000]\nattack = [\"none\", \"alie\"]");
    let part = |name: &str| refused["error"][name].as_str().unwrap().to_owned();
    assert!(part("where").ends_with("grid.toml, attack=none local.batch=100000: local.batch"), "{refused}");
    assert_eq!((part("expected"), part("got")), ("0 to 65536".into(), "100000".into()));
    assert!(!folder.path("into").exists());

    folder.write("into/mine.txt", "mine");
    let refused = run("[grid]\nrows = [8]");
    assert_eq!(refused["error"]["got"], "one with mine.txt in it");
    fs::remove_file(folder.path("into/mine.txt")).unwrap();
    folder.write("into/runs.csv", "a,b\n1,2\n");
    let refused = run("[grid]\nrows = [8]");
    assert_eq!(
        (&refused["error"]["got"], refused["error"]["where"].as_str().unwrap().ends_with("runs.csv")),
        (&"others".into(), true)
    );
    assert_eq!(fs::read_to_string(folder.path("into/runs.csv")).unwrap(), "a,b\n1,2\n");
}
