//! Time that does not jump, and the timers that wait for it.

use crate::role::{Millis, Timer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The wall clock as it was at the start, carried on by the monotonic one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Millis,
}

impl Clock {
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), started_at: since_1970.as_millis() as Millis }
    }

    /// Milliseconds since 1970; never less than before.
    pub fn now(&self) -> Millis {
        self.started_at + self.started.elapsed().as_millis() as Millis
    }
}

/// At most one timer of each kind.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<Timer, Millis>);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Millis) {
        self.0.insert(timer, at);
    }

    pub(super) fn next_at(&self) -> Option<Millis> {
        self.0.values().min().copied()
    }

    /// Takes the timer that is due first, if one is.
    pub(super) fn pop_due(&mut self, now: Millis) -> Option<Timer> {
        let (&timer, &at) = self.0.iter().min_by_key(|(timer, at)| (**at, **timer))?;
        if at > now {
            return None;
        }
        self.0.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_wire::JobId;

    #[test]
    fn setting_a_timer_again_moves_it() {
        let mut timers = Timers::default();
        timers.set(Timer::Tick, 10);
        timers.set(Timer::Job(JobId(1)), 20);
        timers.set(Timer::Tick, 30);
        assert_eq!(timers.next_at(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(40), Some(Timer::Job(JobId(1))));
        assert_eq!(timers.pop_due(40), Some(Timer::Tick));
        assert_eq!(timers.pop_due(40), None);
    }
}
