//! Watchers apart from the world: each knows one thing that must always hold.
//!
//! A checker sees what a machine lets others see and what it makes durable, never a role's memory. It judges by its own
//! reading of the protocol, so that a mistake in a role is not repeated here.

mod budget;
mod exact;
mod given;
mod keys;
mod once;
mod own;
mod pending;
mod plain;
mod rows;
mod served;
mod versions;

pub use budget::WithinBudget;
pub use exact::ExactSum;
pub use given::GivenModels;
pub use keys::OneVectorPerKey;
pub use once::CountedOnce;
pub use own::OwnSegments;
pub use pending::PendingState;
pub use plain::{Needles, PlainUpdate};
pub use served::ServedModel;
pub use versions::OneModelPerVersion;

use crate::world::Machine;
use littoral_node::role::{Millis, Report, Write};
use littoral_node::work::{Output, Work, WorkFault};
use littoral_wire::{Message, NodeId};

/// Something that a machine did.
#[derive(Debug)]
pub enum Seen<'a> {
    Started,
    /// It stopped without warning.
    Stopped,
    /// All that it had stored is gone.
    Lost,
    Sent {
        to: NodeId,
        message: &'a Message,
    },
    /// These writes are durable now.
    Stored {
        writes: &'a [Write],
    },
    Worked {
        work: &'a Work,
        result: &'a Result<Output, WorkFault>,
    },
    Reported {
        report: &'a Report,
    },
}

pub trait Checker {
    /// The invariant's short name.
    fn name(&self) -> &'static str;
    fn see(&mut self, now: Millis, machine: &Machine, seen: &Seen<'_>);
    /// The run is over, and all faults with it.
    fn finish(&mut self, machines: &[Machine]);
    /// What did not hold, one sentence each; the first few suffice.
    fn broken(&self) -> &[String];
}

/// One of each.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(CountedOnce::default()),
        Box::new(ExactSum::default()),
        Box::new(PendingState::default()),
        Box::new(ServedModel::default()),
        Box::new(GivenModels::default()),
        Box::new(OneModelPerVersion::default()),
        Box::new(PlainUpdate::default()),
        Box::new(OwnSegments::default()),
        Box::new(OneVectorPerKey::default()),
        Box::new(WithinBudget::default()),
    ]
}

/// Sentences, but not without end.
#[derive(Debug, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    pub fn add(&mut self, finding: impl FnOnce() -> String) {
        if self.0.len() < 8 {
            self.0.push(finding());
        }
    }

    pub fn list(&self) -> &[String] {
        &self.0
    }
}
