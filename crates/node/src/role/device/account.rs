//! What a device counts by itself: how often it took part in a job, and under which terms. What a private job costs is accounted
//! for so many times and for no other terms, and of a cloud that asks for more nobody else would know.

use super::{Device, Kind, RowKey, Table, Write};
use crate::job::JobSpec;
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::{Collection, JobId};

/// What is durable with each update that is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TakenPart {
    /// Updates of training that were sealed, attempts that came to nothing among them.
    times: u64,
    /// The hash of the terms of the first one; `None`: nothing was sealed, or by a release that did not note them.
    terms: Option<[u8; 32]>,
}

impl TakenPart {
    /// What cannot be read counts as more than any account.
    pub fn restored(value: &[u8]) -> Self {
        let mut reader = Reader::new(value);
        let times = u64::take(&mut reader).unwrap_or(u64::MAX);
        Self { times, terms: Wire::take(&mut reader).unwrap_or(None) }
    }
}

fn hash(spec: &JobSpec) -> [u8; 32] {
    *blake3::hash(&serde_json::to_vec(&spec.terms()).unwrap_or_default()).as_bytes()
}

pub(super) fn key(job: JobId) -> RowKey {
    RowKey { table: Table::Ledger, job, version: 0, item: Vec::new() }
}

impl Device {
    /// Why this device cannot seal an update of this collection: asked before it trains, and again when it has, since others may
    /// have been sealed in between. A job of another release is refused by the work.
    pub(super) fn spent(&self, collection: Collection, spec: &[u8]) -> Option<String> {
        let trains = matches!(collection.work, Kind::Train | Kind::Prepare);
        let told = crate::job::Task::decode(spec).ok().filter(|_| trains)?;
        let taken = self.taken_part.get(&collection.job).copied().unwrap_or_default();
        if taken.terms.is_some_and(|terms| terms != hash(&told.spec)) {
            return Some(
                "differential_privacy: the noise, clip and number of rounds under which this device first took part expected, got \
                 others: a job keeps its terms"
                    .into(),
            );
        }
        if let Some(cap) = told.spec.terms().map(|terms| terms.participations).filter(|cap| taken.times >= *cap) {
            return Some(format!(
                "differential_privacy.participations_max: at most {cap} expected, since what the job costs is accounted for that \
                 often, and this device has sealed an update {} times",
                taken.times
            ));
        }
        self.comes_too_soon(collection, told.spec.settings().spacing)
    }

    /// Where noise is correlated over versions its account holds for devices that are in at most one of so many in a row.
    fn comes_too_soon(&self, collection: Collection, spacing: u64) -> Option<String> {
        let counted = self.settled.get(&collection.job).map_or(0, |settled| u64::from(settled.counted));
        // Counted in the version that was made of one version: that one is a number lower.
        let counted = counted.checked_sub(1);
        let sealed = self.sealed.keys().filter(|c| c.job == collection.job && c.work == Kind::Train).map(|c| c.version);
        let other = |version: &u64| *version != collection.version && version.abs_diff(collection.version) < spacing;
        counted.into_iter().chain(sealed).find(other).map(|version| {
            format!(
                "differential_privacy.bands: a version {spacing} or more away from {version} expected, of which this device is part, \
                 got {}",
                collection.version
            )
        })
    }

    /// To be stored together with what was sealed.
    pub(super) fn takes_part(&mut self, collection: Collection, spec: &[u8]) -> Option<Write> {
        if collection.work != Kind::Train {
            return None;
        }
        let taken = self.taken_part.entry(collection.job).or_default();
        taken.times = taken.times.saturating_add(1);
        if taken.terms.is_none() {
            taken.terms = crate::job::Task::decode(spec).ok().map(|told| hash(&told.spec));
        }
        let mut value = taken.times.to_bytes();
        taken.terms.put(&mut value);
        Some(Write::Put { key: key(collection.job), value })
    }
}
