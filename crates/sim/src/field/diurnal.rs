//! Made-up traces: days and nights, devices that come and go, regions that go away together.
//!
//! The model, for each device by itself but for the outages:
//!
//! - A **region**, uniform among `regions`; the regions lie in `zones` time zones, spread evenly over the 24 hours.
//! - **Nights.** Bedtime is normal around 23:00 local time with a deviation of 90 minutes from device to device and 30 from
//!   night to night; a night lasts 7.5 hours, deviation 1. Through it the device is there, idle and at home (unmetered), and
//!   charging in nine nights of ten.
//! - **Days.** Between nights, presence and absence alternate, both exponential: sessions of `session_minutes` on average, and
//!   absences such that the share of the day that it is there is `day_share`. Of the sessions one in ten is charging, half
//!   are idle, six in ten unmetered.
//! - **Outages.** A region has `outages_per_day` on average (a Poisson process), of `outage_minutes` on average (exponential):
//!   all its devices are away then.
//!
//! These shares are plausible, not measured: who has measurements brings a trace.

use super::availability::{Availability, Interval, State};
use super::{exponential, normal, unit};
use crate::stream::Stream;

/// What there is to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Diurnal {
    pub days: u32,
    pub seed: u64,
    /// From 1 to 24.
    pub zones: u32,
    pub regions: u32,
    /// In (0, 1].
    pub day_share: f64,
    pub session_minutes: f64,
    pub outages_per_day: f64,
    pub outage_minutes: f64,
}

impl Default for Diurnal {
    fn default() -> Self {
        Self {
            days: 7,
            seed: 0,
            zones: 1,
            regions: 10,
            day_share: 0.4,
            session_minutes: 45.0,
            outages_per_day: 0.1,
            outage_minutes: 90.0,
        }
    }
}

const HOUR: f64 = 3_600.0;
const DAY: f64 = 86_400.0;
/// Shorter presences are not worth a connection.
const SHORTEST_S: u32 = 30;

impl Diurnal {
    /// The traces of these devices.
    pub fn make(&self, names: impl IntoIterator<Item = String>) -> Availability {
        let outages: Vec<Vec<(u32, u32)>> = (0..self.regions.max(1)).map(|region| self.outages(region)).collect();
        let one = |(device, name): (usize, String)| (name, self.device(device, &outages));
        Availability::of(names.into_iter().enumerate().map(one), self.end())
    }

    fn end(&self) -> u32 {
        self.days.max(1) * DAY as u32
    }

    /// From when to when a region is away, ascending and apart.
    fn outages(&self, region: u32) -> Vec<(u32, u32)> {
        let mut found: Vec<(u32, u32)> = Vec::new();
        if self.outages_per_day <= 0.0 {
            return found;
        }
        let mut stream = Stream::new(self.seed, &format!("outages of region {region}"));
        let mut at = 0.0;
        loop {
            at += exponential(&mut stream, DAY / self.outages_per_day);
            let until = at + exponential(&mut stream, self.outage_minutes * 60.0);
            if at >= f64::from(self.end()) {
                return found;
            }
            found.push((at as u32, (until.ceil() as u32).min(self.end())));
            at = until;
        }
    }

    fn device(&self, device: usize, outages: &[Vec<(u32, u32)>]) -> Vec<Interval> {
        let mut stream = Stream::new(self.seed, &format!("days of device {device}"));
        let region = stream.below(outages.len() as u64) as usize;
        let zone = region as u32 % self.zones.max(1);
        let offset = f64::from(zone) * DAY / f64::from(self.zones.max(1));
        let bedtime = 23.0 * HOUR + 1.5 * HOUR * normal(&mut stream);
        let mut found = Vec::new();
        // From the night before the first day to the one after the last, in local time.
        let mut woken: Option<f64> = None;
        for day in -2..=i64::from(self.days) + 1 {
            let asleep = day as f64 * DAY + bedtime + 0.5 * HOUR * normal(&mut stream);
            let awake = asleep + (7.5 * HOUR + HOUR * normal(&mut stream)).clamp(2.0 * HOUR, 12.0 * HOUR);
            let charging = unit(&mut stream) < 0.9;
            if let Some(woken) = woken {
                self.day(&mut stream, woken, asleep, &mut |from, until, state| found.push((from, until, state)));
            }
            let night = State { available: true, charging, idle: true, unmetered: true };
            found.push((woken.map_or(asleep, |woken| asleep.max(woken)), awake, night));
            woken = Some(awake);
        }
        let end = f64::from(self.end());
        let mut intervals = Vec::with_capacity(found.len());
        for (from, until, state) in found {
            let whole = |local: f64| (local - offset).clamp(0.0, end) as u32;
            without(whole(from), whole(until), &outages[region], &mut |from_s, until_s| {
                if until_s >= from_s + SHORTEST_S {
                    intervals.push(Interval { from_s, until_s, state });
                }
            });
        }
        intervals
    }

