//! What the fleet trains: the devices' rows, and the jobs.

use std::fmt;

/// The data set's name.
pub const DATA: &str = "tiny";

/// A device's rows, as CSV. No two devices have the same: equal updates would have one name.
pub fn rows(device: usize) -> String {
    let mut text = String::from("a,b,c,d,label\n");
    for row in 0..6 {
        let value = |column: usize| ((device * 31 + row * 7 + column * 13) % 101) as f32 / 50.0 - 1.0;
        let [a, b, c, d] = [0, 1, 2, 3].map(value);
        let label = if a + b > c + d { "yes" } else { "no" };
        text += &format!("{a},{b},{c},{d},{label}\n");
    }
    text
}

/// How a job's sums are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Devices and the cloud keep state (SCAFFOLD): a device that is counted twice, or not, changes every bit.
    Plain,
    /// Sums are masked.
    Masked,
    /// Masked, with noise of the devices, drawn in secret. No two runs have the same bits.
    Private,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Masked => "masked",
            Self::Private => "private",
        }
    }

    /// A job of so many rounds. All devices are in each version, so that its bits say who was counted; in a private one's at
    /// least half.
    pub fn job(self, name: &str, devices: u32, width: u32, rounds: u32, seed: u64) -> String {
        let (algorithm, target, min, more) = match self {
            Self::Plain => ("scaffold", devices, devices, String::new()),
            Self::Masked => ("fedavg", devices, devices, "[secure_aggregation]\nthreat = \"honest\"\n".into()),
            Self::Private => {
                let privacy = "[secure_aggregation]\nthreat = \"honest\"\n\n[differential_privacy]\n\
                     mechanism = \"distributed-discrete-gaussian\"\nclip = 0.3\nnoise_multiplier = 4.0\n\
                     epsilon = 1000.0\n";
                ("fedavg", devices, devices / 2, privacy.to_owned())
            }
        };
        let weighting = if self == Self::Private { "" } else { "[precision]\nweighting = \"uniform\"\n" };
        format!(
            r#"
name = "{name}"
seed = {seed}
model = {{ kind = "mlp", hidden = [{width}] }}
algorithm = {{ name = "{algorithm}" }}
local = {{ epochs = 1, batch = 0, optimiser = {{ name = "sgd", learning_rate = 0.05 }} }}
cohort = {{ target = {target}, min = {min} }}
rounds = {{ count = {rounds}, deadline_ms = 600000, close_ms = 600000, wait_ms = 1000 }}

[data]
set = "{DATA}"
held_out = 0.0
standardise = false
schema.label = {{ name = "label", classes = ["no", "yes"] }}
schema.fields = [{{ name = "a" }}, {{ name = "b" }}, {{ name = "c" }}, {{ name = "d" }}]

{weighting}
{more}
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_node::job::JobSpec;

    #[test]
    fn jobs_are_accepted_whatever_the_fleet_is() {
        for devices in [12, 20, 200, 2_000] {
            for kind in [Kind::Plain, Kind::Masked, Kind::Private] {
                let toml = kind.job("trial", devices, 16, 6, 1);
                JobSpec::parse(&toml).unwrap_or_else(|e| panic!("{kind:?}, {devices} devices: {e}"));
            }
        }
    }
}
