//! Models of devices' own: where an algorithm makes one for each device, the cloud says with its request which object each is given
//! instead of the version.
//!
//! Each is fetched as a version is, a bounded number at a time, and told to its own device only. Another device is neither told its
//! id nor served its chunks.

use super::{Edge, FETCH_WINDOW};
use crate::role::{Effect, LinkId, Millis};
use littoral_wire::message::Incarnation;
use littoral_wire::{Given, NodeId, ObjectId};

/// Models of devices' own that are on their way from the cloud at the same time, and chunks of each.
const AT_ONCE: usize = FETCH_WINDOW / WINDOW;
const WINDOW: usize = 2;

impl Edge {
    /// These devices are given these models in this collection.
    pub(super) fn give(
        &mut self,
        now: Millis,
        link: LinkId,
        incarnation: Incarnation,
        given: Given,
        effects: &mut Vec<Effect>,
    ) {
        let Some(desk) = self.desks.get_mut(&incarnation) else { return };
        for given in given.into_vec() {
            let object = given.model.id();
            desk.given.insert(given.device, object);
            match self.models.get_mut(&object).map(|model| &mut model.fetch) {
                Some(Some(fetch)) => fetch.resume(now, link, effects),
                Some(None) => {}
                None if self.to_get.iter().any(|waits| waits.id() == object) => {}
                None => self.to_get.push_back(given.model),
            }
        }
        self.get_given(now, effects);
    }

    /// As many are on their way as may be.
    pub(super) fn get_given(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some(link) = self.clouds.links().next() else { return };
        while !self.to_get.is_empty()
            && self.models.values().filter(|model| model.fetch.is_some()).count() < AT_ONCE
            && let Some(manifest) = self.to_get.pop_front()
        {
            // Its desk may be gone.
            if self.desks.values().any(|desk| desk.models(manifest.id())) {
                self.get_model(now, link, manifest, None, WINDOW, effects);
            }
        }
    }

    /// May this device have this object of a model that is here? Not if it is another's.
    pub(super) fn may_have(&self, device: NodeId, object: ObjectId) -> bool {
        let given = || self.desks.values().filter(|desk| desk.given.values().any(|given| *given == object));
        let may = |desk: &super::Desk| desk.shares(object) || desk.given.get(&device) == Some(&object);
        given().next().is_none()
            || self.desks.values().any(may)
            || self.chains.values().flatten().any(|of| *of == object)
    }
}
