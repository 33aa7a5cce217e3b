//! Who declined and why, for people: the latest of each machine, for as long as the job is kept.

use littoral_wire::message::Collection;
use std::collections::BTreeMap;

/// Why a machine did not take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decline {
    /// What it was asked for when it gave this reason last.
    pub collection: Collection,
    pub why: String,
    /// How often in a row it gave this reason, since the cloud started.
    pub times: u64,
}

/// By the machine's name.
#[derive(Debug, Default)]
pub(super) struct Declines(BTreeMap<String, Decline>);

impl Declines {
    /// Returns whether the reason is new.
    pub fn add(&mut self, name: &str, collection: Collection, why: &str) -> bool {
        match self.0.get_mut(name).filter(|known| known.why == why) {
            Some(known) => {
                known.collection = collection;
                known.times += 1;
                false
            }
            None => {
                self.0.insert(name.into(), Decline { collection, why: why.into(), times: 1 });
                true
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<&Decline> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Decline)> {
        self.0.iter().map(|(name, decline)| (name.as_str(), decline))
    }
}
