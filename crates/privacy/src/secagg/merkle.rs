//! The list of devices as a hash tree, and one proof for several of its leaves.
//!
//! Merkle 1987, "A Digital Signature Based on a Conventional Encryption Function"; a node without a sibling goes up as it
//! is. Leaves and inner nodes are hashed under different domains, and who compares a root knows the number of leaves, so a
//! root stands for one list only. A proof for several leaves has each hash that cannot be worked out from them once, level
//! by level from the left: fewer bytes than a path for each.

use super::keys::{For, derive};

pub(crate) type Hash = [u8; 32];

/// All levels, the leaves first, the root last.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Of at least one leaf.
    pub(crate) fn new(leaves: Vec<Hash>) -> Self {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let above = level.chunks(2).map(|pair| if let [a, b] = pair { inner(a, b) } else { pair[0] }).collect();
            levels.push(above);
        }
        Self { levels }
    }

    pub(crate) fn root(&self) -> Hash {
        self.levels.last().and_then(|level| level.first()).copied().unwrap_or_default()
    }

    /// The proof for the leaves at `indices`, ascending.
    pub(crate) fn prove(&self, indices: &[u32]) -> Vec<Hash> {
        let mut proof = Vec::new();
        let mut known = indices.to_vec();
        for level in &self.levels[..self.levels.len() - 1] {
            for &at in &known {
                let sibling = at ^ 1;
                if (sibling as usize) < level.len() && known.binary_search(&sibling).is_err() {
                    proof.push(level[sibling as usize]);
                }
            }
            known.iter_mut().for_each(|at| *at /= 2);
            known.dedup();
        }
        proof
    }
}

/// The root that `proof` gives for some of `count` leaves (ascending); none if it has too few or too many hashes.
pub(crate) fn root_of(count: u32, leaves: &[(u32, Hash)], proof: &[Hash]) -> Option<Hash> {
    if leaves.is_empty() || !leaves.is_sorted_by(|a, b| a.0 < b.0) || leaves.last()?.0 >= count {
        return None;
    }
    let mut proof = proof.iter();
    let mut known = leaves.to_vec();
    let mut len = count;
    while len > 1 {
        let mut above: Vec<(u32, Hash)> = Vec::with_capacity(known.len());
        let mut i = 0;
        while i < known.len() {
            let (at, hash) = known[i];
            let with_next = known.get(i + 1).filter(|next| at % 2 == 0 && next.0 == at + 1);
            let node = match with_next {
                Some((_, next)) => inner(&hash, next),
                None if at % 2 == 1 => inner(proof.next()?, &hash),
                None if at + 1 < len => inner(&hash, proof.next()?),
                None => hash,
            };
            i += 1 + usize::from(with_next.is_some());
            above.push((at / 2, node));
        }
        known = above;
        len = len.div_ceil(2);
    }
    proof.next().is_none().then_some(known.first()?.1)
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    derive(For::Inner, &[left, right])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_leaves_of_any_tree_are_proven_and_no_others() {
        for count in 1..=9u32 {
            let leaves: Vec<Hash> = (0..count).map(|i| [i as u8 + 1; 32]).collect();
            let tree = Tree::new(leaves.clone());
            for chosen in 1u32..1 << count {
                let indices: Vec<u32> = (0..count).filter(|i| chosen >> i & 1 == 1).collect();
                let mut some: Vec<_> = indices.iter().map(|&i| (i, leaves[i as usize])).collect();
                let proof = tree.prove(&indices);
                assert_eq!(root_of(count, &some, &proof), Some(tree.root()), "{count} {indices:?}");
                for at in 0..some.len() {
                    some[at].1[0] ^= 0x80;
                    assert_ne!(root_of(count, &some, &proof), Some(tree.root()));
                    some[at].1[0] ^= 0x80;
                }
                assert_eq!(root_of(count, &some, &[&proof[..], &[[0; 32]]].concat()), None);
                if let Some((_, short)) = proof.split_last() {
                    assert_eq!(root_of(count, &some, short), None);
                }
            }
        }
    }
}
