//! Masked sums: what a job says about secure aggregation, and both halves of how a collection goes through it.
//!
//! The protocol is [`littoral_privacy::secagg`]'s, with its messages and its proofs. Here it meets a collection: what a
//! session is bound to ([`context`]), the device's road from a packed update to masked words ([`device`]), and the cloud's
//! from keys to what must be taken from the sum ([`cloud`]). Steps travel as [`SealingStep`]s whose bodies only these two read.
//!
//! Edges see masked words and step bodies, and merge the one and pass on the other. The cloud learns the sum over the
//! survivors, once, if enough of them help to open it.
//!
//! Not protected: what sums say. Two sums of one version differ by those who are in one and not in the other, and a cloud that
//! lies can get two: it says that an attempt was given up after it has opened its sum, and asks again without one device,
//! whose training gives the same words. Only noise that devices add themselves ([`crate::dp`]) covers that difference.

pub mod cloud;
pub mod device;

use crate::plan::Format;
use littoral_privacy::secagg::mask::{Masks, RangeError, Sign};
use littoral_privacy::secagg::parameters::{Parameters, ParametersError, Threat};
use littoral_privacy::secagg::prg::Prg;
use littoral_tensor::fixed;
use littoral_wire::codec::Wire;
use littoral_wire::{Collection, ObjectId};
use serde::{Deserialize, Serialize};

pub use littoral_wire::message::SealingStep;

/// Under which a device signs what it says in a session.
pub const DOMAIN: &str = "secagg";

/// What a job says: `[secure_aggregation]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecureAggregation {
    /// What the cloud may do. Default: it may lie.
    pub threat: ThreatName,
    /// At most this share of a cohort colludes with the cloud, 0 to below 1. Default a third.
    pub adversary: f64,
    /// At most this share of a cohort drops out after keys are exchanged, 0 to below 1. Default 0.1.
    pub dropout: f64,
    /// Over whom a device's neighbours are spread. Default: the whole cohort.
    pub groups: Groups,
    /// Fewest updates in a sum that is opened, 2 or more. Default 3.
    pub group_min: u32,
    /// Where masks come from. Default AES-128 in counter mode.
    pub prg: PrgName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreatName {
    /// The cloud follows the protocol and reads all that it sees.
    Honest,
    /// The cloud may also tell devices lies, each its own.
    Active,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Groups {
    /// The cloud can open the sum over the whole cohort and nothing less.
    Whole,
    /// Neighbours are found among the devices of one edge: fewer of them, and the cloud could open each edge's sum.
    PerEdge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrgName {
    #[serde(rename = "aes-128-ctr")]
    Aes128Ctr,
    #[serde(rename = "chacha20")]
    ChaCha20,
}

/// The threat that a session withstands, and the shares of its devices that collude and drop out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assumed {
    pub threat: Threat,
    pub adversary: f64,
    pub dropout: f64,
}

impl Default for SecureAggregation {
    fn default() -> Self {
        Self {
            threat: ThreatName::Active,
            adversary: 1.0 / 3.0,
            dropout: 0.1,
            groups: Groups::Whole,
            group_min: 3,
            prg: PrgName::Aes128Ctr,
        }
    }
}

impl SecureAggregation {
    pub fn threat(&self) -> Threat {
        match self.threat {
            ThreatName::Honest => Threat::Honest,
            ThreatName::Active => Threat::Active,
        }
    }

    /// What a session assumes of its devices and of the cloud.
    pub fn assumed(&self) -> Assumed {
        Assumed { threat: self.threat(), adversary: self.adversary, dropout: self.dropout }
    }

    pub fn prg(&self) -> Prg {
        match self.prg {
            PrgName::Aes128Ctr => Prg::Aes128Ctr,
            PrgName::ChaCha20 => Prg::ChaCha20,
        }
    }

    /// Degree and threshold of a session over so many devices.
    pub fn parameters(&self, clients: u32) -> Result<Parameters, ParametersError> {
        Parameters::find(clients, self.adversary, self.dropout, self.threat())
    }
}

/// What everything in a session is bound to: the collection, the job as it is written (by its hash), the version that
/// training starts from and the layout of the words. Whoever was told something else has other keys.
pub fn context(collection: Collection, job: &[u8; 32], model: ObjectId, format: Format) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"littoral/secagg/context\0");
    hasher.update(&collection.to_bytes());
    hasher.update(job);
    hasher.update(&model.0);
    hasher.update(&format.words().to_le_bytes());
    hasher.update(&format.bits().to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Adds or takes masks, at a place of the packed words: `words` are those from byte `offset` on, whole groups of eight.
pub(crate) fn lay_on(masks: &Masks, offset: u64, words: &mut [u8]) -> Result<(), RangeError> {
    let bits = u32::from(masks.bits());
    masks.for_each_block(offset..offset + words.len() as u64, |at, sign, mask| {
        let at = (at - offset) as usize;
        let words = &mut words[at..at + mask.len()];
        let added = match sign {
            Sign::Plus => fixed::add_packed(words, mask, bits),
            Sign::Minus => fixed::sub_packed(words, mask, bits),
        };
        debug_assert!(added.is_ok(), "blocks are whole groups: {added:?}");
    })
}
