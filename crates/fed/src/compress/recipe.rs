//! What a job writes about compression, with defaults that were measured (`littoral bench compress`).
//!
//! ```toml
//! [compression]
//! uplink = { name = "eden", bits = 1 }
//! ```
//!
//! What composes with masks is [`Compressor::masked`]'s answer, with the reason if not.
//!
//! On the MNIST work (60 rounds of 50 of 1,000 clients, seeds 7, 8, 9; plain fixed point reaches .874 with 796,928 bytes):
//!
//! | defaults of | bytes per device and round | fewer than f32 | masks | accuracy lost |
//! |---|---|---|---|---|
//! | `quantise` (ternary, blocks of 1,024, entropy coded) | 12,811 | 62 x | no | -.000 |
//! | `eden` (1 bit) | 25,340 | 31 x | no | .000 |
//! | `powersgd` (rank 12, by turns, 16-bit words) | 23,904 | 33 x | yes | .006 |
//! | `powersgd`, `sums = 2` | 38,176 | 21 x | yes | .003 |
//! | `random-k` (a fifth, rotated, rescaled, 8-bit words) | 40,112 | 20 x | yes | -.001 |
//! | `rotation` (10-bit words) | 249,130 | 3.2 x | yes | .000 |
//!
//! Devices take part three times there, so what waits in a residual comes late: `top-k`, `sign` and contractions lose more.
//!
//! `sent_range` depends on the job: the range of what is summed, after rotation or projection. A step (range / levels) by
//! chance costs each coordinate a quarter of a step squared at most; what saturates is counted in every update.

use super::alternating::Alternating;
use super::chain::Then;
use super::downlink::Codes;
use super::eden::Eden;
use super::powersgd::{Matrix, PowerSgd};
use super::quantise::Quantise;
use super::randomk::{Kept, RandomK, Rescaled};
use super::rotate::Rotation;
use super::sign::Sign;
use super::topk::{TopK, Values};
use super::{CompressError, Compressor};
use crate::plan::Resolution;
use serde::{Deserialize, Serialize};

/// A compressor and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Recipe {
    Eden(EdenText),
    Quantise(QuantiseText),
    TopK(TopKText),
    Sign(SignText),
    RandomK(RandomKText),
    Rotation(RotationText),
    #[serde(rename = "powersgd")]
    PowerSgd(PowerSgdText),
}

