//! The devices of a fleet as their folders on this machine tell: names and data, as the running devices have them.

use crate::output::Failure;
use littoral_node::config::{Config, DeviceConfig};
use littoral_node::data::Source;
use littoral_node::data::mapping::Format;
use littoral_node::deploy::data::offers;
use littoral_node::deploy::{DeviceData, Enrolment};
use littoral_node::work::LocalData;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One device's folder.
pub struct Site {
    /// Under which it was enrolled.
    pub name: String,
    config: DeviceConfig,
    /// Where the paths of its data start.
    base: PathBuf,
}

impl Site {
    pub fn data(&self) -> Arc<dyn LocalData> {
        Arc::new(DeviceData::new(self.config.data.clone(), &self.base, self.config.limits.of_data()))
    }

    /// Rows of a data set; 0 if it has none or they cannot be counted.
    pub fn rows_of(&self, set: &str) -> u64 {
        let offered = offers(&self.config.data, &self.base, &self.config.limits.of_data());
        offered.iter().find(|offer| &*offer.name == set).map_or(0, |offer| offer.rows)
    }
}

impl Site {
    /// A site whose data is one plain table: its name, how it is written, and where it is.
    pub fn table(&self) -> Result<(String, Source, PathBuf), Failure> {
        let wrong = |got: String| {
            let expected = "one data set of one CSV file without `columns`, `decimal` or `missing`";
            Failure::new("the devices' data is no table to share", self.name.clone(), expected, got)
                .hint("`littoral sim --fleet` and `littoral device` take any other")
        };
        let mut sets = self.config.data.iter();
        let (Some((set, source)), None) = (sets.next(), sets.next()) else {
            return Err(wrong(format!("{} data sets", self.config.data.len())));
        };
        let plain = source.columns.is_empty() && source.decimal.is_none() && source.missing.is_none();
        match (source.files.as_slice(), source.format(set)) {
            ([file], Ok(Format::Csv)) if plain => Ok((set.clone(), source.clone(), self.base.join(file))),
            _ => Err(wrong(format!("another in `{set}`"))),
        }
    }
}

/// The devices in the folders of `folder`, sorted by name. Other folders are passed over.
pub fn sites(folder: &Path) -> Result<Vec<Site>, Failure> {
    let unreadable =
        |e: std::io::Error| Failure::new("the devices were not read", folder.display().to_string(), "a folder", e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let dir = entry.map_err(unreadable)?.path();
        if !dir.join(DeviceConfig::FILE_NAME).is_file() {
            continue;
        }
        let (config, base) = DeviceConfig::load(None, Some(&dir))?;
        let folder_name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = match Enrolment::load(&dir)? {
            Some(enrolment) => enrolment.name,
            None if config.name.is_empty() => folder_name,
            None => config.name.clone(),
        };
        found.push(Site { name, config, base });
    }
    found.sort_by(|a, b| in_order(&a.name).cmp(&in_order(&b.name)));
    Ok(found)
}

/// By name, `device-2` before `device-10`: a fleet's numbers are those of whoever made its folders.
fn in_order(name: &str) -> (&str, Option<u64>, &str) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().ok(), name)
}
