//! The ledger: what jobs may tell of each data set, and the budgets that this is held against.
//!
//! A job's line is stored together with the job, before anything of it runs, with all that it may release. When the job ends,
//! the line shrinks to what it did release. So a crash forgets nothing, and what is spent never passes what was reserved.
//!
//! A budget is for a data set and a unit ("all records of one device"), and bounds ε for a δ over all jobs on that data set
//! together: for whoever gets their models, and perhaps for an edge and for the cloud, each by itself. A job that would pass it
//! is refused with the number. What jobs released before there was a budget counts as well; jobs without differential privacy
//! that ran before cannot be made good, and are shown.
//!
//! Units are of two kinds, a device or one example of one ([`names_example`]). A job tells nothing in numbers of a unit of the
//! other kind: there it is like a job without differential privacy. So all budgets of a data set are of one kind.

use super::command::refusal;
use super::{Effect, Millis, Row, RowKey, Table, Write, fleet_row};
use crate::job::privacy::terms::{epsilon, lost};
use crate::job::{JobError, JobSpec, Terms};
use littoral_fed::dp::{Viewer, names_example};
use littoral_privacy::account::{Adjacency, Loss};
use littoral_wire::JobId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What one job may tell, or has told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub data: String,
    /// `None`: without differential privacy.
    pub terms: Option<Terms>,
    /// The job has ended, and more will not be released.
    pub settled: bool,
    pub at_ms: Millis,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    pub data: String,
    pub unit: String,
    /// For whoever gets released models.
    pub epsilon: f64,
    pub delta: f64,
    /// For an edge, and for the cloud; without one the ledger only counts.
    pub epsilon_edge: Option<f64>,
    pub epsilon_cloud: Option<f64>,
    pub by: String,
    pub at_ms: Millis,
}

impl Budget {
    fn of(&self, viewer: Viewer) -> Option<f64> {
        match viewer {
            Viewer::Model => Some(self.epsilon),
            Viewer::Edge => self.epsilon_edge,
            Viewer::Cloud => self.epsilon_cloud,
        }
    }
}

#[derive(Debug, Default)]
pub struct Ledger {
    lines: BTreeMap<JobId, Line>,
    /// By data set and unit.
    budgets: BTreeMap<(String, String), Budget>,
    /// A row is there that cannot be read: nothing is known to be within a budget.
    unreadable: bool,
    /// What was worked out since the last change.
    known: RefCell<BTreeMap<Asked, Value>>,
}

/// A data set, whether the unit is an example, from whose eyes, and the bits of δ.
type Asked = (String, bool, Viewer, u64);

const VIEWERS: [Viewer; 3] = [Viewer::Model, Viewer::Edge, Viewer::Cloud];

fn field(viewer: Viewer) -> &'static str {
    match viewer {
        Viewer::Model => "epsilon",
        Viewer::Edge => "epsilon_edge",
        Viewer::Cloud => "epsilon_cloud",
    }
}

/// All that jobs tell one viewer.
struct Sum {
    losses: Vec<Loss>,
    unlike: f64,
    adjacency: Adjacency,
}

impl Sum {
    /// The ε of it, not searched for further down than a target; infinite if there is none.
    fn epsilon(&self, delta: f64, target: Option<f64>) -> f64 {
        if self.losses.is_empty() {
            return 0.0;
        }
        let of = |rest: f64, target| epsilon(&self.losses, self.adjacency, rest, target);
        // What δ pays for unlike samples grows with ε. Where no target bounds ε, half of δ must be enough for what the other half
        // gives; then less is.
        let guess = match target {
            Some(target) => Ok(target),
            None if self.unlike == 0.0 => return of(delta, None).unwrap_or(f64::INFINITY),
            None => of(delta / 2.0, None),
        };
        let Ok(guess) = guess else { return f64::INFINITY };
        match of(delta - lost(self.unlike, guess), target) {
            Ok(found) if self.unlike == 0.0 || found <= guess => found,
            _ => f64::INFINITY,
        }
    }
}

