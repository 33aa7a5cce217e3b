//! The device: trains on its own data, seals, sends, and keeps what it sent until it knows what became of it.
//!
//! A task goes through: fetch the model → work → sealed update durable → offered → (pulled) → absorbed → verdict.
//! *Pending* state — what the algorithm wants this device to remember — is stored together with the sealed bytes and
//! becomes current only when a signed announcement lists the device as included; otherwise it is forgotten. A restart
//! sends the same bytes again: nothing is sealed twice for one collection.
//!
//! Where updates may be old a device trains before it is known for which collection, and what it learnt waits on its disk
//! ([`prepared`]): then a task goes straight from the request to the sealed update.

mod account;
mod kept;
mod personal;
mod prepared;
mod sealing;
mod task;

use super::fetch::{self, Fetch};
use super::links::{Links, TICK_MS};
use super::redial::{Redial, draw};
use super::said::Said;
use super::{Effect, Entropy, Event, LinkId, Millis, Peer, Report, Role, Row, RowKey, Table, Timer, WorkId, Write};
use crate::job::Conditions;
use crate::work::{LocalNote, Output, Work, WorkFault};
use account::TakenPart;
use bytes::Bytes;
use kept::{MODEL, ModelObjects, SETTLED, Sealed, Settled, model_key, sealed_key, settled_key, state_key};
use littoral_fed::check_in::AWAY_MS_MAX;
use littoral_fed::included::{Included, check_verdict};
use littoral_fed::masks::ThreatName;
use littoral_wire::codec::Wire;
use littoral_wire::message::{DataOffer, Effort, Inline, Name, Note, Reason, Verdict, Work as Kind, version_number};
use littoral_wire::object::{Chain, INLINE_BYTES_MAX, Manifest};
use littoral_wire::{Blob, Collection, JobId, List, Message, NodeId, ObjectId, SecretKey};
use prepared::{PREPARED, Prepared};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use task::{Task, TaskStage};

/// A device that waits for a verdict asks for it this often, in ticks: it may have been told and not heard.
const ASK_TICKS: u64 = 4;
/// Chunks of a model in flight.
const FETCH_WINDOW: usize = 8;
/// Jobs whose model is kept between rounds because the next one builds on it.
const MODELS_MAX: usize = 8;

/// What a device is, from its configuration.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    pub key: SecretKey,
    pub name: String,
    /// Whose announcements count.
    pub cloud: NodeId,
    /// Edges, then perhaps the cloud, in order of preference.
    pub upstreams: Vec<Peer>,
    pub data: Vec<DataOffer>,
    /// Who says which devices there are; without it the device takes part in no masked sum whose cloud may be active.
    pub roster: Option<NodeId>,
    /// The least that sums must be masked against; `None`: as the job says.
    pub masks: Option<ThreatName>,
    /// In a masked sum of fewer updates this device takes no part.
    pub group_min: u32,
    pub entropy: Entropy,
}

impl DeviceIdentity {
    pub fn id(&self) -> NodeId {
        self.key.id()
    }
}

pub struct Device {
    identity: DeviceIdentity,
    redial: Redial,
    links: Links,
    /// The edge we are attached to.
    edge: Option<LinkId>,
    /// It has said that we are attached.
    attached: bool,
    /// We are at the cloud, and an edge has come: we go there when nothing is in hand.
    closer: Option<NodeId>,
    tasks: BTreeMap<Collection, Task>,
    sealed: BTreeMap<Collection, Sealed>,
    /// How long to stay away once the link is down: the edge said so.
    away_ms: Option<u64>,
    /// Per job, what this device has learnt and was not asked for yet.
    prepared: BTreeMap<JobId, Prepared>,
    /// Per job, what this device keeps between rounds.
    states: BTreeMap<JobId, Manifest>,
    /// Per job, what this device has of its own: segments of the model, or a model.
    personal: BTreeMap<JobId, Manifest>,
    /// Per job, the objects of the model that is here, the newest last. Of a model that builds on others they are stored: the next
    /// version builds on them too.
    models: BTreeMap<JobId, Vec<ObjectId>>,
    settled: BTreeMap<JobId, Settled>,
    /// Per job, how often this device has sealed what it learnt.
    taken_part: BTreeMap<JobId, TakenPart>,
    /// Sealed updates whose bytes are being read to be offered.
    offering: BTreeSet<(ObjectId, Collection)>,
    /// Why work failed, by job.
    said: Said<JobId>,
    next_work: u64,
    /// In what state the machine is, as far as its host has said.
    conditions: Conditions,
    /// The number of the newest roster seen.
    newest_roster: u64,
    /// Ticks with something sealed.
    ticks: u64,
}

