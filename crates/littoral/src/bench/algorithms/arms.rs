//! Who competes where: an algorithm runs where a paper says something of it, beside those that it is compared with.

use super::work::Data;
use littoral_fed::algorithm::NAMES;

pub struct Arm {
    pub name: &'static str,
    /// The name that a job says; arms whose algorithm this release does not have are left out.
    pub algorithm: &'static str,
    pub sets: &'static str,
    /// Versions per round of a synchronous run: as many updates are made in all.
    pub versions: u32,
}

const fn arm(name: &'static str, sets: &'static str) -> Arm {
    Arm { name, algorithm: name, sets, versions: 1 }
}

const FEDAVG: Arm = arm("fedavg", "'algorithm.name' = 'fedavg'");
const FEDPROX: Arm = arm("fedprox", "algorithm = { name = 'fedprox', mu = 0.1 }");
const FEDNOVA: Arm = arm("fednova", "'algorithm.name' = 'fednova'");
const SCAFFOLD: Arm = arm("scaffold", "'algorithm.name' = 'scaffold'");
/// Not in every release; their parameters are their defaults.
const FEDBN: Arm = arm("fedbn", "'algorithm.name' = 'fedbn'");
const DITTO: Arm = arm("ditto", "'algorithm.name' = 'ditto'");
const FEDAMP: Arm = arm("fedamp", "'algorithm.name' = 'fedamp'");
const TRIMMED: Arm = Arm {
    name: "fedavg, trimmed mean",
    algorithm: "fedavg",
    sets: "robust = { rule = 'trimmed_mean', trim = 5 }",
    versions: 1,
};
const FEDBUFF: Arm = Arm {
    name: "fedbuff",
    algorithm: "fedbuff",
    sets: "'algorithm.name' = 'fedbuff'\ncohort = { target = 5, min = 5 }\npace = { pool = 20, dispatch = 1, staleness_max = 100 }",
    versions: 4,
};
const FEDASYNC: Arm = Arm {
    name: "fedasync",
    algorithm: "fedasync",
    sets: "'algorithm.name' = 'fedasync'\ncohort = { target = 1, min = 1 }\npace = { pool = 20, dispatch = 1, staleness_max = 100 }",
    versions: 20,
};

pub fn of(data: Data, skew: &str) -> Vec<Arm> {
    let arms = match skew {
        "sign_flip" => vec![FEDAVG, TRIMMED],
        "late" => vec![FEDAVG, FEDBUFF, FEDASYNC],
        "features" => vec![FEDAVG, FEDBN, DITTO, FEDAMP],
        "dirichlet:0.1" | "speakers" => vec![FEDAVG, FEDPROX, FEDNOVA, SCAFFOLD, DITTO, FEDAMP],
        _ => vec![FEDAVG, FEDPROX, FEDNOVA, SCAFFOLD],
    };
    // Norms to keep at home have images' models only.
    let fits = |arm: &Arm| arm.algorithm != "fedbn" || data == Data::Mnist;
    arms.into_iter().filter(|arm| NAMES.contains(&arm.algorithm) && fits(arm)).collect()
}

/// What the literature says.
pub struct Sign {
    pub skew: &'static str,
    pub better: &'static str,
    pub measure: Measure,
    pub paper: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Accuracy,
    WorstDecile,
    /// Virtual time to nine tenths of what `fedavg` has at its end, in the mean over seeds.
    Time,
}

impl Measure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::WorstDecile => "worst decile",
            Self::Time => "virtual seconds to target",
        }
    }
}

const fn sign(skew: &'static str, better: &'static str, measure: Measure, paper: &'static str) -> Sign {
    Sign { skew, better, measure, paper }
}

/// Each against `fedavg` on the same skew.
pub const SIGNS: [Sign; 8] = [
    sign("quantity", "fednova", Measure::Accuracy, "Wang et al. 2020: unequal numbers of steps"),
    sign("dirichlet:0.1", "scaffold", Measure::Accuracy, "Karimireddy et al. 2020: drift under label skew"),
    sign("features", "fedbn", Measure::Accuracy, "Li et al. 2021: feature shift"),
    sign("dirichlet:0.1", "ditto", Measure::WorstDecile, "Li et al. 2021: fairness by personal models"),
    sign("dirichlet:0.1", "fedamp", Measure::WorstDecile, "Huang et al. 2021: personal models under label skew"),
    sign("sign_flip", "fedavg, trimmed mean", Measure::Accuracy, "Yin et al. 2018: a fifth of the devices lies"),
    sign("late", "fedbuff", Measure::Time, "Nguyen et al. 2022: heavy-tailed speeds"),
    sign("late", "fedasync", Measure::Time, "Xie et al. 2019: late devices"),
];
