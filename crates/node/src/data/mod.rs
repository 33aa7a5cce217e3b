//! Data on the device: from a site's own files to rows that train.
//!
//! A *reader* ([`read`]) turns bytes into a [`table::Table`], an [`array::Array`], images or text. The job's *schema*
//! ([`schema`]) says what every device's rows must become; the site's *mapping* ([`mapping`]) says how this site's
//! columns, units and codes become that. [`apply`] brings them together into [`Prepared`] rows, and whatever does not fit
//! is an error with its file, column and row, before training.
//!
//! ```text
//! files -> read::{csv, jsonl, npy, npz, idx, image, text} -> apply (schema + mapping) -> Prepared
//!       -> split (train, held out) -> statistics: Sums -> the fleet's Standardisation -> training
//! ```
//!
//! Invariants: rows never leave the device, only their [`statistics::Sums`] do. Only [`files`] and [`records`] open paths. Every reader
//! is total and bounded by [`limits`]. Equal rows give equal statistics, bit for bit, wherever they lie.
//!
//! ```
//! use littoral_node::data::{Limits, Schema, Source, load_csv, split::split, statistics::Sums};
//!
//! let schema = Schema::from_toml(
//!     "label = { name = \"ill\", classes = [\"no\", \"yes\"] }\nfields = [{ name = \"age\" }, { name = \"weight\", unit = \"kg\" }]",
//! )
//! .unwrap();
//! let source: Source = toml::from_str(
//!     "files = [\"patients.csv\"]\ncolumns = { grams = { field = \"weight\", scale = 0.001 } }",
//! )
//! .unwrap();
//! let csv = b"grams,ill,age\n70000,no,40\n82000,yes,NA\n";
//! let (rows, report) = load_csv("patients", csv, &source, &schema, &Limits::default()).unwrap();
//! assert_eq!((rows.rows(), report.missing), (2, vec![("age".to_owned(), 1)]));
//!
//! let halves = split(&rows, 0.2, 1).unwrap();
//! let sums = Sums::of(&rows.select(&halves.train), &schema.inputs()).unwrap();
//! let mut features = rows.features;
//! sums.standardisation().apply(&mut features).unwrap();
//! ```

pub mod apply;
pub mod array;
pub mod error;
pub mod files;
pub mod infer;
pub mod limits;
pub mod mapping;
pub mod partition;
pub mod prepared;
mod random;
pub mod read;
pub mod records;
pub mod schema;
pub mod split;
pub mod statistics;
pub mod table;
pub mod wide;

pub use apply::Report;
pub use error::{DataError, Invalid, Problem};
pub use files::{LoadError, load, load_csv};
pub use limits::Limits;
pub use mapping::{SAMPLE_TOML, Source, Sources};
pub use prepared::{Features, Labels, Prepared};
pub use schema::Schema;
