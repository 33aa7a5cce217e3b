//! A job's beginning, and its return after a restart.

use super::super::fleet::Fleet;
use super::super::{Effect, Millis, Report, Row, RowKey, Table, Write};
use super::announce::{announce, under_current_keys};
use super::{Job, Jobs, Made, State, objects_of};
use crate::job::{JobError, JobSpec, Line};
use crate::role::WorkId;
use crate::work::Work;
use littoral_fed::round::{self, Record, Round};
use littoral_wire::codec::Wire;
use littoral_wire::message::Work as Kind;
use littoral_wire::object::{INLINE_BYTES_MAX, Manifest};
use littoral_wire::{Collection, JobId, NodeId, ObjectId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A job as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    toml: String,
    submitted_by: String,
    at_ms: Millis,
}

impl Jobs {
    pub(in crate::role::cloud) fn submit(
        &mut self,
        now: Millis,
        toml: &str,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<JobId, JobError> {
        let spec = JobSpec::parse(toml)?.within_epsilon()?;
        self.ledger.admit(&spec)?;
        let job = self.next_id();
        let stored = Stored { toml: toml.into(), submitted_by: by.into(), at_ms: now };
        // What it may release is spent before anything of it runs.
        let value = serde_json::to_vec(&stored).unwrap_or_default();
        let reserved = self.ledger.reserve(job, &spec, now);
        effects.push(Effect::Store(vec![Write::Put { key: job_row(job), value }, reserved]));
        self.last = job.0;
        // Of replicas, whoever leases it runs it.
        if !self.shared {
            self.insert(job, spec, stored, Vec::new(), effects);
        }
        Ok(job)
    }

    /// This replica runs the job from now on, whose rows these are.
    pub(in crate::role::cloud) fn adopt(&mut self, job: JobId, epoch: u32, rows: Vec<Row>, effects: &mut Vec<Effect>) {
        self.epochs.insert(job, epoch);
        self.restore(rows);
        self.say_unread(job, effects);
        if let Some(Job { state: State::Preparing(id), spec, .. }) = self.jobs.get(&job) {
            effects.push(Effect::Work { id: *id, work: Box::new(Work::Initial { spec: spec.clone() }) });
        }
    }

    fn say_unread(&self, which: JobId, effects: &mut Vec<Effect>) {
        for (job, why, _) in self.unread.iter().filter(|(job, _, _)| *job == which) {
            let what = format!("job {job} stands still: this release does not understand it: {why}");
            effects.push(Effect::Report(Report::Warning { what }));
        }
    }

    /// Above all others, also of those that this release does not understand.
    fn next_id(&self) -> JobId {
        let unread = self.unread.iter().map(|(job, _, _)| *job);
        let last = unread.chain(self.jobs.keys().next_back().copied()).map(|job| job.0).max();
        JobId(last.unwrap_or(0).max(self.last) + 1)
    }

    fn insert(&mut self, job: JobId, spec: JobSpec, stored: Stored, records: Vec<Record>, effects: &mut Vec<Effect>) {
        let spec = Arc::new(spec);
        let id = self.work_id();
        effects.push(Effect::Work { id, work: Box::new(Work::Initial { spec: spec.clone() }) });
        self.jobs.insert(
            job,
            Job {
                spec,
                toml: stored.toml,
                submitted_by: stored.submitted_by,
                at_ms: stored.at_ms,
                state: State::Preparing(id),
                stored: records.len() as u64,
                records,
                made: BTreeMap::new(),
                counted: BTreeMap::new(),
                inline: None,
                task: None,
                waiting: Vec::new(),
                incoming: Vec::new(),
                applying: None,
                prepare_again: false,
                current: Vec::new(),
                previous: Vec::new(),
                line: Line::default(),
                began: BTreeMap::new(),
                drift: None,
                notes: Vec::new(),
                aborts: 0,
                attempts: 0,
                opened_at: stored.at_ms,
            },
        );
    }

    pub(in crate::role::cloud) fn restore(&mut self, rows: Vec<Row>) {
        let mut records: BTreeMap<JobId, BTreeMap<Vec<u8>, Record>> = BTreeMap::new();
        let mut stored: BTreeMap<JobId, Stored> = BTreeMap::new();
        for row in rows {
            match row.key.table {
                Table::Job => match serde_json::from_slice(&row.value) {
                    Ok(job) => drop(stored.insert(row.key.job, job)),
                    Err(why) => self.unread.push((row.key.job, why.to_string(), Vec::new())),
                },
                Table::Record => {
                    if let Ok(record) = Record::from_bytes(&row.value) {
                        records.entry(row.key.job).or_default().insert(row.key.item, record);
                    }
                }
                _ => {}
            }
        }
        for (job, stored) in stored {
            match JobSpec::parse(&stored.toml) {
                Ok(spec) => {
                    let records = records.remove(&job).unwrap_or_default().into_values().collect();
                    // The work's effect is thrown away here; `start` orders it again.
                    self.insert(job, spec, stored, records, &mut Vec::new());
                }
                Err(why) => self.unread.push((job, why.to_string(), Vec::new())),
            }
        }
        for (job, _, unread) in &mut self.unread {
            *unread = records.remove(job).unwrap_or_default().into_values().collect();
        }
    }

    /// Orders what was under way.
    pub(in crate::role::cloud) fn start(&mut self, effects: &mut Vec<Effect>) {
        // Jobs that an earlier release took have no line yet.
        let lines = self.jobs.iter().filter(|(id, _)| self.ledger.line(**id).is_none());
        let lines: Vec<_> = lines.map(|(id, job)| (*id, Arc::clone(&job.spec), job.at_ms)).collect();
        for (id, spec, at_ms) in lines {
            let reserved = self.ledger.reserve(id, &spec, at_ms);
            effects.push(Effect::Store(vec![reserved]));
        }
        let unread: Vec<JobId> = self.unread.iter().map(|(job, _, _)| *job).collect();
        unread.into_iter().for_each(|job| self.say_unread(job, effects));
        for job in self.jobs.values() {
            if let State::Preparing(id) = job.state {
                effects.push(Effect::Work { id, work: Box::new(Work::Initial { spec: job.spec.clone() }) });
            }
        }
    }

    pub(super) fn work_id(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    /// Version 0 is here: the round machine starts, or goes on from its records.
    pub(super) fn begin(
        &mut self,
        now: Millis,
        id: JobId,
        model: Manifest,
        state: Option<Manifest>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let records = std::mem::take(&mut job.records);
        let first: Vec<ObjectId> = std::iter::once(&model).chain(&state).map(Manifest::id).collect();
        for record in &records {
            if let Record::Applied { collection, version, model, line, .. } = record {
                let included = under_current_keys(included_of(&records, *collection), fleet);
                let line: Line = serde_json::from_slice(line).unwrap_or_default();
                job.sketched(*collection, &line);
                if let Some(key) = &self.key {
                    let made = if cfg!(feature = "broken-one-model-per-version") { first[0] } else { model.id() };
                    let announcement = announce(key, *collection, *version, made, &included);
                    let began = begun(&records, *collection).into_iter();
                    let began = began.map(|(device, version)| (fleet.current(device), version)).collect();
                    job.note_made(Made { announcement, included, began, line });
                }
            }
            if let Record::Aborted { .. } = record {
                job.aborts += 1;
            }
            job.attempts += u64::from(opens_training(record));
        }
        let entropy = self.entropy.draw("job", &id.0.to_le_bytes());
        let settings = job.spec.settings().clone();
        let epoch = self.epochs.get(&id).copied().unwrap_or(self.epoch);
        let round = Round::new(id, settings, model, state, epoch, entropy, now).after(now, &records);
        // Version 0 can be made again from the job's text, so it needs no row; while it is current, its bytes must be here.
        let current = first.into_iter().filter(|object| round.needs(*object));
        effects.push(Effect::Store(current.map(Write::Object).collect()));
        // What an earlier run left is hashed before it is used; `begun` hears of damage.
        let needed =
            std::iter::once(round.model()).chain(round.state()).chain(&**round.before()).chain(round.given().values());
        let needed: Vec<Manifest> = needed.cloned().collect();
        effects.extend(needed.into_iter().map(Effect::Begin));
        job.current = objects_of(&round).collect();
        job.state = State::Running(Box::new(round));
        self.load_model(id, effects);
        let register = self.register.clone();
        self.round(now, id, round::Event::Roster(register), fleet, effects);
        // A key that was cut off stays so, whatever an edge still holds of it.
        for (device, _) in fleet.machines().filter(|(_, machine)| machine.revoked) {
            let why = fleet.why_cut(*device).into();
            self.round(now, id, round::Event::Expelled { device: *device, why }, fleet, effects);
        }
        // Who came while version 0 was being made: first what edges hold, then where devices are.
        for (edge, here) in fleet.edges.iter().filter(|(_, here)| here.link.is_some()) {
            let holds = here.holds.iter().filter(|(i, _)| i.collection.job == id).cloned().collect();
            self.round(now, id, round::Event::Edge { edge: *edge, holds }, fleet, effects);
        }
        for (device, here) in &fleet.devices {
            let event = self.device_event(id, *device, here.edge, &here.data, fleet);
            self.round(now, id, event, fleet, effects);
        }
        self.round(now, id, round::Event::Tick, fleet, effects);
    }

    /// The current version of some jobs, or their algorithm's state, is not what it was: they stand still, since all that
    /// follows would be built on it.
    pub(super) fn halt(&mut self, object: ObjectId, effects: &mut Vec<Effect>) {
        for (id, job) in &mut self.jobs {
            let State::Running(round) = &job.state else { continue };
            let what = match () {
                () if objects_of(round).any(|of| of == object) => "model",
                () if round.state().is_some_and(|state| state.id() == object) => "the algorithm's state",
                () if round.given().values().any(|given| given.id() == object) => "a device's model",
                () => continue,
            };
            let version = round.collection().version;
            let why = format!(
                "version {version}, {what} {object}: its bytes in this cloud's folder are damaged or gone; stop the \
                 cloud, restore its folder from a copy, start it again"
            );
            effects.push(Effect::Report(Report::Warning { what: format!("job {id} stands still: {why}") }));
            job.note(why.clone());
            job.state = State::Halted(why);
        }
    }

    pub(super) fn load_model(&mut self, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        let model = round.model();
        if model.bytes() <= INLINE_BYTES_MAX as u64 && job.inline.as_ref().is_none_or(|(o, _)| *o != model.id()) {
            job.inline = None;
            effects.push(Effect::Load { object: model.id(), index: 0 });
        }
    }
}

/// Does an attempt begin with this, in which devices send what they learnt?
pub(super) fn opens_training(record: &Record) -> bool {
    match record {
        Record::Opened { collection, .. } => collection.work == Kind::Train,
        Record::Grouped { .. } => true,
        _ => false,
    }
}

fn opens(record: &Record) -> bool {
    matches!(record, Record::Opened { .. } | Record::Grouped { .. })
}

/// Does a round that is restored from these records need the object? Its last version, older ones that devices were sent to train
/// from, and the partials kept since.
pub(super) fn recorded(records: &[Record], object: ObjectId) -> bool {
    let made = |record: &Record| match record {
        Record::Applied { version, model, before, state, given, .. } => {
            let named = std::iter::once(model).chain(&**before).chain(state).chain(given.values());
            Some((*version, named.into_iter().any(|m| m.id() == object)))
        }
        _ => None,
    };
    let since = records.iter().rev().take_while(|record| !opens(record));
    let kept = |record: &Record| matches!(record, Record::Kept(kept) if kept.sum.id() == object);
    let begun = |at: u64| {
        records.iter().any(|record| matches!(record, Record::Dispatched { collection, .. } if collection.version == at))
    };
    let (mut made, newest) = (records.iter().filter_map(made), records.iter().rev().find_map(made));
    newest.is_some_and(|(_, is_it)| is_it)
        || since.into_iter().any(kept)
        || made.any(|(version, is_it)| is_it && begun(version))
}

/// The devices of the partials that were kept for this collection, sorted.
fn included_of(records: &[Record], collection: Collection) -> Vec<NodeId> {
    let mut devices: Vec<NodeId> = records
        .iter()
        .filter_map(|record| match record {
            Record::Kept(kept) if kept.incarnation.collection == collection => Some(kept.devices.iter().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    devices.sort_unstable();
    devices
}

/// At which version each device of this collection began, where updates may be old.
fn begun(records: &[Record], of: Collection) -> Vec<(NodeId, u64)> {
    let group = records.iter().rev().find_map(|record| match record {
        Record::Grouped { collection, cohort, .. } if *collection == of => Some(cohort),
        _ => None,
    });
    group.into_iter().flatten().map(|(device, _, version)| (*device, *version)).collect()
}

fn job_row(job: JobId) -> RowKey {
    RowKey { table: Table::Job, job, version: 0, item: Vec::new() }
}
