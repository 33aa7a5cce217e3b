//! What simulated devices are called and what they train on: the folders of a real fleet, a shipped table that the job's
//! schema fits, or nothing but a seed.

use crate::output::Failure;
use crate::sites::{Site, sites};
use crate::up::dataset::{DataSet, Shipped};
use littoral_node::data::{Prepared, partition};
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

pub enum Source {
    Fleet(Vec<Site>),
    Table(Arc<Prepared>),
    MadeUp,
}

impl Source {
    /// `fleet`: a folder with a folder per machine.
    pub fn new(job: &JobSpec, fleet: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = fleet {
            return Ok(Self::Fleet(sites(folder)?));
        }
        for which in [Shipped::BreastCancer, Shipped::Digits] {
            let shipped = DataSet::shipped(which)?;
            if shipped.schema == job.text().data.schema {
                return Ok(Self::Table(Arc::new(shipped.rows)));
            }
        }
        Ok(Self::MadeUp)
    }

    /// By the device's number; none: nobody has called them anything.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Fleet(sites) => sites.iter().map(|site| site.name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Each device's own files; or a share of the table, cut by a Dirichlet distribution over labels; or, if it is too
    /// small for so many, some of its rows, mostly of one class; or `rows` made up.
    pub fn data(&self, job: &JobSpec, devices: usize, rows: usize, seed: u64) -> DeviceData {
        let table = match self {
            Self::Fleet(sites) => {
                let own: Vec<_> = sites.iter().map(|site| (site.data(), site.rows_of(job.data_set()))).collect();
                return Arc::new(move |device| own[device].clone());
            }
            Self::MadeUp => {
                return Arc::new(move |device| (Arc::new(Synthetic::new(seed, device, rows)) as _, rows as u64));
            }
            Self::Table(table) => Arc::clone(table),
        };
        let classes = table.classes().unwrap_or_default().to_vec();
        let cut = partition::dirichlet(&classes, devices, ALPHA, ROWS_MIN, seed).ok();
        Arc::new(move |device| {
            let mine = match &cut {
                Some(cut) => cut[device].clone(),
                None => drawn(&classes, device, rows, seed),
            };
            let count = mine.len() as u64;
            (Arc::new(Share { table: table.clone(), mine, split: OnceLock::new() }) as Arc<dyn LocalData>, count)
        })
    }
}

/// Rows of a table for one of very many devices: half of them from the device's favourite class.
fn drawn(classes: &[u32], device: usize, rows: usize, seed: u64) -> Vec<usize> {
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
        _ => below(classes.len()),
    };
    (0..rows).map(|i| pick(i, &mut below)).collect()
}

/// One device's rows of a table, split as a real device splits them.
struct Share {
    table: Arc<Prepared>,
    mine: Vec<usize>,
    /// Of the first job; a device of a simulated fleet has one.
    split: OnceLock<Result<Rows, String>>,
}

impl LocalData for Share {
    fn rows(&self, spec: &JobSpec) -> Result<Rows, String> {
        let split = || split_rows(self.table.select(&self.mine), spec.text().data.held_out, spec.seed());
        self.split.get_or_init(split).clone()
    }
}
