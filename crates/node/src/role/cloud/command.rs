//! Commands of operators: signed, checked against the operator's right, answered as JSON.
//!
//! A command is for one cloud (its key is under the signature), once (its nonce is stored before it is carried out if
//! it changes anything), and now (issued within [`FRESH_MS`] of the cloud's clock).

use super::jobs::{Job, kind_name};
use super::ledger::Budget;
use super::operators::{LastOne, Operator};
use super::{Cloud, Effect, LinkId, Millis, Table, fleet_row, put};
use crate::job::{Down, Uplink, privacy};
use littoral_fed::round::{Decline, End, Stage};
use littoral_privacy::secagg::parameters::Threat;
use littoral_wire::bounded::printable;
use littoral_wire::message::{ANSWER_BYTES_MAX, BODY_BYTES_MAX, COMMAND_DOMAIN, Role, Work, command_bytes};
use littoral_wire::{Blob, JobId, Message, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How far an operator's clock and the cloud's may differ.
pub const FRESH_MS: u64 = 5 * 60_000;
/// A page of a run's record ends after so many versions, or so many names of devices in them.
const VERSIONS_PER_PAGE: usize = 50;
const NAMES_PER_PAGE: usize = 100_000;
/// Of each device the latest decline is kept; a job shows the latest of them.
const DECLINES_SHOWN: usize = 20;
/// Of a reason to wait, or to have ended.
const WHY_CHARACTERS: usize = 300;

/// What an operator key may do; each right includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// See jobs and machines.
    Observe,
    /// Submit and stop jobs.
    Submit,
    /// Let machines and operators in, and cut them off.
    Administer,
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    JobSubmit {
        toml: String,
    },
    JobList,
    JobShow {
        job: u64,
    },
    /// Answered again whenever something changes, until the job ends.
    JobWatch {
        job: u64,
    },
    JobStop {
        job: u64,
    },
    /// The record of a run, from this version line on.
    JobRecord {
        job: u64,
        from: usize,
    },
    FleetList,
    FleetRevoke {
        node: String,
    },
    /// Which devices there are, as the roster key says: the encoded roster and the keys on it, in hexadecimal digits.
    FleetRoster {
        roster: String,
        devices: Vec<String>,
    },
    /// What may be learnt of a unit of a data set, over all jobs.
    PrivacyBudget {
        data: String,
        unit: String,
        epsilon: f64,
        delta: f64,
        epsilon_edge: Option<f64>,
        epsilon_cloud: Option<f64>,
    },
    PrivacyLedger,
    /// `role`: edge or device. `secret`: 32 hexadecimal digits drawn by the operator's machine.
    Ticket {
        role: String,
        uses: u32,
        valid_ms: u64,
        secret: String,
    },
    OperatorAdd {
        key: String,
        name: String,
        right: Right,
    },
    OperatorList,
    OperatorRevoke {
        operator: String,
    },
}

impl Command {
    fn needs(&self) -> Right {
        match self {
            Command::JobList | Command::JobShow { .. } | Command::JobWatch { .. } => Right::Observe,
            Command::JobRecord { .. } | Command::FleetList | Command::OperatorList => Right::Observe,
            Command::PrivacyLedger => Right::Observe,
            Command::PrivacyBudget { .. } => Right::Administer,
            Command::JobSubmit { .. } | Command::JobStop { .. } => Right::Submit,
            Command::FleetRevoke { .. } | Command::FleetRoster { .. } | Command::Ticket { .. } => Right::Administer,
            Command::OperatorAdd { .. } | Command::OperatorRevoke { .. } => Right::Administer,
        }
    }

    fn changes(&self) -> bool {
        self.needs() > Right::Observe
    }
}

/// A refusal in the form that the command line prints: control characters of the command are escaped.
pub(super) fn refusal(what: &str, place: &str, expected: &str, got: &str) -> Value {
    json!({"error": {"what": what, "where": place, "expected": printable(expected), "got": printable(got)}})
}

/// Those who watch a job: link and nonce, and what they were told last.
pub(super) type Watchers = BTreeMap<JobId, Vec<(LinkId, u64, Value)>>;

