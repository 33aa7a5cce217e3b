//! A task: what a device is asked for, how far it has come, and why it may have to decline.

use super::super::WorkId;
use super::sealing::Masking;
use crate::role::fetch::Fetch;
use littoral_fed::masks::ThreatName;
use littoral_wire::Collection;
use littoral_wire::message::{Effort, Work as Kind};
use littoral_wire::object::{Chain, Manifest};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Task {
    pub spec: Arc<[u8]>,
    pub model: Manifest,
    /// What the model builds on.
    pub before: Chain,
    /// The last version of training that counts this device, as the cloud knows it; 0: none.
    pub counted: u32,
    /// Where the sum is masked, the cloud's.
    pub commitment: Option<[u8; 32]>,
    /// How this device comes to the update.
    pub effort: Effort,
    pub stage: TaskStage,
}

#[derive(Debug)]
pub(super) enum TaskStage {
    /// An older update of this job has no verdict yet; the state to start from depends on it.
    Unsettled,
    /// The model, and what it builds on.
    Fetching(Vec<Fetch>),
    Working(WorkId),
    /// Trained; keys are being exchanged.
    Masking(Box<Masking>),
}

impl TaskStage {
    /// What becomes the device's state if the update that waits for its masks is included.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Manifest> {
        let (state, personal) = match self {
            TaskStage::Masking(masking) => (masking.pending.as_ref(), masking.personal.as_ref()),
            _ => (None, None),
        };
        state.into_iter().chain(personal)
    }

    /// The plain update, where there is one.
    pub(super) fn plain(&self) -> Option<&Manifest> {
        match self {
            TaskStage::Masking(masking) => Some(&masking.plain),
            _ => None,
        }
    }
}

impl Task {
    /// Why this device cannot take part: what it keeps of the job is not what the cloud has counted. `here`: the last
    /// version of training that counts this device, as this device knows it.
    ///
    /// Who trains although its state was lost gives the sum of all states a wrong term for ever.
    pub(super) fn lacks(&self, collection: Collection, here: u32) -> Option<String> {
        if collection.work != Kind::Train || here == self.counted {
            return None;
        }
        // A job of another release is refused by the work.
        let what = crate::job::Task::decode(&self.spec).ok()?.spec.algorithm().device_state()?;
        let (counted, version) =
            (self.counted, |n| if n == 0 { "none".into() } else { format!("that of version {n}") });
        let set_back = if here < counted { "this device's folder" } else { "the cloud's folder" };
        Some(format!(
            "{what}: {} expected, since the cloud counts this device there last, got {}: {set_back} was lost or is an \
             old copy; restore a newer one, or enrol this machine anew in an empty folder under another name",
            version(counted),
            version(here),
        ))
    }

    /// Why this device takes no part in an open sum, or one that is masked too weakly for it. Without a word of its own it does as
    /// the job says: then whoever writes jobs could have its updates as they are.
    pub(super) fn shows_too_much(&self, least: ThreatName) -> Option<String> {
        let told = crate::job::Task::decode(&self.spec).ok()?;
        let masked = told.spec.settings().masked.as_ref().map(|masked| masked.agreement.threat);
        let (expected, enough) = match least {
            ThreatName::Active => ("a masked sum, threat \"active\",", masked == Some(ThreatName::Active)),
            ThreatName::Honest => ("a masked sum", masked.is_some()),
        };
        let got = match masked {
            None => "a job without [secure_aggregation]",
            Some(_) => "threat \"honest\"",
        };
        (!enough).then(|| format!("secure_aggregation: {expected} expected by this device's configuration, got {got}"))
    }

    /// Whether what compression left out here is of another version than the cloud counts this device in last.
    pub(super) fn outdates_residual(&self, collection: Collection, here: u32) -> bool {
        let keeps = || crate::job::Task::decode(&self.spec).is_ok_and(|told| told.spec.residual_step().is_some());
        collection.work == Kind::Train && here != self.counted && keeps()
    }
}
