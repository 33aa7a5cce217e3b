//! One pass of many sequences through layers, here or on several machines.
//!
//! A [`Pass`] says which tokens of which sequences go through; a [`Runner`] has the states of those sequences for its
//! layers. States are named by [`Slot`], and a part says at which position it begins: whatever a runner has beyond that is
//! cut off first. So drafts that were rejected need no message of their own, and the same pass may be run again.

use littoral_model::lm::{CacheType, Input, Part, Scratch, Stage, State, StateError, Wanted};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::Instructions;
use std::collections::BTreeMap;
use thiserror::Error;

/// A sequence's state, wherever its layers are. Slots are numbered from 0 and never given twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u64);

/// The state of `from`, cut to `positions`, is also that of `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fork {
    pub from: Slot,
    pub to: Slot,
    pub positions: usize,
}

/// Some tokens of one sequence that follow one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub slot: Slot,
    /// The position of its first token.
    pub start: usize,
    pub tokens: usize,
    /// The tokens of which somebody wants what comes out.
    pub wanted: Wanted,
}

/// What all runners do in one pass, in this order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pass {
    pub forks: Vec<Fork>,
    /// Nobody needs these any more.
    pub freed: Vec<Slot>,
    /// One of a slot at most.
    pub pieces: Vec<Piece>,
}

impl Pass {
    pub fn tokens(&self) -> usize {
        self.pieces.iter().map(|piece| piece.tokens).sum()
    }

    /// Tokens of which something is wanted.
    pub fn wanted(&self) -> usize {
        self.pieces.iter().map(|piece| piece.wanted.of(piece.tokens)).sum()
    }

    /// The vectors of wanted tokens among those of all, `width` each.
    pub fn select(&self, vectors: &[f32], width: usize) -> Vec<f32> {
        let (mut selected, mut end) = (Vec::with_capacity(self.wanted() * width), 0);
        for piece in &self.pieces {
            end += piece.tokens;
            selected.extend_from_slice(&vectors[(end - piece.wanted.of(piece.tokens)) * width..end * width]);
        }
        selected
    }
}

/// What goes into a runner: all pieces' tokens, one after the other.
#[derive(Clone, Copy, Debug)]
pub enum Tokens<'a> {
    Ids(&'a [u32]),
    /// `width` each.
    Vectors(&'a [f32]),
}

/// Why a pass was not run: nothing of it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PassError {
    /// Tokens that came before are not here, after a machine was lost for instance.
    #[error("sequence {}: {start} positions expected, got {got}", .slot.0)]
    Lacking { slot: Slot, start: usize, got: usize },
    #[error("a pass of {what}: {expected} expected, got {got}")]
    Other { what: &'static str, expected: usize, got: usize },
}

/// The states of all sequences for the layers of one stage.
pub struct Runner {
    empty: State,
    states: BTreeMap<Slot, State>,
    scratch: Scratch,
}

impl Runner {
    /// # Errors
    /// Sequences cannot keep their keys and values in that type.
    pub fn new(stage: &Stage, cache_type: CacheType) -> Result<Self, StateError> {
        let scratch = Scratch::new(Instructions::here()[0]);
        Ok(Self { empty: stage.state(cache_type)?, states: BTreeMap::new(), scratch })
    }

    /// Runs a pass through the layers. What comes out are the vectors of all tokens, `width` each.
    ///
    /// # Errors
    /// States that it needs are not here; no state has changed then.
    ///
    /// # Panics
    /// If an id is not of the vocabulary, or ids come to a stage without the ends.
    pub fn run(&mut self, stage: &Stage, pass: &Pass, input: Tokens<'_>, pool: &Pool) -> Result<&[f32], PassError> {
        let width = stage.config().width;
        self.check(pass, input, width)?;
        self.prepare(pass);
        // Each state is lent to its piece; there is one piece of each slot.
        let mut states: Vec<State> = pass.pieces.iter().map(|piece| self.take(piece)).collect();
        let (mut parts, mut at) = (Vec::with_capacity(states.len()), 0);
        for (piece, state) in pass.pieces.iter().zip(&mut states) {
            let tokens = at..at + piece.tokens;
            at = tokens.end;
            let input = match input {
                Tokens::Ids(ids) => Input::Ids(&ids[tokens]),
                Tokens::Vectors(vectors) => Input::Vectors(&vectors[tokens.start * width..tokens.end * width]),
            };
            parts.push(Part { state, input, wanted: Wanted::None });
        }
        let vectors = stage.forward(&mut parts, &mut self.scratch, pool).vectors;
        for (piece, state) in pass.pieces.iter().zip(states) {
            self.states.insert(piece.slot, state);
        }
        Ok(vectors)
    }

    /// The logits of vectors that the last layer gave, wherever that is.
    pub fn logits(&mut self, stage: &Stage, vectors: &[f32], pool: &Pool) -> &[f32] {
        stage.logits_of(vectors, &mut self.scratch, pool)
    }

    fn check(&self, pass: &Pass, input: Tokens<'_>, width: usize) -> Result<(), PassError> {
        let (what, expected, got) = match input {
            Tokens::Ids(ids) => ("ids", pass.tokens(), ids.len()),
            Tokens::Vectors(vectors) => ("elements", pass.tokens() * width, vectors.len()),
        };
        if expected != got {
            return Err(PassError::Other { what, expected, got });
        }
        let mut slots: Vec<Slot> = pass.pieces.iter().map(|piece| piece.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        if slots.len() != pass.pieces.len() {
            return Err(PassError::Other { what: "sequences", expected: pass.pieces.len(), got: slots.len() });
        }
        if pass.freed.iter().any(|slot| slots.binary_search(slot).is_ok()) {
            return Err(PassError::Other { what: "sequences that are freed", expected: 0, got: 1 });
        }
        let here = |slot: Slot| self.states.get(&slot).map_or(0, State::positions);
        for Fork { from, positions, .. } in &pass.forks {
            let got = here(*from);
            if got < *positions {
                return Err(PassError::Lacking { slot: *from, start: *positions, got });
            }
        }
        for Piece { slot, start, .. } in &pass.pieces {
            let forked = pass.forks.iter().rev().find(|fork| fork.to == *slot);
            let got = forked.map_or_else(|| here(*slot), |fork| fork.positions);
            if got < *start {
                return Err(PassError::Lacking { slot: *slot, start: *start, got });
            }
        }
        Ok(())
    }

    fn prepare(&mut self, pass: &Pass) {
        for Fork { from, to, positions } in &pass.forks {
            let mut state = self.states.get(from).unwrap_or(&self.empty).clone();
            state.truncate(*positions);
            self.states.insert(*to, state);
        }
        for slot in &pass.freed {
            self.states.remove(slot);
        }
    }

    fn take(&mut self, piece: &Piece) -> State {
        let mut state = self.states.remove(&piece.slot).unwrap_or_else(|| self.empty.clone());
        state.truncate(piece.start);
        state
    }

    /// Positions of a sequence that its state has.
    pub fn positions(&self, slot: Slot) -> usize {
        self.states.get(&slot).map_or(0, State::positions)
    }

    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.states.keys().copied()
    }

    /// Bytes of all states in memory.
    pub fn bytes(&self) -> usize {
        self.states.values().map(State::bytes).sum()
    }

    /// Forgets all states.
    pub fn clear(&mut self) {
        self.states.clear();
    }
}