impl Cloud {
    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn command(
        &mut self,
        now: Millis,
        link: LinkId,
        operator: NodeId,
        body: &[u8],
        nonce: u64,
        issued_at_ms: Millis,
        signature: &[u8; 64],
        effects: &mut Vec<Effect>,
    ) {
        let signed = command_bytes(self.id, body, nonce, issued_at_ms);
        let checked = (|| {
            operator
                .verify(COMMAND_DOMAIN, &signed, signature)
                .map_err(|e| refusal("command refused", "signature", "the operator's signature", &e.to_string()))?;
            let right = self.operators.right(operator).ok_or_else(|| {
                let expected = "a key that an administrator let in (`littoral fleet operator add`)";
                refusal("command refused", "operator", expected, &operator.to_string())
            })?;
            if now.abs_diff(issued_at_ms) > FRESH_MS {
                let got = format!("{} ms apart", now.abs_diff(issued_at_ms));
                return Err(refusal("command refused", "issued_at_ms", "clocks within five minutes", &got));
            }
            let command: Command = serde_json::from_slice(body)
                .map_err(|e| refusal("command refused", "body", "a command of this release", &e.to_string()))?;
            if right < command.needs() {
                let expected = format!("the right to {:?}", command.needs()).to_lowercase();
                let got = format!("the right to {right:?}").to_lowercase();
                return Err(refusal("command refused", "operator", &expected, &got));
            }
            if command.changes() && !self.spend(operator, nonce) {
                return Err(refusal(
                    "command refused",
                    "nonce",
                    "a command that was not carried out before",
                    "a repeated one",
                ));
            }
            Ok(command)
        })();
        match checked {
            Err(error) => reply(link, nonce, &error, true, effects),
            Ok(command) => {
                if command.changes() {
                    let item = [&operator.0[..], &nonce.to_le_bytes()].concat();
                    effects.push(put(fleet_row(Table::Command, &item), body.to_vec()));
                }
                self.carry_out(now, link, operator, nonce, command, effects);
            }
        }
    }

    /// A nonce counts once.
    fn spend(&mut self, operator: NodeId, nonce: u64) -> bool {
        self.spent.insert((operator, nonce))
    }

