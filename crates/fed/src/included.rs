//! Who is in a version: a hash tree over the included devices' keys, signed by the cloud.
//!
//! A device may make its pending state current only if its update is in the new version, and it needs no list of the
//! others to know: the cloud signs the tree's root, and log2(n) hashes lead from the device's key to the root. The
//! tree is that of RFC 9162, section 2.1 (Certificate Transparency) over the keys in ascending order, with BLAKE3 and
//! with leaves and nodes told apart by their prefix.
//!
//! What this is not: a proof of *exclusion*. An edge that withholds a proof makes a device believe that it was left
//! out; edges are enrolled machines and trusted to pass on what they were told.

use crate::included::VerdictError::*;
use littoral_wire::identity::IdentityError;
use littoral_wire::message::{Announcement, COHORT_MAX, Proof, Verdict};
use littoral_wire::{Collection, List, NodeId, ObjectId, SecretKey};
use std::cell::RefCell;
use thiserror::Error;

type Hash = [u8; 32];

/// The included devices, and the tree over them.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Ascending, each once.
    devices: Vec<NodeId>,
    /// Leaves first, the root last.
    levels: Vec<Vec<Hash>>,
}

/// Where a device stands at the end of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Included {
    /// Its update is in the announced version: pending state becomes current.
    Yes,
    /// It is not: pending state is rolled back.
    No,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerdictError {
    #[error(transparent)]
    Signature(#[from] IdentityError),
    #[error("a verdict on {expected:?} came with an announcement of {got:?}")]
    Elsewhere { expected: Collection, got: Collection },
    #[error("the proof at index {index} does not lead from device {device} to the announced root of {count} devices")]
    BadProof { device: NodeId, index: u32, count: u32 },
    #[error("a proof of inclusion came without an announcement to hold it against")]
    Unannounced,
}

impl Tree {
    /// Sorts and counts each device once. At most a cohort's worth.
    pub fn new(devices: &[NodeId]) -> Self {
        let mut devices = devices.to_vec();
        devices.sort_unstable();
        devices.dedup();
        let mut levels = vec![devices.iter().map(leaf).collect::<Vec<_>>()];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            // A last one without a partner rises as it is.
            let above = level.chunks(2).map(|pair| if let [l, r] = pair { node(l, r) } else { pair[0] }).collect();
            levels.push(above);
        }
        Self { devices, levels }
    }

    pub fn devices(&self) -> &[NodeId] {
        &self.devices
    }

    pub fn count(&self) -> u32 {
        debug_assert!(self.devices.len() <= COHORT_MAX);
        self.devices.len() as u32
    }

    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_else(nobody)
    }

    /// The proof for a device, if it is included.
    pub fn proof(&self, device: NodeId) -> Option<Proof> {
        let index = self.devices.binary_search(&device).ok()?;
        let path = self.levels.iter().enumerate();
        let path = path.filter_map(|(height, level)| level.get(index >> height ^ 1).copied()).collect();
        Some(Proof { index: index as u32, path: List::new(path).ok()? })
    }
}

/// Does the proof lead from this device to the root of a tree over `count` devices?
pub fn verify(root: &Hash, count: u32, device: NodeId, proof: &Proof) -> bool {
    let (mut index, Some(mut last)) = (proof.index, count.checked_sub(1)) else { return false };
    if index > last {
        return false;
    }
    let mut hash = leaf(&device);
    let mut path = proof.path.iter();
    while last > 0 {
        if index % 2 == 1 || index < last {
            let Some(sibling) = path.next() else { return false };
            hash = if index % 2 == 1 { node(sibling, &hash) } else { node(&hash, sibling) };
        }
        index /= 2;
        last /= 2;
    }
    path.next().is_none() && hash == *root
}

/// The signed announcement of a new version.
pub fn announce(
    cloud: &SecretKey,
    collection: Collection,
    version: u64,
    channel: &str,
    model: ObjectId,
    included: &[NodeId],
) -> Announcement {
    let tree = Tree::new(included);
    let (channel, included_root, included_count) = (channel.into(), tree.root(), tree.count());
    let unsigned =
        Announcement { collection, version, channel, model, included_root, included_count, signature: [0; 64] };
    let signature = cloud.sign(Announcement::DOMAIN, &unsigned.signed_bytes());
    Announcement { signature, ..unsigned }
}

/// Did this cloud sign it?
pub fn check_announcement(cloud: NodeId, announcement: &Announcement) -> Result<(), IdentityError> {
    cloud.verify(Announcement::DOMAIN, &announcement.signed_bytes(), &announcement.signature)
}

/// What a verdict means for a device that holds a sealed update of its collection.
///
/// Included needs all: an announcement of this very collection, the cloud's signature, and a proof that holds. A
/// collection that ended without a version, or whose version another attempt made, includes nobody. A proof that does
/// not hold, or a signature, is an error and decides nothing.
pub fn check_verdict(cloud: NodeId, device: NodeId, verdict: &Verdict) -> Result<Included, VerdictError> {
    let Some(announcement) = &verdict.announcement else {
        return if verdict.proof.is_some() { Err(Unannounced) } else { Ok(Included::No) };
    };
    check_once(cloud, announcement)?;
    let (expected, got) = (verdict.collection, announcement.collection);
    let same_work = Collection { attempt: expected.attempt, ..got } == expected;
    match &verdict.proof {
        _ if !same_work => Err(Elsewhere { expected, got }),
        None => Ok(Included::No),
        Some(_) if got != expected => Err(Elsewhere { expected, got }),
        Some(proof) if verify(&announcement.included_root, announcement.included_count, device, proof) => {
            Ok(Included::Yes)
        }
        Some(proof) => Err(BadProof { device, index: proof.index, count: announcement.included_count }),
    }
}

