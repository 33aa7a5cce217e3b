//! The virtual network: when a message arrives, how often, and whether the link survives it.
//!
//! A link is a connection with two ends. Each way has a bandwidth, a delay and an order; loss shows as the delay of a
//! retransmission, since links stand for QUIC or TCP. A way that is cut (see [`Cut`]) holds messages back: they arrive
//! after it heals, or the link dies of silence first. Nothing here knows what machines are.

use crate::faults::{Faults, Injected, LinkShape};
use crate::queue::Micros;
use crate::stream::Stream;

/// An index into the world's machines.
pub type NodeIndex = u32;

/// Which of a link's two ends: 0 dialled, 1 was called.
pub type End = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Device,
    Edge,
}

/// One direction of a link, seen from its sender.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// When the last byte so far is on the wire.
    busy_until: Micros,
    /// Nothing arrives before this, so that order is kept.
    last_arrival: Micros,
}

#[derive(Debug)]
pub struct Link {
    pub ends: [NodeIndex; 2],
    pub class: Class,
    /// Whether each end still receives.
    pub open: [bool; 2],
    ready_at: Micros,
    ways: [Way; 2],
}

/// Nothing passes from `from` to `to` until then. `None`: anybody.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub from: Option<NodeIndex>,
    pub to: Option<NodeIndex>,
    pub until: Micros,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    Arrives {
        at: Micros,
        again_at: Option<Micros>,
    },
    /// The link dies; the receiver learns it at `at`, the sender perhaps only by waiting.
    Dies {
        at: Micros,
        sender_at: Micros,
    },
}

#[derive(Debug)]
pub struct Network {
    links: Vec<Option<Link>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    cuts: Vec<Cut>,
    /// Of machines whose link is slower than its class's: by node, what it sends and what it receives.
    rates: Vec<[u64; 2]>,
    shapes: [LinkShape; 2],
    refused: f64,
    timeout_us: Micros,
    jitter: Stream,
    loss: Stream,
    duplicate: Stream,
    reorder: Stream,
    death: Stream,
    refusal: Stream,
}

impl Network {
    pub fn new(faults: &Faults, seed: u64) -> Self {
        Self {
            links: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            cuts: Vec::new(),
            rates: Vec::new(),
            shapes: [faults.device_link.clone(), faults.edge_link.clone()],
            refused: faults.refused,
            timeout_us: faults.timeout_ms * 1_000,
            jitter: Stream::new(seed, "jitter"),
            loss: Stream::new(seed, "loss"),
            duplicate: Stream::new(seed, "duplicate"),
            reorder: Stream::new(seed, "reorder"),
            death: Stream::new(seed, "link death"),
            refusal: Stream::new(seed, "refused"),
        }
    }

