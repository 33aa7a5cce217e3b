//! Pace steering: when a device that has nothing to do comes back. Bonawitz et al. 2019, "Towards Federated Learning at Scale:
//! System Design" (MLSys; arXiv:1902.01046), section 2.3.
//!
//! A fleet that is always connected costs a connection for each device; one that comes as it likes comes too few at a time to
//! be summed, or all at once. So whoever has nothing to do is sent away and told when to come again:
//!
//! ```text
//! few devices     at the next multiple of the period: they meet            (below `gather_below`)
//! many devices    after ½ to 1½ periods, drawn by the device's key         N / period check-ins per second, without peaks
//! ```
//!
//! Multiples are of the time since 1970, so that all edges of a fleet name the same moments, as far as their clocks agree.

use littoral_wire::NodeId;
use serde::{Deserialize, Serialize};

/// What an edge is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckIn {
    /// The period in milliseconds, a second to a week; 0: devices stay connected.
    pub every_ms: u64,
    /// A device stays at least so long before it is sent away, and after its last work; at most a quarter of the period.
    pub stay_ms: u64,
    /// An edge that fewer devices come to in a period has them come together.
    pub gather_below: u32,
}

impl Default for CheckIn {
    fn default() -> Self {
        Self { every_ms: 0, stay_ms: 60_000, gather_below: 1_000 }
    }
}

const PERIOD_MS: std::ops::RangeInclusive<u64> = 1_000..=7 * 86_400_000;

/// No device believes a longer absence.
pub const AWAY_MS_MAX: u64 = 2 * *PERIOD_MS.end();

impl CheckIn {
    /// The field that is out of range, what is allowed, what it is.
    pub fn wrong(&self) -> Option<(&'static str, String, u64)> {
        if self.every_ms == 0 {
            return None;
        }
        if !PERIOD_MS.contains(&self.every_ms) {
            let allowed = format!("0, or {} to {}", PERIOD_MS.start(), PERIOD_MS.end());
            return Some(("every_ms", allowed, self.every_ms));
        }
        let longest = self.every_ms / 4;
        (self.stay_ms > longest).then(|| ("stay_ms", format!("at most {longest}, a quarter of every_ms"), self.stay_ms))
    }

    /// Milliseconds until this device comes back; `now` since 1970, `devices`: that come to this edge in a period.
    pub fn away_ms(&self, now: u64, devices: u64, device: NodeId) -> u64 {
        let period = self.every_ms.max(1);
        if devices < self.gather_below.into() {
            let left = period - now % period;
            // One that has just been at this meeting comes to the next.
            return if left < period / 4 { left + period } else { left };
        }
        let mut hash = blake3::Hasher::new();
        hash.update(b"littoral/check-in\0").update(&device.0).update(&now.to_le_bytes());
        let mut draw = [0; 8];
        hash.finalize_xof().fill(&mut draw);
        period / 2 + ((u128::from(u64::from_le_bytes(draw)) * u128::from(period)) >> 64) as u64
    }
}

/// How many devices come to an edge in a period, counted over the last one and this one.
#[derive(Clone, Debug, Default)]
pub struct Visitors {
    period: u64,
    before: u64,
    now: u64,
}

impl Visitors {
    /// One more has come.
    pub fn came(&mut self, check_in: &CheckIn, now: u64) {
        self.turn(check_in, now);
        self.now += 1;
    }

    /// An estimate; `here`: that are connected.
    pub fn devices(&mut self, check_in: &CheckIn, now: u64, here: u64) -> u64 {
        self.turn(check_in, now);
        self.before.max(self.now).max(here)
    }

    fn turn(&mut self, check_in: &CheckIn, now: u64) {
        let period = now / check_in.every_ms.max(1);
        if period != self.period {
            self.before = if period == self.period + 1 { self.now } else { 0 };
            (self.period, self.now) = (period, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn device(i: u64) -> NodeId {
        NodeId(*blake3::hash(&i.to_le_bytes()).as_bytes())
    }

    fn hourly() -> CheckIn {
        CheckIn { every_ms: HOUR_MS, ..CheckIn::default() }
    }

    #[test]
    fn few_devices_meet() {
        let start = 490_000 * HOUR_MS;
        for i in 0..200 {
            // They leave at any time in the first three quarters of an hour.
            let now = start + i * 13_499;
            assert_eq!((now + hourly().away_ms(now, 999, device(i))) % HOUR_MS, 0);
        }
        // Who came a little early is not sent to the very meeting that it is at.
        let early = start - 60_000;
        assert_eq!(early + hourly().away_ms(early, 10, device(1)), start + HOUR_MS);
    }

    #[test]
    fn many_devices_spread_and_stay_spread() {
        // 20,000 that all came at once, over ten periods: check-ins per minute.
        let devices = 20_000;
        let mut minutes = vec![0u32; 16 * 60];
        for i in 0..devices {
            let mut now = 0;
            loop {
                now += hourly().away_ms(now, devices, device(i));
                match minutes.get_mut((now / 60_000) as usize) {
                    Some(minute) => *minute += 1,
                    None => break,
                }
            }
        }
        assert_eq!(minutes[..30].iter().sum::<u32>(), 0, "nobody comes before half a period");
        // Once mixed 20,000 / 60 = 333 a minute; a Poisson's deviation is 18, and these are more even than that.
        assert!(minutes[8 * 60..15 * 60].iter().all(|count| (240..430).contains(count)), "{minutes:?}");
        // At most where the end of the first wave meets the second one, after a period and a half: half as many again.
        assert!(minutes.iter().all(|count| *count < 570), "{minutes:?}");
    }

    #[test]
    fn visitors_are_those_of_a_period() {
        let mut visitors = Visitors::default();
        (0..7).for_each(|i| visitors.came(&hourly(), i));
        assert_eq!(visitors.devices(&hourly(), 10, 0), 7);
        assert_eq!(visitors.devices(&hourly(), HOUR_MS + 1, 3), 7);
        assert_eq!(visitors.devices(&hourly(), 2 * HOUR_MS + 1, 3), 3);
        visitors.came(&hourly(), 9 * HOUR_MS);
        assert_eq!(visitors.devices(&hourly(), 9 * HOUR_MS, 0), 1, "what was long ago is forgotten");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(CheckIn::default().wrong(), None);
        assert_eq!(CheckIn { every_ms: 999, ..CheckIn::default() }.wrong().map(|w| w.0), Some("every_ms"));
        assert_eq!(CheckIn { every_ms: 200_000, ..CheckIn::default() }.wrong().map(|w| w.0), Some("stay_ms"));
        assert_eq!(hourly().wrong(), None);
    }
}