    fn carry_out(
        &mut self,
        now: Millis,
        link: LinkId,
        operator: NodeId,
        nonce: u64,
        command: Command,
        effects: &mut Vec<Effect>,
    ) {
        let answer = match command {
            Command::JobSubmit { toml } => {
                let by = self.operators.name(operator);
                match self.jobs.submit(now, &toml, &by, effects) {
                    Ok(job) => {
                        self.know_submitted(effects);
                        json!({"job": job.0})
                    }
                    Err(e) => json!({"error": e.parts()}),
                }
            }
            Command::JobList => {
                let here = self.jobs.iter().map(|(id, job)| (*id, self.summary(*id, job)));
                let jobs: BTreeMap<JobId, Value> = here.chain(self.summaries_elsewhere()).collect();
                json!({"jobs": jobs.into_values().collect::<Vec<Value>>()})
            }
            Command::JobShow { job } => match self.jobs.get(JobId(job)) {
                Some(found) => self.details(JobId(job), found),
                None => no_job(job),
            },
            Command::JobWatch { job } => match self.standing(JobId(job)) {
                Some((summary, last)) => {
                    reply(link, nonce, &summary, last, effects);
                    if !last {
                        self.watchers.entry(JobId(job)).or_default().push((link, nonce, summary));
                    }
                    return;
                }
                None => no_job(job),
            },
            Command::JobStop { job } => match self.jobs.get(JobId(job)).map(Job::finished) {
                None => no_job(job),
                Some(true) => refusal("job not stopped", "job", "a job that runs", "one that has ended"),
                Some(false) if self.jobs.get(JobId(job)).is_some_and(|job| job.round().is_none()) => {
                    let got = "one that is being prepared or stands still: ask again when `job show` says that it waits or collects";
                    refusal("job not stopped", "job", "a job whose first version is there", got)
                }
                Some(false) => {
                    let why = format!("stopped by {}", self.operators.name(operator));
                    let event = littoral_fed::round::Event::Stop { why };
                    self.jobs.round(now, JobId(job), event, &self.fleet, effects);
                    json!({"job": job, "state": "stopped"})
                }
            },
            Command::JobRecord { job, from } => match self.jobs.get(JobId(job)) {
                Some(found) => self.record_page(found, from),
                None => no_job(job),
            },
            Command::FleetList => self.fleet_list(),
            Command::FleetRevoke { node } => match self.machine(&node) {
                Ok(id) if self.revoke(now, id, effects) => json!({"revoked": id.to_string()}),
                Ok(id) => refusal("key not revoked", "node", "an enrolled machine", &id.to_string()),
                Err(error) => error,
            },
            Command::FleetRoster { roster, devices } => self.set_roster(now, &roster, &devices, effects),
            Command::PrivacyBudget { data, unit, epsilon, delta, epsilon_edge, epsilon_cloud } => {
                let by = self.operators.name(operator);
                let budget = Budget { data, unit, epsilon, delta, epsilon_edge, epsilon_cloud, by, at_ms: now };
                self.jobs.ledger_mut().set_budget(budget, effects)
            }
            Command::PrivacyLedger => self.jobs.ledger().value(),
            Command::Ticket { role, uses, valid_ms, secret } => {
                let role_of = match role.as_str() {
                    "edge" => Some(Role::Edge),
                    "device" => Some(Role::Device),
                    _ => None,
                };
                let secret_bytes = u128::from_str_radix(&secret, 16).ok().filter(|_| secret.len() == 32);
                match (role_of, secret_bytes) {
                    (None, _) => refusal("no ticket made", "role", "edge or device", &role),
                    (_, None) => refusal("no ticket made", "secret", "32 hexadecimal digits", "something else"),
                    _ if uses == 0 || valid_ms == 0 => {
                        refusal("no ticket made", "uses, valid_ms", "at least 1", &format!("{uses}, {valid_ms}"))
                    }
                    (Some(role), Some(secret)) => {
                        let expires = now.saturating_add(valid_ms);
                        self.fleet.add_ticket(&secret.to_be_bytes(), role, uses, expires, effects);
                        let mut made = json!({"cloud": self.id.to_string(), "address": self.identity.listen});
                        if !self.identity.replicas.is_empty() {
                            made["addresses"] = self.identity.replicas.clone().into();
                        }
                        made
                    }
                }
            }
            Command::OperatorAdd { key, name, right } => match key.parse::<NodeId>() {
                Ok(id) => match self.operators.add(id, &name, right, effects) {
                    Ok(()) => json!({"operator": key}),
                    Err(last) => last_one("the operator's right was not changed", &last),
                },
                Err(e) => refusal("operator not added", "key", "64 hexadecimal digits", &e.to_string()),
            },
            Command::OperatorList => {
                let operators = self.operators.iter();
                let line =
                    |(key, o): (NodeId, &Operator)| json!({"key": key.to_string(), "name": o.name, "right": o.right});
                json!({"operators": operators.map(line).collect::<Vec<Value>>()})
            }
            Command::OperatorRevoke { operator: wanted } => {
                let all = self.operators.iter().map(|(key, o)| (key, o.name.as_str()));
                match one_of(all, &wanted, "operator", "an operator's name or key (`littoral fleet operator ls`)") {
                    Ok(key) => match self.operators.revoke(key, effects) {
                        Ok(()) => {
                            self.dismiss_watchers(key, effects);
                            json!({"revoked": key.to_string()})
                        }
                        Err(last) => last_one("the operator was not revoked", &last),
                    },
                    Err(error) => error,
                }
            }
        };
        reply(link, nonce, &answer, true, effects);
    }

    fn machine(&self, wanted: &str) -> Result<NodeId, Value> {
        let all = self.fleet.machines().map(|(key, machine)| (*key, machine.name.as_str()));
        one_of(all, wanted, "machine", "a machine's name or key (`littoral fleet ls`)")
    }

