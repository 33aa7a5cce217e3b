//! Which simulation this is: all that devices' works depend on. Who helps makes the same devices of it.

use crate::output::Failure;
use crate::partition::by::{By, one_split};
use crate::partition::source::DataSource;
use crate::sim_data::{Source, Wanted};
use littoral_node::job::JobSpec;
use littoral_node::work;
use littoral_sim::assignment::RunId;
use littoral_sim::attack::{Attack, Kind};
use littoral_sim::faults::Faults;
use littoral_sim::fleet::FleetSpec;
use littoral_sim::world::Costs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

const FILE_NAME: &str = "simulation.json";
/// A job's text and some words.
const FILE_BYTES_MAX: u64 = 8 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulation {
    /// Of the program: its version, its bytes, and the instructions that its kernels choose by. Others make other bits.
    pub build: String,
    /// As it was submitted.
    pub job: String,
    pub seed: u64,
    pub devices: usize,
    pub edges: usize,
    /// Of each device, where data is made up or taken several times.
    pub rows: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Data>,
    /// How rows are cut, in the words of `--by`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<Lies>,
}

/// A data set of one's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// Where it is on the machine that runs the simulation.
    pub path: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// Of the bytes of its files.
    pub digest: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lies {
    pub kind: String,
    pub share: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f64>,
}

impl Data {
    pub fn at(path: &Path, labels: Option<&Path>) -> Result<Self, Failure> {
        let whole = |path: &Path| path.canonicalize().map_err(|e| unread(path, e));
        let (path, labels) = (whole(path)?, labels.map(whole).transpose()?);
        let (_, source, base) = DataSource::new(path.clone(), labels.clone(), None).find(Some("data"))?;
        let mut hash = blake3::Hasher::new();
        let files = source.files.iter().chain(&source.labels).map(|file| base.join(file));
        // A `device.toml` says how its files are read.
        let says = path.extension().is_some_and(|ending| ending == "toml").then(|| path.clone());
        for file in files.chain(says) {
            add_file(&file, &mut hash).map_err(|e| unread(&file, e))?;
        }
        Ok(Self { path, labels, digest: hash.finalize().to_string() })
    }
}

fn unread(path: &Path, got: io::Error) -> Failure {
    Failure::new("the data cannot be read", path.display().to_string(), "a file or a folder", got)
}

/// A file's bytes, or those of all files below a folder, with their names, in order.
fn add_file(path: &Path, hash: &mut blake3::Hasher) -> io::Result<()> {
    if !path.is_dir() {
        hash.update_reader(File::open(path)?)?;
        return Ok(());
    }
    let mut inside =
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    inside.sort();
    for path in inside {
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(&[0]);
        add_file(&path, hash)?;
    }
    Ok(())
}

impl Simulation {
    pub fn run_id(&self) -> RunId {
        let mut alike = self.clone();
        // Where its files are says nothing.
        if let Some(data) = &mut alike.data {
            (data.path, data.labels) = (PathBuf::new(), None);
        }
        RunId(blake3::derive_key("littoral sim 1, which simulation", alike.text().as_bytes()))
    }

    /// Fields in order, on one line.
    pub fn text(&self) -> String {
        // Texts and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// # Errors
    /// A text that is none, or of another release.
    pub fn parse(text: &str, place: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).map_err(|e| {
            Failure::new("this is no simulation", place, "what `littoral sim --dir` of this release writes", e)
        })
    }

    /// Makes the folder this simulation's, if it is nobody's yet.
    ///
    /// # Errors
    /// It is another simulation's: the first thing that differs, as it is there and as it is here.
    pub fn claim(&self, dir: &Path) -> Result<(), Failure> {
        let file = dir.join(FILE_NAME);
        let place = file.display().to_string();
        let refused =
            |got: io::Error| Failure::new("the folder cannot be used", &place, "a file to read and write", got);
        match File::open(&file) {
            Ok(found) => {
                let mut text = String::new();
                found.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(refused)?;
                Self::parse(&text, &place)?.is_same(self, &place)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let foreign = fs::read_dir(dir).map_err(refused)?.flatten().map(|entry| entry.file_name());
                if let Some(name) = foreign.into_iter().find(|name| name != "lock" && name != "simulation.json.new") {
                    let expected = "an empty folder, or that of a simulation";
                    let place = dir.display().to_string();
                    return Err(Failure::new("the folder is not a simulation's", place, expected, name.display()));
                }
                let new = dir.join("simulation.json.new");
                fs::write(&new, self.text()).and_then(|()| fs::rename(&new, &file)).map_err(refused)
            }
            Err(e) => Err(refused(e)),
        }
    }

