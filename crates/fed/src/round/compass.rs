//! FedCompass: Li et al. 2024, "FedCompass: Efficient Cross-Silo Federated Learning on Heterogeneous Client Devices using a
//! Computing Power Aware Scheduler" (arXiv:2309.14675), Algorithms 1 to 3.
//!
//! A device is given as many steps as it makes until others arrive, by the speed that was measured of it: the quick ones
//! train longer, the slow ones less, and all of an *arrival group* are ready at about the same time. So few updates are old,
//! and nobody waits long.
//!
//! ```text
//! no speed known          Q_min steps, alone: that measures it
//! a group fits            the steps until its arrival T, if they lie in [Q_min, Q_max]; of several groups the most steps
//! none fits               a new group: the steps until the quickest of some group arrive the next time, at most Q_max;
//!                         without any group Q_max
//! a group is complete     when all of it are ready, or at T + (λ − 1)(T − start), λ ≥ 1: who comes later is old
//! ```
//!
//! A speed is the time from dispatch to ready over the steps, so it has in it what the network takes; half of it is the
//! newest measurement. With equal speeds all are given Q_max steps and arrive together: FedAvg with so many steps.

use super::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a job says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compass {
    /// Q_min, 1 or more.
    pub steps_min: u32,
    /// Q_max, at least `steps_min`.
    pub steps_max: u32,
    /// λ, 1 to 10: how long a group is waited for. Default 1.5.
    #[serde(default = "one_and_a_half")]
    pub patience: f64,
}

fn one_and_a_half() -> f64 {
    1.5
}

/// A group's number.
pub(super) type Arrival = u64;

#[derive(Clone, Copy, Debug)]
struct Group {
    since: Millis,
    /// T: when they are expected.
    at: Millis,
    /// They are not waited for any longer.
    latest: Millis,
    /// Milliseconds per step of its quickest device.
    quickest: f64,
    /// Who has not arrived.
    missing: usize,
    arrived: usize,
}

/// What was measured, and who is expected when.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Milliseconds per step, by name.
    speeds: BTreeMap<String, f64>,
    groups: BTreeMap<Arrival, Group>,
    next: Arrival,
}

impl Compass {
    /// The parameter that is out of range, its value, and what is allowed.
    pub fn wrong(&self) -> Option<(&'static str, String, &'static str)> {
        let Self { steps_min, steps_max, patience } = *self;
        match () {
            () if steps_min == 0 => Some(("steps_min", steps_min.to_string(), "1 or more")),
            () if steps_max < steps_min => Some(("steps_max", steps_max.to_string(), "steps_min or more")),
            () if !(1.0..=10.0).contains(&patience) => Some(("patience", patience.to_string(), "1 to 10")),
            () => None,
        }
    }
}

impl Course {
    /// How many steps the device is given now, and with whom it shall arrive.
    pub fn plot(&mut self, compass: &Compass, now: Millis, name: &str) -> (u32, Arrival) {
        let (min, max) = (f64::from(compass.steps_min), f64::from(compass.steps_max));
        let Some(pace) = self.speeds.get(name).copied() else {
            // When it arrives nobody can say: it is waited for by nobody.
            return (compass.steps_min, self.found(compass, now, None));
        };
        let until = |at: Millis| (at.saturating_sub(now) as f64 / pace).floor();
        let fits = |(_, group): &(&Arrival, &Group)| group.at > now && (min..=max).contains(&until(group.at));
        let most = self.groups.iter().filter(fits).max_by(|a, b| until(a.1.at).total_cmp(&until(b.1.at)));
        if let Some((arrival, group)) = most.map(|(arrival, group)| (*arrival, *group)) {
            if let Some(group) = self.groups.get_mut(&arrival) {
                group.missing += 1;
                group.quickest = group.quickest.min(pace);
            }
            return (until(group.at) as u32, arrival);
        }
        let again = |group: &Group| (group.latest as f64 + group.quickest * max - now as f64) / pace;
        let expected = self.groups.values().filter(|group| group.latest > now && group.quickest.is_finite());
        let steps = expected.map(again).map(f64::floor).filter(|steps| *steps <= max).fold(f64::NAN, f64::max);
        let steps = if steps.is_nan() { max } else { steps.max(min) };
        (steps as u32, self.found(compass, now, Some((steps, pace))))
    }

    /// A new group; of a device whose speed is not known there is no time at which it is expected.
    fn found(&mut self, compass: &Compass, now: Millis, known: Option<(f64, f64)>) -> Arrival {
        self.next += 1;
        let (took, quickest) = known.map_or((0.0, f64::INFINITY), |(steps, pace)| (steps * pace, pace));
        let at = now + took as Millis;
        let latest = now + (took * compass.patience) as Millis;
        self.groups.insert(self.next, Group { since: now, at, latest, quickest, missing: 1, arrived: 0 });
        self.next
    }

