//! When each device is there, and in what state: charging, idle, on an unmetered network.
//!
//! A trace is a list of intervals for each device; between them it is away. After the last moment of the whole trace it
//! begins again, so that a job may last longer than was recorded. In memory an interval is its two ends, each four bytes:
//! seconds and the state from then on.

use super::lines::{FieldError, Lines};
use crate::queue::Micros;
use std::collections::HashMap;
use std::io::BufRead;

/// What a device may do, as long as it is so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub available: bool,
    pub charging: bool,
    pub idle: bool,
    pub unmetered: bool,
}

impl State {
    const AWAY: Self = Self { available: false, charging: false, idle: false, unmetered: false };

    fn bits(self) -> u32 {
        [self.available, self.charging, self.idle, self.unmetered]
            .into_iter()
            .enumerate()
            .map(|(bit, is)| u32::from(is) << bit)
            .sum()
    }

    fn of(bits: u32) -> Self {
        let is = |bit: u32| bits >> bit & 1 == 1;
        Self { available: is(0), charging: is(1), idle: is(2), unmetered: is(3) }
    }
}

/// From when to when, in seconds since the trace's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub from_s: u32,
    pub until_s: u32,
    pub state: State,
}

/// Eight years; a time and a state share 32 bits.
pub const TIME_S_MAX: u32 = 8 * 365 * 86_400;
/// Devices of one trace.
pub const DEVICES_MAX: usize = 10_000_000;
/// Intervals of one trace: 2 GB of them.
pub const INTERVALS_MAX: usize = 250_000_000;

const COLUMNS: [&str; 7] = ["device", "from_s", "until_s", "available", "charging", "idle", "unmetered"];
const NEEDED: usize = 3;
const SECOND: Micros = 1_000_000;

/// Traces of many devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// In the order in which they come up.
    names: Vec<String>,
    /// Where each device's changes begin in `changes`; one more at the end.
    starts: Vec<u32>,
    /// Seconds x 16 + the state's bits from then on, ascending for each device. Away before the first.
    changes: Vec<u32>,
    period_s: u32,
}

impl Availability {
    /// Of each device by name: its intervals, ascending and apart. The whole lasts `period_s`.
    pub fn of(devices: impl IntoIterator<Item = (String, Vec<Interval>)>, period_s: u32) -> Self {
        let mut all = Self { names: Vec::new(), starts: vec![0], changes: Vec::new(), period_s: period_s.max(1) };
        for (name, intervals) in devices {
            let mut last = (0, State::AWAY);
            let mut change = |at: u32, state: State| {
                // Two intervals that touch need no absence of no length between them.
                if all.changes.len() > *all.starts.last().unwrap_or(&0) as usize && last.0 == at {
                    all.changes.pop();
                }
                all.changes.push(at << 4 | state.bits());
                last = (at, state);
            };
            for interval in intervals.iter().filter(|interval| interval.state.available) {
                change(interval.from_s, interval.state);
                change(interval.until_s, State::AWAY);
            }
            all.names.push(name);
            all.starts.push(all.changes.len() as u32);
        }
        all
    }

    /// A trace as `docs/traces.md` has it. Devices may be interleaved; one device's intervals come in order.
    pub fn read(input: impl BufRead) -> Result<Self, FieldError> {
        let mut lines = Lines::open(input, &COLUMNS, NEEDED)?;
        let mut places = HashMap::<String, usize>::new();
        let mut devices: Vec<(String, Vec<Interval>)> = Vec::new();
        let (mut period_s, mut count) = (0, 0);
        while let Some(cells) = lines.next()? {
            let name = cells.name(0)?;
            let from_s = cells.number(1, 0, TIME_S_MAX - 1, None)?;
            let until_s: u32 = cells.number(2, 1, TIME_S_MAX, None)?;
            if until_s <= from_s {
                return Err(cells.wrong(2, format!("later than from_s, {from_s}"), until_s));
            }
            let state = State {
                available: cells.flag(3)?,
                charging: cells.flag(4)?,
                idle: cells.flag(5)?,
                unmetered: cells.flag(6)?,
            };
            count += 1;
            if count > INTERVALS_MAX {
                return Err(cells.wrong(0, format!("at most {INTERVALS_MAX} intervals"), "more"));
            }
            let next = devices.len();
            let place = match places.get(name) {
                Some(place) => *place,
                None if next < DEVICES_MAX => {
                    places.insert(name.to_owned(), next);
                    devices.push((name.to_owned(), Vec::new()));
                    next
                }
                None => return Err(cells.wrong(0, format!("at most {DEVICES_MAX} devices"), "more")),
            };
            let intervals = &mut devices[place].1;
            if let Some(last) = intervals.last().filter(|last: &&Interval| from_s < last.until_s) {
                let expected = format!("at least {}, the end of this device's interval before", last.until_s);
                return Err(cells.wrong(1, expected, from_s));
            }
            intervals.push(Interval { from_s, until_s, state });
            period_s = period_s.max(until_s);
        }
        if devices.is_empty() {
            let expected = "an interval below the header".into();
            return Err(FieldError { line: 2, column: None, expected, got: "none".into() });
        }
        Ok(Self::of(devices, period_s))
    }

    /// The same, as [`read`](Self::read) takes it.
    pub fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(out, "{}", COLUMNS.join(","))?;
        for (device, name) in self.names.iter().enumerate() {
            for Interval { from_s, until_s, state } in self.intervals(device) {
                let [charging, idle, unmetered] = [state.charging, state.idle, state.unmetered].map(u8::from);
                writeln!(out, "{name},{from_s},{until_s},1,{charging},{idle},{unmetered}")?;
            }
        }
        Ok(())
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn period_s(&self) -> u32 {
        self.period_s
    }

