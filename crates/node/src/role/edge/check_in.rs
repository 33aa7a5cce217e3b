//! Sending devices away that have nothing to do, until they are told to come back ([`littoral_fed::check_in`]).
//!
//! Who is asked for something, holds something that is asked for, or waits for a verdict stays.

use super::{Edge, Seat};
use crate::role::{Effect, Millis};
use littoral_fed::check_in::{CheckIn, Visitors};
use littoral_wire::message::Fate;
use littoral_wire::{Message, NodeId};
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Steering {
    pub rule: CheckIn,
    visitors: Visitors,
    /// When each device that is here came, or had something to do last.
    since: BTreeMap<NodeId, Millis>,
}

impl Edge {
    /// With this rule for when devices come.
    pub fn checking_in(mut self, rule: CheckIn) -> Self {
        self.steering.rule = rule;
        self
    }

    fn is_busy(&self, device: NodeId) -> bool {
        self.desks.values().filter_map(|desk| desk.seats.get(&device)).any(|seat| match seat {
            // What it has prepared may be wanted any time.
            Seat::Out { fate, .. } => *fate == Fate::Ready,
            _ => true,
        })
    }

    /// At each tick.
    pub(super) fn send_idle_away(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let mut steering = std::mem::take(&mut self.steering);
        let Steering { rule, visitors, since } = &mut steering;
        if rule.every_ms > 0 {
            since.retain(|device, _| self.guests.contains_key(device));
            for (device, guest) in &self.guests {
                let since = since.entry(*device).or_insert_with(|| {
                    visitors.came(rule, now);
                    now
                });
                if self.is_busy(*device) {
                    *since = now;
                } else if guest.admitted && now.saturating_sub(*since) >= rule.stay_ms {
                    let devices = visitors.devices(rule, now, self.guests.len() as u64);
                    let after_ms = rule.away_ms(now, devices, *device);
                    effects.push(Effect::Send { link: guest.link, message: Message::Later { after_ms } });
                    // One that stays has its reason, and is asked again.
                    *since = now;
                }
            }
        }
        self.steering = steering;
    }
}