    fn fleet_list(&self) -> Value {
        let machines: Vec<Value> = self
            .fleet
            .machines()
            .map(|(id, m)| {
                let here = self.fleet.device(*id);
                let data: BTreeMap<String, u64> =
                    here.iter().flat_map(|d| d.data.iter().map(|o| (o.name.to_string(), o.rows))).collect();
                json!({
                    "id": id.to_string(),
                    "name": m.name,
                    "role": m.role,
                    "state": if m.revoked { "revoked" } else if self.fleet.is_here(*id) { "here" } else { "away" },
                    "edge": here.map(|d| if d.edge == self.id { "cloud".into() } else { self.fleet.name(d.edge) }).unwrap_or_default(),
                    "kernels": self.kernels_of(*id),
                    "data": data,
                })
            })
            .collect();
        let roster = self.jobs.register().map_or(0, |register| register.roster().number);
        json!({"machines": machines, "roster": roster, "cloud": self.id.to_string()})
    }

    /// The kernels of an edge, printable; empty for devices, whose hello an edge heard.
    fn kernels_of(&self, machine: NodeId) -> String {
        let kernels = self.fleet.edge_link(machine).and_then(|link| self.links.kernels(link));
        kernels.map_or_else(String::new, ToString::to_string)
    }

    /// Where a job stands that is here or elsewhere, and whether that is the last to be said of it.
    fn standing(&self, id: JobId) -> Option<(Value, bool)> {
        match self.jobs.get(id) {
            Some(job) => Some((self.summary(id, job), job.finished() || job.halted())),
            None => self.standing_elsewhere(id),
        }
    }

    /// Where a job stands. The same fields whatever its state is: what there is nothing to say of is 0 or empty.
    pub(super) fn summary(&self, id: JobId, job: &Job) -> Value {
        let settings = job.spec.settings();
        let mut out = json!({
            "job": id.0,
            "name": job.spec.name(),
            "algorithm": job.spec.algorithm_name(),
            "data": job.spec.data_set(),
            "submitted_by": job.submitted_by,
            "submitted_ms": job.at_ms,
            "aborts": job.aborts,
            "version": 0,
            "work": "",
            "attempt": 0,
            "round": 0,
            "rounds": settings.rounds,
            "in": 0,
            "wanted": settings.cohort.target,
            "in_flight": 0,
            "ready": 0,
            "model": "",
            "last": {},
        });
        let (state, why) = match (job.round(), job.failure()) {
            (_, Some(why)) if job.halted() => ("halted", why.to_owned()),
            (_, Some(why)) => ("failed", why.to_owned()),
            (None, _) => ("preparing", String::new()),
            (Some(round), _) => (state_name(round.stage()), round.why(job.spec.data_set()).unwrap_or_default()),
        };
        out["state"] = state.into();
        out["why"] = cut(why).into();
        if let Some(round) = job.round() {
            let collection = round.collection();
            let (arrived, wanted) = round.progress_of_collection();
            out["version"] = collection.version.into();
            out["work"] = kind_name(collection.work).into();
            out["attempt"] = collection.attempt.into();
            out["round"] = round.trained().into();
            out["in"] = arrived.into();
            out["wanted"] = wanted.into();
            let (training, ready) = round.in_flight();
            out["in_flight"] = training.into();
            out["ready"] = ready.into();
            out["model"] = round.model().id().to_string().into();
        }
        if let Some(made) = job.made.values().next_back() {
            out["last"] = serde_json::to_value(&made.line).unwrap_or_default();
        }
        out
    }

