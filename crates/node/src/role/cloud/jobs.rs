//! Jobs: each one's round machine, and how its decisions become messages, rows and work.

use super::super::fetch::Fetch;
use super::fleet::Fleet;
use super::{Effect, LinkId, Millis, Report, Row, RowKey, Table, Timer, Write};
use crate::job::{JobError, JobSpec, Line, Task};
use crate::role::WorkId;
use crate::work::{Output, Work, WorkFault};
use littoral_fed::included::{self, Tree};
use littoral_fed::round::{self, Kept, Outcome, Record, Round, Stage};
use littoral_wire::codec::Wire;
use littoral_wire::message::{
    Announcement, Asked, COHORT_MAX, Incarnation, Inline, SPEC_BYTES_MAX, Verdict, Work as Kind, version_number,
};
use littoral_wire::object::{INLINE_BYTES_MAX, Manifest};
use littoral_wire::{Blob, Collection, JobId, List, Message, NodeId, ObjectId, SecretKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Chunks of a partial in flight from an edge.
const FETCH_WINDOW: usize = 32;
/// The line of versions that training makes.
pub const TRAINING_CHANNEL: &str = "train";

/// A job as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    toml: String,
    submitted_by: String,
    at_ms: Millis,
}

/// A version that was made, for verdicts and for the record of the run.
#[derive(Clone, Debug)]
pub struct Made {
    pub announcement: Announcement,
    /// Sorted.
    pub included: Vec<NodeId>,
    pub line: Line,
}

enum State {
    /// Version 0 is being made.
    Preparing(WorkId),
    Running(Box<Round>),
    Failed(String),
}

impl State {
    fn round(&self) -> Option<&Round> {
        match self {
            State::Running(round) => Some(round),
            _ => None,
        }
    }
}

/// A partial on its way here.
struct Incoming {
    incarnation: Incarnation,
    devices: Vec<NodeId>,
    fetch: Fetch,
}

pub struct Job {
    pub spec: Arc<JobSpec>,
    pub toml: String,
    pub submitted_by: String,
    pub at_ms: Millis,
    state: State,
    /// Records stored so far; those of an unfinished restore wait for version 0.
    records: Vec<Record>,
    stored: u64,
    pub made: BTreeMap<Collection, Made>,
    /// The last version of training that counts each key, of those that any counts.
    counted: BTreeMap<NodeId, u32>,
    /// The current model, if it is small enough to ride along.
    inline: Option<(ObjectId, Vec<u8>)>,
    /// The encoded task, and the population that it tells.
    task: Option<(u64, Vec<u8>)>,
    /// Requests that wait for those bytes.
    waiting: Vec<(NodeId, Incarnation, Vec<NodeId>)>,
    incoming: Vec<Incoming>,
    applying: Option<WorkId>,
    /// Version 0 could not be made; it is tried again on a tick.
    prepare_again: bool,
    /// The model before the current one: devices may still be fetching it.
    previous: Option<ObjectId>,
    /// Describes the version that is about to be announced.
    line: Line,
    pub notes: Vec<String>,
    pub aborts: u64,
    opened_at: Millis,
}

impl Job {
    pub fn round(&self) -> Option<&Round> {
        self.state.round()
    }

    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(why) => Some(why),
            _ => None,
        }
    }

    pub fn finished(&self) -> bool {
        match &self.state {
            State::Running(round) => matches!(round.stage(), Stage::Finished { .. }),
            State::Failed(_) => true,
            State::Preparing(_) => false,
        }
    }
}

pub struct Jobs {
    epoch: u32,
    key: Option<SecretKey>,
    jobs: BTreeMap<JobId, Job>,
    /// Records of jobs that this release does not understand: perhaps the next one does, so what they name stays.
    unread: Vec<Vec<Record>>,
    next_work: u64,
    ticks: u64,
    /// The hash tree that was asked for last.
    tree: Option<(Collection, Tree)>,
}

