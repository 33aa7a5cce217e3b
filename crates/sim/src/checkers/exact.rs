//! The sum that is applied is the sum of what devices sealed, bit for bit.
//!
//! Every sealed update is held on to as it was when its device made it durable. When the cloud applies a collection, each partial
//! that it kept is compared with the sum of what its devices sealed, by a reading of packed words that shares no code with
//! the kernels: word `i` takes the bits from `i * bits` on, the lowest first. Where updates are not summed, each must be in
//! its list as it is.

use super::{Checker, Findings, Seen, rows};
use crate::disk::Content;
use crate::world::Machine;
use littoral_fed::compress::accumulate;
use littoral_fed::round::{Kept, Record};
use littoral_node::job::JobSpec;
use littoral_node::role::Millis;
use littoral_node::work::Work;
use littoral_wire::{Collection, NodeId};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub struct ExactSum {
    sealed: BTreeMap<Collection, BTreeMap<NodeId, Arc<Content>>>,
    kept: BTreeMap<Collection, Vec<Kept>>,
    findings: Findings,
}

impl ExactSum {
    /// What was not summed: each device's update is in its list as it was sealed.
    fn lists(&mut self, cloud: &Machine, collection: Collection, update_bytes: usize) {
        for kept in self.kept.get(&collection).into_iter().flatten() {
            let list = cloud.disk.content(kept.sum.id()).map_or(&[][..], |content| &content.bytes);
            let sealed = |device| self.sealed.get(&collection).and_then(|sealed| sealed.get(device));
            let mut updates = list.chunks(update_bytes);
            if kept.devices.iter().any(|device| updates.next() != sealed(device).map(|content| &content.bytes[..])) {
                self.findings.add(|| format!("{:?}: its list is not what its devices sealed", kept.incarnation));
            }
            if updates.next().is_some() {
                self.findings.add(|| format!("{:?}: its list has more updates than devices", kept.incarnation));
            }
        }
    }

    fn applied(&mut self, cloud: &Machine, work: &Work) {
        let Work::Apply { spec, collection, partials, .. } = work else { return };
        let none = Vec::new();
        let kept = self.kept.get(collection).unwrap_or(&none);
        let mut expected: Vec<_> = kept.iter().map(|k| k.sum.id()).collect();
        let mut got: Vec<_> = partials.iter().map(|p| p.id()).collect();
        expected.sort_unstable();
        got.sort_unstable();
        if expected != got {
            let (expected, got) = (expected.len(), got.len());
            self.findings.add(|| format!("{collection:?}: {expected} partials were kept, {got} others were applied"));
        }
        if spec.unmerged(collection.work) {
            return self.lists(cloud, *collection, spec.plan(collection.work).format().bytes());
        }
        let bits = spec.plan(collection.work).bits();
        for kept in kept {
            let Some(sum) = cloud.disk.content(kept.sum.id()) else {
                self.findings.add(|| format!("{:?}: its partial is not on the cloud's disk", kept.incarnation));
                continue;
            };
            let mut expected = vec![0u64; words(&sum.bytes, bits).count()];
            for device in &kept.devices {
                let sealed = self.sealed.get(collection).and_then(|sealed| sealed.get(device));
                match sealed.map(|content| in_words(spec, *collection, &content.bytes)) {
                    Some(Err(why)) => self.findings.add(|| format!("{collection:?}: {device:?} is counted: {why}")),
                    Some(Ok(update)) if update.len() == sum.bytes.len() => {
                        add_words(&mut expected, &update, bits);
                    }
                    Some(Ok(_)) => self.findings.add(|| format!("{collection:?}: {device:?} sealed another length")),
                    None => self.findings.add(|| format!("{collection:?}: {device:?} sealed nothing and is counted")),
                }
            }
            let mask = u64::MAX >> (64 - bits);
            if let Some(at) = expected.iter().zip(words(&sum.bytes, bits)).position(|(a, b)| a & mask != b) {
                self.findings.add(|| format!("{:?}: word {at} of its partial is not the sum", kept.incarnation));
            }
        }
    }
}

