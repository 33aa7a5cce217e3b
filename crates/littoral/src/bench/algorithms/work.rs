//! What is learnt: three data sets of `LITTORAL_DATA`, each with a small model and twenty devices (speakers: a hundred), and the ways in which
//! these are uneven.

use crate::bench::mnist::VARIABLE;
use crate::output::Failure;
use crate::sweep::setting::Setting;
use std::path::PathBuf;
use toml::Value;

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Mnist,
    Credit,
    Speakers,
}

/// A way to be uneven, and what is set for it.
pub struct Skew {
    pub name: &'static str,
    pub sets: &'static str,
}

/// Of tables and images every device is in every round, so that an accuracy is that of the whole fleet's held-out rows.
const COMMON: &str = r#"
name = "algorithms"
algorithm = { name = "fedavg" }
local = { epochs = 2, batch = 20, optimiser = { name = "sgd", learning_rate = 0.1 } }
cohort = { target = 20, min = 16 }
rounds = { count = 30, deadline_ms = 3600000 }
"#;

const IID: Skew = Skew { name: "iid", sets: "by = 'iid'" };
const LABELS: Skew = Skew { name: "dirichlet:0.1", sets: "by = 'dirichlet:0.1'\n'local.epochs' = 5" };
const QUANTITY: Skew = Skew { name: "quantity", sets: "by = 'quantity:lognormal:1.5'\n'local.epochs' = 5" };
const FEATURES: Skew = Skew { name: "features", sets: "by = ['iid', 'feature:affine:1']" };
const LIARS: Skew = Skew { name: "sign_flip", sets: "by = 'iid'\nattack = 'sign_flip'" };
const LATE: Skew = Skew { name: "late", sets: "by = 'iid'\nspeeds = 'pareto:1'\nstep_us = 100000" };
const SPEAKERS: Skew = Skew { name: "speakers", sets: "by = 'column:speaker'" };

impl Data {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::Credit => "credit",
            Self::Speakers => "speakers",
        }
    }

    pub fn skews(self) -> Vec<Skew> {
        match self {
            Self::Mnist => vec![IID, LABELS, QUANTITY, FEATURES_IMAGES, LIARS, LATE],
            Self::Credit => vec![IID, LABELS, QUANTITY, FEATURES, LIARS, LATE],
            Self::Speakers => vec![IID, SPEAKERS],
        }
    }

    /// The step sizes that every algorithm is tried with.
    pub fn rates(self) -> [f64; 3] {
        match self {
            Self::Mnist | Self::Credit => [0.01, 0.05, 0.2],
            Self::Speakers => [0.3, 1.0, 3.0],
        }
    }

    /// Rounds of a synchronous run.
    pub fn rounds(self) -> u32 {
        match self {
            Self::Mnist | Self::Credit => 30,
            Self::Speakers => 40,
        }
    }

    /// A text is long: five of a hundred devices are in a round, which is once through what they have.
    fn sampled(self) -> bool {
        self == Self::Speakers
    }

    pub fn setting(self) -> Result<Setting, Failure> {
        let folder = std::env::var_os(VARIABLE).map(PathBuf::from).ok_or_else(|| {
            Failure::new(
                "there is no data",
                VARIABLE,
                "a folder with mnist/, credit_card_default.csv, tinyshakespeare.txt",
                "nothing: the variable is not set",
            )
            .hint("LITTORAL_DATA=../shared/data littoral bench algorithms")
        })?;
        let (file, labels, text) = match self {
            // The ten thousand of the test set are shared out here: enough for twenty devices.
            Self::Mnist => {
                let classes: Vec<String> = (0..10).map(|class| format!("'{class}'")).collect();
                let schema =
                    format!("image = {{ height = 28, width = 28, channels = 1, classes = [{}] }}", classes.join(", "));
                let text = format!(
                    "model = {{ kind = 'mlp', hidden = [32] }}\n[data]\nset = 'mnist'\n[data.schema]\n{schema}\n"
                );
                ("mnist/t10k-images-idx3-ubyte.gz", Some("mnist/t10k-labels-idx1-ubyte.gz"), text)
            }
            Self::Credit => {
                let fields: Vec<String> = (1..=23).map(|n| format!("{{ name = 'X{n}' }}")).collect();
                let schema =
                    format!("label = {{ name = 'Y', classes = ['0', '1'] }}\nfields = [{}]", fields.join(", "));
                let text = format!(
                    "model = {{ kind = 'mlp', hidden = [16] }}\n[data]\nset = 'credit'\n[data.schema]\n{schema}\n"
                );
                ("credit_card_default.csv", None, text)
            }
            Self::Speakers => {
                let alphabet = r#""\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz""#;
                let text = format!(
                    "model = {{ kind = 'recurrent', cell = 'gru', vocabulary = 65, embedding = 8, hidden = 16 }}\n\
                     [data]\nset = 'speakers'\nheld_out = 0.1\n[data.schema]\n\
                     text = {{ alphabet = {alphabet}, window = 16, unknown = '$' }}\n"
                );
                ("tinyshakespeare.txt", None, text)
            }
        };
        let job = toml::from_str(&format!("{COMMON}{text}"));
        let job = job.map_err(|e| Failure::new("the bench is broken", "its job", "TOML", e.message()))?;
        let path = folder.join(file);
        if !path.is_file() {
            return Err(Failure::new("there is no data", path.display().to_string(), "a file", "none"));
        }
        let mut setting = Setting {
            job,
            seeds_job: true,
            data: Some(path),
            labels: labels.map(|labels| folder.join(labels)),
            by: Vec::new(),
            attack: None,
            attackers: 0.2,
            attack_strength: None,
            speeds: None,
            traces: None,
            devices: if self.sampled() { 100 } else { 20 },
            edges: 2,
            rows: 32,
            step_us: None,
            faults: "none".into(),
        };
        if self.sampled() {
            set_all(&mut setting, "cohort = { target = 5, min = 4 }\n'local.epochs' = 1")?;
        }
        Ok(setting)
    }
}

/// Pixels have no deviations to shift by; brightness differs instead. FedBN needs a model with norms, so all have it here.
const FEATURES_IMAGES: Skew = Skew {
    name: "features",
    sets: "by = ['iid', 'feature:contrast:0.8']
\
           model = { kind = 'cnn', image = [28, 28, 1], channels = [4], kernel = 3, pool = 4, norm = 'batch' }\n'local.epochs' = 1",
};

/// Sets the fields of a few lines of TOML, in their order of depth.
pub fn set_all(setting: &mut Setting, sets: &str) -> Result<(), Failure> {
    let table: toml::Table =
        toml::from_str(sets).map_err(|e| Failure::new("the bench is broken", sets, "TOML", e.message()))?;
    let mut sets: Vec<(&String, &Value)> = table.iter().collect();
    sets.sort_by_key(|(field, _)| (field.matches('.').count(), !field.ends_with(".name")));
    sets.into_iter().try_for_each(|(field, value)| setting.set(field, value))
}