impl Jobs {
    pub(super) fn new(epoch: u32) -> Self {
        Self { epoch, key: None, jobs: BTreeMap::new(), unread: Vec::new(), next_work: 0, ticks: 0, tree: None }
    }

    /// The key that announcements are signed with.
    pub(super) fn sign_with(&mut self, key: SecretKey) {
        self.key = Some(key);
    }

    pub fn get(&self, job: JobId) -> Option<&Job> {
        self.jobs.get(&job)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&JobId, &Job)> {
        self.jobs.iter()
    }

    // ---- a job's beginning and its return after a restart ----

    pub(super) fn submit(
        &mut self,
        now: Millis,
        toml: &str,
        by: &str,
        effects: &mut Vec<Effect>,
    ) -> Result<JobId, JobError> {
        let spec = JobSpec::parse(toml)?;
        let job = JobId(self.jobs.keys().next_back().map_or(1, |last| last.0 + 1));
        let stored = Stored { toml: toml.into(), submitted_by: by.into(), at_ms: now };
        effects.push(super::put(job_row(job), serde_json::to_vec(&stored).unwrap_or_default()));
        self.insert(job, spec, stored, Vec::new(), effects);
        Ok(job)
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
                previous: None,
                line: Line::default(),
                notes: Vec::new(),
                aborts: 0,
                opened_at: stored.at_ms,
            },
        );
    }

    pub(super) fn restore(&mut self, rows: Vec<Row>) {
        let mut records: BTreeMap<JobId, BTreeMap<Vec<u8>, Record>> = BTreeMap::new();
        let mut stored: BTreeMap<JobId, Stored> = BTreeMap::new();
        for row in rows {
            match row.key.table {
                Table::Job => {
                    if let Ok(job) = serde_json::from_slice(&row.value) {
                        stored.insert(row.key.job, job);
                    }
                }
                Table::Record => {
                    if let Ok(record) = Record::from_bytes(&row.value) {
                        records.entry(row.key.job).or_default().insert(row.key.item, record);
                    }
                }
                _ => {}
            }
        }
        for (job, stored) in stored {
            if let Ok(spec) = JobSpec::parse(&stored.toml) {
                let records = records.remove(&job).unwrap_or_default().into_values().collect();
                // The work's effect is thrown away here; `start` orders it again.
                self.insert(job, spec, stored, records, &mut Vec::new());
            }
        }
        self.unread = records.into_values().map(|records| records.into_values().collect()).collect();
    }

    /// Orders what was under way.
    pub(super) fn start(&self, effects: &mut Vec<Effect>) {
        for job in self.jobs.values() {
            if let State::Preparing(id) = job.state {
                effects.push(Effect::Work { id, work: Box::new(Work::Initial { spec: job.spec.clone() }) });
            }
        }
    }

    fn work_id(&mut self) -> WorkId {
        self.next_work += 1;
        WorkId(self.next_work)
    }

    /// Version 0 is here: the round machine starts, or goes on from its records.
    fn begin(
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
                let line = serde_json::from_slice(line).unwrap_or_default();
                if let Some(key) = &self.key {
                    let made = if cfg!(feature = "broken-one-model-per-version") { first[0] } else { model.id() };
                    let announcement = announce(key, *collection, *version, made, &included);
                    job.note_made(Made { announcement, included, line });
                }
            }
            if let Record::Aborted { .. } = record {
                job.aborts += 1;
            }
        }
        let round = Round::new(id, job.spec.settings().clone(), model, state, self.epoch, now).after(now, &records);
        // Version 0 can be made again from the job's text, so it needs no row; while it is current, its bytes must be here.
        let current = first.into_iter().filter(|object| round.needs(*object));
        effects.push(Effect::Store(current.map(Write::Object).collect()));
        job.state = State::Running(Box::new(round));
        self.load_model(id, effects);
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

    fn load_model(&mut self, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        let model = round.model();
        if model.bytes() <= INLINE_BYTES_MAX as u64 && job.inline.as_ref().is_none_or(|(o, _)| *o != model.id()) {
            job.inline = None;
            effects.push(Effect::Load { object: model.id(), index: 0 });
        }
    }

    // ---- events for rounds ----

    fn device_event(
        &self,
        job: JobId,
        device: NodeId,
        edge: NodeId,
        data: &[littoral_wire::message::DataOffer],
        fleet: &Fleet,
    ) -> round::Event {
        let set = self.jobs[&job].spec.data_set();
        let eligible = data.iter().any(|offer| &*offer.name == set && offer.rows > 0);
        round::Event::Device { device, name: fleet.name(device), edge, eligible }
    }

    pub(super) fn device_attached(&mut self, now: Millis, device: NodeId, fleet: &Fleet, effects: &mut Vec<Effect>) {
        let Some(here) = fleet.devices.get(&device) else { return };
        for id in self.running() {
            let event = self.device_event(id, device, here.edge, &here.data, fleet);
            self.round(now, id, event, fleet, effects);
        }
    }

    fn running(&self) -> Vec<JobId> {
        self.jobs.iter().filter(|(_, job)| job.round().is_some() && !job.finished()).map(|(id, _)| *id).collect()
    }

    pub(super) fn each_round(&mut self, now: Millis, event: round::Event, fleet: &Fleet, effects: &mut Vec<Effect>) {
        for id in self.running() {
            self.round(now, id, event.clone(), fleet, effects);
        }
    }

    pub(super) fn round(
        &mut self,
        now: Millis,
        id: JobId,
        event: round::Event,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &mut job.state else { return };
        let mut decided = Vec::new();
        round.step(now, event, &mut decided);
        self.perform(now, id, decided, fleet, effects);
    }

    pub(super) fn edge_attached(
        &mut self,
        now: Millis,
        edge: NodeId,
        holds: Vec<(Incarnation, Vec<NodeId>)>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for id in self.running() {
            let ours = holds.iter().filter(|(incarnation, _)| incarnation.collection.job == id).cloned().collect();
            self.round(now, id, round::Event::Edge { edge, holds: ours }, fleet, effects);
            if let Some(link) = fleet.edge_link(edge) {
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                for incoming in &mut job.incoming {
                    let from_here = job.state.round().and_then(|r| r.edge_of(incoming.incarnation)) == Some(edge);
                    if from_here && incoming.fetch.source().is_none() {
                        incoming.fetch.resume(now, link, effects);
                    }
                }
            }
        }
        // What the edge holds of jobs that are no more.
        if let Some(link) = fleet.edge_link(edge) {
            for (incarnation, _) in holds {
                if self.jobs.get(&incarnation.collection.job).is_none_or(Job::finished) {
                    effects.push(Effect::Send { link, message: Message::Fence { incarnation } });
                }
            }
        }
    }

    // ---- decisions become effects ----

    fn perform(
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
                round::Effect::Apply { collection, partials } => self.apply(id, collection, partials, effects),
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

    /// A record is a row; the objects that it names become durable with it.
    fn record(&mut self, now: Millis, id: JobId, record: Record, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut writes = Vec::new();
        let mut version = 0;
        match &record {
            Record::Opened { collection, .. } => {
                version = collection.version;
                job.opened_at = now;
            }
            Record::Kept(kept) => {
                version = kept.incarnation.collection.version;
                writes.push(Write::Object(kept.sum.id()));
            }
            Record::Applied { version: made, model, state, .. } => {
                version = *made;
                writes.push(Write::Object(model.id()));
                writes.extend(state.iter().map(|s| Write::Object(s.id())));
            }
            Record::Fenced { incarnation, .. } => version = incarnation.collection.version,
            Record::Joined { collection, .. } | Record::Aborted { collection, .. } => version = collection.version,
            Record::Declined { collection, name, why } => {
                version = collection.version;
                // Recorded, and so said, once for each reason; `job show` counts on.
                let what = format!("job {id}: {name} declined version {version}: {why}");
                effects.push(Effect::Report(Report::Warning { what }));
            }
            Record::Finished { .. } => {}
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
        let Some(link) = fleet.edge_link(edge) else { return };
        let model = round.model().clone();
        let rides = model.bytes() <= INLINE_BYTES_MAX as u64;
        let inline: Inline = match &job.inline {
            Some((object, bytes)) if *object == model.id() => Blob::new(bytes.clone()).ok(),
            _ if rides => {
                job.waiting.push((edge, incarnation, devices));
                return;
            }
            _ => None,
        };
        let population = round.population();
        let encoded = match &job.task {
            Some((known, encoded)) if *known == population => encoded.clone(),
            _ => Task { spec: (*job.spec).clone(), population }.encode(),
        };
        job.task = Some((population, encoded.clone()));
        let Ok(spec) = Blob::<SPEC_BYTES_MAX>::new(encoded) else { return };
        let plan = job.spec.plan(incarnation.collection.work);
        let asked = |device: NodeId| Asked { device, counted: job.last_counted(device, fleet) };
        let Ok(devices) = List::new(devices.into_iter().map(asked).collect()) else { return };
        let deadline_ms = job.spec.settings().deadline_ms;
        let (words, bits) = (plan.format().words(), plan.bits() as u8);
        effects.push(Effect::Send {
            link,
            message: Message::Open { incarnation, spec, model, inline, devices, deadline_ms, words, bits },
        });
    }

    pub(super) fn loaded(
        &mut self,
        object: ObjectId,
        bytes: Option<Vec<u8>>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let wanting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.round().is_some_and(|round| round.model().id() == object))
            .map(|(id, _)| *id)
            .collect();
        for id in wanting {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            match &bytes {
                Some(bytes) => {
                    job.inline = Some((object, bytes.clone()));
                    for (edge, incarnation, devices) in std::mem::take(&mut job.waiting) {
                        self.open(id, edge, incarnation, devices, fleet, effects);
                    }
                }
                None => {
                    let what =
                        format!("job {id}: model {object} cannot be read; restore the cloud's folder from a copy");
                    job.note(what.clone());
                    effects.push(Effect::Report(Report::Warning { what }));
                }
            }
        }
    }

    fn apply(&mut self, id: JobId, collection: Collection, partials: Vec<Kept>, effects: &mut Vec<Effect>) {
        let work_id = self.work_id();
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        job.applying = Some(work_id);
        effects.push(Effect::Work {
            id: work_id,
            work: Box::new(Work::Apply {
                spec: job.spec.clone(),
                collection,
                model: round.model().clone(),
                state: round.state().cloned(),
                devices: partials.iter().map(|kept| kept.devices.len() as u32).sum(),
                partials: partials.into_iter().map(|kept| kept.sum).collect(),
                population: round.population(),
            }),
        });
    }

    pub(super) fn worked(
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
                    effects.push(Effect::Report(Report::Finished { job: id, why: fault.to_string() }));
                }
            }
            return;
        }
        let Some(id) = self.jobs.iter().find(|(_, job)| job.applying == Some(work)).map(|(id, _)| *id) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.applying = None;
        let event = match result {
            Ok(Output::Applied { model, state, totals }) => {
                let line = Line::new(&totals, now.saturating_sub(job.opened_at), now);
                let outcome = Outcome { accuracy: totals.accuracy() };
                let bytes = serde_json::to_vec(&line).unwrap_or_default();
                job.line = line;
                round::Event::Applied { model, state, outcome, line: bytes }
            }
            Ok(_) => return,
            // A sum that cannot be applied however often one tries: the job ends and says why.
            Err(WorkFault::Declined(why)) => {
                job.note(why.clone());
                round::Event::Stop { why }
            }
            Err(fault) => {
                job.note(fault.to_string());
                effects.push(Effect::Report(Report::Warning { what: format!("job {id}: {fault}") }));
                round::Event::ApplyFailed { why: fault.to_string() }
            }
        };
        self.round(now, id, event, fleet, effects);
    }

    #[allow(clippy::too_many_arguments)] // The fields of one decision.
    fn announce(
        &mut self,
        id: JobId,
        collection: Collection,
        version: u64,
        model: ObjectId,
        included: Vec<NodeId>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(key), Some(job)) = (&self.key, self.jobs.get_mut(&id)) else { return };
        let included = under_current_keys(included, fleet);
        let announcement = announce(key, collection, version, model, &included);
        let line = std::mem::take(&mut job.line);
        let before = job.made.values().next_back().map(|made| made.announcement.model).filter(|old| *old != model);
        let stale = before.and_then(|before| job.previous.replace(before));
        let made = Made { announcement: announcement.clone(), included: included.clone(), line: line.clone() };
        job.note_made(made);
        if let Ok(list) = List::<NodeId, COHORT_MAX>::new(included.clone()) {
            for link in fleet.edge_links() {
                let message = Message::Announce { announcement: announcement.clone(), included: list.clone() };
                effects.push(Effect::Send { link, message });
            }
        }
        effects.extend(stale.map(Effect::Drop));
        effects.push(Effect::Report(Report::Version { collection, version, model, included, line: Box::new(line) }));
    }

    /// A machine's key was replaced. What its old key was counted for the machine is told under its new one: versions
    /// that list the old key are announced anew, to whoever asks from now on.
    pub(super) fn rotated(&mut self, from: NodeId, to: NodeId) {
        let Some(key) = &self.key else { return };
        for (collection, made) in self.jobs.values_mut().flat_map(|job| &mut job.made) {
            if let Ok(at) = made.included.binary_search(&from) {
                made.included[at] = to;
                made.included.sort_unstable();
                let Announcement { version, model, .. } = made.announcement;
                made.announcement = announce(key, *collection, version, model, &made.included);
                self.tree = None;
            }
        }
    }

    /// How a collection ended for a device, if it has ended.
    pub(super) fn verdict(&mut self, collection: Collection, device: NodeId) -> Option<Verdict> {
        let Some(job) = self.jobs.get(&collection.job) else {
            return Some(Verdict { collection, announcement: None, proof: None });
        };
        if let Some(made) = job.made.get(&collection) {
            // A crowd asks about the same version: its tree is made once.
            if !matches!(&self.tree, Some((of, _)) if *of == collection) {
                self.tree = Some((collection, Tree::new(&made.included)));
            }
            let proof = self.tree.as_ref().and_then(|(_, tree)| tree.proof(device));
            return Some(Verdict { collection, announcement: Some(made.announcement.clone()), proof });
        }
        // Undecided, or given up.
        let undecided = match &job.state {
            State::Preparing(_) => true,
            State::Running(round) => round.collection() <= collection && !job.finished(),
            State::Failed(_) => false,
        };
        (!undecided).then_some(Verdict { collection, announcement: None, proof: None })
    }

    // ---- partials ----

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn partial(
        &mut self,
        now: Millis,
        link: LinkId,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        sum: Manifest,
        inline: Inline,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let id = incarnation.collection.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &job.state else { return };
        if round.kept(incarnation) {
            return effects.push(Effect::Send { link, message: Message::PartialKept { incarnation } });
        }
        let plan = job.spec.plan(incarnation.collection.work);
        if !round.expects(incarnation) || sum.bytes() != plan.format().bytes() as u64 {
            return effects.push(Effect::Send { link, message: Message::Fence { incarnation } });
        }
        match inline {
            Some(bytes) if sum.check(0, &bytes).is_ok() => {
                effects.push(Effect::Put { manifest: sum.clone(), bytes: bytes.into_vec() });
                self.partial_is_here(now, edge, incarnation, devices, sum, fleet, effects);
            }
            Some(_) => effects.push(Effect::Send { link, message: Message::Fence { incarnation } }),
            None => match job.incoming.iter_mut().find(|incoming| incoming.incarnation == incarnation) {
                Some(incoming) => incoming.fetch.resume(now, link, effects),
                None => {
                    let fetch = Fetch::begin(sum, link, FETCH_WINDOW, effects);
                    job.incoming.push(Incoming { incarnation, devices, fetch });
                }
            },
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn partial_is_here(
        &mut self,
        now: Millis,
        edge: NodeId,
        incarnation: Incarnation,
        devices: Vec<NodeId>,
        sum: Manifest,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        let id = incarnation.collection.job;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let State::Running(round) = &mut job.state else { return };
        let mut decided = Vec::new();
        round.step(now, round::Event::Partial { incarnation, devices, sum }, &mut decided);
        // First the row, then the word that it is kept, then what follows from it.
        let after =
            decided.iter().position(|d| matches!(d, round::Effect::Record(Record::Kept(_)))).map_or(0, |i| i + 1);
        let rest = decided.split_off(after);
        self.perform(now, id, decided, fleet, effects);
        if after > 0 {
            send(fleet, edge, Message::PartialKept { incarnation }, effects);
        }
        self.perform(now, id, rest, fleet, effects);
    }

    pub(super) fn chunk(
        &mut self,
        link: LinkId,
        object: ObjectId,
        index: u32,
        bytes: Vec<u8>,
        effects: &mut Vec<Effect>,
    ) {
        for incoming in self.jobs.values_mut().flat_map(|job| &mut job.incoming) {
            if incoming.fetch.object() == object && incoming.fetch.source() == Some(link) {
                incoming.fetch.chunk(index, bytes.clone(), effects);
            }
        }
    }

    pub(super) fn begun(
        &mut self,
        now: Millis,
        object: ObjectId,
        missing: Vec<u32>,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for incoming in self.jobs.values_mut().flat_map(|job| &mut job.incoming) {
            if incoming.fetch.object() == object {
                incoming.fetch.begun(now, missing.clone(), effects);
            }
        }
        self.collect_whole(now, fleet, effects);
    }

    pub(super) fn kept(
        &mut self,
        now: Millis,
        object: ObjectId,
        index: u32,
        good: bool,
        fleet: &Fleet,
        effects: &mut Vec<Effect>,
    ) {
        for incoming in self.jobs.values_mut().flat_map(|job| &mut job.incoming) {
            if incoming.fetch.object() == object {
                incoming.fetch.kept(now, index, good, effects);
            }
        }
        self.collect_whole(now, fleet, effects);
    }

    fn collect_whole(&mut self, now: Millis, fleet: &Fleet, effects: &mut Vec<Effect>) {
        let mut whole = Vec::new();
        for job in self.jobs.values_mut() {
            let (done, rest) = std::mem::take(&mut job.incoming).into_iter().partition(|i: &Incoming| i.fetch.whole());
            job.incoming = rest;
            whole.extend::<Vec<Incoming>>(done);
        }
        for Incoming { incarnation, devices, fetch } in whole {
            let edge = self
                .jobs
                .get(&incarnation.collection.job)
                .and_then(Job::round)
                .and_then(|round| round.edge_of(incarnation));
            if let Some(edge) = edge {
                let sum = fetch.manifest().clone();
                self.partial_is_here(now, edge, incarnation, devices, sum, fleet, effects);
            }
        }
    }

    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.jobs.values_mut().flat_map(|job| &mut job.incoming).for_each(|incoming| incoming.fetch.lost(link));
    }

    pub(super) fn tick(&mut self, now: Millis, fleet: &Fleet, effects: &mut Vec<Effect>) {
        self.ticks += 1;
        let say_again = self.ticks.is_multiple_of(4);
        for job in self.jobs.values_mut().filter(|job| job.prepare_again) {
            if let State::Preparing(id) = job.state {
                job.prepare_again = false;
                effects.push(Effect::Work { id, work: Box::new(Work::Initial { spec: job.spec.clone() }) });
            }
        }
        for id in self.running() {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.incoming.iter_mut().for_each(|incoming| incoming.fetch.tick(now, effects));
            }
            self.round(now, id, round::Event::Tick, fleet, effects);
            if say_again && let Some(round) = self.jobs.get(&id).and_then(Job::round) {
                let mut decided = Vec::new();
                round.repeat(&mut decided);
                self.perform(now, id, decided, fleet, effects);
            }
        }
    }

    // ---- objects ----

    /// Is this object still needed by any job?
    pub(super) fn needs(&self, object: ObjectId) -> bool {
        self.unread.iter().any(|records| recorded(records, object))
            || self.jobs.values().any(|job| {
                job.round().is_some_and(|round| round.needs(object))
                    || recorded(&job.records, object)
                    || job.incoming.iter().any(|incoming| incoming.fetch.object() == object)
                    || job.previous == Some(object)
            })
    }

    /// Models that operators may fetch.
    pub(super) fn offers(&self, object: ObjectId) -> bool {
        self.jobs.values().any(|job| {
            job.round().is_some_and(|round| round.model().id() == object)
                || job.made.values().any(|made| made.announcement.model == object)
        })
    }
}