    fn details(&self, id: JobId, job: &Job) -> Value {
        let mut out = self.summary(id, job);
        let Some(fields) = out.as_object_mut() else { return out };
        let lines: Vec<Value> = job
            .made
            .iter()
            .rev()
            .take(VERSIONS_PER_PAGE)
            .map(|(collection, made)| {
                let mut line = serde_json::to_value(&made.line).unwrap_or_default();
                if let Some(line) = line.as_object_mut() {
                    line.insert("version".into(), made.announcement.version.into());
                    line.insert("work".into(), kind_name(collection.work).into());
                    line.insert("included".into(), made.included.len().into());
                }
                line
            })
            .collect();
        fields.insert("versions".into(), lines.into());
        fields.insert("notes".into(), job.notes.clone().into());
        fields.insert("plan".into(), job.spec.remarks().into());
        // Of one device's update of training: what came last, or else what is planned.
        let told = job.made.iter().rev().find_map(|(_, made)| made.line.update_bytes);
        let (bytes, whole) = (told.unwrap_or_else(|| job.spec.update_bytes()), job.spec.uncompressed_bytes());
        fields.insert("compression".into(), job.spec.uplink().map(Uplink::name).into());
        fields.insert("update_bytes".into(), bytes.into());
        fields.insert("uncompressed_bytes".into(), whole.into());
        fields.insert("compression_ratio".into(), (whole as f64 / bytes.max(1) as f64).into());
        fields.insert("downlink".into(), downlink_details(job));
        fields.insert("robust".into(), robust_details(job));
        fields.insert("spec".into(), job.toml.clone().into());
        fields.insert("secure_aggregation".into(), self.masked_details(job));
        fields.insert("privacy".into(), self.private_details(id, job));
        fields.insert("declined".into(), json!([]));
        fields.insert("model_bytes".into(), 0.into());
        if let Some(round) = job.round() {
            let mut declines: Vec<_> = round.declines().collect();
            declines.sort_unstable_by_key(|(_, decline)| Reverse(decline.collection));
            let declined: Vec<Value> = declines
                .iter()
                .take(DECLINES_SHOWN)
                .map(|(name, decline)| {
                    let Decline { collection, why, times } = decline;
                    json!({
                        "device": name,
                        "version": collection.version,
                        "work": kind_name(collection.work),
                        "why": why,
                        "times": times,
                    })
                })
                .collect();
            fields.insert("declined".into(), declined.into());
            fields.insert("model_bytes".into(), Down::of(round.model(), round.before()).is_new.into());
        }
        out
    }

    /// What the newest masked sum was fixed to, and the step under way; empty for a job without masks.
    fn masked_details(&self, job: &Job) -> Value {
        let Some(round) = job.round().filter(|round| round.settings().masked.is_some()) else { return json!({}) };
        let sessions = round.sessions().iter().map(|known| {
            json!({
                "group": known.group.map_or_else(String::new, |edge| self.fleet.name(edge)),
                "threat": if known.threat == Threat::Active { "active" } else { "honest" },
                "devices": known.devices,
                "degree": known.degree,
                "threshold": known.threshold,
                "minimum": known.minimum,
            })
        });
        json!({"phase": round.phase(), "sessions": sessions.collect::<Vec<Value>>()})
    }

    /// What the job costs whom; empty for a job without differential privacy.
    fn private_details(&self, id: JobId, job: &Job) -> Value {
        let guarantees = job.spec.guarantees();
        if guarantees.is_empty() {
            return json!({});
        }
        let viewers = guarantees.iter().map(|guarantee| {
            json!({
                "viewer": privacy::name(guarantee.viewer),
                "epsilon": guarantee.epsilon,
                "delta": guarantee.delta,
                "why": guarantee.why,
            })
        });
        let line = self.jobs.ledger().line(id);
        let spent = line.filter(|line| line.settled).and_then(|line| line.terms.as_ref());
        json!({
            "told": privacy::sentences(job.spec.text(), guarantees),
            "viewers": viewers.collect::<Vec<Value>>(),
            "models": spent.map(|terms| terms.models),
            "participations": spent.map(|terms| terms.participations),
        })
    }

    /// The manifest of a job's current version: how an operator's machine checks what it fetches. A message of its own,
    /// since that of a big model is longer than a reply.
    pub(super) fn tell_model(&self, link: LinkId, peer: NodeId, id: JobId, effects: &mut Vec<Effect>) {
        let job = self.jobs.get(id);
        let message = match job.and_then(Job::round).filter(|_| self.operators.right(peer).is_some()) {
            Some(round) => Message::Model {
                job: id,
                version: round.collection().version,
                model: round.model().clone(),
                before: round.before().clone(),
            },
            None => {
                let (expected, got) = match (self.operators.right(peer), job) {
                    (None, _) => ("a key that an administrator let in (`littoral fleet operator add`)", "another"),
                    (_, None) => ("a number that `littoral job ls` shows", "another"),
                    (_, Some(_)) => ("a job with a model", "one that has not made its first"),
                };
                let place = format!("job {id}");
                Message::Denied {
                    what: "no model".into(),
                    place: place.as_str().into(),
                    expected: expected.into(),
                    got: got.into(),
                }
            }
        };
        effects.push(Effect::Send { link, message });
    }