    /// # Errors
    /// As [`Self::claim`]. `self` is at `place`, `ours` is what was asked for.
    pub fn is_same(&self, ours: &Self, place: &str) -> Result<(), Failure> {
        if self.run_id() == ours.run_id() {
            return Ok(());
        }
        let (there, here) = (self.facts(), ours.facts());
        let other = there.into_iter().zip(here).find(|(there, here)| there != here);
        let ((name, there), (_, here)) =
            other.unwrap_or((("simulation", String::new()), ("simulation", String::new())));
        let failure =
            Failure::new("this is another simulation's", place, format!("{name} {here}"), format!("{name} {there}"));
        Err(failure.hint("results are of use to the same job, options, data and build only: give another folder"))
    }

    fn facts(&self) -> [(&'static str, String); 9] {
        let short = |text: &str| blake3::hash(text.as_bytes()).to_string()[..16].to_owned();
        let lies = |lies: &Lies| format!("{} {} {:?}", lies.kind, lies.share, lies.strength);
        [
            ("build", self.build.clone()),
            ("job (its text's hash)", short(&self.job)),
            ("--seed", self.seed.to_string()),
            ("--devices", self.devices.to_string()),
            ("--edges", self.edges.to_string()),
            ("--rows", self.rows.to_string()),
            ("--data (its bytes' hash)", self.data.as_ref().map_or("none".into(), |data| data.digest[..16].to_owned())),
            ("--by", self.by.join(" ")),
            ("--attack", self.attack.as_ref().map_or("none".into(), lies)),
        ]
    }

    /// The devices that it is about, for whoever computes their works.
    pub fn fleet(&self) -> Result<(FleetSpec, Option<Attack>), Failure> {
        let job = JobSpec::parse(&self.job)?;
        let by: Vec<By> = self
            .by
            .iter()
            .map(|by| by.parse())
            .collect::<Result<_, String>>()
            .map_err(|e| Failure::new("this is no simulation", "by", "what `--by` takes", e))?;
        let by = if by.is_empty() { None } else { Some(one_split(&by)?) };
        let data = self.data.as_ref().map(|data| DataSource::new(data.path.clone(), data.labels.clone(), None));
        let source = Source::new(&job, Wanted { fleet: None, data, by })?;
        let spec = FleetSpec {
            seed: self.seed,
            devices: self.devices,
            names: source.names(),
            edges: self.edges,
            job_toml: self.job.clone(),
            data: source.data(&job, self.devices, self.rows, self.seed)?,
            faults: Faults::default(),
            costs: Costs::default(),
            runner: work::run,
            threads: 1,
            check: false,
            limit_ms: 0,
        };
        let attack = match &self.attack {
            None => None,
            Some(lies) => {
                let kind = Kind::named(&lies.kind).ok_or_else(|| {
                    Failure::new("this is no simulation", "attack", Kind::NAMES.join(", "), &lies.kind)
                })?;
                Some(Attack { kind, share: lies.share, strength: lies.strength })
            }
        };
        Ok((spec, attack))
    }
}

/// This program: its version, its bytes, and what its kernels choose by on this machine.
pub fn build() -> Result<String, Failure> {
    let path = std::env::current_exe();
    let digest = path.and_then(File::open).and_then(|file| Ok(blake3::Hasher::new().update_reader(file)?.finalize()));
    let digest = digest.map_err(|e| Failure::new("this program cannot be read", "its file", "a file to read", e))?;
    #[cfg(target_arch = "x86_64")]
    let level = match (is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("fma")) {
        (true, _) => "avx512",
        (_, true) => "fma",
        _ => "sse2",
    };
    #[cfg(not(target_arch = "x86_64"))]
    let level = "plain";
    let machine = format!("{}-{level}", std::env::consts::ARCH);
    Ok(format!("{} {} {machine}", env!("CARGO_PKG_VERSION"), &digest.to_string()[..16]))
}
