//! A cloud of several replicas: each runs the jobs that it has leased, and knows the fleet's rows.
//!
//! Job 0 is the fleet: who holds it lets machines and operators in, numbers jobs and holds them against budgets; so
//! changes of what all share are made one after the other, by one process. Every other replica hears of them and has them
//! in memory. What a replica cannot answer by itself it passes on to whoever can, and passes the answer back.
//!
//! Edges have a link to each replica. A replica that takes a job over knows nothing of what edges hold of it, so it hangs
//! up: they come again, and say so. The numbers of its incarnations begin with the lease's token, so those of two holders
//! never meet.
//!
//! Of a job that another replica runs this one knows where it stood a moment ago: its holder writes that down when it has
//! changed, at most once a tick. So lists and those who watch are answered anywhere, whatever becomes of the holder.
//!
//! Not here: leases, which the host keeps ([`crate::host`]). A host that has lost one ends the run.

use super::command::Command;
use super::{Cloud, Effect, LinkId, Millis, Report, Row, RowKey, Table, Write, roster};
use crate::job::JobSpec;
use littoral_fed::round;
use littoral_wire::codec::Wire;
use littoral_wire::message::Reason;
use littoral_wire::{JobId, Message, NodeId, ObjectId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The fleet, among jobs.
pub const FLEET: JobId = JobId(0);
/// What strangers may have passed on between two ticks, all of them together: each costs a transaction.
const JOINS_PER_TICK: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Replica {
    held: BTreeSet<JobId>,
    /// All jobs there are.
    known: BTreeMap<JobId, Known>,
    /// Links of which something was passed on, and to whom.
    passed: BTreeMap<LinkId, BTreeSet<JobId>>,
    /// Models that an operator was told of by another replica.
    lent: BTreeMap<LinkId, BTreeSet<ObjectId>>,
    joins: usize,
    /// Where the jobs that we run stand, as we said last.
    told: BTreeMap<JobId, Value>,
}

/// A job as its row tells it.
#[derive(Debug)]
struct Known {
    name: String,
    algorithm: String,
    data: String,
    submitted_by: String,
    submitted_ms: u64,
    rounds: u64,
    wanted: u32,
    /// Where it stands, as its holder said last.
    standing: Option<Value>,
}

impl Replica {
    pub fn holds(&self, job: JobId) -> bool {
        self.held.contains(&job)
    }

    pub fn lends(&self, link: LinkId, object: ObjectId) -> bool {
        self.lent.get(&link).is_some_and(|objects| objects.contains(&object))
    }

    pub fn tick(&mut self) {
        self.joins = 0;
    }

    fn know(&mut self, job: JobId, description: &[u8]) {
        let Ok(stored) = serde_json::from_slice::<Value>(description) else { return };
        let standing = self.known.get_mut(&job).and_then(|known| known.standing.take());
        let text = |field: &str| stored[field].as_str().unwrap_or_default().to_owned();
        let spec = JobSpec::parse(&text("toml")).ok();
        let known = Known {
            name: spec.as_ref().map(|spec| spec.name().to_owned()).unwrap_or_default(),
            algorithm: spec.as_ref().map(|spec| spec.algorithm_name().to_owned()).unwrap_or_default(),
            data: spec.as_ref().map(|spec| spec.data_set().to_owned()).unwrap_or_default(),
            rounds: spec.as_ref().map_or(0, |spec| spec.settings().rounds),
            wanted: spec.as_ref().map_or(0, |spec| spec.settings().cohort.target),
            standing,
            submitted_by: text("submitted_by"),
            submitted_ms: stored["at_ms"].as_u64().unwrap_or(0),
        };
        self.known.insert(job, known);
    }

    fn hear(&mut self, job: JobId, standing: &[u8]) {
        if let (Some(known), Ok(said)) = (self.known.get_mut(&job), serde_json::from_slice(standing)) {
            known.standing = Some(said);
        }
    }
}

impl Known {
    /// As [`Cloud::summary`] has it.
    fn summary(&self, job: JobId) -> Value {
        self.standing.clone().unwrap_or_else(|| {
            json!({
                "job": job.0,
                "name": self.name,
                "algorithm": self.algorithm,
                "data": self.data,
                "submitted_by": self.submitted_by,
                "submitted_ms": self.submitted_ms,
                "aborts": 0,
                "version": 0,
                "work": "",
                "attempt": 0,
                "round": 0,
                "rounds": self.rounds,
                "in": 0,
                "wanted": self.wanted,
                "in_flight": 0,
                "ready": 0,
                "model": "",
                "last": {},
                "state": "waiting",
                "why": "no replica has begun with it",
            })
        })
    }
}

/// Nothing more will happen to a job that stands so.
fn has_ended(standing: &Value) -> bool {
    matches!(standing["state"].as_str(), Some("finished" | "stopped" | "failed"))
}

impl Cloud {
    /// What every replica knows of the fleet.
    pub(super) fn restore_shared(&mut self, row: &Row) {
        self.fleet.restore(row);
        if let Some(register) = roster::restored(row) {
            self.jobs.set_register(Arc::new(register));
        }
        self.operators.restore(row);
        self.jobs.restore_ledger(row);
        self.restore_spent(row);
        if let (Table::Job, Some(replica)) = (row.key.table, &mut self.replica) {
            self.jobs.number_after(row.key.job);
            replica.know(row.key.job, &row.value);
        }
        if let (Table::Status, Some(replica)) = (row.key.table, &mut self.replica) {
            replica.hear(row.key.job, &row.value);
        }
    }

    /// Writes down where the jobs of this replica stand, if that has changed.
    pub(super) fn tell_standings(&mut self, effects: &mut Vec<Effect>) {
        let Some(replica) = &self.replica else { return };
        let ours = self.jobs.iter().filter(|(id, _)| replica.holds(**id));
        // What has ended stays as it is.
        let open = ours.filter(|(id, _)| !replica.told.get(id).is_some_and(has_ended));
        let now = open.map(|(id, job)| (*id, self.summary(*id, job)));
        let new: BTreeMap<JobId, Value> = now.filter(|(id, said)| replica.told.get(id) != Some(said)).collect();
        if new.is_empty() {
            return;
        }
        let write = |(job, said): (&JobId, &Value)| Write::Put {
            key: RowKey { table: Table::Status, job: *job, version: 0, item: Vec::new() },
            value: serde_json::to_vec(said).unwrap_or_default(),
        };
        effects.push(Effect::Store(new.iter().map(write).collect()));
        self.replica.iter_mut().for_each(|replica| replica.told.extend(new.clone()));
    }

    /// Where a job stands that another replica runs, and whether that is the last to be said of it.
    pub(super) fn standing_elsewhere(&self, job: JobId) -> Option<(Value, bool)> {
        let standing = self.replica.as_ref()?.known.get(&job)?.summary(job);
        let last = has_ended(&standing) || standing["state"] == "halted";
        Some((standing, last))
    }

    /// The others hear of a new job by its row; this one wrote it.
    pub(super) fn know_submitted(&mut self, effects: &[Effect]) {
        let Some(replica) = &mut self.replica else { return };
        for write in effects.iter().flat_map(|effect| if let Effect::Store(writes) = effect { &**writes } else { &[] })
        {
            if let Write::Put { key, value } = write
                && key.table == Table::Job
            {
                replica.know(key.job, value);
            }
        }
    }

    /// Does another replica have to answer for this job?
    pub(super) fn is_elsewhere(&self, job: JobId) -> bool {
        self.replica.as_ref().is_some_and(|replica| !replica.holds(job))
    }

    /// Whom an operator's command is for, if not this replica: one that does not know the operator answers by itself.
    pub(super) fn command_elsewhere(&self, operator: NodeId, body: &[u8]) -> Option<JobId> {
        let replica = self.replica.as_ref()?;
        self.operators.right(operator)?;
        let job = match serde_json::from_slice(body).ok()? {
            Command::JobShow { job } | Command::JobStop { job } | Command::JobRecord { job, .. } => {
                let job = JobId(job);
                replica.known.contains_key(&job).then_some(job)?
            }
            Command::JobWatch { .. } | Command::JobList => return None,
            Command::FleetList | Command::OperatorList | Command::PrivacyLedger => return None,
            _ => FLEET,
        };
        (!replica.holds(job)).then_some(job)
    }

    pub(super) fn is_known_elsewhere(&self, job: JobId) -> bool {
        self.replica.as_ref().is_some_and(|replica| !replica.holds(job) && replica.known.contains_key(&job))
    }

    /// A stranger's wish to join, or a machine's for another key. Strangers have to wait when there are many of them.
    pub(super) fn pass_join(&mut self, link: LinkId, peer: NodeId, message: Message, effects: &mut Vec<Effect>) {
        let Some(replica) = &mut self.replica else { return };
        replica.joins += 1;
        if replica.joins > JOINS_PER_TICK {
            let reason = "too many machines join at this time; try again in a while".to_owned();
            return effects.push(Effect::Hangup { link, reason });
        }
        self.pass(FLEET, link, peer, message, effects);
    }

    pub(super) fn pass(&mut self, job: JobId, link: LinkId, peer: NodeId, message: Message, effects: &mut Vec<Effect>) {
        let Some(replica) = &mut self.replica else { return };
        replica.passed.entry(link).or_default().insert(job);
        effects.push(Effect::Pass { job, link, peer, message: Some(message) });
    }

    /// A link is down: who was asked on its behalf is told.
    pub(super) fn passed_link_lost(&mut self, link: LinkId, peer: NodeId, effects: &mut Vec<Effect>) {
        let Some(replica) = &mut self.replica else { return };
        replica.lent.remove(&link);
        let jobs = replica.passed.remove(&link).unwrap_or_default();
        effects.extend(jobs.into_iter().map(|job| Effect::Pass { job, link, peer, message: None }));
    }

    /// Another replica's answer.
    pub(super) fn answered(&mut self, link: LinkId, message: Message, effects: &mut Vec<Effect>) {
        let Some(replica) = self.replica.as_mut().filter(|replica| replica.passed.contains_key(&link)) else { return };
        if let Message::Model { model, before, .. } = &message {
            let objects = before.iter().chain([model]).map(littoral_wire::Manifest::id);
            replica.lent.entry(link).or_default().extend(objects);
        }
        effects.push(Effect::Send { link, message });
    }

    /// This replica runs the job from now on, or changes what is the fleet's.
    pub(super) fn leased(&mut self, now: Millis, job: JobId, token: u64, rows: Vec<Row>, effects: &mut Vec<Effect>) {
        let Some(replica) = &mut self.replica else { return };
        replica.held.insert(job);
        if job == FLEET {
            // What others changed up to now is in these rows, whether we have heard of it or not.
            self.fleet.forget_rows();
            self.operators.clear();
            self.jobs.forget_ledger();
            self.spent.clear();
            rows.iter().for_each(|row| self.restore_shared(row));
            effects.push(Effect::Report(Report::Note { what: "this replica looks after the fleet now".into() }));
            return;
        }
        let ran = rows.iter().any(|row| row.key.table == Table::Record);
        let said = rows.iter().find(|row| row.key.table == Table::Status);
        if let Some(said) = said.and_then(|row| serde_json::from_slice(&row.value).ok()) {
            replica.told.insert(job, said);
        }
        rows.iter().for_each(|row| self.restore_shared(row));
        self.jobs.adopt(job, u32::try_from(token).unwrap_or(u32::MAX), rows, effects);
        effects.push(Effect::Report(Report::Note { what: format!("this replica runs job {job} now") }));
        if ran {
            self.ask_edges_again(now, effects);
        }
    }

    /// What edges hold of a job they say when they attach.
    fn ask_edges_again(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let (links, devices) = self.fleet.forget_presence(now);
        for device in devices {
            self.jobs.each_round(now, round::Event::DeviceLeft { device }, &self.fleet, effects);
        }
        let reason = "this replica has taken over a job: attach again, and say what you hold";
        effects.extend(links.into_iter().map(|link| Effect::Hangup { link, reason: reason.into() }));
    }

    /// Others have changed shared rows.
    pub(super) fn shared(&mut self, now: Millis, rows: Vec<(RowKey, Option<Vec<u8>>)>, effects: &mut Vec<Effect>) {
        for (key, value) in rows {
            let Some(replica) = &self.replica else { return };
            // What we hold only we have changed since; this is of before.
            let ours = replica.holds(FLEET) && (key.job == FLEET || key.table == Table::Job);
            let ours = ours || matches!(key.table, Table::Ledger | Table::Status) && replica.holds(key.job);
            if ours {
                continue;
            }
            match (key.table, value) {
                (Table::Node, Some(value)) => self.machine_changed(now, Row { key, value }, effects),
                (Table::Operator, None) => {
                    if let Ok(operator) = NodeId::from_bytes(&key.item) {
                        self.operators.forget(operator);
                        self.dismiss_watchers(operator, effects);
                    }
                }
                (Table::Roster, Some(value)) => {
                    self.restore_shared(&Row { key, value });
                    let register = self.jobs.register().cloned();
                    self.jobs.each_round(now, round::Event::Roster(register), &self.fleet, effects);
                }
                (_, Some(value)) => self.restore_shared(&Row { key, value }),
                (_, None) => {}
            }
        }
    }

    fn machine_changed(&mut self, now: Millis, row: Row, effects: &mut Vec<Effect>) {
        let Ok(id) = NodeId::from_bytes(&row.key.item) else { return };
        let (was_revoked, had) = (self.fleet.revoked(id), self.fleet.replaced_by(id).collect::<BTreeSet<_>>());
        self.fleet.restore(&row);
        let replaced: Vec<NodeId> = self.fleet.replaced_by(id).filter(|old| !had.contains(old)).collect();
        for old in replaced {
            self.jobs.rotated(old, id);
        }
        if self.fleet.revoked(id) && !was_revoked {
            self.expel(now, id, effects);
        }
    }

    /// Jobs that other replicas run, for lists.
    pub(super) fn summaries_elsewhere(&self) -> impl Iterator<Item = (JobId, Value)> + '_ {
        let known = self.replica.iter().flat_map(|replica| &replica.known);
        known.filter(|(job, _)| self.jobs.get(**job).is_none()).map(|(job, known)| (*job, known.summary(*job)))
    }

    /// Devices come through edges: only those have a link to every replica.
    pub(super) fn send_device_away(&self, link: LinkId, effects: &mut Vec<Effect>) {
        let reason = Reason::new("this cloud has several replicas: its devices attach to edges");
        effects.push(Effect::Hangup { link, reason: reason.to_string() });
    }
}
