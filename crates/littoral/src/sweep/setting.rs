//! One point of a grid: a job and what the simulator is told beside it. It can be changed field by field, checked before
//! anything runs, and run with any seed.

use crate::output::Failure;
use crate::partition::by::{By, one_split};
use crate::partition::source::DataSource;
use crate::sim_cmd::LIMIT_MS;
use crate::sim_data::{Source, Wanted};
use crate::traces::{SpeedSource, read_availability};
use littoral_node::job::{JobError, JobSpec};
use littoral_node::work;
use littoral_sim::attack::{Attack, Kind};
use littoral_sim::faults::Faults;
use littoral_sim::field::{Availability, Field, Speeds};
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::Outcome;
use littoral_sim::world::Costs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use toml::{Table, Value};

/// The fields that are the simulator's and no job's, called as its flags are.
pub const OWN: [&str; 11] = [
    "attack",
    "attack_strength",
    "attackers",
    "by",
    "devices",
    "edges",
    "faults",
    "rows",
    "speeds",
    "step_us",
    "traces",
];

#[derive(Clone, Debug)]
pub struct Setting {
    pub job: Table,
    /// The run's seed is the job's too: first weights, cohorts and orders of examples follow from it.
    pub seeds_job: bool,
    pub data: Option<PathBuf>,
    pub labels: Option<PathBuf>,
    /// Empty: as the simulator cuts by itself.
    pub by: Vec<By>,
    pub attack: Option<Kind>,
    pub attackers: f64,
    pub attack_strength: Option<f64>,
    pub speeds: Option<SpeedSource>,
    pub traces: Option<PathBuf>,
    pub devices: u32,
    pub edges: u32,
    pub rows: u32,
    pub step_us: Option<u64>,
    pub faults: String,
}

/// Data sets that were read, by what they were read for.
#[derive(Default)]
pub struct Sources(BTreeMap<String, Arc<Source>>);

/// A setting that can run.
pub struct Checked {
    setting: Setting,
    source: Arc<Source>,
    availability: Option<Arc<Availability>>,
    speeds: Option<Arc<Speeds>>,
    /// Names the setting in files: equal settings, equal keys.
    pub key: String,
    /// An accuracy that the job looks for.
    pub target: Option<f64>,
}

impl Setting {
    /// Sets a field of the simulator's own, or of the job by its dotted path.
    pub fn set(&mut self, field: &str, value: &Value) -> Result<(), Failure> {
        let whole = |max: u32| {
            let expected = format!("a whole number, at most {max}");
            let number = value.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= max);
            number.ok_or_else(|| wrong(field, expected, value))
        };
        let number = || {
            let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
            number.filter(|n| n.is_finite()).ok_or_else(|| wrong(field, "a number", value))
        };
        let text = || value.as_str().ok_or_else(|| wrong(field, "a text in quotes", value));
        let named = || Ok::<_, Failure>(Some(text()?).filter(|text| *text != "none"));
        match field {
            "attack" => {
                let known = format!("none, {}", Kind::NAMES.join(", "));
                let kind = named()?.map(|name| Kind::named(name).ok_or_else(|| wrong(field, known, value)));
                self.attack = kind.transpose()?;
            }
            "attack_strength" => self.attack_strength = Some(number()?),
            "attackers" => {
                let share = number()?;
                if !(0.0..1.0).contains(&share) {
                    return Err(wrong(field, "a fraction of at least 0 and below 1", value));
                }
                self.attackers = share;
            }
            "by" => {
                let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                let parse = |word: &Value| match word.as_str() {
                    Some(word) => word.parse::<By>().map_err(|allowed| wrong(field, allowed, word)),
                    None => Err(wrong(field, "a split as --by takes it, or a list of one and of changes", word)),
                };
                self.by = several.iter().map(parse).collect::<Result<_, _>>()?;
                one_split(&self.by)?;
            }
            "devices" => self.devices = whole(1_000_000)?,
            "edges" => self.edges = whole(1_024)?,
            "faults" => {
                let known = || wrong(field, Faults::PROFILES.join(", "), value);
                self.faults = Some(text()?).filter(|name| Faults::PROFILES.contains(name)).ok_or_else(known)?.into();
            }
            "rows" => self.rows = whole(1_000_000)?.max(1),
            "speeds" => {
                let parse = |text: &str| text.parse().map_err(|allowed: String| wrong(field, allowed, text));
                self.speeds = named()?.map(parse).transpose()?;
            }
            "step_us" => self.step_us = Some(whole(u32::MAX)?.into()),
            "traces" => self.traces = named()?.map(PathBuf::from),
            _ => {
                self.seeds_job &= field != "seed";
                set_in_job(&mut self.job, field, value)?;
            }
        }
        Ok(())
    }

    /// As a seed runs it.
    fn job(&self, seed: u64) -> Result<(JobSpec, String), Failure> {
        let mut job = self.job.clone();
        if self.seeds_job {
            // TOML's integers have a sign.
            let seed = Value::Integer((seed & i64::MAX as u64) as i64);
            job.insert("seed".into(), seed);
        }
        let text = toml::to_string(&job).map_err(|e| wrong("job", "a job", e))?;
        let told = |mut e: JobError| {
            // Of a text that nobody wrote lines say nothing.
            if let Some((_, field)) = e.place.strip_prefix("line ").and_then(|rest| rest.split_once(", ")) {
                e.place = field.to_owned();
            }
            Failure::from(e)
        };
        let spec = JobSpec::parse(&text).and_then(JobSpec::within_epsilon).map_err(told)?;
        Ok((spec, text))
    }

    fn attack(&self) -> Option<Attack> {
        self.attack.map(|kind| Attack { kind, share: self.attackers, strength: self.attack_strength })
    }

    /// Can it run? Reads what it needs; `seed` stands for all.
    pub fn check(self, sources: &mut Sources, seed: u64) -> Result<Checked, Failure> {
        let (job, _) = self.job(seed)?;
        let min = job.settings().cohort.min;
        if u64::from(self.devices) < min as u64 {
            return Err(Failure::usage(
                "devices",
                format!("at least the job's cohort.min, {min} devices"),
                self.devices,
            ));
        }
        if let Some(attack) = self.attack() {
            attack.check(&job)?;
        }
        let source = sources.of(&self, &job)?;
        source.data(&job, self.devices as usize, self.rows as usize, seed)?;
        let availability = self.traces.as_deref().map(read_availability).transpose()?.map(Arc::new);
        let speeds = self.speeds.as_ref().map(SpeedSource::read).transpose()?.flatten().map(Arc::new);
        let target = job.settings().target_accuracy;
        let key = self.key()?;
        Ok(Checked { setting: self, source, availability, speeds, key, target })
    }

    /// A hash of all that a run follows from, but its seed: of files that are read whole their bytes, of data its place.
    fn key(&self) -> Result<String, Failure> {
        let mut job = self.job.clone();
        if self.seeds_job {
            job.remove("seed");
        }
        let text = toml::to_string(&job).map_err(|e| wrong("job", "a job", e))?;
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        };
        add(env!("CARGO_PKG_VERSION").as_bytes());
        add(text.as_bytes());
        // Which devices lie and what they have follows from the run's seed even if the job's is fixed.
        let Self { seeds_job, data, labels, by, attack, attackers, attack_strength, speeds, traces, .. } = self;
        let Self { devices, edges, rows, step_us, faults, .. } = self;
        let lies = attack.map(|kind| (kind, attackers, attack_strength));
        let by: Vec<String> = by.iter().map(By::to_string).collect();
        let speeds_text = speeds.as_ref().map(SpeedSource::to_string);
        let numbers = (devices, edges, rows, step_us, faults, seeds_job);
        add(format!("{data:?} {labels:?} {by:?} {lies:?} {speeds_text:?} {numbers:?}").as_bytes());
        let file = match speeds {
            Some(SpeedSource::File(path)) => Some(path),
            _ => None,
        };
        for path in [file, traces.as_ref()].into_iter().flatten() {
            let bytes = std::fs::read(path);
            add(&bytes
                .map_err(|e| Failure::new("the trace cannot be read", path.display().to_string(), "a CSV file", e))?);
        }
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    }
}

