//! What a sequence leaves behind: keys and values of its positions, layer by layer. A value: it can be cut back, copied,
//! sent and rebuilt.

use littoral_tensor::attention::{BLOCK, Cache, cache_elements, store_key, store_value};
use thiserror::Error;

/// Why bytes are no state.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StateError {
    #[error("a state of {what}: {expected} expected, got {got}")]
    Other { what: &'static str, expected: usize, got: usize },
}

/// Keys and values of some layers for the positions so far, in half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    kv_heads: usize,
    head_width: usize,
    positions: usize,
    /// Positions that there is room for.
    room: usize,
    layers: Vec<Layer>,
}

/// Head after head, each as [`littoral_tensor::attention`] says.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    keys: Vec<u16>,
    values: Vec<u16>,
}

impl State {
    /// Of no position yet.
    pub fn empty(layers: usize, kv_heads: usize, head_width: usize) -> Self {
        let layer = Layer { keys: Vec::new(), values: Vec::new() };
        Self { kv_heads, head_width, positions: 0, room: 0, layers: vec![layer; layers] }
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
        self.layers.iter().map(|layer| 2 * (layer.keys.len() + layer.values.len())).sum()
    }

    /// Makes room for so many more positions, doubling, so that a token seldom pays for it.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = self.positions + more;
        if wanted <= self.room {
            return;
        }
        let room = wanted.max(self.room * 2).max(4 * BLOCK).next_multiple_of(BLOCK);
        let (old, new) = (cache_elements(self.room, self.head_width), cache_elements(room, self.head_width));
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

    fn of_head(&self, head: usize) -> std::ops::Range<usize> {
        let elements = cache_elements(self.room, self.head_width);
        head * elements..(head + 1) * elements
    }

    /// Keys and values of one head.
    pub(super) fn head(&self, layer: usize, head: usize) -> Cache<'_> {
        let range = self.of_head(head);
        Cache { keys: &self.layers[layer].keys[range.clone()], values: &self.layers[layer].values[range] }
    }

    /// Puts keys and values of all heads of one position; there must be room.
    pub(super) fn store(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let width = self.head_width;
        for head in 0..self.kv_heads {
            let range = self.of_head(head);
            let layer = &mut self.layers[layer];
            store_key(&mut layer.keys[range.clone()], position, &keys[head * width..][..width]);
            store_value(&mut layer.values[range], position, &values[head * width..][..width]);
        }
    }

    /// All layers have those positions now.
    pub(super) fn advance(&mut self, positions: usize) {
        self.positions += positions;
        debug_assert!(self.positions <= self.room);
    }

    /// Bytes for another machine: position after position of each head of each layer, first keys, then values.
    pub fn to_bytes(&self) -> Vec<u8> {
        let elements = 2 * self.layers.len() * self.kv_heads * self.head_width * self.positions;
        let mut bytes = Vec::with_capacity(2 * elements);
        for layer in 0..self.layers.len() {
            for head in 0..self.kv_heads {
                let Cache { keys, values } = self.head(layer, head);
                for position in 0..self.positions {
                    for d in 0..self.head_width {
                        bytes.extend(keys[key_at(position, d, self.head_width)].to_le_bytes());
                    }
                }
                for value in &values[..self.positions * self.head_width] {
                    bytes.extend(value.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// The state of `positions` positions that [`Self::to_bytes`] wrote, into an empty one of the same shape.
    pub fn read(mut self, positions: usize, bytes: &[u8]) -> Result<Self, StateError> {
        let of_head = self.head_width.saturating_mul(2 * positions);
        let expected = (2 * self.layers.len() * self.kv_heads).saturating_mul(of_head);
        if bytes.len() != expected {
            return Err(StateError::Other { what: "that many positions, in bytes", expected, got: bytes.len() });
        }
        if self.positions != 0 {
            return Err(StateError::Other { what: "positions before", expected: 0, got: self.positions });
        }
        self.reserve(positions);
        let width = self.head_width;
        let mut numbers = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        for layer in 0..self.layers.len() {
            for head in 0..self.kv_heads {
                let start = self.of_head(head).start;
                for position in 0..positions {
                    for d in 0..width {
                        self.layers[layer].keys[start + key_at(position, d, width)] = numbers.next().unwrap_or(0);
                    }
                }
                for place in &mut self.layers[layer].values[start..start + positions * width] {
                    *place = numbers.next().unwrap_or(0);
                }
            }
        }
        self.positions = positions;
        Ok(self)
    }
}

/// Where element `d` of the key of a position is.
fn key_at(position: usize, d: usize, width: usize) -> usize {
    position / BLOCK * BLOCK * width + d * BLOCK + position % BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_growth_truncation_and_a_journey() {
        let mut state = State::empty(2, 3, 4);
        let row = |position: usize| (0..12).map(|i| (position * 12 + i) as f32 / 8.0).collect::<Vec<f32>>();
        for position in 0..150 {
            state.reserve(1);
            for layer in 0..2 {
                state.store(layer, position, &row(position), &row(position + layer));
            }
            state.advance(1);
        }
        state.truncate(77);
        let bytes = state.to_bytes();
        assert_eq!(bytes.len(), 2 * 2 * 2 * 12 * 77);
        let arrived = State::empty(2, 3, 4).read(77, &bytes).unwrap();
        assert_eq!((arrived.positions(), arrived.to_bytes()), (77, bytes.clone()));
        assert!(State::empty(2, 3, 4).read(78, &bytes).is_err());
        assert_eq!(State::empty(2, 3, 4).read(0, &[]).unwrap().to_bytes(), Vec::<u8>::new());
    }
}
