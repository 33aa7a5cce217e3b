//! What a job may write, and what it is told when it is wrong.

use super::*;

fn spec(toml: &str) -> Result<AlgorithmSpec, String> {
    toml::from_str(toml).map_err(|e| e.message().to_owned())
}

#[test]
fn every_name_is_known_by_itself() {
    for name in NAMES {
        let text = format!("name = \"{name}\"\n{}", if *name == "fedprox" { "mu = 0.5" } else { "" });
        let algorithm = spec(&text).unwrap().build().unwrap();
        assert_eq!(algorithm.name(), *name);
        assert_eq!(algorithm.sections(10, 1.0)[0].name, "delta");
    }
}

#[test]
fn a_wrong_job_is_told_what_is_allowed() {
    let unknown = spec("name = \"fedsgd\"").unwrap_err();
    assert!(unknown.contains("fedsgd") && unknown.contains("fedavgm"), "{unknown}");
    let unknown = spec("name = \"fedavgm\"\nbetta = 0.5").unwrap_err();
    assert!(unknown.contains("betta") && unknown.contains("learning_rate"), "{unknown}");
    assert!(spec("name = \"fedavg\"\nmu = 0.5").is_err());
    assert!(spec("name = \"fedprox\"").unwrap_err().contains("mu"));

    let built = |toml: &str| spec(toml).unwrap().build().map(|a| a.name()).map_err(|e| e.to_string());
    assert_eq!(built("name = \"fedavgm\"\nbeta = 1.0").unwrap_err(), "algorithm.beta is 1, allowed is 0 <= value < 1");
    for wrong in ["fedprox\"\nmu = -1", "fedprox\"\nmu = nan", "fedadam\"\ntau = 0", "scaffold\"\ncontrol_range = inf"]
    {
        assert!(built(&format!("name = \"{wrong}")).is_err(), "{wrong}");
    }
}
