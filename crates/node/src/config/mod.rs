//! Configuration of the three roles: one TOML file each, whose commented sample is the compiled-in default.
//!
//! A wrong file is refused with the file, the line, the field, what is allowed and what was found. Paths are relative to
//! the file. Not here: what `littoral join` learns ([`crate::deploy::Enrolment`]), and the command line's own flags.
//!
//! ```
//! use littoral_node::config::{Config, CloudConfig};
//!
//! let cloud = CloudConfig::parse("listen = \"0.0.0.0:7400\"\nadvertise = \"cloud.example\"", "cloud.toml").unwrap();
//! assert_eq!((cloud.listen.as_str(), cloud.name.as_str()), ("0.0.0.0:7400", "cloud"));
//! let error = CloudConfig::parse("listn = \"\"", "cloud.toml").unwrap_err();
//! assert_eq!((error.line, error.field.as_str()), (1, "listn"));
//! ```

mod error;
mod roles;

pub use error::ConfigError;
pub use roles::{
    CloudConfig, ConditionsConfig, DeviceConfig, DeviceLimits, EdgeConfig, Limits, MasksName, Network, TransportName,
};

use crate::toml_text::line_of_field;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Bytes of a configuration file: a mapping of thousands of columns fits.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A role's configuration.
pub trait Config: DeserializeOwned + Default {
    /// The commented sample; it parses to the default.
    const SAMPLE_TOML: &'static str;
    /// The file that is looked for in a state folder.
    const FILE_NAME: &'static str;

    /// Where state is kept; relative to the file until [`Config::load`] has made it whole.
    fn dir_mut(&mut self) -> &mut PathBuf;

    /// Checks what types cannot say.
    fn check(&self) -> Result<(), (&'static str, String, String)>;

    /// From a text; `file` is for messages.
    fn parse(toml: &str, file: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(toml).map_err(|e| ConfigError::of_toml(&e, toml, file))?;
        config.check().map_err(|(field, expected, got)| {
            ConfigError::new(file, line_of_field(toml, field), field, &expected, &got)
        })?;
        Ok(config)
    }

    /// From `file`; without one, from [`Config::FILE_NAME`] in `dir`, and if there is none, the default. The state
    /// folder is `dir` if given, else what the file says. Also returns the folder that paths in the file start from.
    fn load(file: Option<&Path>, dir: Option<&Path>) -> Result<(Self, PathBuf), ConfigError> {
        let found = match (file, dir) {
            (Some(file), _) => Some(file.to_owned()),
            (None, Some(dir)) => Some(dir.join(Self::FILE_NAME)).filter(|path| path.exists()),
            (None, None) => None,
        };
        let (mut config, base) = match &found {
            Some(path) => (Self::parse(&read(path)?, &path.display().to_string())?, folder_of(path)),
            None => (Self::default(), dir.map_or_else(|| PathBuf::from("."), Path::to_owned)),
        };
        let state = config.dir_mut();
        *state = match dir {
            Some(dir) => dir.to_owned(),
            None => base.join(&*state),
        };
        Ok((config, base))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |expected: &str, got: String| ConfigError::new(&path.display().to_string(), 0, "", expected, &got);
    let bytes = std::fs::metadata(path).map_err(|e| unreadable("a readable file", e.to_string()))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(unreadable("at most 4 MiB", format!("{bytes} bytes")));
    }
    std::fs::read_to_string(path).map_err(|e| unreadable("a readable text in UTF-8", e.to_string()))
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// `listen` as an address to bind.
pub fn socket_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse().ok(),
        None => text.parse().ok(),
    }
}