    fn changes(&self, device: usize) -> &[u32] {
        &self.changes[self.starts[device] as usize..self.starts[device + 1] as usize]
    }

    /// When a device is there.
    pub fn intervals(&self, device: usize) -> impl Iterator<Item = Interval> {
        let changes = self.changes(device);
        changes.windows(2).map(|pair| (pair[0], pair[1] >> 4)).filter_map(|(change, until_s)| {
            let state = State::of(change);
            state.available.then_some(Interval { from_s: change >> 4, until_s, state })
        })
    }

    /// Over the whole trace, the share of its time that a device is there.
    pub fn share(&self, device: usize) -> f64 {
        let there: u64 = self.intervals(device).map(|i| u64::from(i.until_s - i.from_s)).sum();
        there as f64 / f64::from(self.period_s)
    }

    /// At this moment of virtual time.
    pub fn state(&self, device: usize, at: Micros) -> State {
        let now_s = (at / SECOND % Micros::from(self.period_s)) as u32;
        let changes = self.changes(device);
        match changes.partition_point(|change| change >> 4 <= now_s) {
            0 => State::AWAY,
            after => State::of(changes[after - 1]),
        }
    }

    /// When the state may change next, after this moment; none if the device is never there.
    pub fn next_change(&self, device: usize, at: Micros) -> Option<Micros> {
        let changes = self.changes(device);
        changes.first()?;
        let period = Micros::from(self.period_s);
        let (turn, now_s) = (at / SECOND / period, (at / SECOND % period) as u32);
        let after = changes.partition_point(|change| change >> 4 <= now_s);
        // The end of the trace is a change as well: it begins again.
        let next_s = changes.get(after).map_or(period, |change| Micros::from(change >> 4).min(period));
        Some((turn * period + next_s) * SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Availability, FieldError> {
        Availability::read(text.as_bytes())
    }

    #[test]
    fn a_trace_says_what_was_written() {
        let text = "\u{feff}# two of them\r\ndevice,from_s,until_s,available,charging\r\na,10,20,1,1\nb,0,5,1,0\n\na,20,30,1,0\na,40,50,0,1\nb,60,100,1,0\n";
        let trace = read(text).expect("reads");
        assert_eq!((trace.names(), trace.period_s()), (&["a".to_owned(), "b".into()][..], 100));
        let there = |device, s: u64| trace.state(device, s * SECOND);
        assert!(!there(0, 9).available && there(0, 10).charging && there(0, 19).available && !there(0, 20).charging);
        assert!(there(0, 29).idle && there(0, 29).unmetered, "columns that are not there are yes");
        assert!(!there(0, 30).available && !there(0, 45).available, "an interval of absence");
        assert!(there(0, 110).charging && there(1, 100).available, "it begins again");
        // From change to change the state is what the intervals say, over two turns.
        for device in [0, 1] {
            let (mut at, mut seen) = (0, Vec::new());
            while at < 200 * SECOND {
                seen.push((at / SECOND, trace.state(device, at).bits()));
                at = trace.next_change(device, at).expect("it is there at times");
            }
            for s in 0..200 {
                let known = seen.iter().rev().find(|(from, _)| *from <= s).expect("from 0 on").1;
                assert_eq!(there(device, s).bits(), known, "device {device} at {s}");
            }
        }
        assert_eq!((trace.share(0), trace.share(1)), (0.2, 0.45));
        let mut out = Vec::new();
        trace.write(&mut out).expect("writes");
        let again = Availability::read(&out[..]).expect("reads");
        assert_eq!(again, trace);
        assert_eq!(trace.changes.len(), 3 + 4, "intervals that touch share an end");
    }

    #[test]
    fn a_mistake_has_its_line_and_column() {
        let header = "device,from_s,until_s,available,charging,idle,unmetered\n";
        for (text, line, column, got) in [
            (String::new(), 1, None, "an empty file"),
            ("device,from_s\n".into(), 1, None, "none called until_s"),
            ("device,from_s,until_s,colour\n".into(), 1, None, "\"colour\""),
            ("device,from_s,until_s,device\n".into(), 1, None, "\"device\""),
            (header.into(), 2, None, "none"),
            (format!("{header}a,0,10,1,1,1\n"), 2, None, "6 cells"),
            (format!("{header}\n# c\na,0,10,1,1,1,2\n"), 4, Some("unmetered"), "2"),
            (format!("{header},0,10,1,1,1,1\n"), 2, Some("device"), "nothing"),
            (format!("{header}a,-1,10,1,1,1,1\n"), 2, Some("from_s"), "-1"),
            (format!("{header}a,0,1e3,1,1,1,1\n"), 2, Some("until_s"), "1e3"),
            (format!("{header}a,0,999999999,1,1,1,1\n"), 2, Some("until_s"), "999999999"),
            (format!("{header}a,10,10,1,1,1,1\n"), 2, Some("until_s"), "10"),
            (format!("{header}a,0,10,1,1,1,1\nb,0,1,1,1,1,1\na,9,11,1,1,1,1\n"), 4, Some("from_s"), "9"),
            (format!("{header}\"a\",0,10,1,1,1,1\n"), 2, None, "one with a quote"),
            (format!("{header}{}", "x".repeat(2_000)), 2, None, "more"),
        ] {
            let error = read(&text).expect_err(&text);
            assert_eq!((error.line, error.column, error.got.as_str()), (line, column, got), "{error}");
        }
    }
}
