//! Each device's share of the table, written into its own folder as a file of its own.
//!
//! Shares are as different as sites are: for each class, the devices' portions come from a Dirichlet distribution
//! (`littoral_node::data::partition`). Every seed has another partition and is another data set of the same fleet.

use super::dataset::DataSet;
use super::fleet::on_one_machine;
use crate::output::Failure;
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::mapping::Rule;
use littoral_node::data::{Source, Sources, partition};
use std::fs;
use std::io;
use std::path::Path;

/// Label skew: at 0.5 most sites lack whole classes or nearly so.
const ALPHA: f64 = 0.5;
/// Rows that every device has.
const ROWS_MIN: usize = 10;

/// The table cut into shares, for every seed.
pub struct Shares {
    header: csv::ByteRecord,
    records: Vec<csv::ByteRecord>,
    /// By seed (from 1), by device: rows.
    rows: Vec<partition::Shares>,
}

impl Shares {
    pub fn cut(data: &DataSet, devices: usize, seeds: u64) -> Result<Self, Failure> {
        let cut = |seed| {
            partition::dirichlet(data.classes(), devices, ALPHA, ROWS_MIN, seed)
                .map_err(|e| Failure::new("the data cannot be shared out", e.field, e.allowed, e.value))
        };
        let (rows, needed) = (data.rows.rows(), devices * ROWS_MIN);
        if rows < needed {
            let file = data.source.files.first().map(|file| file.display().to_string()).unwrap_or_default();
            let expected = format!("at least {needed} rows, {ROWS_MIN} for each of {devices} devices");
            return Err(Failure::new("the data cannot be shared out", file, expected, format!("{rows} rows"))
                .hint("give more rows, or fewer --devices"));
        }
        Self::given(data, (1..=seeds).map(cut).collect::<Result<_, _>>()?)
    }

    /// Shares that are known already, by seed.
    pub fn given(data: &DataSet, rows: Vec<partition::Shares>) -> Result<Self, Failure> {
        let mut reader =
            csv::ReaderBuilder::new().delimiter(data.source.dialect().delimiter).from_reader(&data.csv[..]);
        let damaged = |e: csv::Error| Failure::new("the data does not fit", &data.set, "records of a CSV file", e);
        let header = reader.byte_headers().map_err(damaged)?.clone();
        let records = reader.byte_records().collect::<Result<Vec<_>, _>>().map_err(damaged)?;
        Ok(Self { header, records, rows })
    }

    /// Writes device `device` (from 0) with its files and its `device.toml`.
    pub fn write(&self, data: &DataSet, device: usize, name: &str, dir: &Path) -> Result<(), Failure> {
        let failed =
            |e: io::Error| Failure::new("no folder for a device", dir.display().to_string(), "room to write", e);
        fs::create_dir_all(dir).map_err(failed)?;
        let dialect = Dialect::of(data, device, &self.header);
        let mut sources = Sources::new();
        for (seed, shares) in (1..).zip(&self.rows) {
            let set = data.set_of(seed);
            let file = format!("{set}.csv");
            self.write_csv(&shares[device], &dialect, &dir.join(&file)).map_err(failed)?;
            sources.insert(set, dialect.source(data, &file));
        }
        let network = on_one_machine();
        let config = DeviceConfig { name: name.into(), data: sources, network, ..DeviceConfig::default() };
        let text = toml::to_string(&config).map_err(io::Error::other).map_err(failed)?;
        fs::write(dir.join(DeviceConfig::FILE_NAME), text).map_err(failed)
    }

    fn write_csv(&self, rows: &[usize], dialect: &Dialect, path: &Path) -> io::Result<()> {
        let mut out = csv::Writer::from_path(path)?;
        let order = dialect.order(self.header.len());
        let header = order.iter().map(|column| dialect.column(*column, &self.header[*column]));
        out.write_record(header)?;
        for row in rows {
            let record = &self.records[*row];
            out.write_record(order.iter().map(|column| dialect.cell(*column, &record[*column])))?;
        }
        out.flush()
    }
}

/// How one site writes its table.
struct Dialect {
    /// The label's column, if this site calls it and its classes otherwise.
    foreign: Option<Foreign>,
}

struct Foreign {
    column: usize,
    name: String,
    /// Of the classes, in the job's order.
    classes: Vec<String>,
}

impl Dialect {
    fn of(data: &DataSet, device: usize, header: &csv::ByteRecord) -> Self {
        let label = data.schema.label.as_ref().filter(|_| data.foreign_labels && device % 2 == 1);
        let foreign = label.and_then(|label| {
            let column = header.iter().position(|name| name == label.name.as_bytes())?;
            Some(Foreign { column, name: format!("{}_code", label.name), classes: label.classes.clone()? })
        });
        Self { foreign }
    }

    /// A foreign site has its columns the other way round.
    fn order(&self, columns: usize) -> Vec<usize> {
        if self.foreign.is_some() { (0..columns).rev().collect() } else { (0..columns).collect() }
    }

    fn column<'a>(&'a self, column: usize, name: &'a [u8]) -> &'a [u8] {
        match &self.foreign {
            Some(foreign) if foreign.column == column => foreign.name.as_bytes(),
            _ => name,
        }
    }

    /// Codes are first letters: `B`, `M`.
    fn cell<'a>(&self, column: usize, cell: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
        match &self.foreign {
            Some(foreign) if foreign.column == column => cell[..cell.len().min(1)].to_ascii_uppercase().into(),
            _ => cell.into(),
        }
    }

    fn source(&self, data: &DataSet, file: &str) -> Source {
        let mut source = Source::of(file);
        if let (Some(foreign), Some(label)) = (&self.foreign, &data.schema.label) {
            let codes = foreign.classes.iter().map(|class| (class[..1].to_ascii_uppercase(), class.clone())).collect();
            let rule = Rule { field: Some(label.name.clone()), codes, ..Rule::default() };
            source.columns.insert(foreign.name.clone(), rule);
        }
        source
    }
}
