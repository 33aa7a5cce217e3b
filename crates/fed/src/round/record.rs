//! What a round makes durable, and its bytes: what is stored, and what a run's record file holds.

use super::End;
use crate::algorithm::fedamp::DEVICES_MAX;
use littoral_wire::bounded::Blob;
use littoral_wire::codec::{DecodeError, Reader, Wire};
use littoral_wire::message::{COHORT_MAX, Collection, Incarnation, Name};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{List, NodeId, Text};
use std::collections::BTreeMap;

/// A partial that is durable at the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub incarnation: Incarnation,
    pub edge: NodeId,
    /// Sorted.
    pub devices: Vec<NodeId>,
    pub sum: Manifest,
}

/// Models that devices are given instead of the version, by the devices' names.
pub type Given = BTreeMap<String, Manifest>;

/// A durable step. The record of a run is the list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// `population`: devices seen so far that offer the data set.
    Opened {
        collection: Collection,
        population: u64,
        cohort: Vec<(NodeId, String)>,
    },
    /// These train from this version; of a collection of [`Work::Prepare`](littoral_wire::message::Work::Prepare). With the steps
    /// that each was given; 0: as many as the job says.
    Dispatched {
        collection: Collection,
        cohort: Vec<(NodeId, String, u64)>,
    },
    /// As [`Record::Opened`], of devices that have trained: with the version that each began at.
    Grouped {
        collection: Collection,
        population: u64,
        cohort: Vec<(NodeId, String, u64)>,
    },
    /// Others that were asked in place of devices that declined.
    Joined {
        collection: Collection,
        cohort: Vec<(NodeId, String)>,
    },
    /// A machine declined, for a reason that it did not give the last time.
    Declined {
        collection: Collection,
        name: String,
        why: String,
    },
    Fenced {
        incarnation: Incarnation,
        edge: NodeId,
    },
    Kept(Kept),
    /// A masked collection begins, with the cloud's part in the choice of neighbours: durable before any device is bound to
    /// it, so that devices which are training need not start again when the cloud does.
    Committed {
        collection: Collection,
        secret: [u8; 32],
    },
    /// Keys and neighbours of a masked collection are fixed, and who holds shares of whom: [`crate::masks::cloud`]'s bytes.
    Keyed {
        collection: Collection,
        directory: Vec<u8>,
    },
    /// Whose updates are in a masked sum; sorted. From here on nothing else is opened in this collection.
    Survivors {
        collection: Collection,
        devices: Vec<NodeId>,
    },
    Aborted {
        collection: Collection,
        why: String,
    },
    /// The collection made this version; `line` is the host's description of it.
    Applied {
        collection: Collection,
        version: u64,
        model: Manifest,
        /// What the model builds on.
        before: Chain,
        state: Option<Manifest>,
        /// Of an algorithm that makes a model for each device.
        given: Given,
        accuracy_ppm: Option<u32>,
        line: Vec<u8>,
    },
    Finished {
        end: End,
        why: String,
    },
}

/// A description of a version.
type LineBytes = Blob<65_536>;
type Why = Text<4096>;
/// Keys, signatures and neighbours of the biggest cohort.
type DirectoryBytes = Blob<{ 64 << 20 }>;