/// What a device sealed in words, or in a code that edges turn into the same words.
fn in_words<'a>(spec: &JobSpec, collection: Collection, update: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    let Some(codec) = spec.codec(collection.work) else { return Ok(Cow::Borrowed(update)) };
    let mut words = Vec::new();
    let emit = &mut |piece: &[u8]| {
        words.extend_from_slice(piece);
        Ok(())
    };
    let read = accumulate::decode_into_words(codec, spec.plan(collection.work), update, emit);
    read.map(|_| Cow::Owned(words)).map_err(|e| e.to_string())
}

fn add_words(sum: &mut [u64], packed: &[u8], bits: u32) {
    match bits {
        // Most are; this is ten times as fast.
        32 => {
            let (fours, _) = packed.as_chunks::<4>();
            sum.iter_mut().zip(fours).for_each(|(s, w)| *s = s.wrapping_add(u32::from_le_bytes(*w).into()));
        }
        _ => sum.iter_mut().zip(words(packed, bits)).for_each(|(s, w)| *s = s.wrapping_add(w)),
    }
}

/// The words of a packed update, each below 2^bits.
pub(super) fn words(packed: &[u8], bits: u32) -> impl Iterator<Item = u64> + '_ {
    let count = packed.len() * 8 / bits as usize;
    (0..count).map(move |i| {
        let first_bit = i * bits as usize;
        let mut nine = [0; 16];
        let bytes = &packed[first_bit / 8..packed.len().min(first_bit / 8 + 9)];
        nine[..bytes.len()].copy_from_slice(bytes);
        (u128::from_le_bytes(nine) >> (first_bit % 8)) as u64 & (u64::MAX >> (64 - bits))
    })
}

impl Checker for ExactSum {
    fn name(&self) -> &'static str {
        "exact sum"
    }

    fn see(&mut self, _: Millis, machine: &Machine, seen: &Seen<'_>) {
        match seen {
            Seen::Stored { writes } => {
                for sealed in rows::sealed(writes) {
                    if let Some(content) = machine.disk.content(sealed.update.id()) {
                        let of_collection = self.sealed.entry(sealed.collection).or_default();
                        of_collection.insert(machine.id, Arc::clone(content));
                    }
                }
                for (_, record) in rows::records(writes) {
                    match record {
                        Record::Kept(kept) => {
                            self.kept.entry(kept.incarnation.collection).or_default().push(kept);
                        }
                        // Over: what was sealed for it, or before it, is needed no more.
                        Record::Applied { collection, .. } | Record::Aborted { collection, .. } => {
                            let same_job = |c: &Collection| c.job == collection.job && *c <= collection;
                            self.sealed.retain(|c, _| !same_job(c));
                            self.kept.retain(|c, _| !same_job(c));
                        }
                        _ => {}
                    }
                }
            }
            Seen::Worked { work, result: Ok(_) } => self.applied(machine, work),
            _ => {}
        }
    }

    fn finish(&mut self, _: &[Machine]) {}

    fn broken(&self) -> &[String] {
        self.findings.list()
    }
}

#[cfg(test)]
mod tests {
    use super::{add_words, words};

    #[test]
    fn words_are_read_from_the_lowest_bit_on() {
        assert_eq!(words(&[0x21, 0x43, 0x65], 4).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert_eq!(words(&[0xff, 0x01, 0x00], 12).collect::<Vec<_>>(), [0x1ff, 0]);
        let mut sum = [1, 2];
        add_words(&mut sum, &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0], 32);
        assert_eq!(sum, [1 << 32, 5]);
        // 61 bits from the seventh bit on span nine bytes.
        let packed: Vec<u8> = (0..61).collect();
        let big = packed.iter().rev().fold(String::new(), |bits, byte| bits + &format!("{byte:08b}"));
        for (i, word) in words(&packed, 61).enumerate() {
            let end = big.len() - 61 * i;
            assert_eq!(word, u64::from_str_radix(&big[end - 61..end], 2).unwrap(), "word {i}");
        }
    }
}