    /// A device is ready, so long after it was dispatched.
    pub fn arrived(&mut self, arrival: Arrival, name: &str, steps: u32, took_ms: Millis) {
        let newest = took_ms.max(1) as f64 / f64::from(steps.max(1));
        let pace = self.speeds.entry(name.to_owned()).or_insert(newest);
        *pace = 0.5 * *pace + 0.5 * newest;
        if let Some(group) = self.groups.get_mut(&arrival) {
            group.missing = group.missing.saturating_sub(1);
            group.arrived += 1;
        }
    }

    /// It is not waited for any more.
    pub fn left(&mut self, arrival: Arrival) {
        if let Some(group) = self.groups.get_mut(&arrival) {
            group.missing = group.missing.saturating_sub(1);
        }
    }

    /// Is a group complete, or has it been waited for long enough? And else, until when one is.
    pub fn complete(&self, now: Millis) -> Result<(), Option<Millis>> {
        let expected = |group: &&Group| group.at > group.since;
        let some = |group: &Group| group.arrived > 0;
        // Devices that are measured first make no version alone while others are on their way.
        let measured = self.groups.values().filter(|group| !expected(group)).all(|group| group.missing == 0);
        let mut timed = self.groups.values().filter(expected).peekable();
        if timed.peek().is_none() {
            return if measured && self.groups.values().any(some) { Ok(()) } else { Err(None) };
        }
        match timed.clone().any(|group| group.missing == 0 && some(group) || now >= group.latest) {
            true => Ok(()),
            false => Err(timed.map(|group| group.latest).min()),
        }
    }

    /// A version is made of whoever was ready.
    pub fn departed(&mut self, now: Millis) {
        self.groups.retain(|_, group| group.missing > 0 && (group.at == group.since || now < group.latest));
        self.groups.values_mut().for_each(|group| group.arrived = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compass() -> Compass {
        Compass { steps_min: 20, steps_max: 100, patience: 1.5 }
    }

    /// Devices with these milliseconds per step, each measured once.
    fn measured(paces: &[(&str, u64)]) -> Course {
        let mut course = Course::default();
        for (name, pace) in paces {
            let (steps, arrival) = course.plot(&compass(), 0, name);
            assert_eq!(steps, 20, "{name} is measured first");
            course.arrived(arrival, name, steps, pace * u64::from(steps));
        }
        course.departed(1_000);
        course
    }

    #[test]
    fn the_quick_and_the_slow_arrive_together() {
        let mut course = measured(&[("quick", 10), ("middle", 20), ("slow", 50)]);
        let mut plot = |name| course.plot(&compass(), 1_000, name);
        let (quick, group) = plot("quick");
        assert_eq!(quick, 100, "the first one: all it may");
        assert_eq!([plot("middle"), plot("slow")], [(50, group), (20, group)]);
        assert_eq!(course.complete(2_000), Err(Some(2_500)), "1.5 times as long");
        course.arrived(group, "quick", 100, 1_000);
        course.arrived(group, "slow", 20, 1_000);
        assert!(course.complete(2_000).is_err());
        course.arrived(group, "middle", 50, 1_000);
        assert_eq!(course.complete(2_000), Ok(()));
    }

    #[test]
    fn with_equal_speeds_all_make_as_many_steps_and_arrive_in_one_group() {
        let names = ["a", "b", "c", "d"];
        let mut course = measured(&names.map(|name| (name, 10)));
        for version in 1..4 {
            let now = 1_000 * version;
            let plotted = names.map(|name| course.plot(&compass(), now, name));
            assert!(plotted.iter().all(|plot| *plot == (100, plotted[0].1)), "{plotted:?}");
            names.iter().for_each(|name| course.arrived(plotted[0].1, name, 100, 1_000));
            assert_eq!(course.complete(now + 1_000), Ok(()));
            course.departed(now + 1_000);
        }
    }

    #[test]
    fn who_is_too_slow_is_not_waited_for() {
        let mut course = measured(&[("quick", 10), ("snail", 500)]);
        let (_, group) = course.plot(&compass(), 1_000, "quick");
        // 20 steps take it 10 s: until the quick one has arrived, the next time or two.
        let (steps, own) = course.plot(&compass(), 1_000, "snail");
        assert!(steps == 20 && own != group);
        course.arrived(group, "quick", 100, 1_000);
        assert_eq!(course.complete(2_000), Ok(()));
        course.departed(2_000);
        assert_eq!(course.plot(&compass(), 2_000, "quick").0, 100);
    }
}
