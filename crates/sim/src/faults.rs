//! What goes wrong, how often: the settings ([`Faults`]) and the plan that a seed makes of them ([`Plan`]).
//!
//! Every kind of fault draws from a stream of its own, so a new kind, or another rate of one, leaves the others where
//! they were. Faults that came to pass are counted by kind in [`Injected`].

use crate::queue::Micros;
use crate::stream::Stream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A connection between two machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkShape {
    /// One way.
    pub delay_us: u64,
    /// Up to this much is added, uniformly.
    pub jitter_us: u64,
    /// Each way; 0: unlimited.
    pub bytes_per_s: u64,
    /// Chance that a message is lost; it is sent again after `retransmit_us`, and may be lost again.
    pub loss: f64,
    pub retransmit_us: u64,
    /// Chance that a message comes twice.
    pub duplicate: f64,
    /// Chance that a message overtakes those sent before it.
    pub reorder: f64,
    /// Chance that the link dies of a message.
    pub death: f64,
}

impl Default for LinkShape {
    fn default() -> Self {
        Self {
            delay_us: 1_000,
            jitter_us: 0,
            bytes_per_s: 0,
            loss: 0.0,
            retransmit_us: 200_000,
            duplicate: 0.0,
            reorder: 0.0,
            death: 0.0,
        }
    }
}

/// Mean time between two of something on one machine, by what the machine is; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Every {
    pub cloud_ms: u64,
    pub edge_ms: u64,
    pub device_ms: u64,
}

/// All that can go wrong. Times are virtual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Messages become bytes and are decoded again, as on a real wire.
    pub encode: bool,
    /// Between a device and whatever it dials.
    pub device_link: LinkShape,
    /// Between an edge and the cloud.
    pub edge_link: LinkShape,
    /// Chance that a call is refused.
    pub refused: f64,
    /// How long a call to a machine that does not answer takes to fail, and how long a silent link lives.
    pub timeout_ms: u64,
    /// Time of a durable write.
    pub sync_us: u64,
    /// The machine stops, as by `kill -9`, and starts again.
    pub crash: Every,
    /// The machine is killed before, between or after the effects of handling a message of a chosen kind.
    pub kill: Every,
    /// Mean time until a machine that stopped starts again.
    pub restart_ms: u64,
    /// A device goes without a word, for long.
    pub vanish: Every,
    pub vanish_ms: u64,
    /// Nothing passes to, or from, or either way, between a machine and its upstream, or all others.
    pub partition: Every,
    pub partition_ms: u64,
    pub disk_full: Every,
    pub disk_full_ms: u64,
    /// A bit of a stored object flips.
    pub damage: Every,
    /// The machine stops, and starts again with an empty disk. A cloud does not survive this, and no profile has it: a
    /// device that lost its store is of no more use to a job that keeps state on devices.
    pub lose: Every,
    /// Fraction of devices that are slow, and how much slower they are.
    pub slow: f64,
    pub slow_factor: u64,
}

impl Default for Faults {
    /// As `none`.
    fn default() -> Self {
        Self {
            encode: false,
            device_link: LinkShape::default(),
            edge_link: LinkShape::default(),
            refused: 0.0,
            timeout_ms: 10_000,
            sync_us: 200,
            crash: Every::default(),
            kill: Every::default(),
            restart_ms: 1_000,
            vanish: Every::default(),
            vanish_ms: 30_000,
            partition: Every::default(),
            partition_ms: 5_000,
            disk_full: Every::default(),
            disk_full_ms: 3_000,
            damage: Every::default(),
            lose: Every::default(),
            slow: 0.0,
            slow_factor: 5,
        }
    }
}

impl Faults {
    pub const PROFILES: [&str; 3] = ["none", "default", "harsh"];

