//! A desk: one edge's one try at the current collection.

use super::Kept;
use littoral_wire::NodeId;
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It absorbs.
    Open,
    /// It was told to send its partial.
    Closing,
    /// Its partial is durable here.
    Kept,
}

#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub edge: NodeId,
    pub standing: Standing,
    pub kept: Option<Kept>,
    /// Devices that the edge let go: it refuses them under this number from then on.
    pub released: BTreeSet<NodeId>,
}

impl Desk {
    pub fn new(edge: NodeId) -> Self {
        Self { edge, standing: Standing::Open, kept: None, released: BTreeSet::new() }
    }

    /// Could what it has still be lost?
    pub fn live(&self) -> bool {
        self.standing != Standing::Kept
    }
}
