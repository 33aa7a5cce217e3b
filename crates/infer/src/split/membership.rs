//! Which machines have layers: who may, when they are placed anew, and what a loss was.
//!
//! [`Head`] has the passes, this has the machines. Pure: it hears of links, beats and messages, and says what is to be done
//! ([`Decision`]); whoever calls it has the links, loads layers, and calls [`Head::place`]. `now_us` counts from the beginning
//! of the chain.

use super::head::{Head, Link, Recovery};
use super::holdings::Holdings;
use super::measured::Measured;
use super::place::{self, HeadLayers};
use super::planned::Planner;
use littoral_tensor::pool::Pool;
use littoral_wire::message::SocketName;
use littoral_wire::{NodeId, Pipeline};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How long things may take, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At a start: for machines to come up before those that are here are used.
    pub gathering_us: u64,
    /// Machines of a new placement have this long to get ready; a cold disk is slow.
    pub forming_max_us: u64,
    /// A machine of which nothing was heard for so long is lost, whatever its connections say. It answers beats by a thread of
    /// its own.
    pub silent_us: u64,
    /// A machine that was too slow, or refused, is not used again before.
    pub shunned_us: u64,
    /// While layers are nobody's for want of room, requests wait so long and fail then.
    pub unplaced_max_us: u64,
    /// A machine that came while texts are written is taken in between two of them. If there is no such moment for so long, new
    /// requests wait for one,
    pub taking_in_us: u64,
    /// and after so long it is taken in all the same: texts are read again where that is needed.
    pub holding_max_us: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        let second = 1_000_000;
        Self {
            gathering_us: 5 * second,
            forming_max_us: 120 * second,
            silent_us: 750_000,
            shunned_us: 60 * second,
            unplaced_max_us: 30 * second,
            taking_in_us: 5 * second,
            holding_max_us: 30 * second,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// The machines that there may be, in the order in which they get layers.
    pub machines: Vec<NodeId>,
    /// Layers of the head while other machines are up.
    pub head_layers: HeadLayers,
    /// Layers that the head has room for.
    pub head_room: usize,
    pub bounds: Bounds,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The links to these machines are to be given up, then [`Membership::down`] is to be called for each.
    GiveUp { machines: Vec<NodeId>, why: &'static str },
    /// This machine has no copy of the file and is to fetch these layers, if need be from those others.
    Get { machine: NodeId, layers: Vec<Range<usize>>, sources: Vec<NodeId> },
    /// These get the layers: [`Head::place`].
    Place(Vec<Link>),
    /// Requests that wait are to wait on, or not any more: [`Engine::hold`](crate::engine::Engine::hold).
    Hold(bool),
    /// Nobody can have some layers: [`Head::fail_requests`] for this reason.
    Fail(String),
}

/// A loss that was survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survived {
    pub at_us: u64,
    pub machine: NodeId,
    /// From the last that was heard of the machine until it was called lost.
    pub detect_us: u64,
    pub recovery: Recovery,
}

/// A machine that is up.
struct Here {
    /// Layers that it has room for.
    room: usize,
    heard_us: u64,
    /// It has answered a beat. Before that nobody would notice if it fell silent, and it gets no layers.
    beats: bool,
}

/// Somebody is to be taken in while texts are written.
#[derive(Default)]
struct TakingIn {
    since_us: Option<u64>,
    looked_at_us: u64,
    holding: bool,
}

/// While texts are written it is looked so often whether somebody is to be taken in.
const LOOKS_US: u64 = 250_000;

pub struct Membership {
    settings: Settings,
    /// `None`: layers are spread evenly.
    planner: Option<Planner>,
    here: BTreeMap<NodeId, Here>,
    holdings: Holdings,
    /// Passes of this epoch that each machine has run.
    done: BTreeMap<NodeId, u64>,
    shunned: BTreeMap<NodeId, u64>,
    /// Since when the present placement is under way, or none is possible.
    forming_since_us: Option<u64>,
    unplaced_since_us: Option<u64>,
    taking_in: TakingIn,
    lost: Option<(NodeId, u64, u64)>,
    survived: Vec<Survived>,
}