    fn record_page(&self, job: &Job, from: usize) -> Value {
        let mut names = 0;
        let versions: Vec<Value> = job
            .made
            .iter()
            .skip(from)
            .take(VERSIONS_PER_PAGE)
            .take_while(|(_, made)| {
                names += made.included.len();
                names == made.included.len() || names <= NAMES_PER_PAGE
            })
            .map(|(collection, made)| {
                let names: Vec<String> = made.included.iter().map(|d| self.fleet.name(*d)).collect();
                let began: Vec<u64> = made.included.iter().filter_map(|d| made.began.get(d)).copied().collect();
                json!({
                    "version": made.announcement.version,
                    "from_version": collection.version,
                    "work": kind_name(collection.work),
                    "attempt": collection.attempt,
                    "model": made.announcement.model.to_string(),
                    "included": names,
                    "began": began,
                    "population": made.line.population,
                    "line": made.line,
                })
            })
            .collect();
        let next = (from + versions.len() < job.made.len()).then_some(from + versions.len());
        let mut out = json!({"spec": job.toml, "cloud": self.id.to_string(), "versions": versions});
        if let (Some(next), Some(fields)) = (next, out.as_object_mut()) {
            fields.insert("next".into(), next.into());
        }
        out
    }

    /// Tells those who watch what has changed.
    pub(super) fn tell_watchers(&mut self, effects: &mut Vec<Effect>) {
        let mut watchers = std::mem::take(&mut self.watchers);
        watchers.retain(|id, all| {
            let Some((summary, last)) = self.standing(*id) else { return false };
            for (link, nonce, told) in all.iter_mut() {
                if *told != summary {
                    reply(*link, *nonce, &summary, last, effects);
                    *told = summary.clone();
                }
            }
            !last
        });
        self.watchers = watchers;
    }

    /// Whoever lost the right to see jobs is told so instead of the next change.
    pub(super) fn dismiss_watchers(&mut self, operator: NodeId, effects: &mut Vec<Effect>) {
        let error = refusal("no more news", "operator", "a key with the right to observe", "one that was revoked");
        for (link, nonce, _) in self.watchers.values().flatten() {
            if self.links.peer(*link) == Some(operator) {
                reply(*link, *nonce, &error, true, effects);
            }
        }
        let stays = |link: LinkId| self.links.peer(link) != Some(operator);
        self.watchers.values_mut().for_each(|all| all.retain(|(link, _, _)| stays(*link)));
        self.watchers.retain(|_, all| !all.is_empty());
    }

    pub(super) fn drop_watcher(&mut self, link: LinkId) {
        self.watchers.values_mut().for_each(|all| all.retain(|(watching, _, _)| *watching != link));
        self.watchers.retain(|_, all| !all.is_empty());
    }
}

/// What the job does about devices that lie; empty: nothing.
fn robust_details(job: &Job) -> Value {
    let Some(robust) = &job.spec.text().robust else { return json!({}) };
    let each = job.spec.unmerged(Work::Train);
    let mut told = json!({"rule": robust.rule.name(), "unmerged": each});
    if let Some(bound) = robust.norm_bound {
        // As it is written.
        told["norm_bound"] = bound.to_string().parse::<f64>().unwrap_or_default().into();
        told["norm_bound_enforced"] = job.spec.inspected(Work::Train).into();
    }
    if each {
        told["unmerged_bytes_max"] = (job.spec.update_bytes() * job.spec.settings().cohort_size() as u64).into();
    }
    told
}

