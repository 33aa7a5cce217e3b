//! Grids and what they refuse.

use super::grid::{Axis, Grid};
use super::setting::Setting;
use crate::output::Failure;

fn base() -> Setting {
    Setting {
        job: toml::from_str(include_str!("../../../../jobs/robust.toml")).unwrap(),
        seeds_job: true,
        data: None,
        labels: None,
        by: Vec::new(),
        attack: None,
        attackers: 0.2,
        attack_strength: None,
        speeds: None,
        traces: None,
        devices: 20,
        edges: 2,
        rows: 16,
        step_us: None,
        faults: "none".into(),
    }
}

/// Reads, expands and checks a grid; the labels of its combinations.
fn check(grid: &str) -> Result<Vec<Vec<String>>, Failure> {
    let grid = Grid::parse(grid)?;
    let columns: Vec<String> = grid.axes.iter().map(|axis: &Axis| axis.name.clone()).collect();
    let points = super::check(&columns, grid.expand(&base())?, 1)?;
    Ok(points.into_iter().map(|(labels, _)| labels).collect())
}

#[test]
fn a_grid_is_every_combination() {
    let grid = r#"
        seeds = 2
        [grid]
        "algorithm" = [{ name = "fedavg" }, { name = "fedprox", mu = 0.1 }]
        attack = ["none", "sign_flip"]
        rate = [
            { name = "slow", set = { "local.optimiser.learning_rate" = 0.01 } },
            { name = "fast", set = { "local.optimiser.learning_rate" = 0.1, "local.epochs" = 2 } },
        ]
        robust.rule = [{ name = "plain", value = "mean" }]
        robust.trim = [{ name = "untrimmed", set = {} }]
    "#;
    let parsed = Grid::parse(grid).unwrap();
    assert_eq!(parsed.seeds, Some(vec![1, 2]));
    let names: Vec<&str> = parsed.axes.iter().map(|axis| axis.name.as_str()).collect();
    assert_eq!(names, ["algorithm", "attack", "rate", "robust.rule", "robust.trim"]);
    let all = parsed.expand(&base()).unwrap();
    assert_eq!(all.len(), 8);
    assert_eq!(all[0].labels, ["fedavg", "none", "slow", "plain", "untrimmed"]);
    assert_eq!(all[7].labels, ["fedprox mu=0.1", "sign_flip", "fast", "plain", "untrimmed"]);
    let job = &all[7].setting.job;
    assert_eq!(job["local"]["optimiser"]["learning_rate"].as_float(), Some(0.1));
    assert_eq!((job["local"]["epochs"].as_integer(), job["robust"]["rule"].as_str()), (Some(2), Some("mean")));
}

/// A name takes another algorithm's parameters away, and comes before its own.
#[test]
fn names_come_first() {
    let grid = "[grid]\n\"algorithm.mu\" = [0.1, 0.2]\n\"algorithm.name\" = [\"fedprox\"]";
    assert_eq!(check(grid).unwrap(), [["0.1", "fedprox"], ["0.2", "fedprox"]]);
}

#[test]
fn what_cannot_run_is_refused_with_its_combination() {
    for (grid, place, expected, got) in [
        ("[grid]\n\"local.epochs\" = [1, 0]", "local.epochs=0: local.epochs", "1 to 1000", "0"),
        ("[grid]\n\"local.epoch\" = [1]", "local.epoch=1: local.epoch", "epochs", "unknown field epoch"),
        ("[grid]\nspeed = [\"pareto:1\"]", "speed=pareto:1: speed", "name", "unknown field speed"),
        ("[grid]\nspeeds = [\"pareto:0\"]", "speeds=pareto:0: speeds", "a number from 0.3", "pareto:0"),
        ("[grid]\nattack = [\"flip\"]", "attack=flip: attack", "sign_flip", "flip"),
        ("[grid]\nby = [\"iid\"]", "by=iid: --by", "a data set to cut", "made-up rows"),
        ("[grid]\nattackers = [0.2, 1.5]", "attackers=1.5: attackers", "below 1", "1.5"),
        ("[grid]\ndevices = [3]", "devices=3: devices", "at least the job's cohort.min, 10", "3"),
        ("[grid]\n\"name.x\" = [3]", "name.x=3: name.x", "`name` is no table", "3"),
        ("[grid]\n\"robust.rule\" = [\"krum\"]", "robust.rule=krum: robust.", "krum", "4"),
        ("[grid]\na = [{ name = \"x\", set = { rows = 1 } }]\nrows = [2]", "a=x rows=2: rows", "one axis", "two"),
        ("[grid]\nrows = [2, 2]", "rows", "different values", "alike"),
        ("[grid]\nrows = 2", "rows", "a list", "2"),
        ("[grid]\nrows = []", "rows", "a list", "[]"),
        ("[grid]\n", "[grid]", "fields", "no field"),
        ("seeds = [1, 1]\n[grid]\nrows = [1]", "seeds", "different seeds", "[1, 1]"),
        ("seeds = 0\n[grid]\nrows = [1]", "seeds", "1 to 1000", "0"),
        ("seed = 3\n[grid]\nrows = [1]", "seed", "seeds and [grid]", "another field"),
        ("seeds = 1\n[grid\n", "line 2", "TOML", "]"),
    ] {
        let failure = check(grid).expect_err(grid);
        let Failure { place: p, expected: e, got: g, .. } = &failure;
        assert!(p.starts_with(place) && e.contains(expected) && g.contains(got), "{grid}: {failure}");
    }
    // Names come first, so a rule does not keep another's parameter by accident: both are in the grid's hands.
    let many: Vec<String> = (0..101).map(|n| n.to_string()).collect();
    let failure = check(&format!("[grid]\nrows = [{0}]\nedges = [{0}]", many.join(","))).unwrap_err();
    assert_eq!((failure.expected.as_str(), failure.got.as_str()), ("at most 10000 combinations", "10201"));
}