impl Membership {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            planner: None,
            here: BTreeMap::new(),
            holdings: Holdings::default(),
            done: BTreeMap::new(),
            shunned: BTreeMap::new(),
            forming_since_us: None,
            unplaced_since_us: None,
            taking_in: TakingIn::default(),
            lost: None,
            survived: Vec::new(),
        }
    }

    /// From now on layers lie as plans say, as far as there is room; where there is no plan they are spread as without.
    pub fn follow(&mut self, planner: Planner) {
        self.planner = Some(planner);
    }

    /// What was measured of a machine; of use to plans only.
    pub fn know(&mut self, machine: NodeId, measured: Measured) {
        if let Some(planner) = &mut self.planner {
            planner.know(machine, measured);
        }
    }

    /// Layers that the head has room for.
    pub fn set_head_room(&mut self, layers: usize) {
        self.settings.head_room = layers;
    }

    /// There is a link to a machine, which has nothing yet and room for so many layers. Its process may be another one than
    /// before.
    pub fn up(&mut self, head: &mut Head, machine: NodeId, at: SocketName, room: usize, now_us: u64) {
        self.down(head, machine, now_us);
        head.up(machine, at);
        self.here.insert(machine, Here { room, heard_us: now_us, beats: false });
    }

    /// A machine that is up has no copy of the model's file. It gets layers when it has fetched them.
    pub fn lacks_file(&mut self, machine: NodeId) {
        self.holdings.lacks(machine);
    }

    /// Such a machine can get no layers: while it is up it is in no plan, for this reason. False if that was known.
    pub fn cannot_get(&mut self, machine: NodeId, why: &str) -> bool {
        self.holdings.cannot_get(machine, why)
    }

    /// What machines have that fetch their layers.
    pub fn holdings(&self) -> &Holdings {
        &self.holdings
    }

    /// A machine is lost. False if it was not up.
    pub fn down(&mut self, head: &mut Head, machine: NodeId, now_us: u64) -> bool {
        let whole = !head.broken();
        self.gone(head, machine, whole, now_us)
    }

    /// `whole`: whether the chain was before that.
    fn gone(&mut self, head: &mut Head, machine: NodeId, whole: bool, now_us: u64) -> bool {
        let Some(Here { heard_us, .. }) = self.here.remove(&machine) else { return false };
        self.done.remove(&machine);
        self.holdings.gone(machine);
        head.down(machine);
        if whole && head.broken() {
            self.lost = Some((machine, now_us, now_us.saturating_sub(heard_us)));
        }
        true
    }

    /// A machine answered a beat: how many passes of that epoch it has run.
    pub fn beat(&mut self, head: &Head, machine: NodeId, epoch: u32, done: u64, now_us: u64) {
        let Some(here) = self.here.get_mut(&machine) else { return };
        (here.heard_us, here.beats) = (now_us, true);
        if epoch == head.epoch() {
            self.done.insert(machine, done);
        }
    }

    /// Something came from a machine that is up. If it refuses, or what it sent does not fit, it is lost as by [`Self::down`],
    /// and is not used for a while: returns why, and the link is to be given up.
    pub fn hear(
        &mut self,
        head: &mut Head,
        machine: NodeId,
        said: &Pipeline,
        pool: &Pool,
        now_us: u64,
    ) -> Option<String> {
        self.here.get_mut(&machine)?.heard_us = now_us;
        let whole = !head.broken();
        let why = match said {
            // Of an earlier placement it says nothing any more.
            Pipeline::Refused { epoch, .. } if *epoch != head.epoch() => return None,
            Pipeline::Refused { reason, .. } => format!("it refuses: {reason}"),
            Pipeline::Has { model, layers, .. } => {
                if *model == head.digest() {
                    self.holdings.heard(machine, head.engine().model().stage.config().layers, layers);
                }
                return None;
            }
            Pipeline::Cannot { reason } => {
                self.holdings.cannot_get(machine, reason);
                return None;
            }
            said => {
                head.hear(machine, said, pool, now_us);
                if !whole || !head.broken() {
                    return None;
                }
                "what it sent does not fit".into()
            }
        };
        self.shunned.insert(machine, now_us);
        self.gone(head, machine, whole, now_us);
        Some(why)
    }

    /// Losses that were survived since this was last asked.
    pub fn survived(&mut self) -> Vec<Survived> {
        std::mem::take(&mut self.survived)
    }

    /// Machines that may have layers.
    pub fn usable(&self, now_us: u64) -> BTreeSet<NodeId> {
        let shunned = |machine: &NodeId| {
            let since_us = self.shunned.get(machine);
            since_us.is_some_and(|since_us| now_us.saturating_sub(*since_us) < self.settings.bounds.shunned_us)
        };
        let beat = self.here.iter().filter(|(_, here)| here.beats).map(|(machine, _)| *machine);
        beat.filter(|machine| !shunned(machine) && self.holdings.cannot(*machine).is_none()).collect()
    }

    /// What is to be done now; to be asked again until there is nothing.
    pub fn decide(&mut self, head: &Head, now_us: u64) -> Option<Decision> {
        let silent_us = self.settings.bounds.silent_us;
        let silent =
            self.here.iter().filter(|(_, here)| here.beats && now_us.saturating_sub(here.heard_us) > silent_us);
        let silent: Vec<NodeId> = silent.map(|(machine, _)| *machine).collect();
        if !silent.is_empty() {
            return Some(Decision::GiveUp { machines: silent, why: "nothing is heard of it" });
        }
        if let Some(machine) = head.late(&self.done, now_us) {
            self.shunned.insert(machine, now_us);
            return Some(Decision::GiveUp { machines: vec![machine], why: "it is far slower than it was" });
        }
        let first = head.epoch() == 0;
        let all = self.usable(now_us).len() + self.holdings.incapable() == self.settings.machines.len();
        if first && !all && now_us < self.settings.bounds.gathering_us {
            return None;
        }
        if let Some(get) = self.next_get(head, now_us) {
            return Some(get);
        }
        if head.running() {
            self.forming_since_us = None;
            self.note_recovery(head);
            return self.take_in(head, now_us);
        }
        if !head.broken() {
            return self.late_to_form(head, now_us);
        }
        let chain = if first { self.spread_held(head, now_us) } else { self.without_lost(head, now_us) };
        match chain {
            Ok(chain) => Some(self.place(chain, now_us)),
            Err(nobodys) => self.unplaced(head, nobodys, now_us),
        }
    }

    /// Who came, or came back, is taken in between requests.
    fn take_in(&mut self, head: &Head, now_us: u64) -> Option<Decision> {
        if head.engine().running() == 0 {
            return match self.better(head, now_us) {
                Some(chain) => Some(self.place(chain, now_us)),
                None => self.hold(false),
            };
        }
        if now_us.saturating_sub(self.taking_in.looked_at_us) < LOOKS_US {
            return None;
        }
        self.taking_in.looked_at_us = now_us;
        let now = machines(head.chain());
        // Where only layers would move nobody waits for it.
        let Some(chain) = self.better(head, now_us).filter(|chain| !machines(chain).is_subset(&now)) else {
            self.taking_in.since_us = None;
            return self.hold(false);
        };
        let waited_us = now_us.saturating_sub(*self.taking_in.since_us.get_or_insert(now_us));
        let Bounds { taking_in_us, holding_max_us, .. } = self.settings.bounds;
        match waited_us {
            waited_us if waited_us >= taking_in_us + holding_max_us => Some(self.place(chain, now_us)),
            waited_us if waited_us >= taking_in_us => self.hold(true),
            _ => None,
        }
    }

    fn hold(&mut self, hold: bool) -> Option<Decision> {
        let before = std::mem::replace(&mut self.taking_in.holding, hold);
        (before != hold).then_some(Decision::Hold(hold))
    }

    /// Another placement than the one that runs: as it should be, if machines have their layers; until then one that takes somebody
    /// in and leaves nobody out.
    fn better(&mut self, head: &Head, now_us: u64) -> Option<Vec<Link>> {
        let wanted = self.spread(head, now_us).ok()?;
        if wanted.iter().all(|link| self.holdings.holds(link)) {
            // Without a plan machines of one chain are as good in any order.
            let same = match self.planner {
                None if self.holdings.is_empty() => machines(&wanted) == machines(head.chain()),
                _ => layers(&wanted) == layers(head.chain()),
            };
            return (!same).then_some(wanted);
        }
        let (now, chain) = (machines(head.chain()), self.spread_held(head, now_us).ok()?);
        let then = machines(&chain);
        (then != now && then.is_superset(&now)).then_some(chain)
    }

    /// Who has no copy of the file is to get what it would have if everybody had one.
    fn next_get(&mut self, head: &Head, now_us: u64) -> Option<Decision> {
        if self.holdings.is_empty() {
            return None;
        }
        let wanted = self.spread(head, now_us).ok()?;
        let (machine, layers) = self.holdings.next_get(&wanted)?;
        Some(Decision::Get { machine, sources: self.holdings.sources(machine, &layers), layers })
    }

    fn place(&mut self, chain: Vec<Link>, now_us: u64) -> Decision {
        self.done.clear();
        self.taking_in = TakingIn { looked_at_us: now_us, ..TakingIn::default() };
        self.forming_since_us = Some(now_us);
        self.unplaced_since_us = None;
        Decision::Place(chain)
    }

    /// Are there layers that no machine can have now?
    pub fn is_unplaced(&self) -> bool {
        self.unplaced_since_us.is_some()
    }

    fn late_to_form(&mut self, head: &Head, now_us: u64) -> Option<Decision> {
        let since_us = self.forming_since_us?;
        if now_us.saturating_sub(since_us) <= self.settings.bounds.forming_max_us {
            return None;
        }
        let machines = head.awaited();
        self.shunned.extend(machines.iter().map(|machine| (*machine, now_us)));
        (!machines.is_empty()).then_some(Decision::GiveUp { machines, why: "it did not get ready" })
    }

    fn unplaced(&mut self, head: &Head, nobodys: Range<usize>, now_us: u64) -> Option<Decision> {
        let since_us = *self.unplaced_since_us.get_or_insert(now_us);
        let waited_us = now_us.saturating_sub(since_us);
        if waited_us < self.settings.bounds.unplaced_max_us || head.engine().idle() {
            return None;
        }
        let (first, last, layers) = (nobodys.start, nobodys.end - 1, head.engine().model().stage.config().layers);
        let (usable, incapable) = (self.usable(now_us).len(), self.holdings.incapable());
        let away = self.settings.machines.len().saturating_sub(usable + incapable);
        let incapable = match incapable {
            0 => String::new(),
            some => format!("{some} can get none, "),
        };
        let fetching = match self.holdings.waiting() {
            0 => String::new(),
            some => format!("{some} still fetch their layers, "),
        };
        let rest = match usable {
            0 => "and this one has no room for them",
            _ => "and those that are here have no room for more",
        };
        Some(Decision::Fail(format!(
            "layers {first} to {last} of {layers} have had no machine for {} s: {away} of {} machines are away, {incapable}{fetching}{rest}",
            waited_us / 1_000_000,
            self.settings.machines.len(),
        )))
    }

    /// Over those that may have layers, in the order in which they were given: the plan's, if there is one, else evenly.
    fn spread(&mut self, head: &Head, now_us: u64) -> Result<Vec<Link>, Range<usize>> {
        let usable = self.usable(now_us);
        let given = self.settings.machines.iter().filter(|machine| usable.contains(machine));
        let machines: Vec<(NodeId, usize)> = given.map(|machine| (*machine, self.room(Some(*machine)))).collect();
        let layers = head.engine().model().stage.config().layers;
        if let Some(planner) = &mut self.planner {
            let ids: Vec<NodeId> = machines.iter().map(|(id, _)| *id).collect();
            if let Some(shares) = planner.shares(&ids) {
                let spares = ids.iter().filter(|id| !shares.iter().any(|(machine, _)| *machine == Some(**id)));
                let all = shares.iter().copied().chain(spares.map(|id| (Some(*id), 0)));
                return place::within(layers, all.map(|(id, count)| (id, self.room(id), count)).collect());
            }
        }
        let own = self.settings.head_layers.of(layers, machines.len());
        place::spread_within(layers, own, self.settings.head_room, &machines)
    }

    /// As [`Self::spread`], as far as machines hold their layers.
    fn spread_held(&mut self, head: &Head, now_us: u64) -> Result<Vec<Link>, Range<usize>> {
        let mut chain = self.spread(head, now_us)?;
        if !chain.iter().all(|link| self.holdings.holds(link)) {
            // Until then somebody may do who was not wanted.
            let mut spares = self.usable(now_us);
            spares.retain(|machine| chain.iter().all(|link| link.machine != Some(*machine)));
            chain.extend(spares.into_iter().map(|machine| Link { machine: Some(machine), ranges: Vec::new() }));
        }
        self.holdings.reach(chain, |machine| self.room(machine))
    }

    /// Layers that a machine has room for; `None`: the head.
    fn room(&self, machine: Option<NodeId>) -> usize {
        match machine {
            None => self.settings.head_room,
            Some(machine) => self.here.get(&machine).map_or(0, |here| here.room),
        }
    }

    /// As little as possible moves; all is spread anew where that does not fit.
    fn without_lost(&mut self, head: &Head, now_us: u64) -> Result<Vec<Link>, Range<usize>> {
        // What a machine computes it holds, whatever it fetches now.
        let fits = |link: &Link| {
            (self.holdings.holds(link) || head.chain().contains(link))
                && link.ranges.iter().map(Range::len).sum::<usize>() <= self.room(link.machine)
        };
        let mut usable = self.usable(now_us);
        usable.retain(|machine| self.holdings.holds(&Link { machine: Some(*machine), ranges: Vec::new() }));
        let chain = match &self.planner {
            Some(planner) => planner.without_lost(head.chain(), &usable, &fits),
            None => Some(place::without_lost(head.chain(), &usable, &fits)),
        };
        match chain.filter(|chain| chain.iter().all(fits)) {
            Some(chain) => Ok(chain),
            None => self.spread_held(head, now_us),
        }
    }

    fn note_recovery(&mut self, head: &Head) {
        if let Some((machine, at_us, detect_us)) = self.lost.take() {
            self.survived.push(Survived { at_us, machine, detect_us, recovery: head.recovery() });
        }
    }
}

/// Which layers each machine has, in one piece where they are.
fn layers(chain: &[Link]) -> Vec<(Option<NodeId>, Range<usize>)> {
    let ranges = chain.iter().flat_map(|link| link.ranges.iter().map(|range| (link.machine, range.clone())));
    let mut merged: Vec<(Option<NodeId>, Range<usize>)> = Vec::new();
    for (machine, range) in ranges.filter(|(_, range)| !range.is_empty()) {
        match merged.last_mut().filter(|(last, before)| *last == machine && before.end == range.start) {
            Some((_, before)) => before.end = range.end,
            None => merged.push((machine, range)),
        }
    }
    merged
}

fn machines(chain: &[Link]) -> BTreeSet<NodeId> {
    chain.iter().filter_map(|link| link.machine).collect()
}