    /// A named profile, if there is one of that name.
    pub fn profile(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::default()),
            "default" => Some(Self::usual()),
            "harsh" => Some(Self::harsh()),
            _ => None,
        }
    }

    /// Something goes wrong in most rounds, and most rounds complete.
    fn usual() -> Self {
        let wireless = LinkShape {
            delay_us: 20_000,
            jitter_us: 20_000,
            bytes_per_s: 2_500_000,
            loss: 0.01,
            duplicate: 0.01,
            reorder: 0.005,
            death: 0.0005,
            ..LinkShape::default()
        };
        // An edge's link carries the words of all its devices. At the rates of a device's link, those of ten thousand
        // would break it every few seconds and hardly a round would complete; so loss is a tenth here, and death less.
        let wired = LinkShape {
            delay_us: 5_000,
            jitter_us: 2_000,
            bytes_per_s: 125_000_000,
            loss: 0.001,
            death: 0.000_02,
            ..wireless.clone()
        };
        Self {
            encode: true,
            device_link: wireless,
            edge_link: wired,
            refused: 0.01,
            sync_us: 2_000,
            crash: Every { cloud_ms: 120_000, edge_ms: 60_000, device_ms: 240_000 },
            kill: Every { cloud_ms: 60_000, edge_ms: 45_000, device_ms: 240_000 },
            vanish: Every { device_ms: 600_000, ..Every::default() },
            partition: Every { cloud_ms: 0, edge_ms: 120_000, device_ms: 480_000 },
            disk_full: Every { cloud_ms: 240_000, edge_ms: 240_000, device_ms: 600_000 },
            damage: Every { cloud_ms: 0, edge_ms: 300_000, device_ms: 600_000 },
            slow: 0.05,
            ..Self::default()
        }
    }

    /// Something goes wrong all the time.
    fn harsh() -> Self {
        let usual = Self::usual();
        let rough = |shape: LinkShape| LinkShape {
            loss: 0.05,
            duplicate: 0.05,
            reorder: 0.03,
            death: 0.003,
            jitter_us: shape.jitter_us * 5,
            ..shape
        };
        Self {
            device_link: rough(usual.device_link.clone()),
            edge_link: rough(usual.edge_link.clone()),
            refused: 0.1,
            sync_us: 10_000,
            crash: Every { cloud_ms: 40_000, edge_ms: 20_000, device_ms: 60_000 },
            kill: Every { cloud_ms: 20_000, edge_ms: 15_000, device_ms: 60_000 },
            vanish: Every { device_ms: 240_000, ..Every::default() },
            partition: Every { cloud_ms: 120_000, edge_ms: 40_000, device_ms: 120_000 },
            disk_full: Every { cloud_ms: 60_000, edge_ms: 60_000, device_ms: 120_000 },
            damage: Every { cloud_ms: 0, edge_ms: 60_000, device_ms: 120_000 },
            slow: 0.2,
            slow_factor: 10,
            ..usual
        }
    }
}

/// What a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Cloud,
    Edge,
    Device,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Cloud, Kind::Edge, Kind::Device];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Cloud => "cloud",
            Kind::Edge => "edge",
            Kind::Device => "device",
        }
    }
}

impl Every {
    fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Cloud => self.cloud_ms,
            Kind::Edge => self.edge_ms,
            Kind::Device => self.device_ms,
        }
    }
}

/// Where in the step that handles an event a machine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the step: the event came, and nothing was done.
    Before,
    /// After this many effects; after all of them if there are fewer.
    AfterEffects(usize),
}

/// A kill that waits for its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// A message's name, or an event's.
    pub on: &'static str,
    pub moment: Moment,
}

/// The kinds of things that machines do with a round's sums — absorb, forward, acknowledge — by what triggers them.
pub const KILL_POINTS: [(Kind, &[&str]); 3] = [
    // Cloud: keeps partials, applies, announces; learns from edges again.
    (Kind::Cloud, &["Progress", "Partial", "Kept", "Worked", "DeviceAttached", "EdgeAttach", "SealingFrom", "Timer"]),
    // Edge: absorbs (an offer, its chunks), forwards the partial (Close, GetChunk), acknowledges (PartialKept, Announce).
    (
        Kind::Edge,
        &[
            "Offer",
            "Chunk",
            "Loaded",
            "Open",
            "Close",
            "GetChunk",
            "PartialKept",
            "Announce",
            "Fence",
            "Release",
            "Sealing",
            "SealingTo",
        ],
    ),
    // Device: takes a task, seals, hands over, learns the end.
    (Kind::Device, &["Task", "Kept", "Worked", "GetChunk", "Absorbed", "Refused", "Told", "Attached", "Sealing"]),
];

/// Something that the plan does to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Crash {
        down_us: Micros,
    },
    Kill(Kill),
    /// A kill right before the effect that comes after so many others.
    KillAtEffect(u64),
    Vanish {
        for_us: Micros,
    },
    /// Towards the machine, from it, and whether only its upstream is cut off.
    Partition {
        into: bool,
        out: bool,
        upstream_only: bool,
        for_us: Micros,
    },
    DiskFull {
        for_us: Micros,
    },
    Damage,
    Lose {
        down_us: Micros,
    },
}

/// One kind of blow to one kind of machine: when is the next?
#[derive(Debug)]
struct Source {
    kind: Kind,
    blow: usize,
    mean_us: Micros,
    stream: Stream,
}

/// Draws blows, one source after the other.
#[derive(Debug)]
pub struct Plan {
    faults: Faults,
    sources: Vec<Source>,
}