impl Ledger {
    pub fn restore(&mut self, row: &Row) {
        if row.key.table != Table::Ledger {
            return;
        }
        if row.key.job == JobId(0) {
            match serde_json::from_slice::<Budget>(&row.value) {
                Ok(budget) => drop(self.budgets.insert((budget.data.clone(), budget.unit.clone()), budget)),
                Err(_) => self.unreadable = true,
            }
        } else {
            match serde_json::from_slice(&row.value) {
                Ok(line) => drop(self.lines.insert(row.key.job, line)),
                Err(_) => self.unreadable = true,
            }
        }
        self.known.get_mut().clear();
    }

    pub fn line(&self, job: JobId) -> Option<&Line> {
        self.lines.get(&job)
    }

    /// What all jobs on a data set tell a viewer of units of this one's kind, whatever they call them, and perhaps one more. `Ok(None)`: one of them tells it what no
    /// noise was added to. `Err`: two kinds of neighbours, with a job of each.
    fn sum(&self, data: &str, unit: &str, viewer: Viewer, more: Option<&Terms>) -> Result<Option<Sum>, String> {
        let lines = self.lines.values().filter(|line| line.data == data).filter_map(|line| line.terms.as_ref());
        let mut sum = Sum { losses: Vec::new(), unlike: 0.0, adjacency: Adjacency::AddRemove };
        let mut first: Option<&Terms> = None;
        let example = names_example(unit);
        for terms in lines.filter(|terms| terms.dp.by_example() == example).chain(more) {
            if let Some(first) = first
                && first.adjacency() != terms.adjacency()
            {
                return Err("sampling of the same kind as that of the jobs before: with `fixed`, neighbours differ by a unit that is \
                            another one, otherwise by one that is there or not, and the two do not add up"
                    .into());
            }
            (first, sum.adjacency) = (Some(terms), terms.adjacency());
            // It could be worked out when the job was checked.
            let Ok(release) = terms.release() else { return Ok(None) };
            let seen = terms.seen(&release).into_iter().find(|seen| seen.viewer == viewer);
            match seen.and_then(|seen| Some((seen.loss?, seen.unlike))) {
                Some((loss, unlike)) => {
                    sum.losses.push(loss);
                    sum.unlike += unlike;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(sum))
    }

    /// May this job run? Refused with the number if it would pass a budget.
    pub fn admit(&self, spec: &JobSpec) -> Result<(), JobError> {
        let data = spec.data_set();
        if self.unreadable {
            let expected = "a ledger that can be read as a whole: restore a good copy of the cloud's folder, or update this program";
            return Err(JobError::new("the ledger", expected, "a row of another release, or a damaged one"));
        }
        let mut budgets = self.budgets.values().filter(|budget| budget.data == data).peekable();
        if budgets.peek().is_none() {
            return Ok(());
        }
        let units: Vec<&str> = budgets.map(|budget| budget.unit.as_str()).collect();
        let Some(terms) = spec.terms() else {
            let expected = format!("a job with differential privacy, since {data} has a budget");
            return Err(JobError::new("differential_privacy", expected, "none"));
        };
        if !units.contains(&terms.dp.unit()) {
            let expected = format!("a unit that has a budget on {data}: {}", units.join("; "));
            return Err(JobError::new("differential_privacy.unit", expected, terms.dp.unit()));
        }
        // Whatever units are called, what is told of a device is told of all of them.
        let budgets = self.budgets.values().filter(|budget| budget.data == data);
        for (budget, viewer) in budgets.flat_map(|budget| VIEWERS.map(|viewer| (budget, viewer))) {
            let Some(most) = budget.of(viewer) else { continue };
            let sum = self.sum(data, &budget.unit, viewer, Some(terms));
            let sum = sum.map_err(|expected| JobError::new("differential_privacy.sampling", expected, "another"))?;
            let name = crate::job::privacy::name(viewer);
            let Some(sum) = sum else {
                let expected = format!("noise for {name}, since {data} has a budget of ε = {most} for it");
                return Err(JobError::new("differential_privacy", expected, "none for it"));
            };
            let together = sum.epsilon(budget.delta, Some(most));
            if together > most {
                let before = self.sum(data, &budget.unit, viewer, None).ok().flatten();
                let before = before.map_or(f64::INFINITY, |sum| sum.epsilon(budget.delta, None));
                let expected = format!(
                    "what the budget of {data} still has: ε = {most} at δ = {:e} for {name}, of which {before:.4} is spent or reserved",
                    budget.delta
                );
                let got = format!("{together:.4} together with this job");
                return Err(JobError::new("differential_privacy.noise_multiplier", expected, got));
            }
        }
        Ok(())
    }

    /// The job's line, with all that it may release.
    pub fn reserve(&mut self, job: JobId, spec: &JobSpec, now: Millis) -> Write {
        let line = Line {
            name: spec.name().into(),
            data: spec.data_set().into(),
            terms: spec.terms().cloned(),
            settled: false,
            at_ms: now,
        };
        self.lines.insert(job, line.clone());
        self.known.get_mut().clear();
        write(job, &line)
    }

    /// The job has ended: it has released so many models, in so many attempts. `None`: nothing changes.
    pub fn settle(&mut self, job: JobId, models: u64, attempts: u64) -> Option<Write> {
        let line = self.lines.get_mut(&job).filter(|line| !line.settled)?;
        line.settled = true;
        self.known.get_mut().clear();
        if let Some(terms) = &mut line.terms {
            terms.models = terms.models.min(models);
            terms.participations = terms.participations.min(attempts);
        }
        Some(write(job, line))
    }

    /// Sets a budget, or another one in its place. One that is passed already is refused.
    pub fn set_budget(&mut self, budget: Budget, effects: &mut Vec<Effect>) -> Value {
        let what = "no budget set";
        let positive = |value: f64| value.is_finite() && value > 0.0;
        for (field, value) in [
            ("epsilon", Some(budget.epsilon)),
            ("epsilon_edge", budget.epsilon_edge),
            ("epsilon_cloud", budget.epsilon_cloud),
        ] {
            if let Some(value) = value.filter(|value| !positive(*value)) {
                return refusal(what, field, "a finite number above 0", &value.to_string());
            }
        }
        if !(1e-13..1.0).contains(&budget.delta) {
            return refusal(what, "delta", "at least 1e-13 and below 1", &budget.delta.to_string());
        }
        let name_max = 256;
        for (field, text) in [("data", &budget.data), ("unit", &budget.unit)] {
            if text.is_empty() || text.len() > name_max {
                return refusal(what, field, "1 to 256 bytes", &format!("{} bytes", text.len()));
            }
        }
        let example = names_example(&budget.unit);
        let mut others = self.budgets.values().filter(|other| other.data == budget.data);
        if let Some(other) = others.find(|other| names_example(&other.unit) != example) {
            let expected = format!(
                "a unit of the same kind as `{}`, which has a budget on {}: no job has a number for both kinds",
                other.unit, other.data
            );
            return refusal(what, "unit", &expected, &budget.unit);
        }
        for viewer in VIEWERS {
            let Some(most) = budget.of(viewer) else { continue };
            let spent = match self.sum(&budget.data, &budget.unit, viewer, None) {
                Ok(Some(sum)) => sum.epsilon(budget.delta, Some(most)),
                Ok(None) | Err(_) => f64::INFINITY,
            };
            if spent > most {
                let expected = format!("at least what is spent or reserved: ε = {spent:.4} at δ = {:e}", budget.delta);
                return refusal(what, field(viewer), &expected, &most.to_string());
            }
        }
        let mut running = self.lines.values().filter(|line| line.data == budget.data && !line.settled);
        let private = |line: &&Line| line.terms.as_ref().is_some_and(|terms| terms.dp.by_example() == example);
        if let Some(line) = running.find(|line| !private(line)) {
            let kind = match &line.terms {
                None => "without differential privacy",
                Some(_) if example => "that protects devices, not examples,",
                Some(_) => "that protects examples, not devices,",
            };
            let expected = format!("a data set on which no job {kind} runs: stop it first");
            return refusal(what, "data", &expected, &line.name);
        }
        let value = serde_json::to_vec(&budget).unwrap_or_default();
        let item = blake3::hash(format!("{}\0{}", budget.data, budget.unit).as_bytes());
        effects.push(Effect::Store(vec![Write::Put { key: fleet_row(Table::Ledger, item.as_bytes()), value }]));
        let without = self.without_number(&budget.data, &budget.unit);
        let out = json!({"data": budget.data, "unit": budget.unit, "jobs_without_privacy": without});
        self.known.get_mut().clear();
        self.budgets.insert((budget.data.clone(), budget.unit.clone()), budget);
        out
    }

    /// Jobs on a data set that told of such a unit without a number: that cannot be made good.
    fn without_number(&self, data: &str, unit: &str) -> usize {
        let example = names_example(unit);
        let numbered = |line: &&Line| line.terms.as_ref().is_some_and(|terms| terms.dp.by_example() == example);
        self.lines.values().filter(|line| line.data == data && !numbered(line)).count()
    }

    /// All of it, for people: budgets, what is spent of each, and the lines.
    pub fn value(&self) -> Value {
        let total = |data: &str, unit: &str, viewer, delta: f64| {
            // It takes up to a second to work out, and the cloud has other things to do.
            let asked = (data.to_owned(), names_example(unit), viewer, delta.to_bits());
            let work_out = || match self.sum(data, unit, viewer, None) {
                Ok(Some(sum)) => finite(sum.epsilon(delta, None)),
                Ok(None) | Err(_) => Value::Null,
            };
            self.known.borrow_mut().entry(asked).or_insert_with(work_out).clone()
        };
        let budgets = self.budgets.values().map(|budget| {
            let (data, unit, delta) = (&budget.data, &budget.unit, budget.delta);
            json!({
                "data": data, "unit": unit, "delta": delta,
                "epsilon": budget.epsilon, "spent": total(data, unit, Viewer::Model, delta),
                "epsilon_edge": budget.epsilon_edge, "spent_edge": total(data, unit, Viewer::Edge, delta),
                "epsilon_cloud": budget.epsilon_cloud, "spent_cloud": total(data, unit, Viewer::Cloud, delta),
                "jobs_without_privacy": self.without_number(data, unit),
            })
        });
        let lines = self.lines.iter().map(|(job, line)| {
            let terms = line.terms.as_ref();
            json!({
                "job": job.0, "name": line.name, "data": line.data,
                "unit": terms.map_or("", |terms| terms.dp.unit()),
                "private": terms.is_some(),
                "models": terms.map(|terms| terms.models),
                "participations": terms.map(|terms| terms.participations),
                "state": if line.settled { "spent" } else { "reserved" },
            })
        });
        json!({"budgets": budgets.collect::<Vec<_>>(), "lines": lines.collect::<Vec<_>>()})
    }
}

fn finite(value: f64) -> Value {
    if value.is_finite() { value.into() } else { Value::Null }
}

fn write(job: JobId, line: &Line) -> Write {
    let key = RowKey { table: Table::Ledger, job, version: 0, item: Vec::new() };
    Write::Put { key, value: serde_json::to_vec(line).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::SAMPLE_TOML;
    use littoral_privacy::account::{Accountant, Composition, Mechanism, Method, Sampling};

    /// A job that costs as much as `rounds` Gaussians of multiplier `z`.
    fn job(rounds: u64, z: f64, more: &str) -> JobSpec {
        private(rounds, &format!("mechanism = 'central'\nnoise_multiplier = {z}\n{more}"))
    }

    fn private(rounds: u64, noise: &str) -> JobSpec {
        let mut text: toml::Table = SAMPLE_TOML.parse().unwrap();
        text["rounds"]["count"] = toml::Value::Integer(rounds as i64);
        text["rounds"].as_table_mut().unwrap().remove("target_accuracy");
        let data = text["data"].as_table_mut().unwrap();
        data.insert("standardise".into(), false.into());
        data.insert("held_out".into(), 0.0.into());
        text.insert("algorithm".into(), toml::Table::from_iter([("name".to_owned(), "fedavg".into())]).into());
        let noise: toml::Table = format!("clip = 1.0\nepsilon = 1000.0\n{noise}").parse().unwrap();
        text.insert("differential_privacy".into(), noise.into());
        JobSpec::parse(&text.to_string()).unwrap()
    }

    fn budget(epsilon: f64) -> Budget {
        Budget {
            data: job(1, 1.0, "").data_set().into(),
            unit: "all records of one device".into(),
            epsilon,
            delta: 1e-5,
            epsilon_edge: None,
            epsilon_cloud: None,
            by: "an operator".into(),
            at_ms: 0,
        }
    }

    fn rows(writes: Vec<Write>) -> impl Iterator<Item = Row> {
        writes.into_iter().filter_map(|write| match write {
            Write::Put { key, value } => Some(Row { key, value }),
            _ => None,
        })
    }

    fn written(effects: Vec<Effect>) -> Vec<Write> {
        let stored = |effect| if let Effect::Store(writes) = effect { writes } else { Vec::new() };
        effects.into_iter().flat_map(stored).collect()
    }

    /// ε of `rounds` Gaussians of multiplier z: closed form through the one Gaussian that they are.
    fn gaussian(rounds: u64, z: f64) -> f64 {
        let mut all = Composition::new();
        let mechanism = Mechanism::Gaussian { noise_multiplier: z };
        all.add(Loss { mechanism, sampling: Sampling::ALL, count: rounds }).unwrap();
        all.epsilon(1e-5, Method { accountant: Accountant::Pld, ..Method::default() }).unwrap()
    }

    #[test]
    fn jobs_add_up_to_a_budget_and_no_further_whatever_is_restarted() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        // 20 rounds of z = 5 are one Gaussian of z = 5 / √20.
        let (most, spec) = (gaussian(20, 5.0), job(10, 5.0, ""));
        ledger.set_budget(budget(most * 1.001), &mut effects);
        let mut stored = written(effects);
        for id in 1..=2 {
            ledger.admit(&spec).unwrap();
            stored.push(ledger.reserve(JobId(id), &spec, 0));
        }
        let refused = ledger.admit(&spec).unwrap_err().to_string();
        let (spent, together) = (gaussian(20, 5.0), gaussian(30, 5.0));
        for number in [format!("{spent:.4} is spent"), format!("{together:.4} together")] {
            assert!(refused.contains(&number), "{refused}: {number}");
        }
        // A crash forgets nothing.
        let mut again = Ledger::default();
        rows(stored).for_each(|row| again.restore(&row));
        assert_eq!(again.admit(&spec).unwrap_err().to_string(), refused);
        // A job that released nothing has spent nothing, whatever its noise.
        for more in ["", "sampling = { poisson = 0.5 }"] {
            let mut idle = Ledger::default();
            idle.reserve(JobId(1), &job(10, 5.0, more), 0);
            idle.settle(JobId(1), 0, 0);
            idle.set_budget(budget(0.001), &mut Vec::new());
            assert_eq!(idle.value()["budgets"][0]["spent"], 0.0, "{more}");
        }
        // What a job did not release comes back when it ends, once.
        assert!(again.settle(JobId(2), 4, 4).is_some());
        assert_eq!(again.settle(JobId(2), 0, 0), None);
        again.admit(&job(5, 5.0, "")).unwrap();
        assert!(again.admit(&job(7, 5.0, "")).is_err());
    }

    #[test]
    fn what_a_budget_cannot_hold_is_refused_by_field() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        let spec = job(10, 5.0, "");
        ledger.reserve(JobId(1), &spec, 0);
        let spent = gaussian(10, 5.0);
        let low = ledger.set_budget(budget(spent * 0.99), &mut effects);
        assert_eq!(low["error"]["where"], "epsilon");
        assert!(low["error"]["expected"].as_str().unwrap().contains(&format!("{spent:.4}")), "{low}");
        // The cloud adds the noise, so there is nothing for the cloud.
        let cloud = ledger.set_budget(Budget { epsilon_cloud: Some(9.0), ..budget(9.0) }, &mut effects);
        assert_eq!(cloud["error"]["where"], "epsilon_cloud", "{cloud}");
        assert!(effects.is_empty());
        ledger.set_budget(budget(50.0), &mut effects);
        let plain = JobSpec::parse(SAMPLE_TOML).unwrap();
        for (spec, place) in [
            (plain, "differential_privacy"),
            (job(1, 5.0, "unit = 'one image'"), "differential_privacy.unit"),
            (job(1, 5.0, "sampling = { fixed = 1000 }"), "differential_privacy.sampling"),
        ] {
            assert_eq!(ledger.admit(&spec).unwrap_err().place, place);
        }
        // Another data set's jobs are no concern of it.
        let elsewhere = Budget { data: "other".into(), ..budget(0.001) };
        ledger.set_budget(elsewhere, &mut effects);
        ledger.admit(&job(1, 5.0, "")).unwrap();
    }

    /// What is told of a device is told of it whatever a unit is called; a row that cannot be read is no budget that holds.
    #[test]
    fn no_name_is_a_second_budget_and_no_damaged_row_is_none() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        let patients = Budget { unit: "one patient".into(), ..budget(gaussian(10, 5.0) * 1.001) };
        ledger.set_budget(budget(50.0), &mut effects);
        ledger.set_budget(patients, &mut effects);
        let named = job(10, 5.0, "unit = 'one patient'");
        ledger.admit(&named).unwrap();
        ledger.reserve(JobId(1), &job(10, 5.0, ""), 0);
        assert!(ledger.admit(&named).is_err() && ledger.admit(&job(10, 5.0, "")).is_err());
        assert_eq!(ledger.value()["budgets"][0]["spent"], ledger.value()["budgets"][1]["spent"]);
        // A job without noise shows beside them.
        let mut open = Ledger::default();
        let plain = JobSpec::parse(SAMPLE_TOML).unwrap();
        open.reserve(JobId(1), &plain, 0);
        open.settle(JobId(1), 20, 20);
        let data = plain.data_set().to_owned();
        assert_eq!(open.set_budget(Budget { data, ..budget(1.0) }, &mut effects)["jobs_without_privacy"], 1);

        let mut rows: Vec<Row> = rows(written(effects)).collect();
        rows[0].value[5] ^= 1;
        let mut damaged = Ledger::default();
        rows.iter().for_each(|row| damaged.restore(row));
        assert_eq!(damaged.admit(&named).unwrap_err().place, "the ledger");
    }

