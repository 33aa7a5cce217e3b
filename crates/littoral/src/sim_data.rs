//! What simulated devices are called and what they train on: the folders of a real fleet, a data set of one's own or a
//! shipped table that the job's schema fits, cut in memory, or nothing but a seed.

use crate::output::Failure;
use crate::partition::source::{DataSource, classes_of, misfit, unshareable};
use crate::sites::{Site, sites};
use crate::up::dataset::{DataSet, Shipped};
use littoral_node::data::partition::feature::{self, Feature, Seat};
use littoral_node::data::partition::split::{Known, Split};
use littoral_node::data::partition::{self, Shares};
use littoral_node::data::records::{Keys, Records, SPEAKER};
use littoral_node::data::{self, Limits, Prepared, apply};
use littoral_node::deploy::data::rows as split_rows;
use littoral_node::job::JobSpec;
use littoral_node::work::{LocalData, Rows};
use littoral_sim::fleet::DeviceData;
use littoral_sim::synthetic::Synthetic;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Label skew of a shared-out table, as in `littoral up`.
const ALPHA: f64 = 0.5;
/// Fewest rows of a device when a table is shared out.
const ROWS_MIN: usize = 10;
/// With more devices than this, none keeps its rows between two works: a look at a table is quick, and most are idle.
const KEPT_DEVICES_MAX: usize = 10_000;

pub enum Source {
    Fleet(Vec<Site>),
    Whole(Arc<Whole>),
    MadeUp,
}

/// A data set in memory, and how it is cut.
pub struct Whole {
    table: Table,
    /// Each row's class, if it has one.
    classes: Option<Vec<u32>>,
    groups: Option<Keys>,
    split: Option<Split>,
    features: Vec<Feature>,
    /// Of each input, if features change.
    deviations: Vec<f64>,
}

enum Table {
    Rows(Prepared),
    /// A text: rows are its speeches, which become tokens on the device that has them.
    Text(Box<Records>),
}

/// What the command line says of data.
pub struct Wanted<'a> {
    /// A folder with a folder per machine.
    pub fleet: Option<&'a Path>,
    pub data: Option<DataSource>,
    /// None: as `littoral up` cuts.
    pub by: Option<(Split, Vec<Feature>)>,
}

impl Source {
    pub fn new(job: &JobSpec, wanted: Wanted<'_>) -> Result<Self, Failure> {
        if let Some(folder) = wanted.fleet {
            return Ok(Self::Fleet(sites(folder)?));
        }
        let (split, features) = match wanted.by {
            Some((split, features)) => (Some(split), features),
            None => (None, Vec::new()),
        };
        if let Some(source) = wanted.data {
            return Ok(Self::Whole(Arc::new(Whole::read(job, &source, split, features)?)));
        }
        for which in [Shipped::BreastCancer, Shipped::Digits] {
            let shipped = DataSet::shipped(which)?;
            if shipped.schema == job.text().data.schema {
                let column = split.as_ref().and_then(column_of).map(str::to_owned);
                if let Some(name) = column {
                    return Err(unread(&name));
                }
                return Ok(Self::Whole(Arc::new(Whole::of(job, Table::Rows(shipped.rows), None, split, features)?)));
            }
        }
        match split.is_some() || !features.is_empty() {
            true => {
                let expected = "a data set to cut: --data, or a job over a shipped table";
                Err(Failure::usage("--by", expected, "made-up rows"))
            }
            false => Ok(Self::MadeUp),
        }
    }

