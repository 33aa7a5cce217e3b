//! Misfortunes of machines: planned ones, kills, and the end of them.

use super::{Happening, World};
use crate::checkers::Seen;
use crate::disk::Disk;
use crate::faults::{Blow, Kind};
use crate::network::{Cut, NodeIndex};
use crate::queue::Micros;

impl World {
    pub(super) fn blow(&mut self, source: usize) {
        if self.healed {
            return;
        }
        let counts = self.counts();
        let (kind, which, blow) = self.plan.strike(source, |kind| counts[kind as usize]);
        let next = self.now + self.plan.wait(source);
        self.queue.push(next, Happening::Blow { source });
        let node = self.by_kind[kind as usize][which];
        self.strike(node, blow);
    }

    /// Does this to a machine, now.
    pub fn strike(&mut self, node: NodeIndex, blow: Blow) {
        let now = self.now;
        let kind = self.machines[node as usize].kind;
        let up = self.machines[node as usize].is_up();
        match blow {
            Blow::Crash { down_us } if up => {
                self.injected.count(crash_name(kind));
                self.crash(node, down_us, false);
            }
            Blow::Kill(kill) if up => self.machines[node as usize].kill = Some(kill),
            Blow::KillAtEffect(effects) => self.machines[node as usize].effects_left = Some(effects),
            Blow::Vanish { for_us } if up => {
                self.injected.count("vanishing");
                self.crash(node, for_us, true);
            }
            Blow::Crash { .. } | Blow::Kill(_) | Blow::Vanish { .. } => {}
            Blow::Partition { into, out, upstream_only, for_us } => {
                self.injected.count(match (into, out) {
                    (true, true) => "partition",
                    (true, false) => "partition towards",
                    _ => "partition from",
                });
                let other = if upstream_only { self.by_kind[Kind::Cloud as usize].first().copied() } else { None };
                let until = now + for_us;
                if into {
                    self.network.cut(now, Cut { from: other, to: Some(node), until });
                }
                if out {
                    self.network.cut(now, Cut { from: Some(node), to: other, until });
                }
            }
            Blow::Lose { down_us } => {
                self.injected.count("store lost");
                if up {
                    self.crash(node, down_us, false);
                }
                self.machines[node as usize].disk = Disk::default();
                self.show(node, Seen::Lost);
            }
            Blow::DiskFull { for_us } => {
                self.injected.count("disk full");
                self.machines[node as usize].disk.set_full(true);
                self.queue.push(now + for_us, Happening::DiskFree { node });
            }
            Blow::Damage => {
                if self.machines[node as usize].disk.damage(&mut self.damage) {
                    self.injected.count("object damaged");
                }
            }
        }
    }

    /// A planned kill has met its event.
    pub(super) fn killed(&mut self, node: NodeIndex, how: &str) {
        let kind = self.machines[node as usize].kind;
        self.injected.count(&format!("{} {how}", kind.name()));
        let down_us = self.crash.around(self.settings.faults.restart_ms * 1_000);
        self.crash(node, down_us, false);
    }

    /// Stops a machine as `kill -9` does; `silent`: as a cut power line does, so that its peers learn it by waiting.
    fn crash(&mut self, node: NodeIndex, down_us: Micros, silent: bool) {
        self.halt(node, silent);
        self.queue.push(self.now + down_us, Happening::Boot { node });
    }

    /// The same, without an end.
    pub(super) fn halt(&mut self, node: NodeIndex, silent: bool) {
        let now = self.now;
        // A sync that was under way may have been quick enough; what waited behind it was not.
        if !self.machines[node as usize].disk.is_full() && self.crash.chance(0.5) {
            self.commit(node);
        }
        let machine = &mut self.machines[node as usize];
        machine.stop();
        machine.disk.crash(&mut self.crash);
        for (_, ticket) in machine.works.drain(..) {
            self.workers.cancel(&ticket);
        }
        for link in std::mem::take(&mut machine.links) {
            let Some(open) = self.network.link(link) else { continue };
            let Some(end) = (0..2).find(|&end| open.ends[end] == node && open.open[end]) else { continue };
            let at = match silent {
                true => now + self.network.timeout_us(),
                false => self.network.end_of_stream(now, link, end).unwrap_or(now),
            };
            self.network.shut(link, end);
            self.close_at(at, link, 1 - end, "the connection was lost");
        }
        self.trace.note(now, node, "crash", 0);
        self.show(node, Seen::Stopped);
    }

    /// The end of all misfortunes: whoever is down starts, whatever was cut is joined.
    pub fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        for node in 0..self.machines.len() as NodeIndex {
            let machine = &mut self.machines[node as usize];
            machine.kill = None;
            machine.effects_left = None;
            machine.away = false;
            machine.disk.set_full(false);
            if !machine.is_up() {
                self.queue.push(self.now, Happening::Boot { node });
            }
        }
    }
}

fn crash_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cloud => "cloud crash",
        Kind::Edge => "edge crash",
        Kind::Device => "device crash",
    }
}
