//! Decisions of round machines become messages, rows and work; finished work becomes their events.

use super::super::fleet::Fleet;
use super::super::{Effect, Millis, Report, RowKey, Table, Timer, Write};
use super::begin::opens_training;
use super::{Job, Jobs, State, send};
use crate::job::{Line, Task};
use crate::role::{Entropy, WorkId};
use crate::work::{Output, Work, WorkFault};
use bytes::Bytes;
use littoral_fed::masks::SealingStep;
use littoral_fed::masks::cloud::Opening;
use littoral_fed::round::{self, Base, Kept, Outcome, Place, Record, Round};
use littoral_wire::codec::Wire;
use littoral_wire::given::{GIVEN_CHUNKS_MAX, GIVEN_MAX, Given, GivenModel};
use littoral_wire::message::{Asked, Incarnation, Inline, SPEC_BYTES_MAX, Work as Kind};
use littoral_wire::object::{INLINE_BYTES_MAX, Manifest};
use littoral_wire::{Blob, Collection, JobId, List, Message, NodeId, ObjectId};
use std::collections::BTreeMap;

impl Jobs {
    pub(super) fn perform(
        &mut self,
        now: Millis,
        id: JobId,
        decided: Vec<round::Effect>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for decision in decided {
            match decision {
                round::Effect::Record(record) => self.record(now, id, record, effects),
                round::Effect::Open { edge, incarnation, devices } => {
                    self.open(id, edge, incarnation, devices, fleet, effects);
                }
                round::Effect::Release { edge, incarnation, device } => {
                    send(fleet, edge, Message::Release { incarnation, device }, effects);
                }
                round::Effect::Close { edge, incarnation } => {
                    send(fleet, edge, Message::Close { incarnation }, effects);
                }
                round::Effect::Fence { edge, incarnation } => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.incoming.retain(|incoming| incoming.incarnation != incarnation);
                    }
                    send(fleet, edge, Message::Fence { incarnation }, effects);
                }
                round::Effect::Sealing { devices, step, body } => {
                    self.sealing(id, &devices, step, &body, fleet, effects);
                }
                round::Effect::Keyed { collection, sessions } => {
                    for known in sessions {
                        let group = known.group.map(|edge| format!(" under {}", fleet.name(edge)));
                        let (version, attempt) = (collection.version, collection.attempt);
                        let group = group.unwrap_or_default();
                        let what =
                            format!("job {id}, version {version}, attempt {attempt}{group}: keys are fixed: {known}");
                        effects.push(Effect::Report(Report::Note { what }));
                    }
                }
                round::Effect::Apply { collection, partials, order, names, opening, base } => {
                    self.apply(id, collection, partials, (names, order), opening, base, effects);
                }
                round::Effect::Announce { collection, version, model, included } => {
                    self.announce(id, collection, version, model, included, fleet, effects);
                    self.load_model(id, effects);
                }
                round::Effect::Discard { objects } => effects.extend(objects.into_iter().map(Effect::Drop)),
                round::Effect::Aborted { collection, why } => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.aborts += 1;
                        job.note(format!(
                            "version {}: attempt {} given up: {why}",
                            collection.version, collection.attempt
                        ));
                    }
                    effects.push(Effect::Report(Report::Aborted { collection, why }));
                }
                round::Effect::Wake { at } => effects.push(Effect::SetTimer { timer: Timer::Job(id), at }),
                round::Effect::Finished { why } => {
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.incoming.clear();
                        job.waiting.clear();
                    }
                    effects.push(Effect::Report(Report::Finished { job: id, why }));
                }
            }
        }
    }

    /// Says again what edges may not have heard. A model that was sent does not ride along once more: an edge that lacks
    /// it asks.
    pub(super) fn repeat(&mut self, now: Millis, id: JobId, fleet: &Fleet, effects: &mut Vec<Effect>) {
        let mut decided = Vec::new();
        if let Some(round) = self.jobs.get(&id).and_then(Job::round) {
            round.repeat(&mut decided);
        }
        for decision in decided {
            match decision {
                round::Effect::Open { edge, incarnation, devices } => {
                    self.send_open(id, edge, incarnation, devices, None, fleet, effects);
                }
                other => self.perform(now, id, vec![other], fleet, effects),
            }
        }
    }

    /// A record is a row; the objects that it names become durable with it.
    fn record(&mut self, now: Millis, id: JobId, record: Record, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut writes = Vec::new();
        let mut version = 0;
        job.attempts += u64::from(opens_training(&record));
        match &record {
            Record::Opened { collection, .. } | Record::Grouped { collection, .. } => {
                version = collection.version;
                job.opened_at = now;
            }
            Record::Dispatched { collection, .. } => version = collection.version,
            Record::Kept(kept) => {
                version = kept.incarnation.collection.version;
                writes.push(Write::Object(kept.sum.id()));
            }
            // What the model builds on is durable since it was the model.
            Record::Applied { version: made, model, state, given, .. } => {
                version = *made;
                writes.push(Write::Object(model.id()));
                writes.extend(state.iter().chain(given.values()).map(|s| Write::Object(s.id())));
            }
            Record::Fenced { incarnation, .. } => version = incarnation.collection.version,
            Record::Joined { collection, .. } | Record::Aborted { collection, .. } => version = collection.version,
            Record::Committed { collection, .. }
            | Record::Keyed { collection, .. }
            | Record::Survivors { collection, .. } => version = collection.version,
            Record::Declined { collection, name, why } => {
                version = collection.version;
                // Recorded, and so said, once for each reason; `job show` counts on.
                let what = format!("job {id}: {name} declined version {version}: {why}");
                effects.push(Effect::Report(Report::Warning { what }));
            }
            Record::Finished { .. } => {
                let models = job.made.keys().filter(|collection| collection.work == Kind::Train).count() as u64;
                writes.extend(self.ledger.settle(id, models, job.attempts));
            }
        }
        let item = job.stored.to_be_bytes().to_vec();
        job.stored += 1;
        // The item alone orders the records: the version column is for people who read the table.
        let key = RowKey { table: Table::Record, job: id, version, item };
        writes.push(Write::Put { key, value: record.to_bytes() });
        effects.push(Effect::Store(writes));
    }

    fn open(
        &mut self,
        id: JobId,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        let Some((model, _)) = round.model_of(incarnation.collection.version) else { return };
        // Only the newest one is in memory.
        let rides = model.bytes() <= INLINE_BYTES_MAX as u64 && model == round.model();
        let inline: Inline = match &job.inline {
            Some((object, bytes)) if *object == model.id() => Blob::new(bytes.clone()).ok(),
            _ if rides => {
                job.waiting.push((edge, incarnation, devices));
                return;
            }
            _ => None,
        };
        self.send_open(id, edge, incarnation, devices, inline, fleet, effects);
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn send_open(
        &mut self,
        id: JobId,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        mut inline: Inline,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        let Some(link) = fleet.edge_link(edge) else { return };
        let collection = incarnation.collection;
        let Some((model, before)) = round.model_of(collection.version) else { return };
        let (model, before) = (model.clone(), before.clone());
        let population = round.population();
        let encoded = match &job.task {
            Some((known, encoded)) if *known == population => encoded.clone(),
            _ => Task { spec: (*job.spec).clone(), population }.encode(),
        };
        job.task = Some((population, encoded.clone()));
        let Ok(spec) = Blob::<SPEC_BYTES_MAX>::new(encoded) else { return };
        let asked = |device: NodeId| Asked {
            device,
            counted: job.last_counted(device, fleet),
            effort: round.effort(collection, device),
        };
        let format = job.spec.plan(collection.work).format();
        let (words, bits, commitment) = match collection.work {
            // Nothing is summed.
            Kind::Prepare => (0, 1, None),
            _ => (format.words(), format.bits() as u8, round.commitment()),
        };
        let gather = job.spec.gather(collection.work);
        let given = round.given();
        let own = |device: &NodeId| if given.is_empty() { None } else { given.get(&fleet.name(*device)).cloned() };
        for (devices, given) in in_parts(devices, own) {
            let devices = List::new(devices.into_iter().map(asked).collect());
            let (Ok(devices), Ok(given)) = (devices, Given::new(given)) else { return };
            let message = Message::Open {
                incarnation,
                spec: spec.clone(),
                model: model.clone(),
                before: before.clone(),
                inline: inline.take(),
                devices,
                words,
                bits,
                commitment,
                gather,
                given,
            };
            effects.push(Effect::Send { link, message });
        }
    }

    pub(in crate::role::cloud) fn loaded(
        &mut self,
        object: ObjectId,
        bytes: Option<Bytes>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(bytes) = bytes else { return self.halt(object, effects) };
        let wanting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.round().is_some_and(|round| round.model().id() == object))
            .map(|(id, _)| *id)
            .collect();
        for id in wanting {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            job.inline = Some((object, bytes.clone()));
            for (edge, incarnation, devices) in std::mem::take(&mut job.waiting) {
                self.open(id, edge, incarnation, devices, fleet, effects);
            }
        }
    }

    /// One message per edge, whoever of its devices it is for.
    fn sealing(
        &self,
        id: JobId,
        devices: &[NodeId],
        step: SealingStep,
        body: &[u8],
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(round) = self.jobs.get(&id).and_then(Job::round) else { return };
        let mut by_edge: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for device in devices {
            if let Some(here) = fleet.device(*device) {
                by_edge.entry(here.edge).or_default().push(*device);
            }
        }
        for (edge, devices) in by_edge {
            // What a session may have fits by its own bounds; a longer one would be a fault of ours, and devices drop out.
            let (Ok(devices), Ok(body)) = (List::new(devices), Blob::new(body.to_vec())) else { continue };
            send(fleet, edge, Message::SealingTo { devices, collection: round.collection(), step, body }, effects);
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one decision.
    fn apply(
        &mut self,
        id: JobId,
        collection: Collection,
        partials: Vec<Kept>,
        (names, order): (Vec<String>, Vec<Place>),
        opening: Option<Opening>,
        base: Option<Base>,
        effects: &mut Vec<Effect>,
    ) {
        let work_id = self.work_id();
        // Counted on: a sum that is applied anew has other noise.
        let mut subject = collection.to_bytes();
        work_id.0.put(&mut subject);
        let entropy = Entropy::new(self.entropy.draw("noise", &subject));
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        job.applying = Some(work_id);
        let devices: Vec<NodeId> = partials.iter().flat_map(|kept| kept.devices.iter().copied()).collect();
        job.began = match base {
            Some(_) => {
                devices.iter().zip(round.ages(&devices)).map(|(d, age)| (*d, collection.version - age)).collect()
            }
            None => BTreeMap::new(),
        };
        let began = base.filter(|base| job.spec.algorithm().alone() && base.version < collection.version);
        let began = began.and_then(|Base { version, times }| {
            round.model_of(version).map(|(model, before)| (model.clone(), before.clone(), times))
        });
        effects.push(Effect::Work {
            id: work_id,
            work: Box::new(Work::Apply {
                spec: job.spec.clone(),
                collection,
                model: round.model().clone(),
                before: round.before().clone(),
                state: round.state().cloned(),
                devices: devices.len() as u32,
                partials: partials.into_iter().map(|kept| kept.sum).collect(),
                order: if job.spec.unmerged(collection.work) { order } else { Vec::new() },
                names: if job.spec.unmerged(collection.work) { names } else { Vec::new() },
                given: round.given().clone(),
                population: round.population(),
                opening,
                began,
                entropy,
            }),
        });
    }

    pub(in crate::role::cloud) fn worked(
        &mut self,
        now: Millis,
        work: WorkId,
        result: Result<Output, WorkFault>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let preparing = |job: &Job| matches!(job.state, State::Preparing(id) if id == work);
        if let Some(id) = self.jobs.iter().find(|(_, job)| preparing(job)).map(|(id, _)| *id) {
            match result {
                Ok(Output::Initial { model, state }) => self.begin(now, id, model, state, fleet, effects),
                Ok(_) => {}
                // It may go better later, and a job that ran before must not end because of a full disk.
                Err(WorkFault::Failed(why)) => {
                    let Some(job) = self.jobs.get_mut(&id) else { return };
                    job.prepare_again = true;
                    job.note(why);
                }
                Err(fault) => {
                    let Some(job) = self.jobs.get_mut(&id) else { return };
                    job.state = State::Failed(fault.to_string());
                    effects.extend(self.ledger.settle(id, 0, 0).map(|write| Effect::Store(vec![write])));
                    effects.push(Effect::Report(Report::Finished { job: id, why: fault.to_string() }));
                }
            }
            return;
        }
        let Some(id) = self.jobs.iter().find(|(_, job)| job.applying == Some(work)).map(|(id, _)| *id) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.applying = None;
        let event = match result {
            Ok(Output::Applied { model, before, state, given, mut totals }) => {
                let collection = job.state.round().map(Round::collection);
                let now_at = collection.map_or(0, |collection| collection.version);
                totals.ages = job.began.values().map(|version| now_at.saturating_sub(*version)).collect();
                let mut line = Line::new(&totals, now.saturating_sub(job.opened_at), now);
                if let Some(collection) = collection {
                    self.watch(id, collection, &mut line, effects);
                }
                let outcome = Outcome { accuracy: totals.accuracy() };
                let bytes = serde_json::to_vec(&line).unwrap_or_default();
                let Some(job) = self.jobs.get_mut(&id) else { return };
                job.line = line;
                round::Event::Applied { model, before, state, given, outcome, line: bytes }
            }
            Ok(_) => return,
            // A sum that cannot be applied however often one tries: the job ends and says why.
            Err(WorkFault::Declined(why)) => {
                job.note(why.clone());
                round::Event::Fail { why }
            }
            Err(fault) => {
                job.note(fault.to_string());
                effects.push(Effect::Report(Report::Warning { what: format!("job {id}: {fault}") }));
                round::Event::ApplyFailed { why: fault.to_string() }
            }
        };
        self.round(now, id, event, fleet, effects);
    }
}

/// Devices that are asked in one message, and the models that some of them are given instead of the version.
type Part = (Vec<NodeId>, Vec<GivenModel>);

/// All in one, or in as many as their own models need.
fn in_parts(devices: Vec<NodeId>, own: impl Fn(&NodeId) -> Option<Manifest>) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![(Vec::new(), Vec::new())];
    let mut chunks = 0;
    for device in devices {
        let given = own(&device).map(|model| GivenModel { device, model });
        let more = given.as_ref().map_or(0, |given| given.model.chunks() as usize);
        let full = |(_, given): &Part| given.len() == GIVEN_MAX || chunks + more > GIVEN_CHUNKS_MAX;
        if given.is_some() && parts.last().is_some_and(full) {
            parts.push((Vec::new(), Vec::new()));
            chunks = 0;
        }
        chunks += more;
        if let Some((asked, models)) = parts.last_mut() {
            asked.push(device);
            models.extend(given);
        }
    }
    parts
}