    /// By the device's number; none: nobody has called them anything.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Fleet(sites) => sites.iter().map(|site| site.name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Each device's own files; or a share of the data set, cut as it was asked for, else by a Dirichlet distribution over
    /// labels; or, if it is too small for so many, some of its rows, mostly of one class; or `rows` made up.
    pub fn data(&self, job: &JobSpec, devices: usize, rows: usize, seed: u64) -> Result<DeviceData, Failure> {
        let whole = match self {
            Self::Fleet(sites) => {
                let own: Vec<_> = sites.iter().map(|site| (site.data(), site.rows_of(job.data_set()))).collect();
                return Ok(Arc::new(move |device| own[device].clone()));
            }
            Self::MadeUp => {
                if job.text().data.schema.text.is_some() {
                    let expected = "numbers or images, since rows are made up";
                    let failure = Failure::new("the job cannot be simulated so", "data.schema", expected, "text");
                    return Err(failure.hint("give a text with --data"));
                }
                return Ok(Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, rows)) as _, rows as u64)));
            }
            Self::Whole(whole) => Arc::clone(whole),
        };
        let shares = Arc::new(whole.shares(devices, rows, seed)?);
        Ok(Arc::new(move |device| {
            let kept = (devices <= KEPT_DEVICES_MAX).then(OnceLock::new);
            let seat = Seat { device, devices, seed };
            let share = Share { whole: whole.clone(), shares: shares.clone(), seat, kept };
            let count = share.whole.counted(share.rows());
            (Arc::new(share) as Arc<dyn LocalData>, count)
        }))
    }
}

fn column_of(split: &Split) -> Option<&str> {
    match split {
        Split::Column { name } => Some(name),
        _ => None,
    }
}

fn unread(column: &str) -> Failure {
    Failure::usage("--by", "a column of --data", format!("column:{column} without --data"))
}

impl Whole {
    fn read(job: &JobSpec, source: &DataSource, split: Option<Split>, features: Vec<Feature>) -> Result<Self, Failure> {
        let (set, source, base) = source.find(Some(job.data_set()))?;
        let limits = Limits::default();
        let schema = &job.text().data.schema;
        let column = split.as_ref().and_then(column_of);
        let text = schema.text.is_some();
        let records = match text || column.is_some() {
            true => Some(Records::load(&set, &source, &base, &limits).map_err(misfit)?),
            false => None,
        };
        let file = source.files[0].display().to_string();
        let keys = |name: &str| {
            let found = records.as_ref().map(|records| records.keys(name)).transpose();
            found.map_err(|e| misfit(e.in_file(&file).into()))
        };
        let groups = column.map(keys).transpose()?.flatten();
        let table = match records.filter(|_| text) {
            Some(records) => Table::Text(Box::new(records)),
            None => Table::Rows(data::load(&set, &source, schema, &base, &limits).map_err(misfit)?.0),
        };
        Self::of(job, table, groups, split, features)
    }

    fn of(
        job: &JobSpec,
        table: Table,
        groups: Option<Keys>,
        split: Option<Split>,
        features: Vec<Feature>,
    ) -> Result<Self, Failure> {
        let (classes, deviations) = match &table {
            Table::Rows(rows) => {
                let deviations = if features.is_empty() { Vec::new() } else { feature::deviations(rows) };
                // A change that does not go with these rows is told before anything runs.
                let seat = Seat { device: 0, devices: 1, seed: 0 };
                feature::change(&mut rows.select(&[]), &job.text().data.schema, &features, &seat, &deviations)
                    .map_err(|e| Failure::usage("--by", e.allowed, e.value))?;
                (rows.classes().map(<[u32]>::to_vec), deviations)
            }
            Table::Text(records) => {
                if let Some(feature) = features.first() {
                    return Err(Failure::usage("--by", "no change of features: a text has no numbers", feature));
                }
                let speakers = records.labels(None).map_err(|e| misfit(e.into()))?;
                let kind = split.clone().unwrap_or(Split::Iid);
                (classes_of(speakers.as_ref(), &kind, "speakers")?.map(|keys| keys.ids.clone()), Vec::new())
            }
        };
        Ok(Self { table, classes, groups, split, features, deviations })
    }

    fn count(&self) -> usize {
        match &self.table {
            Table::Rows(rows) => rows.rows(),
            Table::Text(records) => records.count(),
        }
    }

    /// How many a device with these rows offers: of a text its characters.
    fn counted(&self, rows: &[usize]) -> u64 {
        match &self.table {
            Table::Rows(_) => rows.len() as u64,
            Table::Text(_) => self.text(rows).chars().count() as u64,
        }
    }

