//! How one site's files become the job's rows: the `[data.NAME]` sections of a device's configuration.
//!
//! Sites name and order their columns differently, measure in other units and write other codes. A [`Source`] says,
//! for this site, which column is which field, and how its values convert. A device without any entry under `columns`
//! has the identity mapping: a column belongs to the field of its name.
//!
//! The compiled-in [`SAMPLE_TOML`] documents every setting.
//!
//! ```
//! use littoral_node::data::{SAMPLE_TOML, Sources};
//!
//! #[derive(serde::Deserialize)]
//! struct Device { data: Sources }
//!
//! let device: Device = toml::from_str(SAMPLE_TOML).unwrap();
//! for (name, source) in &device.data {
//!     source.check(name).unwrap();
//! }
//! assert_eq!(device.data["breast_cancer"].columns["Radius"].field.as_deref(), Some("mean_radius"));
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::{Invalid, listed, shown};
use super::read::csv::Dialect;
use super::schema::{FieldKind, Schema};
use super::table::{Cells, Kind, Wanted};

/// A documented `[data.NAME]` part of a device's configuration.
pub const SAMPLE_TOML: &str = include_str!("sample.toml");

/// The data sets of a device by name.
pub type Sources = BTreeMap<String, Source>;

/// Where one data set lies on this device and how it maps to a job's schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Files, or folders of images; relative paths start at the configuration file.
    pub files: Vec<PathBuf>,
    /// The format; by the first file's ending if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// csv: between cells, one ASCII character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// csv, jsonl: the decimal sign, `.` or `,`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimal: Option<char>,
    /// csv: whether the first line names the columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<bool>,
    /// csv, jsonl: texts that mean "no value".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Vec<String>>,
    /// npy, idx: one file of labels for each of `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<PathBuf>,
    /// npz: the features' name in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// npz: the labels' name in the archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// npy, npz, idx, images: this site's class number or folder -> the job's class.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, String>,
    /// csv, jsonl: this site's column -> the job's field or label. For npy, npz and idx the columns are `0`, `1`, ….
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Rule>,
}

/// What a site's files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Jsonl,
    Npy,
    Npz,
    Idx,
    Images,
    Text,
}

/// One column's way to its field. In TOML either the field's name alone, or a table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// The job's field or label; the column's own name if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// A number becomes `value * scale + offset`.
    pub scale: f64,
    /// In the job's unit.
    pub offset: f64,
    /// This site's code -> the job's category or class.
    pub codes: BTreeMap<String, String>,
}

impl Default for Rule {
    fn default() -> Self {
        Self { field: None, scale: 1.0, offset: 0.0, codes: BTreeMap::new() }
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            field: Option<String>,
            #[serde(default = "one")]
            scale: f64,
            #[serde(default)]
            offset: f64,
            #[serde(default)]
            codes: BTreeMap<String, String>,
        }
        fn one() -> f64 {
            1.0
        }
        // Not `untagged`: that would answer a wrong key with "did not match any variant".
        struct NameOrFull;
        impl<'de> Visitor<'de> for NameOrFull {
            type Value = Rule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name or { field, scale, offset, codes }")
            }

            fn visit_str<E>(self, field: &str) -> Result<Rule, E> {
                Ok(Rule { field: Some(field.to_owned()), ..Rule::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Rule, A::Error> {
                let Full { field, scale, offset, codes } = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Rule { field, scale, offset, codes })
            }
        }
        deserializer.deserialize_any(NameOrFull)
    }
}

impl Source {
    /// The identity mapping of a file.
    pub fn of(file: impl Into<PathBuf>) -> Self {
        Self {
            files: vec![file.into()],
            format: None,
            delimiter: None,
            decimal: None,
            header: None,
            missing: None,
            labels: Vec::new(),
            features: None,
            target: None,
            classes: BTreeMap::new(),
            columns: BTreeMap::new(),
        }
    }