    /// From now on only delays and bandwidth.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.refused = 0.0;
        for shape in &mut self.shapes {
            (shape.loss, shape.duplicate, shape.reorder, shape.death) = (0.0, 0.0, 0.0, 0.0);
        }
    }

    pub fn timeout_us(&self) -> Micros {
        self.timeout_us
    }

    /// A machine's own bandwidth, bytes per second from it and to it; 0: as its link's class has it.
    pub fn limit(&mut self, node: NodeIndex, up: u64, down: u64) {
        let node = node as usize;
        if self.rates.len() <= node {
            self.rates.resize(node + 1, [0, 0]);
        }
        self.rates[node] = [up, down];
    }

    /// The narrowest place on the way; 0: unlimited.
    fn bytes_per_s(&self, class: Class, from: NodeIndex, to: NodeIndex) -> u64 {
        let own = |node: NodeIndex, way: usize| self.rates.get(node as usize).map_or(0, |rates| rates[way]);
        let all = [self.shapes[class as usize].bytes_per_s, own(from, 0), own(to, 1)];
        all.into_iter().filter(|rate| *rate > 0).min().unwrap_or(0)
    }

    pub fn cut(&mut self, now: Micros, cut: Cut) {
        self.cuts.retain(|c| c.until > now);
        self.cuts.push(cut);
    }

    /// Until when nothing passes this way; `now` if it is free.
    pub fn cut_until(&self, now: Micros, from: NodeIndex, to: NodeIndex) -> Micros {
        let hits = |c: &&Cut| c.from.is_none_or(|f| f == from) && c.to.is_none_or(|t| t == to);
        self.cuts.iter().filter(hits).map(|c| c.until).fold(now, Micros::max)
    }

    /// A new link's number; numbers are not used twice. Nothing arrives before `ready_at`.
    pub fn connect(&mut self, dialler: NodeIndex, called: NodeIndex, class: Class, ready_at: Micros) -> u64 {
        let ways = [Way { busy_until: 0, last_arrival: ready_at }; 2];
        let link = Link { ends: [dialler, called], class, open: [true, true], ready_at, ways };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.links.push(None);
                // From 1 on: roles use number 0 for links of their own.
                self.generations.push(1);
                (self.links.len() - 1) as u32
            }
        };
        self.links[index as usize] = Some(link);
        u64::from(self.generations[index as usize]) << 32 | u64::from(index)
    }

    pub fn link(&self, number: u64) -> Option<&Link> {
        let index = number as u32 as usize;
        (self.generations.get(index).copied() == Some((number >> 32) as u32)).then(|| self.links[index].as_ref())?
    }

    fn link_mut(&mut self, number: u64) -> Option<&mut Link> {
        let index = number as u32 as usize;
        (self.generations.get(index).copied() == Some((number >> 32) as u32)).then(|| self.links[index].as_mut())?
    }

    /// This end receives nothing more. A link with no open end is forgotten.
    pub fn shut(&mut self, number: u64, end: End) {
        let Some(link) = self.link_mut(number) else { return };
        link.open[end] = false;
        if link.open == [false, false] {
            let index = number as u32;
            self.links[index as usize] = None;
            self.generations[index as usize] += 1;
            self.free.push(index);
        }
    }

    /// Does this call fail though somebody is there?
    pub fn refuses(&mut self) -> bool {
        self.refusal.chance(self.refused)
    }

    /// One way, without a message.
    pub fn delay(&mut self, class: Class) -> Micros {
        let shape = &self.shapes[class as usize];
        let jitter = if shape.jitter_us > 0 { self.jitter.below(shape.jitter_us + 1) } else { 0 };
        shape.delay_us + jitter
    }

    /// A message of `bytes` sets out from `end`. `None`: there is no such link.
    pub fn send(
        &mut self,
        now: Micros,
        number: u64,
        end: End,
        bytes: usize,
        injected: &mut Injected,
    ) -> Option<Sending> {
        let ends = self.link(number)?.ends;
        let (from, to) = (ends[end], ends[1 - end]);
        let class = self.link(number)?.class;
        let mut delay = self.delay(class);
        let shape = &self.shapes[class as usize];
        let cut_until = if self.cuts.is_empty() { now } else { self.cut_until(now, from, to) };
        if cut_until > now {
            injected.count("held by partition");
            if cut_until - now >= self.timeout_us {
                injected.count("link death");
                let at = now + self.timeout_us;
                return Some(Sending::Dies { at, sender_at: at });
            }
        }
        if self.death.chance(shape.death) {
            injected.count("link death");
            let sender_at = if self.death.chance(0.5) { now + delay } else { now + self.timeout_us };
            return Some(Sending::Dies { at: now + delay, sender_at });
        }
        // After six losses in a row a real transport still tries; so does this one, without drawing more.
        for _ in 0..6 {
            if !self.loss.chance(shape.loss) {
                break;
            }
            injected.count("loss");
            delay += shape.retransmit_us;
        }
        let overtakes = self.reorder.chance(shape.reorder);
        let again = self.duplicate.chance(shape.duplicate).then(|| shape.delay_us + delay);
        let rate = self.bytes_per_s(class, from, to);
        let transmit = (bytes as u64 * 1_000_000).checked_div(rate).unwrap_or(0);
        let link = self.link_mut(number)?;
        let ready_at = link.ready_at;
        let way = &mut link.ways[end];
        way.busy_until = way.busy_until.max(now) + transmit;
        let mut at = (way.busy_until.max(cut_until) + delay).max(ready_at);
        if overtakes && at < way.last_arrival {
            injected.count("reordering");
        } else {
            // Behind those before it, unless it overtakes: then it leaves the others' order alone, and holds up none.
            at = at.max(way.last_arrival);
            way.last_arrival = at;
        }
        if again.is_some() {
            injected.count("duplication");
        }
        Some(Sending::Arrives { at, again_at: again.map(|later| at + later) })
    }

    /// When the end of the stream arrives, if `end` hangs up now: behind everything it sent.
    pub fn end_of_stream(&mut self, now: Micros, number: u64, end: End) -> Option<Micros> {
        let link = self.link(number)?;
        let (class, from, to) = (link.class, link.ends[end], link.ends[1 - end]);
        let delay = self.delay(class);
        let cut_until = self.cut_until(now, from, to).min(now + self.timeout_us);
        let way = &self.link(number)?.ways[end];
        Some((way.busy_until.max(cut_until) + delay).max(way.last_arrival))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(shape: LinkShape) -> (Network, u64) {
        let faults = Faults { device_link: shape, ..Faults::default() };
        let mut network = Network::new(&faults, 5);
        let link = network.connect(0, 1, Class::Device, 0);
        (network, link)
    }

    fn arrivals(shape: LinkShape, count: usize) -> (Vec<Micros>, Injected) {
        let (mut network, link) = network(shape);
        let mut injected = Injected::default();
        let mut all = Vec::new();
        for i in 0..count {
            match network.send(i as u64, link, 0, 1_000, &mut injected) {
                Some(Sending::Arrives { at, again_at }) => {
                    all.push(at);
                    all.extend(again_at);
                }
                other => panic!("{other:?}"),
            }
        }
        (all, injected)
    }

    #[test]
    fn a_quiet_link_keeps_order_and_bandwidth() {
        let (all, injected) = arrivals(LinkShape { bytes_per_s: 1_000_000, ..LinkShape::default() }, 3);
        assert_eq!(all, [2_000, 3_000, 4_000], "1 ms each on the wire, 1 ms under way");
        assert_eq!(injected.total(), 0);
        let (all, _) = arrivals(LinkShape { jitter_us: 5_000, loss: 0.2, ..LinkShape::default() }, 1_000);
        assert!(all.is_sorted(), "loss and jitter delay, they do not reorder");
    }

    #[test]
    fn the_narrowest_place_decides() {
        let (mut network, link) = network(LinkShape { bytes_per_s: 1_000_000, ..LinkShape::default() });
        network.limit(0, 500_000, 2_000_000);
        let mut injected = Injected::default();
        let mut send = |end| network.send(0, link, end, 1_000, &mut injected);
        assert_eq!(
            send(0),
            Some(Sending::Arrives { at: 3_000, again_at: None }),
            "2 ms on its own uplink, 1 ms under way"
        );
        assert_eq!(
            send(1),
            Some(Sending::Arrives { at: 2_000, again_at: None }),
            "its downlink is wider than the link"
        );
    }

    #[test]
    fn duplicates_and_overtaking_happen_and_are_counted() {
        let shape = LinkShape { jitter_us: 5_000, duplicate: 0.1, reorder: 0.2, loss: 0.1, ..LinkShape::default() };
        let (all, injected) = arrivals(shape, 1_000);
        assert_eq!(all.len() as u64, 1_000 + injected.of("duplication"));
        assert!((60..140).contains(&injected.of("duplication")));
        assert!(injected.of("reordering") > 20 && !all.is_sorted());
        assert!((60..180).contains(&injected.of("loss")));
    }

    #[test]
    fn a_cut_holds_messages_until_it_heals_or_the_link_dies() {
        let (mut network, link) = network(LinkShape::default());
        let mut injected = Injected::default();
        let mut send = |network: &mut Network, now, end| network.send(now, link, end, 10, &mut injected);
        network.cut(0, Cut { from: Some(0), to: None, until: 5_000_000 });
        assert_eq!(send(&mut network, 10, 0), Some(Sending::Arrives { at: 5_001_000, again_at: None }));
        assert_eq!(send(&mut network, 10, 1), Some(Sending::Arrives { at: 1_010, again_at: None }), "one way only");
        assert_eq!(send(&mut network, 5_000_000, 0), Some(Sending::Arrives { at: 5_001_000, again_at: None }));
        network.cut(5_000_000, Cut { from: None, to: Some(1), until: 60_000_000 });
        assert_eq!(send(&mut network, 6_000_000, 0), Some(Sending::Dies { at: 16_000_000, sender_at: 16_000_000 }));
        assert_eq!(network.cuts.len(), 1, "healed cuts are forgotten");
    }

    #[test]
    fn numbers_are_not_used_twice() {
        let (mut network, first) = network(LinkShape::default());
        network.shut(first, 0);
        assert!(network.link(first).is_some_and(|link| link.open == [false, true]));
        network.shut(first, 1);
        assert!(network.link(first).is_none());
        let second = network.connect(0, 1, Class::Device, 0);
        assert_ne!(first, second);
        assert!(network.link(first).is_none() && network.link(second).is_some());
        assert_eq!(network.send(0, first, 0, 1, &mut Injected::default()), None);
    }
}
