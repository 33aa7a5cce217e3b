//! Where sums are masked, no aggregator ever holds a device's plain update: not in a message, not in a row, not in an
//! object.
//!
//! Of every update that a device trains, a few windows of sixteen bytes are remembered: those with the most different
//! bytes, such as nothing else has. Everything that is sent from machine to machine is searched for all of them at every
//! offset, and so is everything that edges and the cloud keep. The search is one pass: eight bytes are looked up in a bit
//! field, and the whole window is compared where that says "perhaps".

use super::{Checker, Findings, Seen};
use crate::faults::Kind;
use crate::world::Machine;
use littoral_node::job::Task;
use littoral_node::role::{Millis, Write};
use littoral_node::work::{Output, Work};
use littoral_wire::codec::Wire;
use littoral_wire::{Collection, NodeId, ObjectId};
use std::collections::{BTreeSet, HashMap};

const WINDOW: usize = 16;
/// Different bytes in a window. Keys and hashes have more; a stretch of small integers has as many once in a while.
const DIFFERENT: usize = 6;
/// Windows of one update.
const WINDOWS: usize = 4;
/// Of the bit field: 2^20 bits for some thousands of windows.
const FIELD_BITS: u32 = 20;

/// Finds windows of bytes, at any offset of what is searched.
#[derive(Debug)]
pub struct Needles {
    field: Vec<u64>,
    windows: HashMap<[u8; WINDOW], String>,
}

impl Default for Needles {
    fn default() -> Self {
        Self { field: vec![0; 1 << (FIELD_BITS - 6)], windows: HashMap::new() }
    }
}

/// The place of a window's first eight bytes in the bit field. Multiplying by 2^64 over the golden ratio spreads them.
fn place(first: &[u8]) -> usize {
    let mut eight = [0; 8];
    eight.copy_from_slice(&first[..8]);
    (u64::from_le_bytes(eight).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FIELD_BITS)) as usize
}

fn different(window: &[u8]) -> usize {
    window.iter().collect::<BTreeSet<_>>().len()
}

impl Needles {
    /// Remembers the most distinctive windows of these bytes, one from each quarter. Returns how many there were.
    pub fn remember(&mut self, bytes: &[u8], whose: &str) -> usize {
        self.remember_new(bytes, &[], whose)
    }

    /// The same without windows in which four bytes are what stands there in `known`.
    pub fn remember_new(&mut self, bytes: &[u8], known: &[u8], whose: &str) -> usize {
        let part = bytes.len().div_ceil(WINDOWS).next_multiple_of(4).max(WINDOW);
        let new = |at: usize| {
            let numbers = (at / 4 * 4..at + WINDOW).step_by(4);
            numbers.into_iter().all(|at| known.get(at..at + 4).is_none_or(|four| bytes.get(at..at + 4) != Some(four)))
        };
        let best = |(first, part): (usize, &[u8])| {
            let windows = part.windows(WINDOW).enumerate().filter(|(at, _)| new(first + at));
            windows.map(|(_, window)| window).max_by_key(|window| different(window)).map(<[u8]>::to_vec)
        };
        let parts = bytes.chunks(part).enumerate().map(|(at, chunk)| (at * part, chunk));
        let windows = parts.filter_map(best).filter(|window| different(window) >= DIFFERENT);
        let mut count = 0;
        for window in windows {
            let at = place(&window);
            self.field[at / 64] |= 1 << (at % 64);
            if let Ok(window) = window.try_into() {
                self.windows.insert(window, whose.to_owned());
                count += 1;
            }
        }
        count
    }

    /// Whose window is in these bytes.
    pub fn find(&self, bytes: &[u8]) -> Option<&str> {
        bytes.windows(WINDOW).find_map(|window| {
            let at = place(window);
            let perhaps = self.field[at / 64] >> (at % 64) & 1 == 1;
            perhaps.then(|| self.windows.get(window)).flatten().map(String::as_str)
        })
    }
}

#[derive(Default)]
pub struct PlainUpdate {
    needles: Needles,
    /// Plain updates, and windows remembered of them: a checker that remembers nothing finds nothing.
    updates: usize,
    windows: usize,
    /// Objects of edges and the cloud that were searched.
    searched: BTreeSet<(NodeId, ObjectId)>,
    findings: Findings,
}

impl PlainUpdate {
    fn trained(&mut self, device: &Machine, collection: Collection, task: &[u8], update: ObjectId) {
        let masked = Task::decode(task).is_ok_and(|task| task.spec.settings().masked.is_some());
        let Some(content) = device.disk.content(update).filter(|_| masked) else { return };
        self.updates += 1;
        self.windows += self.needles.remember(&content.bytes, &format!("{} for {collection:?}", device.name));
    }

    fn search(&mut self, place: impl FnOnce() -> String, bytes: &[u8]) {
        if let Some(whose) = self.needles.find(bytes) {
            self.findings.add(|| format!("the plain update of {whose} is in {}", place()));
        }
    }

    fn search_disk(&mut self, machine: &Machine) {
        let objects: Vec<ObjectId> = machine.disk.objects().collect();
        for object in objects {
            if self.searched.insert((machine.id, object))
                && let Some(content) = machine.disk.content(object)
            {
                self.search(|| format!("an object of {}", machine.name), &content.bytes);
            }
        }
    }
}

impl Checker for PlainUpdate {
    fn name(&self) -> &'static str {
        "plain update"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        let aggregates = machine.kind != Kind::Device;
        match seen {
            Seen::Worked {
                work: Work::Local { collection, task, .. } | Work::Seal { collection, task, .. },
                result: Ok(Output::Local { update, .. }),
            } => {
                self.trained(machine, *collection, task, update.id());
            }
            // Devices talk to edges and the cloud only, so each message is one that an aggregator sends or gets.
            Seen::Sent { message, .. } if self.windows > 0 => {
                self.search(|| format!("{} from {}", message.name(), machine.name), &message.to_bytes());
            }
            Seen::Stored { writes } if aggregates => {
                for write in *writes {
                    if let Write::Put { key, value } = write {
                        self.search(|| format!("a row of {}, {:?}", machine.name, key.table), value);
                    }
                }
                self.search_disk(machine);
            }
            Seen::Worked { .. } | Seen::Stopped if aggregates => self.search_disk(machine),
            _ => {}
        }
    }

    fn finish(&mut self, machines: &[Machine]) {
        machines.iter().filter(|machine| machine.kind != Kind::Device).for_each(|machine| self.search_disk(machine));
        if self.updates > 0 && self.windows == 0 {
            let updates = self.updates;
            self.findings.add(|| format!("none of {updates} updates has a window that could be looked for"));
        }
    }

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_found_at_every_offset_and_nothing_else_is() {
        let mut needles = Needles::default();
        let update: Vec<u8> = (0..400u32).map(|i| (i * i % 251) as u8).collect();
        assert_eq!(needles.remember(&update, "one"), WINDOWS);
        assert_eq!(needles.remember(&[0xff; 400], "dull"), 0);
        for offset in 0..20 {
            let hay = [&vec![7; offset][..], &update[..], &[9; 5]].concat();
            assert_eq!(needles.find(&hay), Some("one"), "at {offset}");
        }
        let masked: Vec<u8> = update.iter().map(|byte| byte ^ 1).collect();
        assert_eq!(needles.find(&masked), None);
        assert_eq!(needles.find(&update[..WINDOW - 1]), None);
    }
}
