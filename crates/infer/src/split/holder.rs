//! The layers that one machine of a chain has, with their states and what it sent on.
//!
//! They are one range, or several next to each other: a machine that took over what another had keeps what it computed for
//! its own layers, so only the new ones need to hear again what came before.

use super::log::Log;
use crate::pass::{Pass, PassError, Piece, Runner, Slot, Tokens};
use littoral_model::lm::{CacheType, Stage, StateError, Wanted};
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::VECTORS_BYTES_MAX;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

/// Tokens that are heard again in one pass, at most; fewer where a message has no room for them.
const AGAIN_TOKENS: usize = 128;

struct Segment {
    stage: Arc<Stage>,
    runner: Runner,
}

impl Segment {
    fn range(&self) -> Range<usize> {
        self.stage.layers()
    }
}

pub struct Holder {
    cache_type: CacheType,
    segments: Vec<Segment>,
    /// What came out of the layers before this one.
    log: Log,
    log_layer: usize,
}

impl Holder {
    /// Of a model whose vectors have `width` elements; what it sends is kept up to so many bytes.
    pub fn new(width: usize, cache_type: CacheType, log_bytes_max: usize) -> Self {
        Self { cache_type, segments: Vec::new(), log: Log::new(width, log_bytes_max), log_layer: 0 }
    }

    /// Those of the ranges that are not here.
    pub fn lacking(&self, ranges: &[Range<usize>]) -> Vec<Range<usize>> {
        let here = |range: &&Range<usize>| !self.segments.iter().any(|segment| segment.range() == **range);
        ranges.iter().filter(here).cloned().collect()
    }

    /// Has these ranges from now on, and no others. `stages`: those that were lacking, in their order. What was computed for
    /// ranges that stay is kept; so is what was sent, if it is what goes into a range now.
    ///
    /// # Errors
    /// A cache of this type does not fit the model.
    ///
    /// # Panics
    /// If ranges are not next to each other, or stages are not those that lack.
    pub fn set(&mut self, ranges: &[Range<usize>], stages: Vec<Arc<Stage>>) -> Result<(), StateError> {
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "{ranges:?} are not next to each other");
        let mut old = std::mem::take(&mut self.segments);
        let mut stages = stages.into_iter();
        for range in ranges {
            let segment = match old.iter().position(|segment| segment.range() == *range) {
                Some(at) => old.swap_remove(at),
                None => {
                    let stage = stages.next().filter(|stage| stage.layers() == *range).expect("a stage that lacks");
                    Segment { runner: Runner::new(&stage, self.cache_type)?, stage }
                }
            };
            self.segments.push(segment);
        }
        let ends = self.segments.iter().map(|segment| segment.range().end);
        let mut boundaries = ends.chain([self.start(), self.end()]);
        if self.log.bytes() == 0 || !boundaries.any(|layer| layer == self.log_layer) {
            self.log = self.log.emptied();
            self.log_layer = self.end();
        }
        Ok(())
    }

    pub fn ranges(&self) -> Vec<Range<usize>> {
        self.segments.iter().map(Segment::range).collect()
    }

    fn start(&self) -> usize {
        self.segments.first().map_or(0, |segment| segment.range().start)
    }

    fn end(&self) -> usize {
        self.segments.last().map_or(0, |segment| segment.range().end)
    }

    /// Bytes of states and of the log.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.runner.bytes()).sum::<usize>() + self.log.bytes()
    }

    /// Runs a pass through all layers: from vectors of all its tokens to vectors of all its tokens.
    ///
    /// # Errors
    /// States are not here. Nothing is lost by trying again from where they are.
    pub fn run(&mut self, pass: &Pass, mut vectors: Vec<f32>, pool: &Pool) -> Result<Vec<f32>, PassError> {
        for Segment { stage, runner } in &mut self.segments {
            vectors = runner.run(stage, pass, Tokens::Vectors(&vectors), pool)?.to_vec();
        }
        if self.log_layer != self.end() {
            // It was kept for ranges of its own. Since passes run they have what they need, and nobody wants it again.
            self.log = self.log.emptied();
            self.log_layer = self.end();
        }
        self.log.prepare(pass);
        self.put(pass, &vectors);
        Ok(vectors)
    }

    /// Hears vectors again that went into its first layer: they go through the ranges whose states lack them.
    pub fn again(&mut self, pass: &Pass, vectors: Vec<f32>, pool: &Pool) -> Result<(), PassError> {
        self.through(0, pass, vectors, pool)
    }

    fn through(&mut self, first: usize, pass: &Pass, mut vectors: Vec<f32>, pool: &Pool) -> Result<(), PassError> {
        for Segment { stage, runner } in &mut self.segments[first..] {
            if pass.pieces.iter().all(|piece| runner.positions(piece.slot) >= piece.start + piece.tokens) {
                return Ok(());
            }
            vectors = runner.run(stage, pass, Tokens::Vectors(&vectors), pool)?.to_vec();
        }
        if self.log_layer == self.end() {
            self.put(pass, &vectors);
        }
        Ok(())
    }

    fn put(&mut self, pass: &Pass, vectors: &[f32]) {
        let (width, mut at) = (self.log.width(), 0);
        for piece in &pass.pieces {
            let elements = piece.tokens * width;
            self.log.put(piece, &vectors[at..at + elements]);
            at += elements;
        }
    }

    /// Does what it knows go into a range of its own?
    pub fn hears_itself(&self) -> bool {
        self.log_layer != self.end()
    }

    /// What it sent of these sequences, up to these positions, in passes of one piece each; none, if it
    /// [hears](Self::hears_itself) that itself.
    pub fn replay(&mut self, states: &[(Slot, usize)], pool: &Pool) -> Result<Vec<(Pass, Vec<f32>)>, PassError> {
        let mut passes = Vec::new();
        for (slot, positions) in states {
            let (known, width) = (self.log.first(*slot, *positions), self.log.width());
            let at_once = AGAIN_TOKENS.min(VECTORS_BYTES_MAX / (size_of::<f32>() * width.max(1))).max(1);
            for (index, vectors) in known.chunks(at_once * width).enumerate() {
                let (start, tokens) = (index * at_once, vectors.len() / width);
                let piece = Piece { slot: *slot, start, tokens, wanted: Wanted::None };
                passes.push((Pass { pieces: vec![piece], ..Pass::default() }, vectors.to_vec()));
            }
        }
        let Some(own) = self.segments.iter().position(|segment| segment.range().start == self.log_layer) else {
            return Ok(passes);
        };
        self.log = self.log.emptied();
        self.log_layer = self.end();
        for (pass, vectors) in passes {
            self.through(own, &pass, vectors, pool)?;
        }
        Ok(Vec::new())
    }

    /// All sequences of which some range has a state.
    pub fn slots(&self) -> BTreeSet<Slot> {
        self.segments.iter().flat_map(|segment| segment.runner.slots()).collect()
    }

    /// Positions that all its ranges have of a sequence.
    pub fn positions(&self, slot: Slot) -> usize {
        self.segments.iter().map(|segment| segment.runner.positions(slot)).min().unwrap_or(usize::MAX)
    }
}