/// 1 bit per coordinate and 4 bytes per 4,096.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdenText {
    /// 1 to 4.
    pub bits: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantiseText {
    /// 2 (ternary) to 8 (int8).
    pub bits: u32,
    /// Coordinates that share a scale: a power of two, 8 to 4,096.
    pub block: usize,
    /// Codes through the entropy coder.
    pub entropy: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TopKText {
    /// Share of the coordinates, above 0, at most 1.
    pub kept: f32,
    /// Of a kept magnitude, 2 to 8; 0: signs and one mean magnitude.
    pub bits: u32,
    /// Whether what was not sent is kept for the next participation.
    pub residual: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignText {
    pub residual: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomKText {
    /// Share of the coordinates, above 0, at most 1.
    pub kept: f32,
    /// Times 1/kept on the way back: unbiased, without a bound on the norm.
    pub rescaled: bool,
    /// Rotated first, so that every coordinate is as large as any other.
    pub rotated: bool,
    pub residual: bool,
    /// Of a word that is summed, 2 or more; with the cohort they make its bits.
    pub levels: u32,
    /// Coordinates that are sent lie in [−`sent_range`, `sent_range`); above 0.
    pub sent_range: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotationText {
    /// Of a word that is summed, 2 or more; with the cohort they make its bits.
    pub levels: u32,
    /// Coordinates that are sent lie in [−`sent_range`, `sent_range`); above 0.
    pub sent_range: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PowerSgdText {
    /// Columns of each factor, 1 or more.
    pub rank: usize,
    /// 1: of the two sums each version takes one, by turns; 2: each round takes both, after each other.
    pub sums: u32,
    pub residual: bool,
    /// Of a word that is summed, 2 or more; with the cohort they make its bits.
    pub levels: u32,
    /// Coordinates that are sent lie in [−`sent_range`, `sent_range`); above 0.
    pub sent_range: f32,
}

/// How the model goes down the link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Downlink {
    Delta(DeltaText),
    Half(HalfText),
}

/// As changes of the version before, now and then whole in 16 bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeltaText {
    /// Of a change: 4 or 8.
    pub bits: u32,
}

/// Whole in 16 bits, each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HalfText {}

impl Default for DeltaText {
    fn default() -> Self {
        Self { bits: 4 }
    }
}

impl Downlink {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delta(_) => "delta",
            Self::Half(_) => "half",
        }
    }

    /// Refuses parameters out of range.
    pub fn check(&self) -> Result<(), CompressError> {
        match self {
            Self::Delta(DeltaText { bits }) if !matches!(bits, 4 | 8) => {
                Err(CompressError::Setting { field: "bits", allowed: "4 or 8", got: bits.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Of changes; `None`: each version is told whole.
    pub fn codes(&self) -> Option<Codes> {
        match self {
            Self::Delta(DeltaText { bits: 8 }) => Some(Codes::Int8),
            Self::Delta(_) => Some(Codes::Int4),
            Self::Half(_) => None,
        }
    }
}

impl Default for EdenText {
    fn default() -> Self {
        Self { bits: 1 }
    }
}

impl Default for QuantiseText {
    fn default() -> Self {
        Self { bits: 2, block: 1024, entropy: true }
    }
}

impl Default for TopKText {
    fn default() -> Self {
        Self { kept: 0.1, bits: 4, residual: true }
    }
}

impl Default for SignText {
    fn default() -> Self {
        Self { residual: true }
    }
}

impl Default for RandomKText {
    fn default() -> Self {
        Self { kept: 0.2, rescaled: true, rotated: true, residual: false, levels: 2, sent_range: 0.02 }
    }
}

impl Default for RotationText {
    fn default() -> Self {
        Self { levels: 8, sent_range: 0.02 }
    }
}

impl Default for PowerSgdText {
    fn default() -> Self {
        Self { rank: 12, sums: 1, residual: false, levels: 512, sent_range: 0.5 }
    }
}

impl Recipe {
    /// The compressor for `len` coordinates, of which `matrices` are matrices. Refuses parameters out of range.
    pub fn build(&self, len: usize, matrices: &[Matrix]) -> Result<Compressor, CompressError> {
        self.words()?;
        Ok(match self {
            Self::Eden(EdenText { bits }) => Compressor::Coded(Box::new(Eden::new(*bits)?)),
            Self::Quantise(QuantiseText { bits, block, entropy }) => {
                Compressor::Coded(Box::new(Quantise::new(*bits, *block, *entropy)?))
            }
            Self::TopK(TopKText { kept, bits: 0, .. }) => Compressor::Coded(Box::new(TopK::new(*kept, Values::Signs)?)),
            Self::TopK(TopKText { kept, bits, .. }) => {
                Compressor::Coded(Box::new(TopK::new(*kept, Values::Bits(*bits))?))
            }
            Self::Sign(_) => Compressor::Coded(Box::new(Sign)),
            Self::RandomK(RandomKText { kept, rescaled, rotated, .. }) => {
                Compressor::Linear(match (rescaled, rotated) {
                    (false, false) => Box::new(RandomK::<Kept>::new(*kept)?),
                    (true, false) => Box::new(RandomK::<Rescaled>::new(*kept)?),
                    (false, true) => Box::new(Then(Rotation, RandomK::<Kept>::new(*kept)?)),
                    (true, true) => Box::new(Then(Rotation, RandomK::<Rescaled>::new(*kept)?)),
                })
            }
            Self::Rotation(_) => Compressor::Linear(Box::new(Rotation)),
            Self::PowerSgd(PowerSgdText { rank, sums: 1, .. }) => {
                Compressor::Alternating(Alternating::new(len, matrices, *rank)?)
            }
            Self::PowerSgd(PowerSgdText { rank, sums: 2, .. }) => {
                Compressor::TwoSums(PowerSgd::new(len, matrices, *rank)?)
            }
            Self::PowerSgd(PowerSgdText { sums, .. }) => {
                return Err(CompressError::Setting { field: "sums", allowed: "1 or 2", got: sums.to_string() });
            }
        })
    }

    /// The resolution and range of a section that is summed as it is sent; `None` for what the edge decodes, which keeps the
    /// plan of an uncompressed update.
    pub fn words(&self) -> Result<Option<(Resolution, f32)>, CompressError> {
        let (levels, range) = match self {
            Self::RandomK(RandomKText { levels, sent_range, .. })
            | Self::Rotation(RotationText { levels, sent_range })
            | Self::PowerSgd(PowerSgdText { levels, sent_range, .. }) => (*levels, *sent_range),
            Self::Eden(_) | Self::Quantise(_) | Self::TopK(_) | Self::Sign(_) => return Ok(None),
        };
        if !(range.is_finite() && range > 0.0) {
            let got = range.to_string();
            return Err(CompressError::Setting { field: "sent_range", allowed: "a finite number above 0", got });
        }
        match levels {
            0..2 => Err(CompressError::Setting { field: "levels", allowed: "2 or more", got: levels.to_string() }),
            _ => Ok(Some((Resolution::Levels(levels), range))),
        }
    }

    /// Whether a device keeps what compression left out.
    pub fn residual(&self) -> bool {
        match self {
            Self::TopK(TopKText { residual, .. })
            | Self::Sign(SignText { residual })
            | Self::RandomK(RandomKText { residual, .. })
            | Self::PowerSgd(PowerSgdText { residual, .. }) => *residual,
            Self::Eden(_) | Self::Quantise(_) | Self::Rotation(_) => false,
        }
    }

    /// Whether what is sent is read by something that only one version carries: then it cannot be of an older one.
    pub fn of_a_version(&self) -> bool {
        matches!(self, Self::PowerSgd(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(toml: &str) -> Result<Compressor, String> {
        let recipe: Recipe = toml::from_str(toml).map_err(|e| e.message().to_owned())?;
        let matrices = [Matrix { start: 0, rows: 40, columns: 20 }];
        recipe.build(800, &matrices).map_err(|e| e.to_string())
    }

    #[test]
    fn every_name_has_defaults_and_says_whether_it_can_be_masked() {
        for (name, masked) in [
            ("eden", false),
            ("quantise", false),
            ("top-k", false),
            ("sign", false),
            ("random-k", true),
            ("rotation", true),
            ("powersgd", true),
        ] {
            let compressor = recipe(&format!("name = \"{name}\"")).unwrap();
            assert_eq!(compressor.masked().is_ok(), masked, "{name}");
        }
    }

    #[test]
    fn a_wrong_recipe_is_told_what_is_allowed() {
        for (toml, told) in [
            ("name = \"zip\"", "eden"),
            ("name = \"eden\"\nbit = 1", "bits"),
            ("name = \"eden\"\nbits = 5", "compression.bits is 5, allowed is 1 to 4"),
            ("name = \"quantise\"\nblock = 100", "a power of two"),
            ("name = \"top-k\"\nkept = 0.0", "compression.kept is 0"),
            ("name = \"top-k\"\nkept = nan", "compression.kept is NaN"),
            ("name = \"random-k\"\nlevels = 1", "2 or more"),
            ("name = \"rotation\"\nsent_range = inf", "finite"),
            ("name = \"powersgd\"\nrank = 0", "1 or more"),
            ("name = \"powersgd\"\nsums = 3", "compression.sums is 3, allowed is 1 or 2"),
        ] {
            let Err(refused) = recipe(toml) else { panic!("{toml} is taken") };
            assert!(refused.contains(told), "{toml}: {refused}");
        }
    }
}
