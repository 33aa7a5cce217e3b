//! Distribution shift: each version's sketch is compared with those of the first ones; who runs the fleet is told when it is elsewhere.

use super::{Effect, Job, Jobs};
use crate::job::{DriftLine, Line};
use crate::role::Report;
use littoral_fed::drift::{Shift, Watch};
use littoral_wire::JobId;
use littoral_wire::message::{Collection, Work};

/// What a job remembers of its versions' sketches.
pub(super) struct Drift {
    watch: Watch,
    /// It was said, and has not come back to what is usual since.
    drifted: bool,
    /// Versions in a row without a sketch.
    silent: u64,
}

impl Job {
    /// The sketch of one more version; versions come in order, those before a restart from their lines.
    pub(super) fn sketched(&mut self, collection: Collection, line: &Line) -> Option<(Shift, bool)> {
        let sketched = self.spec.sketched()?;
        // The steps of a version are made by the same devices.
        if collection.work != Work::Train || self.spec.settings().step_of(collection.version) > 0 {
            return None;
        }
        let drift = self.drift.get_or_insert_with(|| Drift {
            watch: Watch::new(sketched.layout.clone(), sketched.baseline),
            drifted: false,
            silent: 0,
        });
        drift.silent = if line.sketch.is_empty() { drift.silent + 1 } else { 0 };
        let shift = drift.watch.add(line.sketch.iter().map(|part| f64::from(*part) / 1e6).collect())?;
        let was = drift.drifted;
        drift.drifted = shift.drifted() || (was && shift.distance > shift.usual);
        Some((shift, drift.drifted && !was))
    }
}

impl Jobs {
    /// Completes the line of a version that was just made.
    pub(super) fn watch(&mut self, id: JobId, collection: Collection, line: &mut Line, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let told = job.sketched(collection, line);
        if job.drift.as_ref().is_some_and(|drift| drift.silent == 1) && line.sketch.is_empty() {
            let version = collection.version + 1;
            let why = match job.spec.private() {
                true => "noise left nothing of a histogram",
                false => {
                    "a device told something that is no sketch of its rows; edges refuse such updates of jobs with [robust]"
                }
            };
            job.note(format!("version {version} has no sketch: {why}"));
        }
        let Some((shift, anew)) = told else { return };
        let Some(sketched) = job.spec.sketched() else { return };
        let drift = DriftLine::new(sketched, &shift);
        if anew {
            let DriftLine { of, distance, usual, .. } = &drift;
            let what = format!(
                "version {}: the fleet's {of} have drifted: {distance:.3} away from the first {} versions, {usual:.3} is usual",
                collection.version + 1,
                sketched.baseline,
            );
            job.note(what.clone());
            effects.push(Effect::Report(Report::Warning { what: format!("job {id}, {what}") }));
        }
        line.drift = Some(drift);
    }
}
