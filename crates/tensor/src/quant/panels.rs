//! The activations of some tokens, made ready for the matrices that they meet.

use super::Kind;
use super::activations::{Blocks, TOKENS_MAX, panels, quantise};
use super::kernel::Instructions;
use crate::pool::Pool;

/// Values of activations that are worth waking a thread for.
const PIECE_VALUES: usize = 1024;

/// The three forms that activations take.
const FORMS: usize = 3;

fn form(blocks: Option<Blocks>) -> usize {
    match blocks {
        None => 0,
        Some(Blocks::Of32) => 1,
        Some(Blocks::Of256) => 2,
    }
}

fn column_bytes(blocks: Option<Blocks>, columns: usize, tokens: usize) -> usize {
    match blocks {
        None => columns * tokens * 4,
        Some(blocks) => columns / blocks.columns() * blocks.bytes(tokens),
    }
}

/// Some tokens side by side.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub first: usize,
    pub tokens: usize,
}

/// Vectors of some tokens. Buffers are kept for the next ones.
#[derive(Debug)]
pub struct Panels {
    instructions: Instructions,
    columns: usize,
    tokens: usize,
    groups: Vec<Group>,
    forms: [Vec<u8>; FORMS],
    ready: [bool; FORMS],
}

impl Panels {
    /// # Panics
    /// If this processor has not got the instructions.
    pub fn new(instructions: Instructions) -> Self {
        assert!(instructions.is_here(), "{} on a processor without it", instructions.name());
        let forms = [const { Vec::new() }; FORMS];
        Self { instructions, columns: 0, tokens: 0, groups: Vec::new(), forms, ready: [false; FORMS] }
    }

    /// From now on these are other vectors: `tokens` of `columns` values.
    pub fn renew(&mut self, tokens: usize, columns: usize) {
        (self.tokens, self.columns, self.ready) = (tokens, columns, [false; FORMS]);
        self.groups.clear();
        let mut first = 0;
        for tokens in panels(tokens, self.instructions.tokens()) {
            debug_assert!(tokens <= TOKENS_MAX);
            self.groups.push(Group { first, tokens });
            first += tokens;
        }
    }

    pub fn tokens(&self) -> usize {
        self.tokens
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn instructions(&self) -> Instructions {
        self.instructions
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Makes the form that matrices of this kind want, from `x`: token after token. Made twice, it is made once.
    ///
    /// # Panics
    /// If `x` has another length than tokens times columns, or the columns are no whole number of blocks.
    pub fn prepare(&mut self, kind: Kind, x: &[f32], pool: &Pool) {
        let blocks = kind.shape().activations;
        let form = form(blocks);
        if std::mem::replace(&mut self.ready[form], true) {
            return;
        }
        assert_eq!(x.len(), self.tokens * self.columns, "values of {} tokens", self.tokens);
        assert!(blocks.is_none_or(|b| self.columns.is_multiple_of(b.columns())), "{} columns in {kind}", self.columns);
        let (columns, groups, together) = (self.columns, &self.groups, self.instructions.columns());
        let bytes = &mut self.forms[form];
        bytes.resize(column_bytes(blocks, columns, self.tokens), 0);
        // Pieces of a group's columns, so that all threads have some when there is but one group.
        let whole = blocks.map_or(1, Blocks::columns);
        let piece = columns.div_ceil(pool.threads()).max(PIECE_VALUES / self.tokens.max(1)).next_multiple_of(whole);
        let mut rest = bytes.as_mut_slice();
        let mut parts = Vec::with_capacity(groups.len());
        for group in groups {
            let (panel, after) = rest.split_at_mut(column_bytes(blocks, columns, group.tokens));
            let pieces = panel.chunks_mut(column_bytes(blocks, piece, group.tokens));
            parts.extend(pieces.enumerate().map(|(i, panel)| (*group, i * piece..columns.min((i + 1) * piece), panel)));
            rest = after;
        }
        pool.each(&mut parts, 1, |(group, range, panel)| {
            for at in 0..group.tokens {
                let x = &x[(group.first + at) * columns..][range.clone()];
                match blocks {
                    Some(blocks) => quantise(blocks, x, at, group.tokens, together, panel),
                    None => {
                        for (k, value) in x.iter().enumerate() {
                            panel[(k * group.tokens + at) * 4..][..4].copy_from_slice(&value.to_le_bytes());
                        }
                    }
                }
            }
        });
    }

    /// The prepared panel of a group.
    pub(super) fn panel(&self, blocks: Option<Blocks>, group: Group) -> &[u8] {
        let form = form(blocks);
        assert!(self.ready[form], "prepared");
        let start = column_bytes(blocks, self.columns, group.first);
        &self.forms[form][start..start + column_bytes(blocks, self.columns, group.tokens)]
    }
}
