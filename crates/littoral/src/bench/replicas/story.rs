//! What a job's records say: which versions were made, of whom, and how it ended.

use super::broken;
use crate::output::Failure;
use littoral_fed::round::{End, Record};
use littoral_node::role::{Row, Table};
use littoral_wire::codec::Wire;
use littoral_wire::message::{Incarnation, Work};
use littoral_wire::{NodeId, ObjectId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub struct Story {
    /// The models, in order, of all kinds of collections.
    pub models: Vec<ObjectId>,
    /// Versions that training made.
    pub trained: u32,
    pub aborts: u32,
    /// Times that a device is in a sum that was applied, beyond the first.
    pub counted_twice: u64,
    /// How often devices are in a version that training made.
    pub counted: u64,
    pub ended: Option<(End, String)>,
}

impl Story {
    /// Of one job's rows.
    pub fn of(rows: &[Row]) -> Result<Self, Failure> {
        let mut story = Self::default();
        let mut kept: BTreeMap<Incarnation, Vec<NodeId>> = BTreeMap::new();
        let mut records: Vec<&Row> = rows.iter().filter(|row| row.key.table == Table::Record).collect();
        // The item numbers them.
        records.sort_by(|a, b| a.key.item.cmp(&b.key.item));
        for row in records {
            match Record::from_bytes(&row.value).map_err(|e| broken(&e))? {
                Record::Kept(of) => drop(kept.insert(of.incarnation, of.devices)),
                Record::Aborted { collection, .. } => {
                    kept.retain(|incarnation, _| incarnation.collection != collection);
                    story.aborts += 1;
                }
                Record::Applied { collection, model, .. } => {
                    let mut times: BTreeMap<NodeId, u64> = BTreeMap::new();
                    let of = kept.iter().filter(|(incarnation, _)| incarnation.collection == collection);
                    of.flat_map(|(_, devices)| devices).for_each(|device| *times.entry(*device).or_default() += 1);
                    story.counted_twice += times.values().map(|times| times - 1).sum::<u64>();
                    if collection.work == Work::Train {
                        story.trained += 1;
                        story.counted += times.len() as u64;
                    }
                    story.models.push(model.id());
                }
                Record::Finished { end, why } => story.ended = Some((end, why)),
                _ => {}
            }
        }
        Ok(story)
    }
}
