//! Devices that come and go by their traces, each at its own speed.
//!
//! A device that goes away stops as if it were switched off, with its links closed in order: its peers learn it at once, what
//! it was computing is lost, its disk stays. It starts again when its trace says so. A crash in between changes nothing of
//! that.

use super::{Happening, Load, World};
use crate::faults::Kind;
use crate::field::{Field, State, matched};
use crate::network::NodeIndex;
use littoral_node::job::Conditions;
use littoral_node::role::Event;

impl World {
    /// Puts the devices, by their names in order, into the field. Before the world begins.
    pub fn place(&mut self, field: &Field, names: &[String]) {
        let devices = self.by_kind[Kind::Device as usize].clone();
        if let Some(traces) = &field.availability {
            for (node, trace) in devices.iter().zip(matched(traces.names(), names)) {
                self.machines[*node as usize].trace = Some(trace);
            }
            self.availability = Some(traces.clone());
        }
        if let Some(speeds) = &field.speeds {
            for (node, place) in devices.iter().zip(matched(speeds.names(), names)) {
                let of = speeds.of(place as usize);
                let machine = &mut self.machines[*node as usize];
                (machine.speed, machine.memory_mb) = (of.speed.into(), of.memory_mb);
                if of.up_mbit_s > 0.0 || of.down_mbit_s > 0.0 {
                    let bytes_per_s = |mbit_s: f32| (f64::from(mbit_s) * 125_000.0) as u64;
                    self.network.limit(*node, bytes_per_s(of.up_mbit_s), bytes_per_s(of.down_mbit_s));
                }
            }
        }
    }

    /// How much local work is for the `number`-th device.
    pub fn load(&mut self, number: usize, load: Load) {
        if let Some(node) = self.by_kind[Kind::Device as usize].get(number) {
            self.machines[*node as usize].load = load;
        }
    }

    /// What a device's trace says now; none without one, or after all has healed.
    pub fn state(&self, node: NodeIndex) -> Option<State> {
        let trace = self.machines[node as usize].trace.filter(|_| !self.healed)?;
        self.availability.as_ref().map(|traces| traces.state(trace as usize, self.now))
    }

    pub(super) fn begin_traces(&mut self) {
        for node in self.by_kind[Kind::Device as usize].clone() {
            if let Some(state) = self.state(node) {
                self.machines[node as usize].away = !state.available;
                self.plan_turn(node);
            }
        }
    }

    /// A device's trace goes on.
    pub(super) fn turn(&mut self, node: NodeIndex) {
        let Some(state) = self.state(node) else { return };
        let machine = &mut self.machines[node as usize];
        let was_away = std::mem::replace(&mut machine.away, !state.available);
        if machine.away && machine.is_up() {
            self.injected.count("device away");
            self.halt(node, false);
        } else if was_away && state.available {
            self.queue.push(self.now, Happening::Boot { node });
        }
        self.tell_conditions(node);
        self.plan_turn(node);
    }

    /// Devices are told in what state they are, if the job asks for any.
    pub fn with_conditions(&mut self, tells: bool) {
        self.tells_conditions = tells;
    }

    /// Without a trace a device charges, is idle and on an unmetered network.
    pub(super) fn tell_conditions(&mut self, node: NodeIndex) {
        let machine = &self.machines[node as usize];
        if !self.tells_conditions || machine.kind != Kind::Device || !machine.is_up() {
            return;
        }
        let memory_mb = match machine.memory_mb {
            0 => u64::MAX,
            known => known.into(),
        };
        let is = |of: fn(State) -> bool| Some(self.state(node).is_none_or(of));
        let now = Conditions {
            charging: is(|state| state.charging),
            idle: is(|state| state.idle),
            unmetered: is(|state| state.unmetered),
            memory_mb: Some(memory_mb),
        };
        self.feed(node, Event::Conditions(now));
    }

    fn plan_turn(&mut self, node: NodeIndex) {
        let trace = self.machines[node as usize].trace;
        let next = trace.zip(self.availability.as_ref()).and_then(|(t, all)| all.next_change(t as usize, self.now));
        if let Some(at) = next {
            self.queue.push(at, Happening::Turn { node });
        }
    }
}