    /// Samples of an unlike size are charged to delta, whatever else is asked.
    #[test]
    fn a_job_with_secret_samples_has_a_number_in_the_ledger() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        let cohort = "sampling = { poisson = 0.05 }";
        let mut text = toml::Table::try_from(job(20, 1.0, cohort).text()).unwrap();
        text["cohort"].as_table_mut().unwrap().insert("target".into(), 100.into());
        text["cohort"].as_table_mut().unwrap().insert("min".into(), 20.into());
        text["differential_privacy"]["epsilon"] = 8.0.into();
        let spec = JobSpec::parse(&text.to_string()).unwrap();
        let told = spec.guarantees()[0].epsilon.unwrap();
        ledger.set_budget(budget(50.0), &mut effects);
        ledger.reserve(JobId(1), &spec, 0);
        let spent = ledger.value()["budgets"][0]["spent"].as_f64().unwrap();
        // A hair of delta apart.
        assert!((spent / told - 1.0).abs() < 1e-3, "{spent} {told}");
    }

    /// Rounds of 2 / 0.25 = 8 steps.
    fn examples(rounds: u64, more: &str) -> JobSpec {
        private(
            rounds,
            &format!("mechanism = 'example-gaussian'\nnoise_multiplier = 2.0\nsampling_rate = 0.25\n{more}"),
        )
    }

    /// ε of so many steps of [`examples`], but for the rounding of variances and losses, 10^-5 of it.
    fn sampled(steps: u64) -> f64 {
        let mut all = Composition::new();
        let mechanism = Mechanism::Gaussian { noise_multiplier: 2.0 };
        all.add(Loss { mechanism, sampling: Sampling::Poisson { rate: 0.25 }, count: steps }).unwrap();
        all.epsilon(1e-5, Method { accountant: Accountant::Pld, ..Method::default() }).unwrap()
    }

    #[test]
    fn examples_have_lines_of_their_own_that_count_steps_and_attempts() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        let spec = examples(5, "");
        let set = |model, edge, cloud| Budget {
            unit: "one example of one device".into(),
            epsilon_edge: Some(edge),
            epsilon_cloud: Some(cloud),
            ..budget(model)
        };
        // Two jobs of 5 rounds, with one attempt each that models show and three that edges and cloud may see.
        let (models, seen) = (sampled(80), sampled(240));
        let close = |by| [(models * by, seen, seen), (models, seen * by, seen), (models, seen, seen * by)];
        for ((model, edge, cloud), place) in close(0.999).into_iter().zip(["models", "an edge", "the cloud"]) {
            let mut ledger = Ledger::default();
            ledger.set_budget(set(model * 1.0001, edge * 1.0001, cloud * 1.0001), &mut effects);
            ledger.admit(&spec).unwrap();
            ledger.reserve(JobId(1), &spec, 0);
            let refused = ledger.admit(&spec).unwrap_err().to_string();
            assert!(refused.contains(place), "{refused}");
        }
        ledger.set_budget(set(models * 1.0001, seen * 1.0001, seen * 1.0001), &mut effects);
        let mut stored = written(std::mem::take(&mut effects));
        for id in 1..=2 {
            ledger.admit(&spec).unwrap();
            stored.push(ledger.reserve(JobId(id), &spec, 0));
        }
        let mut again = Ledger::default();
        rows(stored).for_each(|row| again.restore(&row));
        assert!(again.admit(&examples(1, "")).is_err());
        let line = &again.value()["lines"][0];
        assert_eq!((&line["models"], &line["participations"]), (&json!(5), &json!(15)));
        assert_eq!(line["unit"], "one example of one device");
        // What a job did not do comes back: 5 rounds in 5 attempts, 10 of 15 were never made.
        again.settle(JobId(1), 5, 5).unwrap();
        let spent = again.value()["budgets"][0].clone();
        for (field, steps) in [("spent", 80), ("spent_edge", 160), ("spent_cloud", 160)] {
            let found = spent[field].as_f64().unwrap();
            assert!((found / sampled(steps) - 1.0).abs() < 1e-4, "{field}: {found} {}", sampled(steps));
        }
        // A device's own cap is the account's, if it is lower.
        let capped = examples(5, "participations_max = 2");
        assert_eq!(capped.terms().map(|terms| terms.participations), Some(2));
    }

    #[test]
    fn budgets_of_devices_and_of_examples_are_never_charged_with_each_other() {
        let (mut ledger, mut effects) = (Ledger::default(), Vec::new());
        let of_examples = Budget { unit: "one example of one device: an image".into(), ..budget(50.0) };
        ledger.reserve(JobId(1), &examples(5, ""), 0);
        // A job is running that tells a device's data without a number.
        let running = ledger.set_budget(budget(50.0), &mut effects);
        assert_eq!(running["error"]["where"], "data", "{running}");
        ledger.settle(JobId(1), 5, 5).unwrap();
        ledger.set_budget(budget(50.0), &mut effects);
        assert_eq!(ledger.value()["budgets"][0]["spent"], 0.0);
        assert_eq!(ledger.admit(&examples(5, "")).unwrap_err().place, "differential_privacy.unit");
        let second = ledger.set_budget(of_examples.clone(), &mut effects);
        assert_eq!(second["error"]["where"], "unit", "{second}");
        // The other way round.
        let mut ledger = Ledger::default();
        ledger.reserve(JobId(1), &job(5, 5.0, ""), 0);
        assert_eq!(ledger.set_budget(of_examples.clone(), &mut effects)["error"]["where"], "data");
        ledger.settle(JobId(1), 5, 5).unwrap();
        ledger.set_budget(of_examples, &mut effects);
        assert_eq!(ledger.admit(&job(5, 5.0, "")).unwrap_err().place, "differential_privacy.unit");
        ledger.admit(&examples(5, "unit = 'one example of one device: an image'")).unwrap();
        // Nor can a job take the other kind's name.
        let mut text = toml::Table::try_from(examples(5, "").text()).unwrap();
        for (mechanism, unit) in
            [("example-gaussian", "all records of one device"), ("central", "one example of one device")]
        {
            let dp = text["differential_privacy"].as_table_mut().unwrap();
            dp.insert("mechanism".into(), mechanism.into());
            dp.insert("unit".into(), unit.into());
            let refused = JobSpec::parse(&text.to_string()).unwrap_err();
            assert_eq!(refused.place, "differential_privacy.unit", "{refused}");
        }
    }
}
