//! `littoral partition SOURCE --into DIR --devices N --by SPLIT`: a data set of one's own as the folders of many devices.
//!
//! Read in this order: [`source`] (what a data set on the command line is), [`by`] (the words of `--by`), this file (cut,
//! write, count). The splits themselves are `littoral_node::data::partition`; `littoral sim --by` uses them in memory.

pub mod by;
pub mod source;

use crate::output::{self, Failure};
use by::By;
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::partition::Shares;
use littoral_node::data::partition::feature::Seat;
use littoral_node::data::partition::skew::{Skew, counts};
use littoral_node::data::partition::split::{Known, Split};
use littoral_node::data::records::{Change, Keys, Place, Records, SPEAKER};
use littoral_node::data::{Limits, Sources};
use serde_json::json;
use source::{DataSource, classes_of, misfit, unshareable};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    data: DataSource,
    /// Of a table: the column of labels
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Where the devices' folders go: a new or an empty folder
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// How many devices; with `--by column:NAME` by default one for each value
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    devices: Option<u32>,
    /// Who gets which rows: iid, dirichlet:ALPHA, label:K, column:NAME (of a text: column:speaker),
    /// quantity:powerlaw:EXPONENT, quantity:lognormal:SIGMA, quantity:dirichlet:ALPHA. And, by itself or with one of these,
    /// what each device sees otherwise: feature:affine:S, feature:noise:S, feature:rotation:DEGREES, feature:contrast:S
    #[arg(long = "by", value_name = "SPLIT", required = true)]
    by: Vec<By>,
    /// Columns of numbers that `feature` leaves as they are, beside the label
    #[arg(long, value_name = "COLUMN")]
    keep: Vec<String>,
    /// Fewest rows of a device, where the split leaves room for it
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    rows_min: u32,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What devices are called, before their number; as `littoral sim` calls them.
const DEVICE: &str = "device";
/// The table of what every device got.
const TABLE: &str = "partition.csv";

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let (split, features) = by::one_split(&args.by)?;
    let (set, source, base) = args.data.find(None)?;
    let unfinished = Unfinished::beside(&args.into)?;
    let records = Records::load(&set, &source, &base, &Limits::default()).map_err(misfit)?;
    let place = source.files[0].display().to_string();
    let wrong = |e: littoral_node::data::DataError| misfit(e.in_file(&place).into());
    let by_speaker = split == Split::Column { name: SPEAKER.into() };
    // Who speaks is no label where everybody speaks alone.
    let labels = if by_speaker { None } else { records.labels(args.label.as_deref()).map_err(wrong)? };
    let classes = classes_of(labels.as_ref(), &split, "--label")?;
    let groups = match &split {
        Split::Column { name } => Some(records.keys(name).map_err(wrong)?),
        _ => None,
    };
    let known = Known {
        rows: records.count(),
        classes: classes.map(|keys| keys.ids.as_slice()),
        groups: groups.as_ref().map(|keys| keys.ids.as_slice()),
    };
    let devices = args.devices.map(|devices| devices as usize);
    let shares = split.shares(&known, devices, args.rows_min as usize, args.seed).map_err(unshareable)?;
    let mut keep: Vec<&str> = args.keep.iter().chain(&args.label).map(String::as_str).collect();
    if let Split::Column { name } = &split {
        keep.push(name);
    }
    let columns = records.changed_columns(&features, &keep).map_err(unshareable)?;
    if let Some(unknown) = args.keep.iter().find(|name| !records.has_column(name)) {
        return Err(Failure::usage("--keep", "a column of the data set", unknown));
    }
    let stem = source::plain(&set);
    for (device, rows) in shares.iter().enumerate() {
        let seat = Seat { device, devices: shares.len(), seed: args.seed };
        let change = Change { features: &features, seat, columns: &columns };
        let name = format!("{DEVICE}-{}", device + 1);
        let dir = unfinished.folder.join(&name);
        let place = Place { dir: &dir, set: &stem, without_speakers: by_speaker };
        device_folder(&records, rows, &change, &place, (&name, &set)).map_err(|e| unfinished.failed(&e))?;
    }
    let counted = classes.map(|keys| counts(&shares, &keys.ids, keys.names.len()));
    let table = table(&shares, classes.zip(counted.as_deref()), groups.as_ref());
    fs::write(unfinished.folder.join(TABLE), table).map_err(|e| unfinished.failed(&e))?;
    unfinished.finish()?;
    let skew = Skew::of(&shares, counted.as_deref());
    show(args, &set, records.count(), &shares, &skew, json);
    Ok(())
}

