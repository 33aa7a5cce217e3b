//! The folder of a sweep: it has what a sweep writes, and nothing else.

use super::curves::Drawn;
use crate::output::Failure;
use crate::pending::Pending;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Folder(PathBuf);

impl Folder {
    /// A new folder, an empty one, or an earlier sweep's, to go on with. `more`: what else may lie in it.
    pub fn at(path: &Path, more: &[&str]) -> Result<Self, Failure> {
        let refused = |got: String| {
            let expected = "a new folder, or one with a sweep's files only";
            Failure::new("the sweep has no folder", path.display().to_string(), expected, got)
                .hint("give another --into")
        };
        fs::create_dir_all(path).map_err(|e| refused(e.to_string()))?;
        for entry in fs::read_dir(path).map_err(|e| refused(e.to_string()))? {
            let entry = entry.map_err(|e| refused(e.to_string()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours =
                ["runs.csv", "table.csv", "report.html"].contains(&name.as_str()) || more.contains(&name.as_str());
            let curve = name.starts_with("curves-") && name.ends_with(".svg");
            // Of a sweep that was killed while it wrote.
            if name.contains(".unfinished-") && fs::remove_file(entry.path()).is_ok() {
                continue;
            }
            if !(ours || curve) {
                return Err(refused(format!("one with {name} in it")));
            }
        }
        Ok(Self(path.to_owned()))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), Failure> {
        Pending::at(&self.file(name))?.write(content)
    }

    pub fn write_curves(&self, plots: &[Drawn]) -> Result<(), Failure> {
        for (n, plot) in plots.iter().enumerate() {
            self.write(&format!("curves-{:02}-rounds.svg", n + 1), &plot.over_rounds)?;
            self.write(&format!("curves-{:02}-time.svg", n + 1), &plot.over_time)?;
        }
        Ok(())
    }
}