impl Job {
    fn note_made(&mut self, made: Made) {
        let Announcement { collection, version, .. } = made.announcement;
        if collection.work == Kind::Train {
            let counted = version_number(version);
            self.counted.extend(made.included.iter().map(|device| (*device, counted)));
        }
        self.made.insert(collection, made);
    }

    /// The last version of training that counts this machine, under this key or one that it replaced; 0: none.
    fn last_counted(&self, device: NodeId, fleet: &Fleet) -> u32 {
        let keys = std::iter::once(device).chain(fleet.replaced_by(device));
        keys.filter_map(|key| self.counted.get(&key)).max().copied().unwrap_or(0)
    }

    fn note(&mut self, what: String) {
        // Enough to explain a stall; the log has the rest.
        if self.notes.len() >= 20 {
            self.notes.remove(0);
        }
        self.notes.push(what);
    }
}

fn job_row(job: JobId) -> RowKey {
    RowKey { table: Table::Job, job, version: 0, item: Vec::new() }
}

fn send(fleet: &Fleet, edge: NodeId, message: Message, effects: &mut Vec<Effect>) {
    if let Some(link) = fleet.edge_link(edge) {
        effects.push(Effect::Send { link, message });
    }
}

/// Does a round that is restored from these records need the object? Its last version, and the partials kept since.
fn recorded(records: &[Record], object: ObjectId) -> bool {
    let made = |record: &Record| match record {
        Record::Applied { model, state, .. } => Some(std::iter::once(model).chain(state).any(|m| m.id() == object)),
        _ => None,
    };
    let since = records.iter().rev().take_while(|record| !matches!(record, Record::Opened { .. }));
    let kept = |record: &Record| matches!(record, Record::Kept(kept) if kept.sum.id() == object);
    records.iter().rev().find_map(made).unwrap_or(false) || since.into_iter().any(kept)
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

/// The same machines, each by the key that it has now. Its update may have been counted under an earlier one.
fn under_current_keys(mut devices: Vec<NodeId>, fleet: &Fleet) -> Vec<NodeId> {
    devices.iter_mut().for_each(|device| *device = fleet.current(*device));
    devices.sort_unstable();
    devices
}

fn announce(
    key: &SecretKey,
    collection: Collection,
    version: u64,
    model: ObjectId,
    included: &[NodeId],
) -> Announcement {
    included::announce(key, collection, version, TRAINING_CHANNEL, model, included)
}

/// The kinds of work, in words.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Statistics => "statistics",
        Kind::Train => "train",
        Kind::Evaluate => "evaluate",
    }
}
