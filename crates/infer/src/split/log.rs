//! What a machine sent to the next one, so that it can be sent again (Borzunov et al. 2023, Petals, section 3.2).
//!
//! It costs memory here and nothing on the network: the vectors were sent anyway.

use crate::pass::{Pass, Piece, Slot};
use std::collections::BTreeMap;

/// Vectors of the positions of each sequence, from the first on without a gap.
pub struct Log {
    width: usize,
    vectors: BTreeMap<Slot, Vec<f32>>,
    elements: usize,
    elements_max: usize,
}

impl Log {
    /// Of vectors of `width` elements, at most so many bytes of them: what is more goes, the oldest sequence first.
    pub fn new(width: usize, bytes_max: usize) -> Self {
        Self { width, vectors: BTreeMap::new(), elements: 0, elements_max: bytes_max / size_of::<f32>() }
    }

    /// One like it that knows nothing.
    pub fn emptied(&self) -> Self {
        Self::new(self.width, self.elements_max * size_of::<f32>())
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// States that are copied or not needed any more.
    pub fn prepare(&mut self, pass: &Pass) {
        for fork in &pass.forks {
            let known = self.vectors.get(&fork.from).filter(|known| known.len() >= fork.positions * self.width);
            match known.map(|known| known[..fork.positions * self.width].to_vec()) {
                Some(copy) => self.replace(fork.to, copy),
                None => self.forget(fork.to),
            }
        }
        pass.freed.iter().for_each(|slot| self.forget(*slot));
        self.shrink();
    }

    /// What was sent of a piece. Where positions before are not known, it is of no use and not kept.
    pub fn put(&mut self, piece: &Piece, vectors: &[f32]) {
        let start = piece.start * self.width;
        let mut known = self.vectors.remove(&piece.slot).unwrap_or_default();
        self.elements -= known.len();
        if known.len() < start {
            return;
        }
        known.truncate(start);
        known.extend_from_slice(vectors);
        self.replace(piece.slot, known);
        self.shrink();
    }

    /// Positions of a sequence that are known.
    pub fn positions(&self, slot: Slot) -> usize {
        self.vectors.get(&slot).map_or(0, |known| known.len() / self.width)
    }

    /// The vectors of its first positions, at most so many.
    pub fn first(&self, slot: Slot, positions: usize) -> &[f32] {
        self.vectors.get(&slot).map_or(&[], |known| &known[..known.len().min(positions * self.width)])
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.vectors.keys().copied()
    }

    pub fn bytes(&self) -> usize {
        self.elements * size_of::<f32>()
    }

    fn replace(&mut self, slot: Slot, vectors: Vec<f32>) {
        self.elements += vectors.len();
        self.elements -= self.vectors.insert(slot, vectors).map_or(0, |old| old.len());
    }

    fn forget(&mut self, slot: Slot) {
        self.elements -= self.vectors.remove(&slot).map_or(0, |old| old.len());
    }

    fn shrink(&mut self) {
        while self.elements > self.elements_max
            && let Some((_, oldest)) = self.vectors.pop_first()
        {
            self.elements -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::Fork;
    use littoral_model::lm::Wanted;

    fn piece(slot: u64, start: usize, tokens: usize) -> Piece {
        Piece { slot: Slot(slot), start, tokens, wanted: Wanted::None }
    }

    #[test]
    fn a_log_follows_cuts_forks_and_its_bound() {
        let mut log = Log::new(2, 80);
        log.put(&piece(0, 0, 3), &[0., 0., 1., 1., 2., 2.]);
        log.put(&piece(0, 1, 1), &[9., 9.]);
        assert_eq!((log.positions(Slot(0)), log.first(Slot(0), 5)), (2, &[0., 0., 9., 9.][..]));
        let fork = Fork { from: Slot(0), to: Slot(3), positions: 1 };
        log.prepare(&Pass { forks: vec![fork], ..Pass::default() });
        log.put(&piece(3, 1, 2), &[7.; 4]);
        assert_eq!(log.first(Slot(3), 2), [0., 0., 7., 7.]);
        // A gap: nothing of it is of use.
        log.put(&piece(4, 1, 1), &[5.; 2]);
        assert_eq!((log.positions(Slot(4)), log.bytes()), (0, 40));
        // Twenty elements fit; sequence 0 goes, and what it says later is not kept either.
        log.put(&piece(5, 0, 6), &[4.; 12]);
        assert_eq!((log.positions(Slot(0)), log.positions(Slot(3)), log.positions(Slot(5))), (0, 3, 6));
        log.put(&piece(0, 2, 1), &[1.; 2]);
        assert_eq!(log.slots().collect::<Vec<_>>(), [Slot(3), Slot(5)]);
        log.prepare(&Pass { freed: vec![Slot(3), Slot(5)], ..Pass::default() });
        assert_eq!(log.bytes(), 0);
    }
}
