//! What a folder of tiles has, and which of them goes when room is wanted.

use super::packed::Stamp;
use littoral_tensor::Mapped;
use littoral_wire::ObjectId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is here, or will be.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) tiles: BTreeMap<ObjectId, Kept>,
    /// Of tiles that are being made.
    pub(super) reserved: u64,
    /// Grows with each use.
    pub(super) uses: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) bytes: u64,
    pub(super) used: u64,
    /// Others have it while the tile arrives, is being checked or noted.
    pub(super) busy: Arc<()>,
    pub(super) checked: Option<Checked>,
}

/// A mapping whose bytes were hashed.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) map: Arc<Mapped>,
    pub(super) stamp: Stamp,
}

impl Kept {
    pub(super) fn in_use(&self) -> bool {
        Arc::strong_count(&self.busy) > 1 || self.checked.as_ref().is_some_and(|c| Arc::strong_count(&c.map) > 1)
    }

    /// The mapping that all have from now on: of two that were checked at the same time, the first. Another one would be in use
    /// without being seen here.
    pub(super) fn share(&mut self, checked: Checked) -> Arc<Mapped> {
        match &self.checked {
            Some(first) if first.stamp == checked.stamp => first.map.clone(),
            _ => self.checked.insert(checked).map.clone(),
        }
    }
}

impl Shelf {
    pub(super) fn bytes(&self) -> u64 {
        self.reserved + self.tiles.values().map(|kept| kept.bytes).sum::<u64>()
    }

    /// Uses a tile, which is or will be here.
    pub(super) fn put(&mut self, object: ObjectId, bytes: u64) -> &mut Kept {
        self.uses += 1;
        let kept = self.tiles.entry(object).or_default();
        (kept.bytes, kept.used) = (bytes, self.uses);
        kept
    }

    /// Of what cannot go.
    pub(super) fn in_use(&self) -> u64 {
        self.reserved + self.tiles.values().filter(|kept| kept.in_use()).map(|kept| kept.bytes).sum::<u64>()
    }

    /// The one that goes first.
    pub(super) fn idle(&self) -> Option<ObjectId> {
        let idle = self.tiles.iter().filter(|(_, kept)| !kept.in_use());
        idle.min_by_key(|(_, kept)| kept.used).map(|(object, _)| *object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn who_checks_at_the_same_time_shares_one_mapping() {
        let checked = |file: &str| {
            let file = File::open(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
            let stamp = Stamp::of(&file.metadata().unwrap());
            Checked { map: Arc::new(Mapped::new(&file).unwrap()), stamp }
        };
        let mut kept = Kept::default();
        let first = kept.share(checked("Cargo.toml"));
        assert!(Arc::ptr_eq(&first, &kept.share(checked("Cargo.toml"))));
        drop(first);
        assert!(!kept.in_use());
        // A file that took the place of the first is another mapping.
        let other = kept.share(checked("src/lib.rs"));
        assert!(kept.in_use() && kept.checked.as_ref().is_some_and(|checked| Arc::ptr_eq(&checked.map, &other)));
    }
}