/// The model down the link, of one device: what it gets for a version on average if it has the one before, and if it has none;
/// empty for a job whose models go as they are.
fn downlink_details(job: &Job) -> Value {
    let (Some(down), Some(round)) = (job.spec.downlink(), job.round()) else { return json!({}) };
    let trained = job.made.iter().filter(|(collection, _)| collection.work == Work::Train).map(|(_, made)| &made.line);
    let told: Vec<(u64, u64)> = trained.filter_map(|line| line.downlink_bytes.zip(line.downlink_bytes_new)).collect();
    let mean = |of: fn(&(u64, u64)) -> u64| told.iter().map(of).sum::<u64>() / told.len().max(1) as u64;
    let now = Down::of(round.model(), round.before());
    let (bytes, bytes_new) = match told.is_empty() {
        true => (now.follows, now.is_new),
        false => (mean(|told| told.0), mean(|told| told.1)),
    };
    let whole = job.spec.version().model_bytes() as u64;
    json!({
        "name": down.name(),
        "bytes": bytes,
        "bytes_new": bytes_new,
        "uncompressed_bytes": whole,
        "ratio": whole as f64 / bytes.max(1) as f64,
    })
}

fn state_name(stage: &Stage) -> &'static str {
    match stage {
        Stage::Wait { .. } => "waiting",
        Stage::Collect { .. } | Stage::Close { .. } => "collecting",
        Stage::Open { .. } => "opening",
        Stage::Apply => "applying",
        Stage::Stuck { .. } => "stuck",
        Stage::Finished { end: End::Done, .. } => "finished",
        Stage::Finished { end: End::Stopped, .. } => "stopped",
        Stage::Finished { end: End::Failed, .. } => "failed",
    }
}

/// A reason as it stands in one line; notes and declines of a job have it in full.
fn cut(mut why: String) -> String {
    if let Some((at, _)) = why.char_indices().nth(WHY_CHARACTERS) {
        why.truncate(at);
        why.push('…');
    }
    why
}

fn no_job(job: u64) -> Value {
    refusal("no such job", "job", "a number that `littoral job ls` shows", &job.to_string())
}

fn last_one(what: &str, last: &LastOne) -> Value {
    refusal(what, &last.0, "another operator with the right to administer", "the last one")
}

/// Which of these keys and names is meant: by name, by key, or by the beginning of a key.
fn one_of<'a>(
    all: impl Iterator<Item = (NodeId, &'a str)>,
    wanted: &str,
    kind: &str,
    expected: &str,
) -> Result<NodeId, Value> {
    let by_key = |key: NodeId| wanted.len() >= 4 && key.to_string().starts_with(wanted);
    let fits: Vec<NodeId> = all.filter(|(key, name)| *name == wanted || by_key(*key)).map(|(key, _)| key).collect();
    match fits.as_slice() {
        [one] => Ok(*one),
        [] => Err(refusal(&format!("no such {kind}"), kind, expected, wanted)),
        many => {
            let expected = format!("a name or key that fits one {kind}");
            Err(refusal(&format!("not one {kind}"), kind, &expected, &format!("{} that fit", many.len())))
        }
    }
}

/// In as many parts as the answer needs.
fn reply(link: LinkId, nonce: u64, answer: &Value, last: bool, effects: &mut Vec<Effect>) {
    let mut bytes = serde_json::to_vec(answer).unwrap_or_default();
    if bytes.len() > ANSWER_BYTES_MAX {
        let expected = format!("at most {ANSWER_BYTES_MAX} bytes");
        let error = refusal("the answer is too long", "reply", &expected, &format!("{} bytes", bytes.len()));
        bytes = serde_json::to_vec(&error).unwrap_or_default();
    }
    let mut parts = bytes.chunks(BODY_BYTES_MAX).peekable();
    while let Some(part) = parts.next() {
        let (body, more) = (Blob::new(part.to_vec()).unwrap_or_default(), parts.peek().is_some());
        effects.push(Effect::Send { link, message: Message::Reply { nonce, body, more, last } });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let error = serde_json::from_str::<Command>("{\"command\": \"job\\nls\"}").unwrap_err();
        let refused = refusal("command refused", "body", "a command", &error.to_string());
        let got = refused["error"]["got"].as_str().unwrap();
        assert!(got.starts_with("unknown variant `job\\nls`"), "{got:?}");
    }
}