    /// The format, given or by the first file's ending (before `.gz`).
    pub fn format(&self, name: &str) -> Result<Format, Invalid> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let file = self.files.first().map(|file| file.to_string_lossy().to_lowercase()).unwrap_or_default();
        let stem = file.strip_suffix(".gz").unwrap_or(&file);
        let ending = stem.rsplit_once('.').map_or("", |(_, ending)| ending);
        match ending {
            "csv" | "tsv" => Ok(Format::Csv),
            "jsonl" | "ndjson" => Ok(Format::Jsonl),
            "npy" => Ok(Format::Npy),
            "npz" => Ok(Format::Npz),
            "idx" => Ok(Format::Idx),
            "txt" => Ok(Format::Text),
            _ if stem.ends_with("-ubyte") => Ok(Format::Idx),
            _ => Err(Invalid::new(
                format!("data.{name}.format"),
                "nothing",
                "csv, jsonl, npy, npz, idx, images or text, since the file's ending does not tell",
            )),
        }
    }

    /// Checks the settings by themselves, before any job asks for the data. `name` is the data set's.
    pub fn check(&self, name: &str) -> Result<(), Invalid> {
        use Format::{Csv, Idx, Images, Jsonl, Npy, Npz};
        let path = |setting: &str| format!("data.{name}.{setting}");
        if self.files.is_empty() {
            return Err(Invalid::new(path("files"), "nothing", "one path or more"));
        }
        let format = self.format(name)?;
        let only = |setting: &str, is_set: bool, formats: &[Format]| {
            if is_set && !formats.contains(&format) {
                let allowed = format!("only with the formats {formats:?}").to_lowercase();
                return Err(Invalid::new(
                    path(setting),
                    format!("a value, and format {format:?}").to_lowercase(),
                    allowed,
                ));
            }
            Ok(())
        };
        only("delimiter", self.delimiter.is_some(), &[Csv])?;
        only("header", self.header.is_some(), &[Csv])?;
        only("decimal", self.decimal.is_some(), &[Csv, Jsonl])?;
        only("missing", self.missing.is_some(), &[Csv, Jsonl])?;
        only("labels", !self.labels.is_empty(), &[Npy, Idx])?;
        only("features", self.features.is_some(), &[Npz])?;
        only("target", self.target.is_some(), &[Npz])?;
        only("classes", !self.classes.is_empty(), &[Npy, Npz, Idx, Images])?;
        only("columns", !self.columns.is_empty(), &[Csv, Jsonl, Npy, Npz, Idx])?;
        if let Some(delimiter) = self.delimiter.filter(|d| !d.is_ascii() || matches!(d, '"' | '\n' | '\r')) {
            return Err(Invalid::new(
                path("delimiter"),
                format!("{delimiter:?}"),
                "one ASCII character, not a quote or line end",
            ));
        }
        if let Some(decimal) = self.decimal.filter(|d| !matches!(d, '.' | ',')) {
            return Err(Invalid::new(path("decimal"), format!("{decimal:?}"), "\".\" or \",\""));
        }
        if matches!(format, Npy | Idx) && self.labels.len() != self.files.len() {
            let value = format!("{} paths", self.labels.len());
            return Err(Invalid::new(path("labels"), value, format!("one for each of the {} files", self.files.len())));
        }
        for (column, rule) in &self.columns {
            let rule_path = |setting: &str| path(&format!("columns.{column:?}.{setting}"));
            if !rule.scale.is_finite() || rule.scale == 0.0 {
                return Err(Invalid::new(rule_path("scale"), rule.scale, "a finite number, not 0"));
            }
            if !rule.offset.is_finite() {
                return Err(Invalid::new(rule_path("offset"), rule.offset, "a finite number"));
            }
        }
        Ok(())
    }

    /// How the text files are written.
    pub fn dialect(&self) -> Dialect {
        let tabs = self.files.first().is_some_and(|file| file.to_string_lossy().to_lowercase().contains(".tsv"));
        let by_ending = if tabs { b'\t' } else { b',' };
        let delimiter = self.delimiter.and_then(|character| u8::try_from(character).ok()).unwrap_or(by_ending);
        let mut cells = Cells::default();
        if let Some(missing) = &self.missing {
            cells.missing.clone_from(missing);
        }
        if let Some(decimal) = self.decimal {
            cells.decimal = decimal;
        }
        Dialect { delimiter, header: self.header.unwrap_or(true), cells }
    }

    /// For each field of the schema, then the label, the column that it comes from and how. `name` is the data set's.
    /// Whether the file has the columns is not known yet.
    pub fn plan(&self, name: &str, schema: &Schema) -> Result<Plan, Invalid> {
        let label = schema.label.as_ref();
        if !self.classes.is_empty() {
            let classes = schema.classes().unwrap_or_default();
            let mut meant = self.classes.iter();
            if let Some((code, class)) = meant.find(|(_, class)| !classes.contains(class)) {
                let allowed = format!("a class of the job: {}", listed(classes.iter().map(String::as_str)));
                return Err(Invalid::new(format!("data.{name}.classes.{code:?}"), shown(class), allowed));
            }
        }
        let targets =
            || schema.fields.iter().map(|field| field.name.as_str()).chain(label.map(|label| label.name.as_str()));
        let mut chosen = BTreeMap::<&str, Step>::new();
        for (column, rule) in &self.columns {
            let path = |setting: &str| format!("data.{name}.columns.{column:?}.{setting}");
            let target = rule.field.as_deref().unwrap_or(column);
            if !targets().any(|known| known == target) {
                return Err(Invalid::new(
                    path("field"),
                    shown(target),
                    format!("a field or the label of the job: {}", listed(targets())),
                ));
            }
            let categories = match schema.fields.iter().find(|field| field.name == target).map(|field| &field.kind) {
                Some(FieldKind::Category { values }) => Some(values.as_slice()),
                Some(FieldKind::Number) => None,
                None => label.and_then(|label| label.classes.as_deref()),
            };
            match categories {
                None if !rule.codes.is_empty() => {
                    return Err(Invalid::new(path("codes"), "codes", format!("none: {target} is a number")));
                }
                Some(_) if rule.scale != 1.0 || rule.offset != 0.0 => {
                    let value = format!("{} and {}", rule.scale, rule.offset);
                    return Err(Invalid::new(path("scale and offset"), value, format!("none: {target} is a category")));
                }
                Some(values) => {
                    let mut codes = rule.codes.iter();
                    if let Some((code, value)) = codes.find(|(_, value)| !values.contains(value)) {
                        let allowed = listed(values.iter().map(String::as_str));
                        let field = path(&format!("codes.{code:?}"));
                        return Err(Invalid::new(field, shown(value), allowed));
                    }
                }
                None => {}
            }
            let step = Step { column: column.clone(), rule: rule.clone() };
            if let Some(other) = chosen.insert(target, step) {
                let value = format!("{} and {}", shown(&other.column), shown(column));
                return Err(Invalid::new(format!("data.{name}.columns"), value, format!("one column for {target}")));
            }
        }
        let mut step = |target: &str| {
            if let Some(step) = chosen.remove(target) {
                return Ok(step);
            }
            if self.columns.contains_key(target) {
                let value =
                    format!("no column for {}, since the column of that name is mapped elsewhere", shown(target));
                return Err(Invalid::new(format!("data.{name}.columns"), value, "one column for each field"));
            }
            Ok(Step { column: target.to_owned(), rule: Rule::default() })
        };
        let fields = schema.fields.iter().map(|field| step(&field.name)).collect::<Result<_, _>>()?;
        let label = label.map(|label| step(&label.name)).transpose()?;
        Ok(Plan { fields, label })
    }
}

