//! What a sequence leaves behind: keys and values of its positions, layer by layer. A value: it can be cut back, copied,
//! sent and rebuilt.

use littoral_tensor::attention::{BLOCK, Cache, CacheType, Layout};
use littoral_tensor::quant::Kind;
use std::ops::Range;
use thiserror::Error;

/// Why there is no state, or bytes are none.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StateError {
    #[error(
        "a cache of type {cache_type}: heads of a multiple of {} elements expected, got {head_width}: take type f16",
        .cache_type.elements()
    )]
    HeadWidth { cache_type: CacheType, head_width: usize },
    #[error("a state of type {expected} expected, got {got}")]
    CacheType { expected: CacheType, got: String },
    #[error("a state of {what}: {expected} expected, got {got}")]
    Other { what: &'static str, expected: usize, got: usize },
}

/// Keys and values of some layers for the positions so far.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    cache_type: CacheType,
    kv_heads: usize,
    head_width: usize,
    positions: usize,
    /// Positions that there is room for.
    room: usize,
    layers: Vec<Layer>,
}

/// Head after head, each as [`Layout`] says.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    keys: Vec<u8>,
    values: Vec<u8>,
}

/// The number of a state's type, at the beginning of its bytes: that of weights of the type in GGUF files.
fn code(cache_type: CacheType) -> u8 {
    match cache_type {
        CacheType::F16 => Kind::F16.code() as u8,
        CacheType::Q8_0 => Kind::Q8_0.code() as u8,
    }
}

impl State {
    /// Of no position yet.
    ///
    /// # Errors
    /// Heads are not of a multiple of [`CacheType::elements`].
    pub fn empty(layers: usize, kv_heads: usize, head_width: usize, cache_type: CacheType) -> Result<Self, StateError> {
        if !head_width.is_multiple_of(cache_type.elements()) {
            return Err(StateError::HeadWidth { cache_type, head_width });
        }
        let layer = Layer { keys: Vec::new(), values: Vec::new() };
        Ok(Self { cache_type, kv_heads, head_width, positions: 0, room: 0, layers: vec![layer; layers] })
    }

    pub fn cache_type(&self) -> CacheType {
        self.cache_type
    }

