//! What is a device's own never leaves it: neither the parameters that a job leaves on devices, nor a model that a device has for
//! itself, as numbers or as words of an update.
//!
//! Of each that a device makes a few windows of sixteen bytes are remembered, and, of parameters that a job leaves on devices, of how
//! they differ from those before, in the job's steps, packed as an update's words would be if they were sent; where those have 32
//! bits, so that they are the same bytes wherever they stand. (A model of its own may have moved as the shared one did, bit for bit,
//! as in a first round: its words tell nothing.) All that any machine sends and all that edges and the cloud keep is searched for them, as for plain updates.

use super::{Checker, Findings, Needles, Seen};
use crate::faults::Kind;
use crate::world::Machine;
use littoral_fed::algorithm::Keeps;
use littoral_node::job::Task;
use littoral_node::role::{Millis, Write};
use littoral_node::work::{Output, Work};
use littoral_wire::codec::Wire;
use littoral_wire::object::Manifest;
use littoral_wire::{NodeId, ObjectId};
use std::collections::BTreeSet;

#[derive(Default)]
pub struct OwnSegments {
    needles: Needles,
    /// What devices made of their own, and windows remembered of it: a checker that remembers nothing finds nothing.
    made: usize,
    windows: usize,
    /// Objects of edges and the cloud that were searched.
    searched: BTreeSet<(NodeId, ObjectId)>,
    findings: Findings,
}

impl OwnSegments {
    fn made(&mut self, device: &Machine, task: &[u8], model: &Manifest, before: Option<&Manifest>, own: &Manifest) {
        let content = |manifest: &Manifest| device.disk.content(manifest.id()).map(|content| content.bytes.clone());
        let Some(bytes) = content(own) else { return };
        self.made += 1;
        // A model of its own has numbers that never moved, such as those of pixels that are always black: the version has them too.
        let version = content(model).unwrap_or_default();
        self.windows += self.needles.remember_new(&bytes, &version, &device.name);
        let before = before.and_then(content).unwrap_or_else(|| vec![0; bytes.len()].into());
        if let Ok(task) = Task::decode(task) {
            self.windows += self.needles.remember(&words(&task, &before, &bytes), &device.name);
        }
    }

    fn search(&mut self, place: impl FnOnce() -> String, bytes: &[u8]) {
        if let Some(whose) = self.needles.find(bytes) {
            self.findings.add(|| format!("what is {whose}'s own is in {}", place()));
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

/// The change from `before` to `after`, both f32, as words of an update that counts once; none where words have other than 32 bits.
fn words(task: &Task, before: &[u8], after: &[u8]) -> Vec<u8> {
    let plan = task.spec.plan(littoral_wire::message::Work::Train);
    let segments = task.spec.algorithm().keeps() == Some(Keeps::Segments);
    if !segments || plan.bits() != 32 || plan.sections().is_empty() {
        return Vec::new();
    }
    let numbers =
        |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect::<Vec<_>>();
    let (before, after) = (numbers(before), numbers(after));
    let steps = before.iter().zip(&after).map(|(before, after)| f64::from(after - before) / plan.step(0));
    steps.flat_map(|steps| (steps.round() as i32).to_le_bytes()).collect()
}

impl Checker for OwnSegments {
    fn name(&self) -> &'static str {
        "own segments"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        let aggregates = machine.kind != Kind::Device;
        match seen {
            Seen::Worked {
                work: Work::Local { task, model, personal: before, .. },
                result: Ok(Output::Local { personal: Some(own), .. }),
            } => self.made(machine, task, model, before.as_ref(), own),
            Seen::Sent { message, .. } if self.windows > 0 => {
                self.search(|| format!("{} from {}", message.name(), machine.name), &message.to_bytes());
            }
            Seen::Stored { writes } if aggregates && self.windows > 0 => {
                for write in *writes {
                    if let Write::Put { key, value } = write {
                        self.search(|| format!("a row of {}, {:?}", machine.name, key.table), value);
                    }
                }
                self.search_disk(machine);
            }
            _ => {}
        }
    }

    fn finish(&mut self, machines: &[Machine]) {
        if self.made > 0 {
            machines
                .iter()
                .filter(|machine| machine.kind != Kind::Device)
                .for_each(|machine| self.search_disk(machine));
        }
        if self.made > 0 && self.windows == 0 {
            let made = self.made;
            self.findings.add(|| format!("none of {made} own parts has a window that could be looked for"));
        }
    }

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_node::job::{JobSpec, SAMPLE_TOML};
    use littoral_tensor::fixed;

    /// Numbers of a device's own model that are those of the version are no secret; the others are.
    #[test]
    fn what_the_version_has_too_is_not_looked_for() {
        let numbers = |of: fn(usize) -> f32| (0..64).flat_map(|i| of(i).to_le_bytes()).collect::<Vec<u8>>();
        let (version, own) =
            (numbers(|i| (i as f32).sin()), numbers(|i| (i as f32).sin() + if i < 20 { 0.1 } else { 0.0 }));
        let mut needles = Needles::default();
        assert!(needles.remember_new(&own, &version, "device") > 0);
        assert_eq!((needles.find(&version), needles.find(&own)), (None, Some("device")));
        assert_eq!(Needles::default().remember_new(&version, &version, "device"), 0);
    }

    /// An update made of a whole model, as if nothing stayed at home, has the words of what should have.
    #[test]
    fn words_of_an_update_that_leaks_are_found() {
        let (start, rest) = SAMPLE_TOML.split_once("[algorithm]").unwrap();
        let (_, end) = rest.split_once("\n[").unwrap();
        let job = format!("{start}[algorithm]\nname = \"fedper\"\n[{end}");
        let task = Task { spec: JobSpec::parse(&job).unwrap(), population: 1 };
        let numbers = |of: fn(usize) -> f32| (0..40).flat_map(|i| of(i).to_le_bytes()).collect::<Vec<u8>>();
        let (before, after) = (numbers(|i| (i as f32).sin()), numbers(|i| (i as f32).sin() + 0.1 * (i as f32).cos()));
        let mut needles = Needles::default();
        assert!(needles.remember(&words(&task, &before, &after), "device") > 0);

        let plan = task.spec.plan(littoral_wire::message::Work::Train);
        let moved = |i: usize| {
            let sum = (i as f32).sin() + 0.1 * (i as f32).cos();
            (f64::from(sum - (i as f32).sin()) / plan.step(0)).round() as i64
        };
        for shared in 0..9 {
            // So many words of what is shared in front.
            let mut leak: Vec<i64> = (0..shared).map(|i| 77 * i).chain((0..40).map(moved)).collect();
            leak.resize(leak.len().next_multiple_of(8), 0);
            let mut bytes = vec![0; leak.len() / 8 * plan.bits() as usize];
            fixed::pack(&leak, plan.bits(), &mut bytes).unwrap();
            assert_eq!(needles.find(&bytes), Some("device"), "{shared} in front");
            let sound: Vec<i64> = leak.iter().map(|word| word + 1).collect();
            fixed::pack(&sound, plan.bits(), &mut bytes).unwrap();
            assert_eq!(needles.find(&bytes), None);
        }
    }
}