/// [`check_announcement`], but not again for the one that this thread found good last: where many devices live in one
/// process, each is told the same.
fn check_once(cloud: NodeId, announcement: &Announcement) -> Result<(), IdentityError> {
    thread_local! {
        static GOOD: RefCell<Option<(NodeId, Announcement)>> = const { RefCell::new(None) };
    }
    GOOD.with_borrow_mut(|good| {
        if !matches!(good, Some((by, known)) if *by == cloud && known == announcement) {
            check_announcement(cloud, announcement)?;
            *good = Some((cloud, announcement.clone()));
        }
        Ok(())
    })
}

fn leaf(device: &NodeId) -> Hash {
    tagged(b"littoral/included/leaf\0", &[&device.0])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    tagged(b"littoral/included/node\0", &[left, right])
}

/// The root over no devices at all.
fn nobody() -> Hash {
    tagged(b"littoral/included/nobody\0", &[])
}

fn tagged(tag: &[u8], parts: &[&Hash]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tag);
    parts.iter().for_each(|part| _ = hasher.update(*part));
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_wire::JobId;
    use littoral_wire::message::Work;

    fn device(i: u32) -> NodeId {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&i.wrapping_mul(0x9E37_79B9).to_be_bytes());
        NodeId(id)
    }

    fn ids(range: std::ops::Range<u32>) -> Vec<NodeId> {
        range.map(device).collect()
    }

    #[test]
    fn every_proof_of_every_size_holds_and_no_other() {
        for count in 1..=40 {
            let included = Tree::new(&ids(0..count));
            let (root, other_root) = (included.root(), Tree::new(&ids(1..count + 1)).root());
            for (index, member) in included.devices().iter().enumerate() {
                let proof = included.proof(*member).unwrap();
                assert_eq!(proof.index as usize, index);
                assert!(verify(&root, count, *member, &proof), "{index} of {count}");
                assert!(!verify(&other_root, count, *member, &proof));
                assert!(!verify(&root, count, device(1000), &proof));
                // One index or path, one place: moved, cut or lengthened it fails.
                for wrong in (0..count + 2).filter(|&i| i != proof.index) {
                    assert!(!verify(&root, count, *member, &Proof { index: wrong, ..proof.clone() }));
                }
                let path = proof.path.to_vec();
                for path in [path[..path.len().saturating_sub(1)].to_vec(), [path.clone(), vec![root]].concat()] {
                    if path != proof.path.to_vec() {
                        let bent = Proof { index: proof.index, path: List::new(path).unwrap() };
                        assert!(!verify(&root, count, *member, &bent));
                    }
                }
            }
            assert_eq!(included.proof(device(1000)), None);
        }
        let none = Tree::new(&[]);
        assert_eq!((none.count(), none.root()), (0, nobody()));
        assert!(!verify(&none.root(), 0, device(0), &Proof { index: 0, path: List::default() }));
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let included = Tree::new(&[3, 1, 2, 3].map(device));
        assert_eq!(included.root(), Tree::new(&[1, 2, 3].map(device)).root());
        assert_eq!(included.count(), 3);
    }

    #[test]
    fn verdicts() {
        let cloud = SecretKey::from_bytes([1; 32]);
        let collection = Collection { job: JobId(1), version: 4, work: Work::Train, attempt: 2 };
        let included = ids(0..5);
        let announcement = announce(&cloud, collection, 5, "stable", ObjectId([9; 32]), &included);
        let (inside, outside) = (device(3), device(9));
        let proof = Tree::new(&included).proof(inside);
        let check = |device, announcement: Option<&Announcement>, proof: Option<&Proof>| {
            let verdict = Verdict { collection, announcement: announcement.cloned(), proof: proof.cloned() };
            check_verdict(cloud.id(), device, &verdict)
        };

        assert_eq!(check(inside, Some(&announcement), proof.as_ref()), Ok(Included::Yes));
        assert_eq!(check(outside, Some(&announcement), None), Ok(Included::No));
        assert_eq!(check(outside, None, None), Ok(Included::No));
        assert!(matches!(check(outside, Some(&announcement), proof.as_ref()), Err(BadProof { index: _, .. })));
        assert_eq!(check(inside, None, proof.as_ref()), Err(Unannounced));

        let forged = Announcement { version: 6, ..announcement.clone() };
        assert!(matches!(check(inside, Some(&forged), proof.as_ref()), Err(Signature(_))));

        let sign = |collection| announce(&cloud, collection, 5, "stable", ObjectId([9; 32]), &included);
        let next_attempt = sign(Collection { attempt: 3, ..collection });
        assert_eq!(check(inside, Some(&next_attempt), None), Ok(Included::No));
        assert!(matches!(check(inside, Some(&next_attempt), proof.as_ref()), Err(Elsewhere { .. })));
        let other_version = sign(Collection { version: 3, ..collection });
        assert!(matches!(check(inside, Some(&other_version), None), Err(Elsewhere { .. })));
    }
}
