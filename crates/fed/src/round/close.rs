//! Collect → close → apply: enough is in, or the time is up.

use super::desk::Standing;
use super::{Effect, Kept, Millis, Phase, Record, Round, Stage};
use crate::dp::Sampling;
use littoral_wire::message::Incarnation;

impl Round {
    pub(super) fn try_close(&mut self, now: Millis, until: Millis, effects: &mut Vec<Effect>) {
        let (absorbed, open) = self.members.tally();
        let target = self.settings.cohort.target as usize;
        let min = self.fewest();
        // A sample is waited for, whoever is quick: else speed would choose.
        let enough = absorbed >= target && self.settings.sampling == Sampling::Present;
        let all_or_late = open == 0 || now >= until;
        let opens = if enough || (all_or_late && absorbed >= min) { self.can_open() } else { Ok(()) };
        if let (true, Err(why)) = (all_or_late, &opens) {
            self.abort(now, why.clone(), effects);
        } else if opens.is_ok() && (enough || (all_or_late && absorbed >= min)) {
            self.stage = Stage::Close { until: until.max(now + self.settings.close_ms) };
            effects.push(Effect::Wake { at: until.max(now + self.settings.close_ms) });
            for (number, desk) in &mut self.desks {
                if desk.standing == Standing::Open {
                    desk.standing = Standing::Closing;
                    let incarnation = Incarnation { collection: self.collection, number: *number };
                    effects.push(Effect::Close { edge: desk.edge, incarnation });
                }
            }
        } else if now >= until {
            let why = format!(
                "{absorbed} of the {min} updates needed at least had come after {} ms",
                self.settings.deadline_ms
            );
            self.abort(now, why, effects);
        } else if absorbed + open < min && !self.top_up(effects) {
            // Nobody who is here could fill it: better to wait for others than for the deadline.
            let why = format!("{} of the {min} updates needed at least can come{}", absorbed + open, self.who_is_out());
            self.abort(now, why, effects);
        }
    }

    pub(super) fn try_apply(&mut self, now: Millis, until: Millis, effects: &mut Vec<Effect>) {
        if self.desks.values().any(|d| d.standing == Standing::Closing) {
            if now >= until {
                // Edges that do not send what they have: what is kept must do.
                let late: Vec<u64> =
                    self.desks.iter().filter(|(_, d)| d.standing == Standing::Closing).map(|(n, _)| *n).collect();
                late.into_iter().for_each(|number| self.fence(number, effects));
            }
            return;
        }
        let kept: usize = self.desks.values().filter_map(|d| d.kept.as_ref()).map(|k| k.devices.len()).sum();
        if kept >= self.fewest() && self.can_open().is_ok() {
            match self.masking {
                Some(_) => self.fix_survivors(now, effects),
                None => self.apply(effects),
            }
        } else if now >= until {
            self.abort(now, format!("only {kept} updates were left after edges were lost"), effects);
        } else {
            // An edge was lost with what it had: its devices still keep their updates, so collect them again.
            self.stage = Stage::Collect { phase: Phase::Upload, until };
            self.ask_adrift(effects);
        }
    }

    pub(super) fn kept_partials(&self) -> Vec<Kept> {
        self.desks.values().filter_map(|d| d.kept.clone()).collect()
    }

    pub(super) fn abort(&mut self, now: Millis, why: String, effects: &mut Vec<Effect>) {
        let objects = self.kept_partials().iter().map(|k| k.sum.id()).collect();
        self.fence_all(effects);
        effects.push(Effect::Record(Record::Aborted { collection: self.collection, why: why.clone() }));
        effects.push(Effect::Aborted { collection: self.collection, why });
        effects.push(Effect::Discard { objects });
        self.retry(now);
    }

    pub(super) fn retry(&mut self, now: Millis) {
        self.ungroup(now);
        self.collection.attempt += 1;
        self.clear();
        self.stage = Stage::Wait { since: now };
    }
}
