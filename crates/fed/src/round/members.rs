//! The devices of the current cohort, and how many of them stand where. A cohort may have thousands, and each message
//! about one of them asks how many are in: so they are counted as they move.

use littoral_wire::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A device of the current cohort.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub name: String,
    pub state: MemberState,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum MemberState {
    /// Nobody is asked for it: it is away, or its edge was fenced.
    Adrift,
    /// Asked through this incarnation.
    Asked(u64),
    /// The incarnation was asked to let it go, so that it can send elsewhere.
    Releasing(u64),
    /// The incarnation was asked to let it go, because its key is not let in any more.
    Expelling { number: u64, why: String },
    /// In the partial of this incarnation.
    In(u64),
    /// Will not take part in this collection.
    Out { why: String },
}

impl MemberState {
    /// Through which incarnation something of it may come or has come.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Asked(number) | Self::Releasing(number) | Self::In(number) => Some(*number),
            Self::Expelling { number, .. } => Some(*number),
            Self::Adrift | Self::Out { .. } => None,
        }
    }

    /// What becomes of it once its incarnation can no longer count it.
    pub fn let_go(&self) -> Self {
        match self {
            Self::Expelling { why, .. } | Self::Out { why } => Self::Out { why: why.clone() },
            _ => Self::Adrift,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Members {
    all: BTreeMap<NodeId, Member>,
    /// How many are in a partial.
    absorbed: usize,
    /// Neither in a partial nor out.
    open: usize,
}

impl Members {
    pub fn new(cohort: impl IntoIterator<Item = (NodeId, String)>) -> Self {
        let mut members = Self::default();
        cohort.into_iter().for_each(|(device, name)| members.join(device, name));
        members
    }

    /// A device that is in the cohort already stays as it is.
    pub fn join(&mut self, device: NodeId, name: String) {
        self.all.entry(device).or_insert_with(|| {
            self.open += 1;
            Member { name, state: MemberState::Adrift }
        });
    }

    pub fn get(&self, device: &NodeId) -> Option<&Member> {
        self.all.get(device)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.all.iter()
    }

    pub fn set(&mut self, device: NodeId, state: MemberState) {
        let Some(member) = self.all.get_mut(&device) else { return };
        let before = std::mem::replace(&mut member.state, state);
        let after = &member.state;
        for (state, counts_up) in [(&before, false), (after, true)] {
            let counter = match state {
                MemberState::In(_) => &mut self.absorbed,
                MemberState::Out { .. } => continue,
                _ => &mut self.open,
            };
            *counter = if counts_up { *counter + 1 } else { *counter - 1 };
        }
    }

    /// Members in a partial, and members that may still come.
    pub fn tally(&self) -> (usize, usize) {
        (self.absorbed, self.open)
    }

    /// Names of those in a partial.
    pub fn absorbed(&self) -> impl Iterator<Item = &str> {
        let is_in = |m: &&Member| matches!(m.state, MemberState::In(_));
        self.all.values().filter(is_in).map(|m| m.name.as_str())
    }

    /// Those who will not take part, and why.
    pub fn out(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.values().filter_map(|member| match &member.state {
            MemberState::Out { why } => Some((member.name.as_str(), why.as_str())),
            _ => None,
        })
    }

    /// Names of machines that are in or may still come: under another key they would count twice.
    pub fn names(&self) -> BTreeSet<&str> {
        let may_count = |m: &&Member| !matches!(m.state, MemberState::Out { .. });
        self.all.values().filter(may_count).map(|m| m.name.as_str()).collect()
    }
}