    fn text(&self, rows: &[usize]) -> String {
        let without_speakers = self.split.as_ref().and_then(column_of) == Some(SPEAKER);
        match &self.table {
            Table::Text(records) => records.text(rows, without_speakers).unwrap_or_default(),
            Table::Rows(_) => String::new(),
        }
    }

    /// Each device's rows. A data set with fewer than `ROWS_MIN` for each is taken as often as each can have `rows`: then a row
    /// is on several devices, and on none more often than any other.
    fn shares(&self, devices: usize, rows: usize, seed: u64) -> Result<Shares, Failure> {
        let (count, classes) = (self.count(), self.classes.as_deref());
        let Some(split) = &self.split else {
            let (cut, classes) = match classes {
                Some(classes) => (partition::dirichlet(classes, devices, ALPHA, ROWS_MIN, seed), classes),
                None => (partition::iid(count, devices, seed), &[][..]),
            };
            return Ok(
                cut.unwrap_or_else(|_| (0..devices).map(|device| drawn(classes, count, device, rows, seed)).collect())
            );
        };
        let enough = count / ROWS_MIN >= devices || matches!(split, Split::Column { .. });
        let times = if enough { 1 } else { (devices * rows.max(ROWS_MIN)).div_ceil(count.max(1)) };
        let many = |of: &[u32]| of.iter().copied().cycle().take(of.len() * times).collect::<Vec<_>>();
        let classes = classes.map(many);
        let known = Known {
            rows: count * times,
            classes: classes.as_deref(),
            groups: self.groups.as_ref().map(|keys| keys.ids.as_slice()),
        };
        let mut shares = split.shares(&known, Some(devices), ROWS_MIN, seed).map_err(unshareable)?;
        if times > 1 {
            shares.iter_mut().flatten().for_each(|row| *row %= count);
        }
        Ok(shares)
    }
}

/// Rows of a table for one of very many devices: half of them from the device's favourite class.
fn drawn(classes: &[u32], all: usize, device: usize, rows: usize, seed: u64) -> Vec<usize> {
    let count = classes.iter().max().map_or(1, |class| *class as usize + 1);
    let favourite = (device % count) as u32;
    let of_favourite: Vec<usize> = (0..classes.len()).filter(|row| classes[*row] == favourite).collect();
    let mut state = seed ^ (device as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |n: usize| {
        // SplitMix64 (Steele, Lea and Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    };
    let pick = |i: usize, below: &mut dyn FnMut(usize) -> usize| match i % 2 {
        0 if !of_favourite.is_empty() => of_favourite[below(of_favourite.len())],
        _ => below(all),
    };
    (0..rows).map(|i| pick(i, &mut below)).collect()
}

/// One device's rows of a data set, split as a real device splits them.
struct Share {
    whole: Arc<Whole>,
    shares: Arc<Shares>,
    seat: Seat,
    /// Of the first job; a device of a simulated fleet has one.
    kept: Option<OnceLock<Result<Rows, String>>>,
}

impl Share {
    fn rows(&self) -> &[usize] {
        &self.shares[self.seat.device]
    }

    fn make(&self, spec: &JobSpec) -> Result<Rows, String> {
        let (whole, wanted) = (&self.whole, &spec.text().data);
        let mine = match (&whole.table, &wanted.schema.text) {
            (Table::Text(_), Some(windows)) => {
                apply::text(&whole.text(self.rows()), windows).map_err(|e| e.to_string())?.0
            }
            (Table::Text(_), None) => return Err("this device has text: the job wants something else".into()),
            (Table::Rows(table), _) => {
                let mut mine = table.select(self.rows());
                feature::change(&mut mine, &wanted.schema, &whole.features, &self.seat, &whole.deviations)
                    .map_err(|e| e.to_string())?;
                mine
            }
        };
        split_rows(mine, wanted.held_out, spec.seed())
    }
}

impl LocalData for Share {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        match &self.kept {
            Some(kept) => kept.get_or_init(|| self.make(spec)).clone(),
            None => self.make(spec),
        }
    }
}
