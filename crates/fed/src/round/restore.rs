//! The cloud is back: the records are folded into a machine that goes on where they end.

use super::members::Members;
use super::{Millis, Outcome, Record, Round, Stage};

impl Round {
    /// The new machine of a job that went on before the cloud stopped, after all that was recorded.
    pub fn after(mut self, now: Millis, records: &[Record]) -> Self {
        records.iter().for_each(|record| self.replay(now, record.clone()));
        self
    }

    fn replay(&mut self, now: Millis, record: Record) {
        match record {
            Record::Opened { collection, population, cohort } => {
                self.population = population;
                self.collection = collection;
                self.clear();
                self.members = Members::new(cohort);
                // A masked one goes on if what it began with was recorded, too.
                self.stage =
                    Stage::Collect { phase: self.settings.first_phase(), until: now + self.settings.deadline_ms };
            }
            Record::Dispatched { collection, cohort } => {
                self.take_off(collection.version, now, cohort);
            }
            Record::Grouped { collection, population, cohort } => {
                (self.population, self.collection) = (population, collection);
                self.group(cohort);
                self.stage =
                    Stage::Collect { phase: self.settings.first_phase(), until: now + self.settings.deadline_ms };
            }
            Record::Joined { cohort, .. } => {
                cohort.into_iter().for_each(|(device, name)| self.members.join(device, name));
            }
            // It is asked again all the same: it may have been mended while the cloud was away.
            Record::Declined { collection, name, why } => {
                self.declines.add(&name, collection, &why);
            }
            Record::Fenced { incarnation, .. } => {
                self.fenced.insert(incarnation.number);
            }
            Record::Kept(kept) => self.seat(kept),
            Record::Committed { secret, .. } => self.resume_masking(secret),
            Record::Keyed { directory, .. } => self.restore_masking(now, &directory),
            // What is wrong with it shows when the sum cannot be opened.
            Record::Survivors { devices, .. } => drop(self.open_with(now, &devices)),
            Record::Aborted { .. } => self.retry(now),
            Record::Applied { model, before, state, given, accuracy_ppm, .. } => {
                let accuracy = accuracy_ppm.map(|ppm| f64::from(ppm) / 1e6);
                let model = if cfg!(feature = "broken-served-model") { self.model.clone() } else { model };
                self.advance(now, model, before, (state, given), Outcome { accuracy });
            }
            Record::Finished { end, why } => self.stage = Stage::Finished { end, why },
        }
    }
}