    fn day(&self, stream: &mut Stream, woken: f64, asleep: f64, there: &mut impl FnMut(f64, f64, State)) {
        let session = self.session_minutes * 60.0;
        let share = self.day_share.clamp(1e-3, 1.0);
        let absence = session * (1.0 - share) / share;
        let mut at = woken;
        // A day begins in the middle of things.
        let mut present = unit(stream) < share;
        while at < asleep {
            let next = at + exponential(stream, if present { session } else { absence }).max(1.0);
            if present {
                let mut one_of = |share: f64| unit(stream) < share;
                let state = State { available: true, charging: one_of(0.1), idle: one_of(0.5), unmetered: one_of(0.6) };
                there(at, next.min(asleep), state);
            }
            at = next;
            present = !present || absence == 0.0;
        }
    }
}

/// What is left of an interval.
fn without(from: u32, until: u32, outages: &[(u32, u32)], left: &mut impl FnMut(u32, u32)) {
    let mut from = from;
    for &(gone, back) in &outages[outages.partition_point(|(_, back)| *back <= from)..] {
        if gone >= until {
            break;
        }
        if gone > from {
            left(from, gone);
        }
        from = from.max(back);
    }
    if from < until {
        left(from, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Micros;

    fn names(count: usize) -> impl Iterator<Item = String> {
        (1..=count).map(|n| format!("device-{n}"))
    }

    fn at(hours: f64) -> Micros {
        (hours * 3.6e9) as Micros
    }

    #[test]
    fn nights_are_full_and_charging_and_days_are_not() {
        let model = Diurnal { outages_per_day: 0.0, ..Diurnal::default() };
        let traces = model.make(names(2_000));
        let share = |hours: f64, is: fn(State) -> bool| {
            (0..2_000).filter(|device| is(traces.state(*device, at(hours)))).count() as f64 / 2_000.0
        };
        // At three in the morning nearly all sleep (bedtime 23 h, deviation 1.6 h: 2.5 deviations later), and nine of ten
        // charge; at three in the afternoon two of five are there. Standard error at most 0.011; five of them.
        let night = share(24.0 + 3.0, |state| state.available);
        assert!(night > 0.94, "{night}");
        let charging = share(24.0 + 3.0, |state| state.charging);
        assert!((charging - 0.9).abs() < 0.055, "{charging}");
        let day = share(24.0 + 15.0, |state| state.available);
        assert!((day - 0.4).abs() < 0.055, "{day}");
        assert_eq!(traces, model.make(names(2_000)), "the same seed");
        assert_ne!(traces, Diurnal { seed: 1, ..model }.make(names(2_000)));
        // A device's trace does not hang on how many there are.
        assert!(traces.intervals(3).eq(model.make(names(4)).intervals(3)));
    }

    #[test]
    fn zones_sleep_one_after_the_other() {
        let model = Diurnal { zones: 2, regions: 2, outages_per_day: 0.0, day_share: 0.1, ..Diurnal::default() };
        let traces = model.make(names(1_000));
        let there = |hours| (0..1_000).filter(|device| traces.state(*device, at(hours)).available).count();
        // Half of them sleep at three, the other half at fifteen; of those awake a tenth is there: 550 each, where one zone
        // has 1,000 and 100. Which region a device is in varies by 16; six of them.
        assert!(there(27.0).abs_diff(550) < 100 && there(39.0).abs_diff(550) < 100, "{} {}", there(27.0), there(39.0));
    }

    #[test]
    fn a_region_goes_away_together() {
        let model = Diurnal { regions: 1, outages_per_day: 2.0, outage_minutes: 120.0, ..Diurnal::default() };
        let outages = model.outages(0);
        assert!((5..25).contains(&outages.len()), "{}: 14 expected, deviation 3.7", outages.len());
        let traces = model.make(names(300));
        for (gone, back) in outages.into_iter().filter(|(gone, back)| back > gone) {
            let middle = Micros::from(gone + (back - gone) / 2) * 1_000_000;
            assert!((0..300).all(|device| !traces.state(device, middle).available));
        }
    }

    #[test]
    fn outages_cut_intervals() {
        let cut = |from, until| {
            let mut left = Vec::new();
            without(from, until, &[(10, 20), (30, 40)], &mut |from, until| left.push((from, until)));
            left
        };
        assert_eq!(cut(0, 50), [(0, 10), (20, 30), (40, 50)]);
        assert_eq!((cut(12, 18), cut(15, 35), cut(20, 30)), (vec![], vec![(20, 30)], vec![(20, 30)]));
    }
}