fn device_folder(
    records: &Records,
    rows: &[usize],
    change: &Change<'_>,
    place: &Place<'_>,
    (name, set): (&str, &str),
) -> io::Result<()> {
    fs::create_dir(place.dir)?;
    let source = records.write(rows, change, place)?;
    let data = Sources::from([(set.to_owned(), source)]);
    let config = DeviceConfig { name: name.into(), data, ..DeviceConfig::default() };
    let text = toml::to_string(&config).map_err(io::Error::other)?;
    fs::write(place.dir.join(DeviceConfig::FILE_NAME), text)
}

/// A header, and a line for each device: its rows, which values of the column it has, how many rows of each label.
fn table(shares: &Shares, labels: Option<(&Keys, &[Vec<u64>])>, groups: Option<&Keys>) -> Vec<u8> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let mut header = vec!["device".to_owned(), "rows".into()];
    header.extend(groups.map(|_| "values".to_owned()));
    header.extend(labels.iter().flat_map(|(keys, _)| keys.names.iter().map(|name| format!("label:{name}"))));
    // Writing to memory does not fail.
    let _ = out.write_record(&header);
    for (device, rows) in shares.iter().enumerate() {
        let mut line = vec![format!("{DEVICE}-{}", device + 1), rows.len().to_string()];
        if let Some(keys) = groups {
            let values: std::collections::BTreeSet<u32> = rows.iter().map(|row| keys.ids[*row]).collect();
            let values: Vec<&str> = values.iter().map(|id| keys.names[*id as usize].as_str()).collect();
            line.push(values.join("|"));
        }
        if let Some((_, counts)) = labels {
            line.extend(counts[device].iter().map(u64::to_string));
        }
        let _ = out.write_record(&line);
    }
    out.into_inner().unwrap_or_default()
}

fn show(args: &Args, set: &str, rows: usize, shares: &Shares, skew: &Skew, json: bool) {
    let by: Vec<String> = args.by.iter().map(By::to_string).collect();
    let into = args.into.display().to_string();
    if json {
        output::object(&json!({
            "devices": shares.len(), "rows": rows, "by": by, "seed": args.seed, "set": set, "into": into,
            "smallest": skew.smallest, "median": skew.median, "largest": skew.largest,
            "label_distance": skew.label_distance,
        }));
        return;
    }
    let distance = skew.label_distance.map(|distance| {
        format!("; labels differ from the whole's by {distance:.3} on average (total variation, 0 to 1)")
    });
    output::line(&format!(
        "{rows} rows to {} devices by {}: {} to {} rows, half have up to {}{}",
        shares.len(),
        by.join(", "),
        skew.smallest,
        skew.largest,
        skew.median,
        distance.unwrap_or_default()
    ));
    output::talk(&format!(
        "what each got: {}\nnext: `littoral sim JOB.toml --fleet {into}`, for a job over the data set `{set}`",
        args.into.join(TABLE).display()
    ));
}

/// A folder that gets its name when all is in it, and is gone otherwise.
struct Unfinished {
    folder: PathBuf,
    wanted: PathBuf,
}

impl Unfinished {
    fn beside(wanted: &Path) -> Result<Self, Failure> {
        let refused = |got: String| {
            Failure::new("the data was not cut", wanted.display().to_string(), "a new or an empty folder", got)
                .hint("give another --into, or delete it")
        };
        match fs::read_dir(wanted).map(Iterator::count) {
            Ok(0) => {}
            Ok(_) => return Err(refused("one with files in it".into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(refused(e.to_string())),
        }
        let Some(name) = wanted.file_name() else { return Err(refused("a path that ends in none".into())) };
        let mut name = name.to_owned();
        name.push(format!(".unfinished-{}", std::process::id()));
        let folder = wanted.with_file_name(name);
        fs::create_dir_all(&folder).map_err(|e| refused(e.to_string()))?;
        Ok(Self { folder, wanted: wanted.to_owned() })
    }

    fn failed(&self, e: &io::Error) -> Failure {
        Failure::new("the data was not cut", self.wanted.display().to_string(), "room to write, and files that read", e)
    }

    fn finish(self) -> Result<(), Failure> {
        // An empty folder of that name gives way.
        fs::rename(&self.folder, &self.wanted).map_err(|e| self.failed(&e))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After `finish` there is none.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
