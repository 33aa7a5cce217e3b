//! Apply → announce → the next version, or the end.

use super::{Base, Effect, End, Given, Kept, Millis, Outcome, Place, Record, Round, Stage};
use littoral_wire::message::{Collection, Work};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{NodeId, ObjectId};

impl Round {
    pub(super) fn apply(&mut self, effects: &mut Vec<Effect>) {
        self.stage = Stage::Apply;
        let opening = self.masking.as_ref().and_then(|masking| masking.opening());
        let partials = self.kept_partials();
        let (names, order) = self.by_name(&partials);
        let base = self.alone().map(|(version, times)| Base { version, times });
        effects.push(Effect::Apply { collection: self.collection, partials, order, names, opening, base });
    }

    /// Where each device's update is, in the order of the devices' names: keys and edges may be others the next time.
    fn by_name(&self, partials: &[Kept]) -> (Vec<String>, Vec<Place>) {
        let mut named: Vec<(&str, Place)> = Vec::new();
        for (partial, kept) in (0..).zip(partials) {
            let name = |device: &NodeId| self.members.get(device).map_or("", |member| member.name.as_str());
            named.extend((0..).zip(&kept.devices).map(|(row, device)| (name(device), Place { partial, row })));
        }
        named.sort_by_key(|(name, _)| *name);
        named.into_iter().map(|(name, place)| (name.to_owned(), place)).unzip()
    }

    #[allow(clippy::too_many_arguments)] // The fields of one event.
    pub(super) fn applied(
        &mut self,
        now: Millis,
        model: Manifest,
        before: Chain,
        state: Option<Manifest>,
        given: Given,
        outcome: Outcome,
        line: Vec<u8>,
        effects: &mut Vec<Effect>,
    ) {
        if self.stage != Stage::Apply {
            return;
        }
        let collection = self.collection;
        let kept = self.kept_partials();
        let mut included: Vec<NodeId> = kept.iter().flat_map(|k| k.devices.iter().copied()).collect();
        included.sort_unstable();
        let version = match collection.work {
            Work::Evaluate => collection.version,
            Work::Statistics | Work::Train | Work::Prepare => collection.version + 1,
        };
        let accuracy_ppm = outcome.accuracy.map(|a| (a * 1e6).round() as u32);
        effects.push(Effect::Record(Record::Applied {
            collection,
            version,
            model: model.clone(),
            before: before.clone(),
            state: state.clone(),
            given: given.clone(),
            accuracy_ppm,
            line,
        }));
        let mut objects: Vec<ObjectId> = kept.iter().map(|k| k.sum.id()).collect();
        if let (Some(old), Some(new)) = (&self.state, &state)
            && old != new
        {
            objects.push(old.id());
        }
        let kept_on = |old: &Manifest| given.values().any(|new| new == old);
        objects.extend(self.given.values().filter(|old| !kept_on(old)).map(Manifest::id));
        effects.push(Effect::Announce { collection, version, model: model.id(), included });
        effects.push(Effect::Discard { objects });
        // Through parts per million, so that a restored machine decides on the same number.
        let accuracy = accuracy_ppm.map(|ppm| f64::from(ppm) / 1e6);
        self.advance(now, model, before, (state, given), Outcome { accuracy });
    }

    /// The collection is applied: what is next?
    pub(super) fn advance(
        &mut self,
        now: Millis,
        model: Manifest,
        before: Chain,
        (state, given): (Option<Manifest>, Given),
        outcome: Outcome,
    ) {
        let done = self.collection;
        self.ungroup(now);
        self.model = model;
        self.before = before;
        self.state = state;
        self.given = given;
        if outcome.accuracy.is_some() {
            self.last = outcome;
        }
        if done.work == Work::Train {
            self.trained += 1;
            let included: Vec<String> = self.members.absorbed().map(str::to_owned).collect();
            included.iter().for_each(|name| self.acquaintance.used(name, done.version + 1));
            if self.settings.spacing > 1 {
                let first = done.version + self.settings.spacing;
                self.spaced.retain(|_, first| *first > done.version + 1);
                self.spaced.extend(self.members.absorbed().map(|name| (name.to_owned(), first)));
            }
        }
        let version = if done.work == Work::Evaluate { done.version } else { done.version + 1 };
        let work = if self.trained >= self.settings.rounds || self.on_target() { Work::Evaluate } else { Work::Train };
        self.collection = Collection { job: self.job, version, work, attempt: 0 };
        self.clear();
        self.stage = Stage::Wait { since: now };
        self.over = self.reached_end(done.work);
    }

    fn on_target(&self) -> bool {
        matches!((self.settings.target_accuracy, self.last.accuracy), (Some(target), Some(got)) if got >= target)
    }

    fn reached_end(&self, done: Work) -> Option<String> {
        (done == Work::Evaluate).then(|| {
            if self.trained >= self.settings.rounds {
                format!("{} rounds are done", self.trained)
            } else {
                format!("the target accuracy is reached after {} rounds", self.trained)
            }
        })
    }

    pub(super) fn finish(&mut self, end: End, why: String, effects: &mut Vec<Effect>) {
        self.end_pool(effects);
        effects.push(Effect::Record(Record::Finished { end, why: why.clone() }));
        effects.push(Effect::Finished { why: why.clone() });
        self.stage = Stage::Finished { end, why };
    }
}