impl Wire for Record {
    const BYTES_MIN: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Record::Opened { collection, population, cohort } => {
                out.push(0);
                collection.put(out);
                population.put(out);
                put_cohort(cohort, out);
            }
            Record::Dispatched { collection, cohort } => {
                out.push(15);
                collection.put(out);
                put_group(cohort, out);
            }
            Record::Grouped { collection, population, cohort } => {
                out.push(14);
                collection.put(out);
                population.put(out);
                put_group(cohort, out);
            }
            Record::Joined { collection, cohort } => {
                out.push(1);
                collection.put(out);
                put_cohort(cohort, out);
            }
            Record::Fenced { incarnation, edge } => {
                out.push(2);
                incarnation.put(out);
                edge.put(out);
            }
            Record::Kept(kept) => {
                out.push(3);
                kept.incarnation.put(out);
                kept.edge.put(out);
                (kept.devices.len() as u32).put(out);
                kept.devices.iter().for_each(|d| d.put(out));
                kept.sum.put(out);
            }
            Record::Aborted { collection, why } => {
                out.push(4);
                collection.put(out);
                Why::new(why.as_str()).put(out);
            }
            Record::Applied { collection, version, model, before, state, given, accuracy_ppm, line } => {
                // As releases before chains and given models have it, where there is none.
                let tag = match (before.is_empty(), given.is_empty()) {
                    (true, true) => 5,
                    (false, true) => 13,
                    (_, false) => 16,
                };
                out.push(tag);
                collection.put(out);
                version.put(out);
                model.put(out);
                if tag != 5 {
                    before.put(out);
                }
                state.put(out);
                if tag == 16 {
                    put_given(given, out);
                }
                accuracy_ppm.put(out);
                (line.len() as u32).put(out);
                out.extend_from_slice(line);
            }
            Record::Finished { end, why } => {
                // A tag for each end. Releases before these had 6 for all.
                out.push(match end {
                    End::Done => 6,
                    End::Stopped => 8,
                    End::Failed => 9,
                });
                Why::new(why.as_str()).put(out);
            }
            Record::Keyed { collection, directory } => {
                out.push(10);
                collection.put(out);
                (directory.len() as u32).put(out);
                out.extend_from_slice(directory);
            }
            Record::Survivors { collection, devices } => {
                out.push(11);
                collection.put(out);
                (devices.len() as u32).put(out);
                devices.iter().for_each(|d| d.put(out));
            }
            Record::Committed { collection, secret } => {
                out.push(12);
                collection.put(out);
                secret.put(out);
            }
            Record::Declined { collection, name, why } => {
                out.push(7);
                collection.put(out);
                Name::new(name.as_str()).put(out);
                Why::new(why.as_str()).put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        Ok(match u8::take(reader)? {
            0 => Record::Opened {
                collection: take_collection(reader)?,
                population: Wire::take(reader)?,
                cohort: take_cohort(reader)?,
            },
            1 => Record::Joined { collection: take_collection(reader)?, cohort: take_cohort(reader)? },
            2 => Record::Fenced { incarnation: take_incarnation(reader)?, edge: Wire::take(reader)? },
            3 => Record::Kept(Kept {
                incarnation: take_incarnation(reader)?,
                edge: Wire::take(reader)?,
                devices: List::<NodeId, COHORT_MAX>::take(reader)?.into_vec(),
                sum: Wire::take(reader)?,
            }),
            4 => Record::Aborted { collection: take_collection(reader)?, why: Why::take(reader)?.into() },
            tag @ (5 | 13 | 16) => Record::Applied {
                collection: take_collection(reader)?,
                version: Wire::take(reader)?,
                model: Wire::take(reader)?,
                before: if tag == 5 { Chain::default() } else { Wire::take(reader)? },
                state: Wire::take(reader)?,
                given: if tag == 16 { take_given(reader)? } else { Given::new() },
                accuracy_ppm: Wire::take(reader)?,
                line: LineBytes::take(reader)?.into_vec(),
            },
            6 => Record::Finished { end: End::Done, why: Why::take(reader)?.into() },
            8 => Record::Finished { end: End::Stopped, why: Why::take(reader)?.into() },
            9 => Record::Finished { end: End::Failed, why: Why::take(reader)?.into() },
            7 => Record::Declined {
                collection: take_collection(reader)?,
                name: Name::take(reader)?.into(),
                why: Why::take(reader)?.into(),
            },
            10 => Record::Keyed {
                collection: take_collection(reader)?,
                directory: DirectoryBytes::take(reader)?.into_vec(),
            },
            11 => Record::Survivors {
                collection: take_collection(reader)?,
                devices: List::<NodeId, COHORT_MAX>::take(reader)?.into_vec(),
            },
            12 => Record::Committed { collection: take_collection(reader)?, secret: Wire::take(reader)? },
            14 => Record::Grouped {
                collection: take_collection(reader)?,
                population: Wire::take(reader)?,
                cohort: take_group(reader)?,
            },
            15 => Record::Dispatched { collection: take_collection(reader)?, cohort: take_group(reader)? },
            got => return Err(DecodeError::UnknownTag { what: "record", offset, got }),
        })
    }
}

/// Rounds count on from here: a damaged row must not bring a number that has no next one.
fn take_collection(reader: &mut Reader<'_>) -> Result<Collection, DecodeError> {
    let offset = reader.offset();
    let collection = Collection::take(reader)?;
    match collection.version <= u64::MAX / 2 && collection.attempt <= u32::MAX / 2 {
        true => Ok(collection),
        false => Err(DecodeError::Invalid { what: "collection", offset, why: "numbers that can be reached expected" }),
    }
}

fn take_incarnation(reader: &mut Reader<'_>) -> Result<Incarnation, DecodeError> {
    let collection = take_collection(reader)?;
    let offset = reader.offset();
    let number = u64::take(reader)?;
    match number <= u64::MAX / 2 {
        true => Ok(Incarnation { collection, number }),
        false => {
            Err(DecodeError::Invalid { what: "incarnation", offset, why: "a number that can be reached expected" })
        }
    }
}

fn put_cohort(cohort: &[(NodeId, String)], out: &mut Vec<u8>) {
    (cohort.len() as u32).put(out);
    for (device, name) in cohort {
        device.put(out);
        Name::new(name.as_str()).put(out);
    }
}

fn take_cohort(reader: &mut Reader<'_>) -> Result<Vec<(NodeId, String)>, DecodeError> {
    let count = reader.count("cohort", COHORT_MAX * 4, NodeId::BYTES_MIN + Name::BYTES_MIN)?;
    let mut cohort = Vec::with_capacity(count);
    for _ in 0..count {
        cohort.push((NodeId::take(reader)?, Name::take(reader)?.into()));
    }
    Ok(cohort)
}

fn put_group(group: &[(NodeId, String, u64)], out: &mut Vec<u8>) {
    (group.len() as u32).put(out);
    for (device, name, number) in group {
        device.put(out);
        Name::new(name.as_str()).put(out);
        number.put(out);
    }
}

fn take_group(reader: &mut Reader<'_>) -> Result<Vec<(NodeId, String, u64)>, DecodeError> {
    let count = reader.count("group", COHORT_MAX, NodeId::BYTES_MIN + Name::BYTES_MIN + u64::BYTES_MIN)?;
    let mut group = Vec::with_capacity(count);
    for _ in 0..count {
        group.push((NodeId::take(reader)?, Name::take(reader)?.into(), u64::take(reader)?));
    }
    Ok(group)
}

fn put_given(given: &Given, out: &mut Vec<u8>) {
    (given.len() as u32).put(out);
    for (name, model) in given {
        Name::new(name.as_str()).put(out);
        model.put(out);
    }
}

fn take_given(reader: &mut Reader<'_>) -> Result<Given, DecodeError> {
    let count = reader.count("given models", DEVICES_MAX, Name::BYTES_MIN + Manifest::BYTES_MIN)?;
    (0..count).map(|_| Ok((Name::take(reader)?.into(), Manifest::take(reader)?))).collect()
}