/// Where each field comes from at this site.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In the schema's order.
    pub fields: Vec<Step>,
    /// The label's column.
    pub label: Option<Step>,
}

/// One field's column and conversion.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The column's name in the file.
    pub column: String,
    /// How its values convert.
    pub rule: Rule,
}

impl Plan {
    /// What a reader shall keep.
    pub fn wanted(&self, schema: &Schema) -> Wanted {
        let kind = |is_number| if is_number { Kind::Number } else { Kind::Text };
        let fields = self.fields.iter().zip(&schema.fields);
        let mut wanted: Wanted =
            fields.map(|(step, field)| (step.column.clone(), kind(field.kind == FieldKind::Number))).collect();
        if let (Some(step), Some(label)) = (&self.label, &schema.label) {
            wanted.insert(step.column.clone(), kind(label.classes.is_none()));
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(toml: &str) -> Source {
        toml::from_str(toml).expect(toml)
    }

    fn schema() -> Schema {
        Schema::from_toml(
            "label = { name = \"y\", classes = [\"a\", \"b\"] }\n[[fields]]\nname = \"n\"\n[[fields]]\nname = \"c\"\n\
             kind = { category = { values = [\"u\", \"v\"] } }",
        )
        .expect("schema")
    }

    #[test]
    fn wrong_settings_name_the_setting() {
        let check = |toml: &str, field: &str| {
            let error = source(toml).check("d").expect_err(toml);
            assert_eq!(error.field, field, "{error}");
        };
        check("files = []", "data.d.files");
        check("files = [\"x.bin\"]", "data.d.format");
        check("files = [\"x.npy\"]", "data.d.labels");
        check("files = [\"x.txt\"]\ndelimiter = \";\"", "data.d.delimiter");
        check("files = [\"x.csv\"]\ndelimiter = \"é\"", "data.d.delimiter");
        check("files = [\"x.csv\"]\ndecimal = \"x\"", "data.d.decimal");
        check("files = [\"x.csv\"]\nclasses = { a = \"b\" }", "data.d.classes");
        check("files = [\"x.csv\"]\ncolumns = { a = { scale = 0.0 } }", "data.d.columns.\"a\".scale");
        let unknown =
            toml::from_str::<Source>("files = [\"x.csv\"]\ncolumns = { a = { unit = 1 } }").expect_err("unit");
        assert!(unknown.message().contains("unknown field `unit`"), "{unknown}");
    }

    #[test]
    fn a_mapping_that_does_not_fit_the_schema_names_the_rule() {
        let check = |columns: &str, field: &str| {
            let source = source(&format!("files = [\"x.csv\"]\n[columns]\n{columns}"));
            let error = source.plan("d", &schema()).expect_err(columns);
            assert_eq!(error.field, field, "{error}");
        };
        check("q = \"z\"", "data.d.columns.\"q\".field");
        check("q = \"n\"\nr = \"n\"", "data.d.columns");
        check("n = \"y\"", "data.d.columns");
        check("n = { codes = { a = \"b\" } }", "data.d.columns.\"n\".codes");
        check("c = { scale = 2.0 }", "data.d.columns.\"c\".scale and offset");
        check("c = { codes = { 1 = \"w\" } }", "data.d.columns.\"c\".codes.\"1\"");
    }

    #[test]
    fn a_class_that_the_job_does_not_have_is_named() {
        let source = source("files = [\"x.npz\"]\nclasses = { 0 = \"a\", 1 = \"c\" }");
        let error = source.plan("d", &schema()).expect_err("c");
        assert_eq!(error.field, "data.d.classes.\"1\"");
    }

    #[test]
    fn names_that_match_need_no_mapping() {
        let plan = source("files = [\"x.csv\"]").plan("d", &schema()).expect("plan");
        let columns: Vec<&str> = plan.fields.iter().chain(&plan.label).map(|step| step.column.as_str()).collect();
        assert_eq!(columns, ["n", "c", "y"]);
    }
}
