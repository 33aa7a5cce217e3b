//! `littoral traces --devices N --days D --into F.csv`: when and how fast made-up devices are; and reading such files.
//!
//! The formats and the models are in `docs/traces.md`, their code is `littoral_sim::field`.

use crate::output::{self, Failure};
use crate::pending::Pending;
use littoral_sim::field::diurnal::Diurnal;
use littoral_sim::field::{Availability, FieldError, SpeedLaw, Speeds};
use serde_json::json;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// They are called device-1, device-2 …, as `littoral sim` calls them
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    #[arg(long, value_name = "D", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// When devices are there: device,from_s,until_s,available,charging,idle,unmetered
    #[arg(long, value_name = "FILE")]
    into: PathBuf,
    /// Time zones, evenly over the day: devices sleep one after the other
    #[arg(long, value_name = "N", default_value_t = Diurnal::default().zones, value_parser = clap::value_parser!(u32).range(1..=24))]
    zones: u32,
    /// Regions, each of which goes away as a whole
    #[arg(long, value_name = "N", default_value_t = Diurnal::default().regions, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    regions: u32,
    /// Outages of each region, on average
    #[arg(long, value_name = "X", default_value_t = Diurnal::default().outages_per_day, value_parser = number(0.0, 1_000.0))]
    outages_per_day: f64,
    /// How long they last, on average
    #[arg(long, value_name = "X", default_value_t = Diurnal::default().outage_minutes, value_parser = number(1.0, 100_000.0))]
    outage_minutes: f64,
    /// Share of the time awake that a device is there
    #[arg(long, value_name = "X", default_value_t = Diurnal::default().day_share, value_parser = number(0.001, 1.0))]
    day_share: f64,
    /// How long it stays then, on average
    #[arg(long, value_name = "X", default_value_t = Diurnal::default().session_minutes, value_parser = number(1.0, 1_440.0))]
    session_minutes: f64,
    /// How fast devices are: lognormal:SIGMA, or pareto:SHAPE for their times; the median is 1
    #[arg(long, value_name = "LAW", requires = "speeds_into")]
    speeds: Option<SpeedLaw>,
    /// Where their speeds go: device,speed
    #[arg(long, value_name = "FILE", requires = "speeds")]
    speeds_into: Option<PathBuf>,
}

fn number(min: f64, max: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let found = text.parse::<f64>().ok().filter(|value| (min..=max).contains(value));
        found.ok_or_else(|| format!("a number from {min} to {max}"))
    }
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let names = || (1..=args.devices).map(|n| format!("device-{n}"));
    let into = Pending::at(&args.into)?;
    let speeds_into = args.speeds_into.as_deref().map(Pending::at).transpose()?;
    let model = Diurnal {
        days: args.days,
        seed: args.seed,
        zones: args.zones,
        regions: args.regions,
        day_share: args.day_share,
        session_minutes: args.session_minutes,
        outages_per_day: args.outages_per_day,
        outage_minutes: args.outage_minutes,
    };
    let traces = model.make(names());
    let mut bytes = Vec::new();
    // Writing to memory does not fail.
    let _ = traces.write(&mut bytes);
    let (devices, intervals) = (args.devices as usize, bytes.iter().filter(|byte| **byte == b'\n').count() - 1);
    into.write(bytes)?;
    if let (Some(law), Some(file)) = (args.speeds, speeds_into) {
        let mut bytes = Vec::new();
        let _ = Speeds::drawn(law, args.seed, names().collect()).write(&mut bytes);
        file.write(bytes)?;
    }
    let share = (0..devices).map(|device| traces.share(device)).sum::<f64>() / devices as f64;
    let into = args.into.display().to_string();
    if json {
        output::object(&json!({
            "devices": devices, "days": args.days, "seed": args.seed, "intervals": intervals,
            "mean_availability": share, "into": into,
        }));
    } else {
        output::line(&format!(
            "{devices} devices over {} days: {intervals} intervals, there {:.1} % of the time on average",
            args.days,
            share * 100.0
        ));
        let speeds = args.speeds_into.as_ref().map(|file| format!(" --speeds {}", file.display())).unwrap_or_default();
        output::talk(&format!("next: `littoral sim JOB.toml --devices {devices} --traces {into}{speeds}`"));
    }
    Ok(())
}

/// Where speeds come from.
#[derive(Clone, Debug)]
pub enum SpeedSource {
    Law(SpeedLaw),
    File(PathBuf),
}

impl FromStr for SpeedSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let law = ["lognormal", "pareto"].iter().any(|law| text == *law || text.starts_with(&format!("{law}:")));
        if law { text.parse().map(Self::Law) } else { Ok(Self::File(text.into())) }
    }
}

impl fmt::Display for SpeedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Law(law) => law.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl SpeedSource {
    /// What a file says; none of a law.
    pub fn read(&self) -> Result<Option<Speeds>, Failure> {
        match self {
            Self::Law(_) => Ok(None),
            Self::File(path) => read(path, Speeds::read).map(Some),
        }
    }
}

pub fn read_availability(path: &Path) -> Result<Availability, Failure> {
    read(path, Availability::read)
}

fn read<T>(path: &Path, reader: impl Fn(BufReader<File>) -> Result<T, FieldError>) -> Result<T, Failure> {
    let place = path.display().to_string();
    let file = File::open(path)
        .and_then(|file| match file.metadata()?.is_dir() {
            true => Err(std::io::ErrorKind::IsADirectory.into()),
            false => Ok(file),
        })
        .map_err(|e| Failure::new("the trace cannot be read", &place, "a CSV file", e))?;
    reader(BufReader::with_capacity(1 << 20, file)).map_err(|e| {
        let column = e.column.map(|column| format!(", column {column}")).unwrap_or_default();
        Failure::new("the trace does not fit", format!("{place}, line {}{column}", e.line), e.expected, e.got)
    })
}