impl Device {
    pub fn new(identity: DeviceIdentity, rows: Vec<Row>) -> Self {
        let mut sealed = BTreeMap::new();
        let mut prepared = BTreeMap::new();
        let mut states = BTreeMap::new();
        let mut personal = personal::Rows::default();
        let mut settled = BTreeMap::new();
        let mut taken_part = BTreeMap::new();
        let mut models = BTreeMap::new();
        let mut newest_roster = 0;
        for row in rows {
            match row.key.table {
                // It would seal once more.
                Table::Sealed if cfg!(feature = "broken-one-vector-per-key") => {}
                Table::Sealed => {
                    if let (Ok(collection), Some(kept)) =
                        (Collection::from_bytes(&row.key.item), Sealed::from_bytes(&row.value))
                    {
                        sealed.insert(collection, kept);
                    }
                }
                // It would take part without end.
                Table::Ledger if cfg!(feature = "broken-within-budget") => {}
                Table::Ledger => {
                    taken_part.insert(row.key.job, TakenPart::restored(&row.value));
                }
                Table::Roster => newest_roster = u64::from_bytes(&row.value).unwrap_or(0),
                Table::DeviceState if row.key.item == SETTLED => {
                    let mut reader = littoral_wire::codec::Reader::new(&row.value);
                    if let (Ok(last), Ok(counted)) = (Wire::take(&mut reader), Wire::take(&mut reader)) {
                        settled.insert(row.key.job, Settled { last, counted });
                    }
                }
                Table::DeviceState if row.key.item == PREPARED => {
                    prepared.extend(Prepared::from_bytes(&row.value).map(|kept| (row.key.job, kept)));
                }
                Table::DeviceState if row.key.item.starts_with(personal::PERSONAL) => personal.read(&row),
                Table::DeviceState if row.key.item == MODEL => {
                    if let Ok(objects) = ModelObjects::from_bytes(&row.value) {
                        models.insert(row.key.job, objects.into_vec());
                    }
                }
                Table::DeviceState => {
                    if let Ok(state) = Manifest::from_bytes(&row.value) {
                        states.insert(row.key.job, state);
                    }
                }
                _ => {}
            }
        }
        let personal = personal.settle(&mut sealed);
        Self {
            redial: Redial::new(identity.id(), identity.upstreams.clone()),
            identity,
            links: Links::default(),
            edge: None,
            attached: false,
            closer: None,
            tasks: BTreeMap::new(),
            sealed,
            away_ms: None,
            prepared,
            states,
            personal,
            models,
            settled,
            taken_part,
            offering: BTreeSet::new(),
            said: Said::default(),
            next_work: 0,
            conditions: Conditions::default(),
            newest_roster,
            ticks: 0,
        }
    }

    /// What the device keeps of a job; for checkers.
    pub fn state(&self, job: JobId) -> Option<&Manifest> {
        self.states.get(&job)
    }

    /// What the device has of its own in a job; for checkers.
    pub fn personal(&self, job: JobId) -> Option<&Manifest> {
        self.personal.get(&job)
    }

    fn attach(&self, link: LinkId, effects: &mut Vec<Effect>) {
        let held = self.sealed.keys().copied().take(littoral_wire::message::OFFERS_MAX).collect();
        effects.push(Effect::Send {
            link,
            message: Message::Attach {
                name: Name::new(self.identity.name.as_str()),
                data: List::new(self.identity.data.clone()).unwrap_or_default(),
                held: List::new(held).unwrap_or_default(),
            },
        });
    }