const BLOWS: [&str; 7] = ["crash", "kill", "vanish", "partition", "disk_full", "damage", "lose"];

impl Plan {
    /// `machines`: how many there are of a kind.
    pub fn new(faults: &Faults, seed: u64, machines: impl Fn(Kind) -> usize) -> Self {
        let Faults { crash, kill, vanish, partition, disk_full, damage, lose, .. } = *faults;
        let rates = [crash, kill, vanish, partition, disk_full, damage, lose];
        let mut sources = Vec::new();
        for (blow, (rate, name)) in rates.iter().zip(BLOWS).enumerate() {
            for kind in Kind::ALL {
                let (every_ms, count) = (rate.of(kind), machines(kind) as u64);
                if every_ms > 0 && count > 0 {
                    let stream = Stream::new(seed, &format!("{name} of {}", kind.name()));
                    sources.push(Source { kind, blow, mean_us: (every_ms * 1_000 / count).max(1), stream });
                }
            }
        }
        Self { faults: faults.clone(), sources }
    }

    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// How long until this source's next blow.
    pub fn wait(&mut self, source: usize) -> Micros {
        let source = &mut self.sources[source];
        source.stream.around(source.mean_us)
    }

    /// The blow, and which of the `machines(kind)` machines of which kind it hits.
    pub fn strike(&mut self, source: usize, machines: impl Fn(Kind) -> usize) -> (Kind, usize, Blow) {
        let faults = &self.faults;
        let Source { kind, blow, stream, .. } = &mut self.sources[source];
        let target = stream.below(machines(*kind) as u64) as usize;
        let blow = match BLOWS[*blow] {
            "crash" => Blow::Crash { down_us: stream.around(faults.restart_ms * 1_000) },
            "kill" => {
                let points = KILL_POINTS.iter().find(|(k, _)| k == kind).map_or(&[][..], |(_, points)| points);
                let on = points[stream.below(points.len() as u64) as usize];
                let moment = match stream.below(6) {
                    0 => Moment::Before,
                    1 => Moment::AfterEffects(usize::MAX),
                    _ => Moment::AfterEffects(stream.below(5) as usize),
                };
                Blow::Kill(Kill { on, moment })
            }
            "vanish" => Blow::Vanish { for_us: stream.around(faults.vanish_ms * 1_000) },
            "partition" => {
                let (into, out) = [(true, true), (true, true), (true, false), (false, true)][stream.below(4) as usize];
                let upstream_only = *kind == Kind::Edge && stream.chance(0.5);
                Blow::Partition { into, out, upstream_only, for_us: stream.around(faults.partition_ms * 1_000) }
            }
            "lose" => Blow::Lose { down_us: stream.around(faults.restart_ms * 1_000) },
            "disk_full" => Blow::DiskFull { for_us: stream.around(faults.disk_full_ms * 1_000) },
            _ => Blow::Damage,
        };
        (*kind, target, blow)
    }
}

/// Faults that came to pass, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Injected(BTreeMap<String, u64>);

impl Injected {
    pub fn count(&mut self, kind: &str) {
        match self.0.get_mut(kind) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(kind.to_owned(), 1);
            }
        }
    }

    pub fn of(&self, kind: &str) -> u64 {
        self.0.get(kind).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    pub fn add(&mut self, other: &Injected) {
        for (kind, count) in &other.0 {
            *self.0.entry(kind.clone()).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_kind_of_fault_shifts_no_other() {
        let draw = |faults: &Faults| {
            let mut plan = Plan::new(faults, 9, |_| 10);
            let crash = plan.sources.iter().position(|s| s.kind == Kind::Device && BLOWS[s.blow] == "crash").unwrap();
            (0..20).map(|_| (plan.wait(crash), plan.strike(crash, |_| 10))).collect::<Vec<_>>()
        };
        let mut faults = Faults { crash: Every { device_ms: 1_000, ..Every::default() }, ..Faults::default() };
        let alone = draw(&faults);
        faults.partition = Every { cloud_ms: 1, edge_ms: 1, device_ms: 1 };
        faults.kill = faults.partition;
        assert_eq!(draw(&faults), alone);
    }

    #[test]
    fn profiles_are_written_and_read() {
        for name in Faults::PROFILES {
            let faults = Faults::profile(name).unwrap();
            let text = toml::to_string(&faults).unwrap();
            assert_eq!(toml::from_str::<Faults>(&text).unwrap(), faults);
        }
        assert_eq!(toml::from_str::<Faults>("").unwrap(), Faults::profile("none").unwrap());
        assert!(toml::from_str::<Faults>("los = 1").is_err());
        assert!(Faults::profile("mild").is_none());
    }
}