    /// Positions so far.
    pub fn positions(&self) -> usize {
        self.positions
    }

    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Forgets all positions from `positions` on: what was drafted and rejected.
    ///
    /// The next ones overwrite what stands there; until then nobody looks at it.
    pub fn truncate(&mut self, positions: usize) {
        self.positions = self.positions.min(positions);
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.keys.len() + layer.values.len()).sum()
    }

    /// Makes room for so many more positions, doubling, so that a token seldom pays for it.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = self.positions + more;
        if wanted <= self.room {
            return;
        }
        let room = wanted.max(self.room * 2).max(4 * BLOCK).next_multiple_of(BLOCK);
        let (old, new) = (self.head_bytes(self.room), self.head_bytes(room));
        for layer in &mut self.layers {
            for cache in [&mut layer.keys, &mut layer.values] {
                let mut wider = vec![0; self.kv_heads * new];
                if old > 0 {
                    for (from, to) in cache.chunks_exact(old).zip(wider.chunks_exact_mut(new)) {
                        to[..old].copy_from_slice(from);
                    }
                }
                *cache = wider;
            }
        }
        self.room = room;
    }

    /// Of the keys or values of one head, with room for so many positions.
    fn head_bytes(&self, room: usize) -> usize {
        self.cache_type.head_bytes(room, self.head_width)
    }

    fn of_head(&self, head: usize) -> Range<usize> {
        let bytes = self.head_bytes(self.room);
        head * bytes..(head + 1) * bytes
    }

    /// Where keys lie, and values.
    fn layouts(&self) -> [Layout; 2] {
        [true, false].map(|keys| Layout { cache_type: self.cache_type, width: self.head_width, keys })
    }

    /// Keys and values of one head.
    pub(super) fn head(&self, layer: usize, head: usize) -> Cache<'_> {
        let (range, Layer { keys, values }) = (self.of_head(head), &self.layers[layer]);
        Cache { cache_type: self.cache_type, keys: &keys[range.clone()], values: &values[range] }
    }

    /// Puts keys and values of all heads of one position; there must be room.
    pub(super) fn store(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let (width, [of_keys, of_values]) = (self.head_width, self.layouts());
        for head in 0..self.kv_heads {
            let range = self.of_head(head);
            let layer = &mut self.layers[layer];
            of_keys.store(&mut layer.keys[range.clone()], position, &keys[head * width..][..width]);
            of_values.store(&mut layer.values[range], position, &values[head * width..][..width]);
        }
    }

    /// All layers have those positions now.
    pub(super) fn advance(&mut self, positions: usize) {
        self.positions += positions;
        debug_assert!(self.positions <= self.room);
    }

    /// Bytes of all rows of so many positions; none if there cannot be so many.
    fn rows_bytes(&self, positions: usize) -> Option<usize> {
        let row = self.cache_type.row_bytes(self.head_width);
        row.checked_mul(2 * self.layers.len() * self.kv_heads)?.checked_mul(positions)
    }

    /// Bytes for another machine: the type's number, then position after position of each head of each layer, first
    /// keys, then values, as rows of that type.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + self.rows_bytes(self.positions).unwrap_or(0));
        bytes.push(code(self.cache_type));
        let [of_keys, of_values] = self.layouts();
        for layer in 0..self.layers.len() {
            for head in 0..self.kv_heads {
                let Cache { keys, values, .. } = self.head(layer, head);
                (0..self.positions).for_each(|position| of_keys.take_row(keys, position, &mut bytes));
                (0..self.positions).for_each(|position| of_values.take_row(values, position, &mut bytes));
            }
        }
        bytes
    }

    /// The state of `positions` positions that [`Self::to_bytes`] wrote, into an empty one of the same shape and type.
    pub fn read(mut self, positions: usize, bytes: &[u8]) -> Result<Self, StateError> {
        let wrong = |got: String| StateError::CacheType { expected: self.cache_type, got };
        let (number, rows) = bytes.split_first().ok_or_else(|| wrong("nothing".into()))?;
        if *number != code(self.cache_type) {
            let known = CacheType::ALL.into_iter().find(|known| code(*known) == *number);
            return Err(wrong(known.map_or_else(|| format!("number {number}"), |known| known.to_string())));
        }
        // Else no bytes would stand for any number of positions.
        if positions > 0 && self.rows_bytes(1) == Some(0) {
            return Err(StateError::Other { what: "positions without keys and values", expected: 0, got: positions });
        }
        let expected = self.rows_bytes(positions).unwrap_or(usize::MAX);
        if rows.len() != expected {
            return Err(StateError::Other { what: "that many positions, in bytes", expected, got: rows.len() });
        }
        if self.positions != 0 {
            return Err(StateError::Other { what: "positions before", expected: 0, got: self.positions });
        }
        self.reserve(positions);
        let [of_keys, of_values] = self.layouts();
        let mut rows = rows.chunks_exact(self.cache_type.row_bytes(self.head_width).max(1));
        for layer in 0..self.layers.len() {
            for head in 0..self.kv_heads {
                let range = self.of_head(head);
                let Layer { keys, values } = &mut self.layers[layer];
                for (layout, cache) in [(of_keys, keys), (of_values, values)] {
                    for (position, row) in (0..positions).zip(&mut rows) {
                        layout.put_row(&mut cache[range.clone()], position, row);
                    }
                }
            }
        }
        self.positions = positions;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_growth_truncation_and_a_journey() {
        for (cache_type, width, row_bytes) in
            [(CacheType::F16, 4, 8), (CacheType::F16, 40, 80), (CacheType::Q8_0, 64, 68)]
        {
            let empty = || State::empty(2, 3, width, cache_type).unwrap();
            let mut state = empty();
            let row =
                |position: usize| (0..3 * width).map(|i| (position * 7 + i % 50) as f32 / 8.0).collect::<Vec<f32>>();
            for position in 0..150 {
                state.reserve(1);
                for layer in 0..2 {
                    state.store(layer, position, &row(position), &row(position + layer));
                }
                state.advance(1);
            }
            // Doubled twice from 64.
            assert_eq!(state.bytes(), 2 * 2 * 3 * row_bytes * 256);
            state.truncate(77);
            let bytes = state.to_bytes();
            assert_eq!(bytes.len(), 1 + 2 * 2 * 3 * row_bytes * 77);
            let mut arrived = empty().read(77, &bytes).unwrap();
            assert_eq!((arrived.positions(), arrived.to_bytes()), (77, bytes.clone()));
            // Both go on alike; a copy is its own.
            let copy = arrived.clone();
            for state in [&mut state, &mut arrived] {
                state.reserve(1);
                (0..2).for_each(|layer| state.store(layer, 77, &row(1000), &row(2000)));
                state.advance(1);
            }
            assert!(state.to_bytes() == arrived.to_bytes());
            assert!(copy.to_bytes() == bytes);

            assert!(empty().read(78, &bytes).is_err());
            assert!(empty().read(usize::MAX / 3, &bytes).is_err());
            assert!(arrived.read(77, &bytes).is_err());
            let nothing = empty().to_bytes();
            assert_eq!((empty().read(0, &nothing).unwrap(), nothing.len()), (empty(), 1));
        }
    }

    #[test]
    fn positions_that_no_bytes_stand_for_are_refused() {
        for (layers, kv_heads, width) in [(0, 1, 4), (1, 0, 4), (1, 1, 0)] {
            let empty = State::empty(layers, kv_heads, width, CacheType::F16).unwrap();
            let bytes = empty.to_bytes();
            assert!(empty.clone().read(usize::MAX, &bytes).is_err());
            assert_eq!(empty.clone().read(0, &bytes), Ok(empty));
        }
    }

    #[test]
    fn types_that_do_not_fit_are_refused_by_name() {
        let half = State::empty(1, 1, 32, CacheType::F16).unwrap();
        let eight = || State::empty(1, 1, 32, CacheType::Q8_0).unwrap();
        let said = |read: Result<State, StateError>| read.unwrap_err().to_string();
        assert_eq!(said(eight().read(0, &half.to_bytes())), "a state of type q8_0 expected, got f16");
        assert_eq!(said(half.clone().read(0, &eight().to_bytes())), "a state of type f16 expected, got q8_0");
        assert_eq!(said(eight().read(0, &[77])), "a state of type q8_0 expected, got number 77");
        assert_eq!(said(eight().read(0, &[])), "a state of type q8_0 expected, got nothing");
        let narrow = State::empty(usize::MAX, 1, 80, CacheType::Q8_0);
        assert_eq!(
            said(narrow),
            "a cache of type q8_0: heads of a multiple of 32 elements expected, got 80: take type f16"
        );
    }
}