    fn received(&mut self, now: Millis, link: LinkId, message: Message, effects: &mut Vec<Effect>) {
        match message {
            Message::Attached { upstreams, .. } => {
                self.redial.succeeded();
                let learnt = upstreams.iter().map(|u| Peer { id: u.id, address: u.address.to_string() });
                self.redial.learn(learnt);
                // The first answer on a link is about us. Another one tells that an edge has come; not the first, or a device
                // that no edge takes would go back and forth.
                if std::mem::replace(&mut self.attached, true) && self.links.peer(link) == Some(self.identity.cloud) {
                    let edges = upstreams.iter().map(|u| u.id).filter(|id| *id != self.identity.cloud);
                    self.closer = edges.min_by_key(|edge| draw(self.identity.id(), *edge));
                }
                let held: Vec<Collection> = self.sealed.keys().copied().collect();
                held.into_iter().for_each(|collection| self.offer(collection, effects));
            }
            Message::Task { collection, spec, model, before, inline, counted, commitment, effort } => {
                self.task(now, link, collection, &spec, model, before, inline, counted, commitment, effort, effects);
            }
            Message::GetChunk { object, index } => {
                // Only what was sealed leaves this device.
                if self.sealed.values().any(|s| s.update.id() == object) {
                    effects.push(Effect::SendChunk { link, object, index });
                } else {
                    effects.push(Effect::Send { link, message: Message::NoChunk { object, index } });
                }
            }
            Message::Chunk { object, index, bytes } => {
                fetch::hand_out(self.fetches_of(object), index, bytes.into_bytes(), effects);
            }
            // Asked again by the tick; the edge may be fetching it itself.
            Message::NoChunk { .. } => {}
            Message::Absorbed { collection } => {
                if let Some(sealed) = self.sealed.get_mut(&collection) {
                    sealed.absorbed = true;
                }
            }
            Message::Refused { collection, reason } => {
                effects.push(Effect::Report(Report::Warning {
                    what: format!("the edge refused the update of {}: {reason}", describe(collection)),
                }));
                if let Some(sealed) = self.sealed.get_mut(&collection) {
                    sealed.absorbed = true;
                }
            }
            Message::Told { verdict } => self.told(verdict, effects),
            // What crossed it on the way is done first.
            Message::Later { after_ms } if self.tasks.is_empty() && self.sealed.is_empty() => {
                self.away_ms = Some(after_ms.min(AWAY_MS_MAX));
                effects.push(Effect::Hangup { link, reason: "there is nothing to do for now".into() });
            }
            Message::Sealing { collection, step, body } => self.step_of_sealing(collection, step, &body, effects),
            Message::Cut { reason, .. } => {
                effects.push(Effect::Report(Report::Warning { what: format!("this machine was cut off: {reason}") }));
                self.redial.refused();
                effects.push(Effect::Hangup { link, reason: "cut off".into() });
            }
            Message::Bye { reason } => effects.push(Effect::Hangup { link, reason: reason.to_string() }),
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn task(
        &mut self,
        now: Millis,
        link: LinkId,
        collection: Collection,
        spec: &[u8],
        model: Manifest,
        before: Chain,
        inline: Inline,
        counted: u32,
        commitment: Option<[u8; 32]>,
        effort: Effort,
        effects: &mut Vec<Effect>,
    ) {
        if self.is_prepared(collection) {
            return self.say_ready(collection, None, effects);
        }
        if let Some(sealed) = self.sealed.get_mut(&collection) {
            // Asked again: whoever had our update has lost it.
            sealed.absorbed = false;
            return self.offer(collection, effects);
        }
        // Nothing is sealed twice for one collection. This request was overtaken by the verdict, and nobody waits for the
        // answer; or the cloud has forgotten the verdict, and its operator should hear why nothing comes.
        let past = |at: &&Settled| collection <= at.last && collection.work != Kind::Prepare;
        if let Some(Settled { last, .. }) = self.settled.get(&collection.job).filter(past) {
            let why = format!(
                "a request after version {} expected, since this device knows how that ended, got one for version {}: the \
                 cloud's folder is an old copy; restore a newer one, or submit the job anew",
                last.version, collection.version,
            );
            return self.decline(collection, why, effects);
        }
        if let Some(task) = self.tasks.get_mut(&collection) {
            if let TaskStage::Fetching(fetches) = &mut task.stage {
                fetches.iter_mut().for_each(|fetch| fetch.resume(now, link, effects));
            }
            return;
        }
        // A job asks for one thing at a time; what it asked for before is of no use any more.
        let stale: Vec<Collection> =
            self.tasks.keys().filter(|c| c.job == collection.job && **c < collection).copied().collect();
        stale.into_iter().for_each(|c| {
            let plain = self.tasks.remove(&c).and_then(|task| task.stage.plain().map(Manifest::id));
            effects.extend(plain.map(Effect::Drop));
        });
        if let Some(bytes) = inline
            && model.check(0, &bytes).is_ok()
            && model.chunks() == 1
        {
            effects.push(Effect::Put { manifest: model.clone(), bytes: bytes.into_vec() });
        }
        let spec = spec.into();
        let task = Task { spec, model, before, counted, commitment, effort, stage: TaskStage::Unsettled };
        self.tasks.insert(collection, task);
        self.start(link, collection, effects);
        if matches!(self.tasks.get(&collection), Some(Task { stage: TaskStage::Unsettled, .. })) {
            self.attach(link, effects);
        }
    }

    /// A residual that is not of the version which counts this device last is of no use: what it owes was sent since, or never will
    /// be. Unlike an algorithm's state it may begin anew.
    fn forget_residual(&mut self, job: JobId, effects: &mut Vec<Effect>) {
        let Some(old) = self.states.remove(&job) else { return };
        effects.push(Effect::Store(vec![Write::Delete { key: state_key(job) }]));
        effects.push(Effect::Drop(old.id()));
        let what = format!(
            "job {job}: what compression left out is of another version than the cloud counts; it is forgotten"
        );
        effects.push(Effect::Report(Report::Note { what }));
    }

    /// Fetches the model, unless an older update of the job still waits for its verdict, or what that verdict settled
    /// is not here any more.
    fn start(&mut self, link: LinkId, collection: Collection, effects: &mut Vec<Effect>) {
        if self.sealed.keys().any(|c| c.job == collection.job) {
            return;
        }
        let here = self.settled.get(&collection.job).map_or(0, |settled| settled.counted);
        let Some(task) = self.tasks.get_mut(&collection) else { return };
        if let Some(why) = task.lacks(collection, here) {
            self.tasks.remove(&collection);
            return self.decline(collection, why, effects);
        }
        let too_open = self.identity.masks.and_then(|least| task.shows_too_much(least));
        let spec = Arc::clone(&task.spec);
        // What was learnt already costs nothing more.
        let trains = !matches!(task.effort, Effort::Kept { .. });
        let unfit = || self.ineligible(&spec).filter(|_| trains);
        if let Some(why) = too_open.or_else(unfit).or_else(|| self.spent(collection, &spec)) {
            self.tasks.remove(&collection);
            return self.decline(collection, why, effects);
        }
        let Some(task) = self.tasks.get_mut(&collection) else { return };
        let outdated = task.outdates_residual(collection, here);
        if outdated {
            self.forget_residual(collection.job, effects);
        }
        self.misses_own(collection, effects);
        let Some(task) = self.tasks.get_mut(&collection) else { return };
        if let Effort::Kept { version, times } = task.effort {
            return self.seal_prepared(collection, version, times, effects);
        }
        // What is here already is found whole.
        let objects = task.before.iter().chain([&task.model]).cloned();
        let window = FETCH_WINDOW / (1 + task.before.len());
        let fetches = objects.map(|object| Fetch::begin(object, link, window, effects)).collect();
        task.stage = TaskStage::Fetching(fetches);
    }

    /// Why this machine's state keeps it out. A job of another release is refused by the work.
    fn ineligible(&self, spec: &[u8]) -> Option<String> {
        let told = crate::job::Task::decode(spec).ok()?;
        told.spec.text().eligibility.as_ref()?.unmet(&self.conditions)
    }

    fn fetches_of(&mut self, object: ObjectId) -> impl Iterator<Item = &mut Fetch> {
        let fetches = self.tasks.values_mut().flat_map(|task| match &mut task.stage {
            TaskStage::Fetching(fetches) => fetches.iter_mut(),
            _ => <&mut [Fetch]>::default().iter_mut(),
        });
        fetches.filter(move |fetch| fetch.object() == object)
    }

    /// Every task whose model has just become whole goes to work.
    fn work(&mut self, object: ObjectId, effects: &mut Vec<Effect>) {
        for (collection, task) in &mut self.tasks {
            let whole = match &task.stage {
                TaskStage::Fetching(fetches) => {
                    fetches.iter().any(|fetch| fetch.object() == object) && fetches.iter().all(Fetch::whole)
                }
                _ => false,
            };
            if !whole {
                continue;
            }
            let id = WorkId(self.next_work);
            self.next_work += 1;
            task.stage = TaskStage::Working(id);
            let entropy = self.identity.entropy.of_work(collection, id);
            effects.push(Effect::Work {
                id,
                work: Box::new(Work::Local {
                    collection: *collection,
                    task: task.spec.clone(),
                    model: task.model.clone(),
                    before: task.before.clone(),
                    state: self.states.get(&collection.job).cloned(),
                    personal: self.personal.get(&collection.job).cloned(),
                    learnt: self.prepared.get(&collection.job).and_then(Prepared::for_steps),
                    device: self.identity.id(),
                    name: self.identity.name.clone(),
                    steps_max: match task.effort {
                        Effort::Steps(steps) => steps,
                        Effort::Job | Effort::Kept { .. } => 0,
                    },
                    entropy,
                }),
            });
        }
    }

    fn worked(&mut self, id: WorkId, result: Result<Output, WorkFault>, effects: &mut Vec<Effect>) {
        let ours = |task: &Task| match &task.stage {
            TaskStage::Working(working) => *working == id,
            // Masks could not be laid on.
            TaskStage::Masking(masking) => masking.laying.as_ref().is_some_and(|(laying, _)| *laying == id),
            _ => false,
        };
        if let Ok(Output::Masked { update }) = result {
            return self.masked(id, update, effects);
        }
        let Some(collection) = self.tasks.iter().find(|(_, task)| ours(task)).map(|(c, _)| *c) else { return };
        let Some(task) = self.tasks.get(&collection) else { return };
        match result {
            Ok(Output::Local { update, state, personal, learnt, note }) => {
                if note.anew {
                    personal::begins_anew(collection, effects);
                }
                let objects = task.before.iter().chain([&task.model]).map(Manifest::id).collect();
                let spec = task.spec.clone();
                // It was decoded for the work already.
                let told = crate::job::Task::decode(&spec);
                if let (Some(learnt), Ok(told)) = (learnt, &told) {
                    let version = told.spec.settings().base(collection.version);
                    self.keep_learnt(Collection { version, ..collection }, learnt, effects);
                }
                let chained = told.as_ref().is_ok_and(|told| told.spec.downlink().is_some());
                self.keep_model(collection.job, objects, chained, effects);
                match told {
                    Ok(told) if told.spec.settings().masked.is_some() => {
                        self.begin_masking(collection, &told.spec, (update, state, personal), effects);
                    }
                    told => {
                        self.tasks.remove(&collection);
                        let note = told.ok().and_then(|told| note_of(&told.spec, &note));
                        let sealed =
                            Sealed { update, pending: state, personal, absorbed: false, masks: None, said: None, note };
                        self.keep_sealed(collection, &spec, sealed, effects);
                    }
                }
            }
            Ok(Output::Prepared { learnt, note }) => {
                let told = self.tasks.remove(&collection).and_then(|task| crate::job::Task::decode(&task.spec).ok());
                let note = told.and_then(|told| note_of(&told.spec, &note));
                self.prepared(collection, learnt, note, effects);
            }
            Ok(_) => drop(self.tasks.remove(&collection)),
            Err(fault) => {
                self.tasks.remove(&collection);
                self.decline(collection, fault.to_string(), effects);
            }
        }
    }

    /// What is left of the model before goes. The next one of a job whose models build on each other needs this one's objects, after
    /// a restart too.
    fn keep_model(&mut self, job: JobId, objects: Vec<ObjectId>, chained: bool, effects: &mut Vec<Effect>) {
        if self.models.get(&job) == Some(&objects) {
            return;
        }
        let mut old = Vec::new();
        if chained && let Ok(row) = ModelObjects::new(objects.clone()) {
            let stored = self.models.get(&job).map_or(&[][..], Vec::as_slice);
            let new = objects.iter().filter(|object| !stored.contains(object));
            let mut writes: Vec<Write> = new.copied().map(Write::Object).collect();
            writes.push(Write::Put { key: model_key(job), value: row.to_bytes() });
            // Nobody says when a job has ended.
            while self.models.len() >= MODELS_MAX
                && let Some(first) = self.models.keys().copied().find(|of| *of != job)
            {
                old.extend(self.models.remove(&first).unwrap_or_default());
                writes.push(Write::Delete { key: model_key(first) });
            }
            effects.push(Effect::Store(writes));
        }
        old.extend(self.models.insert(job, objects).unwrap_or_default());
        effects.extend(old.into_iter().map(Effect::Drop));
    }

    /// Sealed bytes are durable before they are offered. `spec`: of the task.
    fn keep_sealed(&mut self, collection: Collection, spec: &[u8], sealed: Sealed, effects: &mut Vec<Effect>) {
        if let Some(why) = self.spent(collection, spec) {
            let unused = [Some(&sealed.update), sealed.pending.as_ref(), sealed.personal.as_ref()];
            effects.extend(unused.into_iter().flatten().map(|object| Effect::Drop(object.id())));
            return self.decline(collection, why, effects);
        }
        let mut writes = vec![Write::Object(sealed.update.id())];
        writes.extend(sealed.pending.iter().map(|s| Write::Object(s.id())));
        writes.push(Write::Put { key: sealed_key(collection), value: sealed.to_bytes() });
        writes.extend(sealed.personal.iter().flat_map(|own| personal::waits(collection, own)));
        writes.extend(self.takes_part(collection, spec));
        effects.push(Effect::Store(writes));
        if let (true, Some(link), Some(own)) = (cfg!(feature = "broken-own-segments"), self.edge, &sealed.personal) {
            effects.push(Effect::SendChunk { link, object: own.id(), index: 0 });
        }
        self.sealed.insert(collection, sealed);
        self.offer(collection, effects);
    }

    fn decline(&mut self, collection: Collection, why: String, effects: &mut Vec<Effect>) {
        if let Some(said) = self.said.say(collection.job, why.clone()) {
            effects.push(Effect::Report(Report::Warning { what: format!("{}: {said}", describe(collection)) }));
        }
        if let Some(link) = self.edge {
            let message = Message::Declined { collection, reason: Reason::new(why) };
            effects.push(Effect::Send { link, message });
        }
    }

    /// Tells the edge what we have for it; small updates ride along.
    fn offer(&mut self, collection: Collection, effects: &mut Vec<Effect>) {
        let (Some(link), Some(sealed)) = (self.edge, self.sealed.get(&collection)) else { return };
        let object = sealed.update.id();
        if sealed.update.bytes() <= INLINE_BYTES_MAX as u64 {
            if self.offering.insert((object, collection)) {
                effects.push(Effect::Load { object, index: 0 });
            }
        } else {
            let message = Message::Offer { collection, update: sealed.update.clone(), inline: None, note: sealed.note };
            effects.push(Effect::Send { link, message });
        }
    }

    fn loaded(&mut self, object: ObjectId, bytes: Option<Bytes>, effects: &mut Vec<Effect>) {
        let waiting: Vec<Collection> =
            self.offering.iter().filter(|(o, _)| *o == object).map(|(_, collection)| *collection).collect();
        self.offering.retain(|(o, _)| *o != object);
        for collection in waiting {
            let (Some(link), Some(sealed)) = (self.edge, self.sealed.get(&collection)) else { continue };
            let message = match bytes.clone().map(Blob::new) {
                Some(Ok(bytes)) => {
                    Message::Offer { collection, update: sealed.update.clone(), inline: Some(bytes), note: sealed.note }
                }
                // It cannot be made again: another training under another state could give other bytes.
                _ => Message::Declined { collection, reason: "the sealed update on this device is damaged".into() },
            };
            effects.push(Effect::Send { link, message });
        }
    }

    /// The end of a collection: pending becomes current, or is forgotten.
    fn told(&mut self, verdict: Verdict, effects: &mut Vec<Effect>) {
        let collection = verdict.collection;
        let included = match check_verdict(self.identity.cloud, self.identity.id(), &verdict) {
            Ok(Included::Yes) => true,
            Ok(Included::No) => false,
            Err(error) => {
                effects.push(Effect::Report(Report::Warning { what: format!("{}: {error}", describe(collection)) }));
                return;
            }
        };
        let plain = self.tasks.remove(&collection).and_then(|task| task.stage.plain().map(Manifest::id));
        effects.extend(plain.map(Effect::Drop));
        let Some(sealed) = self.sealed.remove(&collection) else { return };
        let settled = self.settled.entry(collection.job).or_insert(Settled { last: collection, counted: 0 });
        settled.last = collection.max(settled.last);
        if let (true, Kind::Train, Some(announcement)) = (included, collection.work, &verdict.announcement) {
            settled.counted = version_number(announcement.version);
        }
        // An edge that the cloud cannot reach may have asked for an older attempt in the meantime.
        let last = settled.last;
        self.tasks.retain(|task, _| task.job != collection.job || *task > last || task.work == Kind::Prepare);
        let mut writes = vec![
            Write::Delete { key: sealed_key(collection) },
            Write::Put { key: settled_key(collection.job), value: settled.to_bytes() },
        ];
        if included && collection.work != Kind::Statistics {
            self.forget_prepared(collection.job, effects);
        }
        let mut forgotten = vec![sealed.update.id()];
        if let Some(pending) = sealed.pending {
            if included || cfg!(feature = "broken-pending-state") {
                writes.push(Write::Put { key: state_key(collection.job), value: pending.to_bytes() });
                forgotten.extend(self.states.insert(collection.job, pending).map(|old| old.id()));
            } else {
                forgotten.push(pending.id());
            }
        }
        if let Some(own) = sealed.personal {
            forgotten.extend(self.settle_own(collection, own, included, &mut writes));
        }
        if let Some(announcement) = &verdict.announcement {
            writes.push(Write::Put {
                key: RowKey {
                    table: Table::Channel,
                    job: collection.job,
                    version: 0,
                    item: announcement.channel.as_bytes().to_vec(),
                },
                value: announcement.to_bytes(),
            });
        }
        effects.push(Effect::Store(writes));
        effects.push(Effect::Report(Report::Settled { collection, included }));
        effects.extend(forgotten.into_iter().map(Effect::Drop));
        // Tasks that waited for this verdict can start.
        if let Some(link) = self.edge {
            let waiting: Vec<Collection> = self
                .tasks
                .iter()
                .filter(|(c, t)| c.job == collection.job && matches!(t.stage, TaskStage::Unsettled))
                .map(|(c, _)| *c)
                .collect();
            waiting.into_iter().for_each(|c| self.start(link, c, effects));
        }
    }
}

impl Role for Device {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Start => {
                self.redial.dial(effects);
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS });
            }
            Event::Connected { link, peer, kernels, .. } => {
                self.links.connected(now, link, peer, kernels);
                self.edge = Some(link);
                (self.attached, self.closer) = (false, None);
                self.attach(link, effects);
            }
            Event::DialFailed { .. } => self.redial.failed(now, effects),
            Event::Disconnected { link, .. } => {
                self.links.disconnected(link);
                for task in self.tasks.values_mut() {
                    if let TaskStage::Fetching(fetches) = &mut task.stage {
                        fetches.iter_mut().for_each(|fetch| fetch.lost(link));
                    }
                }
                if self.edge == Some(link) {
                    self.edge = None;
                    match self.away_ms.take() {
                        Some(away_ms) => self.redial.rest(now, away_ms, effects),
                        None => self.redial.failed(now, effects),
                    }
                }
            }
            Event::Received { link, message } => {
                if let Some(message) = self.links.received(now, link, message, effects) {
                    self.received(now, link, message, effects);
                }
            }
            Event::Timer(Timer::Redial) => {
                if self.edge.is_none() {
                    self.redial.dial(effects);
                }
            }
            Event::Timer(_) => {
                effects.push(Effect::SetTimer { timer: Timer::Tick, at: now + TICK_MS });
                self.links.tick(now, effects);
                for task in self.tasks.values_mut() {
                    if let TaskStage::Fetching(fetches) = &mut task.stage {
                        fetches.iter_mut().for_each(|fetch| fetch.tick(now, effects));
                    }
                }
                if let (Some(link), Some(closer)) = (self.edge, self.closer)
                    && self.tasks.is_empty()
                    && self.sealed.is_empty()
                {
                    self.redial.prefer(closer);
                    effects.push(Effect::Hangup { link, reason: "an edge is here".into() });
                }
                // Whoever waits for a verdict asks again; whoever was not heard offers again.
                if let Some(link) = self.edge
                    && !self.sealed.is_empty()
                {
                    self.ticks += 1;
                    if self.ticks.is_multiple_of(ASK_TICKS) {
                        self.attach(link, effects);
                    }
                    let unheard: Vec<Collection> =
                        self.sealed.iter().filter(|(_, s)| !s.absorbed).map(|(c, _)| *c).collect();
                    unheard.into_iter().for_each(|collection| self.offer(collection, effects));
                }
                let spoken: Vec<Collection> = self.tasks.keys().chain(self.sealed.keys()).copied().collect();
                spoken.into_iter().for_each(|collection| self.say_step(collection, effects));
            }
            Event::Begun { object, missing } => {
                for fetch in self.fetches_of(object) {
                    fetch.begun(now, missing.clone(), effects);
                }
                self.work(object, effects);
            }
            Event::Kept { object, index, fault } => {
                if let Some(why) = &fault {
                    effects.push(Effect::Report(Report::Warning { what: format!("chunk {index}: {why}") }));
                }
                for fetch in self.fetches_of(object) {
                    fetch.kept(now, index, fault.is_none(), effects);
                }
                self.work(object, effects);
            }
            Event::Loaded { object, bytes, .. } => self.loaded(object, bytes, effects),
            Event::Worked { id, result } => self.worked(id, result, effects),
            Event::Conditions(now) => self.conditions = now,
            Event::Leased { .. } | Event::Shared { .. } | Event::Answered { .. } => {}
        }
    }

    fn needs(&self, object: ObjectId) -> bool {
        let sealed = self.sealed.values().flat_map(|s| std::iter::once(&s.update).chain(&s.pending).chain(&s.personal));
        let tasks = self.tasks.values().flat_map(|t| t.before.iter().chain([&t.model]).chain(t.stage.plain()));
        let masking = self.tasks.values().flat_map(|t| t.stage.pending());
        sealed
            .chain(tasks)
            .chain(masking)
            .chain(self.states.values())
            .chain(self.personal.values())
            .any(|m| m.id() == object)
            || self.models.values().flatten().any(|m| *m == object)
            || self.prepared.values().any(|prepared| prepared.learnt.id() == object)
    }
}

/// What a device tells of itself in the open, if its job chooses devices by that.
fn note_of(spec: &crate::job::JobSpec, note: &LocalNote) -> Option<Note> {
    let loss_ppm = (note.mean_loss.max(0.0) * 1e6).min(u32::MAX.into()) as u32;
    spec.settings().selection.needs_losses().then_some(Note { rows: note.examples, loss_ppm })
}

/// For people.
pub(super) fn describe(collection: Collection) -> String {
    let Collection { job, version, work, attempt } = collection;
    format!("job {job}, version {version}, {work:?}, attempt {attempt}")
}