impl Sources {
    fn of(&mut self, setting: &Setting, job: &JobSpec) -> Result<Arc<Source>, Failure> {
        let Setting { data, labels, by, .. } = setting;
        let schema = serde_json::to_string(&job.text().data).unwrap_or_default();
        let key = format!("{data:?} {labels:?} {by:?} {schema}");
        if let Some(source) = self.0.get(&key) {
            return Ok(Arc::clone(source));
        }
        let data = data.clone().map(|path| DataSource::new(path, labels.clone(), None));
        let by = if by.is_empty() { None } else { Some(one_split(by)?) };
        let source = Arc::new(Source::new(job, Wanted { fleet: None, data, by })?);
        self.0.insert(key, Arc::clone(&source));
        Ok(source)
    }
}

impl Checked {
    /// The run with this seed. No result depends on `threads`.
    pub fn run(&self, seed: u64, threads: usize) -> Result<Outcome, Failure> {
        let setting = &self.setting;
        let (job, job_toml) = setting.job(seed)?;
        let devices = setting.devices as usize;
        let spec = FleetSpec {
            seed,
            devices,
            names: Vec::new(),
            edges: setting.edges as usize,
            job_toml,
            data: self.source.data(&job, devices, setting.rows as usize, seed)?,
            faults: Faults::profile(&setting.faults).unwrap_or_default(),
            costs: Costs { step_us: setting.step_us.unwrap_or(0), ..Costs::default() },
            runner: work::run,
            threads,
            check: true,
            limit_ms: LIMIT_MS,
        };
        let drawn = || match &setting.speeds {
            Some(SpeedSource::Law(law)) => {
                let names = (1..=devices).map(|n| format!("device-{n}")).collect();
                Some(Arc::new(Speeds::drawn(*law, seed, names)))
            }
            _ => None,
        };
        let speeds = self.speeds.clone().or_else(drawn);
        let field = Field { availability: self.availability.clone(), speeds, ..Field::default() };
        Ok(Fleet::among(spec, &field, setting.attack().as_ref())?.run(&mut |_| {}))
    }
}

/// `local.optimiser.learning_rate` is a path of tables and a field.
fn set_in_job(job: &mut Table, path: &str, value: &Value) -> Result<(), Failure> {
    let (mut table, mut rest) = (job, path);
    while let Some((head, tail)) = rest.split_once('.') {
        let below = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
        table = below.as_table_mut().ok_or_else(|| wrong(path, format!("a field: `{head}` is no table"), value))?;
        rest = tail;
    }
    // Another algorithm has other parameters.
    if path == "algorithm.name" && table.get("name") != Some(value) {
        table.clear();
    }
    table.insert(rest.to_owned(), value.clone());
    Ok(())
}

fn wrong(field: &str, expected: impl Into<String>, got: impl ToString) -> Failure {
    Failure::new("the grid was refused", field, expected, got)
}
