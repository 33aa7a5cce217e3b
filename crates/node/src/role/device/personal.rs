//! What a device has of its own in a job: segments of the model, or a model.
//!
//! It becomes current together with the update that it was trained with, as an algorithm's state does: until the verdict it waits in a
//! row beside the sealed update, and a second attempt begins from what there was before. Unlike that state nobody else
//! counts on it, so that a device which lost it begins anew and says so. It is never sent.

use super::{Device, Sealed, describe};
use crate::role::{Effect, Report, Row, RowKey, Table, Write};
use littoral_wire::codec::Wire;
use littoral_wire::object::Manifest;
use littoral_wire::{Collection, JobId, ObjectId};
use std::collections::BTreeMap;

/// The item of the row that holds what is current; with a collection behind it, what waits for that one's verdict.
pub(super) const PERSONAL: &[u8] = b"personal";

fn key(job: JobId) -> RowKey {
    RowKey { table: Table::DeviceState, job, version: 0, item: PERSONAL.to_vec() }
}

fn waiting_key(collection: Collection) -> RowKey {
    let item = [PERSONAL, &collection.to_bytes()].concat();
    RowKey { table: Table::DeviceState, job: collection.job, version: 0, item }
}

/// To be stored together with what was sealed.
pub(super) fn waits(collection: Collection, own: &Manifest) -> [Write; 2] {
    [Write::Object(own.id()), Write::Put { key: waiting_key(collection), value: own.to_bytes() }]
}

pub(super) fn begins_anew(collection: Collection, effects: &mut Vec<Effect>) {
    let what =
        format!("{}: what this device had of its own in this job was lost; it begins anew", describe(collection));
    effects.push(Effect::Report(Report::Note { what }));
}

/// Rows as they are read at a start.
#[derive(Default)]
pub(super) struct Rows {
    current: BTreeMap<JobId, Manifest>,
    waiting: BTreeMap<Collection, Manifest>,
}

impl Rows {
    /// Of an item that begins with [`PERSONAL`].
    pub fn read(&mut self, row: &Row) {
        let Ok(own) = Manifest::from_bytes(&row.value) else { return };
        match &row.key.item[PERSONAL.len()..] {
            [] => drop(self.current.insert(row.key.job, own)),
            collection => {
                self.waiting.extend(Collection::from_bytes(collection).map(|collection| (collection, own)));
            }
        }
    }

    /// What waits goes to the update that it waits with.
    pub fn settle(mut self, sealed: &mut BTreeMap<Collection, Sealed>) -> BTreeMap<JobId, Manifest> {
        sealed.iter_mut().for_each(|(collection, sealed)| sealed.personal = self.waiting.remove(collection));
        self.current
    }
}

impl Device {
    /// Says so if the cloud counts this device in a version, and it has nothing of its own although it should.
    pub(super) fn misses_own(&self, collection: Collection, effects: &mut Vec<Effect>) {
        let Some(task) = self.tasks.get(&collection).filter(|task| task.counted > 0) else { return };
        if self.personal.contains_key(&collection.job) {
            return;
        }
        let told = crate::job::Task::decode(&task.spec);
        if told.is_ok_and(|told| told.spec.keeps_own()) {
            begins_anew(collection, effects);
        }
    }

    /// The verdict is there. Returns the object that is of no more use.
    pub(super) fn settle_own(
        &mut self,
        collection: Collection,
        own: Manifest,
        included: bool,
        writes: &mut Vec<Write>,
    ) -> Option<ObjectId> {
        writes.push(Write::Delete { key: waiting_key(collection) });
        if !included && !cfg!(feature = "broken-pending-state") {
            return Some(own.id());
        }
        writes.push(Write::Put { key: key(collection.job), value: own.to_bytes() });
        let new = own.id();
        // What did not change is one object.
        self.personal.insert(collection.job, own).map(|old| old.id()).filter(|old| *old != new)
    }
}
