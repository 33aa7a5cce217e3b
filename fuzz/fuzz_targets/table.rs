//! A site's file of rows or of text, plain or gzip, and how it maps to a job. The first byte chooses how the file is
//! written and what the job wants.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::{one_line, site};
use littoral_node::data::read::csv::{self, Dialect};
use littoral_node::data::table::{Kind, Values, Wanted};
use littoral_node::data::{Limits, Schema, Source, infer};
use std::sync::LazyLock;

const SCHEMAS: [&str; 2] = [
    r#"label = { name = "y", classes = ["no", "yes"] }
       fields = [{ name = "a" }, { name = "b", kind = { category = { values = ["u", "v"] } } }]"#,
    r#"label = { name = "y" }
       fields = [{ name = "a", unit = "mm" }]"#,
];
const TEXT: &str = "[text]\nalphabet = \"\\n abc·\"\nwindow = 2";
const SOURCES: [&str; 6] = [
    "files = ['x.csv']",
    "files = ['x.tsv', 'x.tsv']\n[columns]\ngrams = { field = 'a', scale = 0.001, offset = -1.0 }",
    "files = ['x.csv']\ndelimiter = ';'\ndecimal = ','\nheader = false\nmissing = ['-']\n\
     columns = { 0 = 'a', 1 = { field = 'y', scale = 1e30 } }",
    "files = ['x.jsonl']",
    "files = ['x.jsonl']\ndecimal = ','\ncolumns = { q = 'a', r = { field = 'b', codes = { 1 = 'u', true = 'v' } } }",
    "files = ['x.txt']",
];
static CASES: LazyLock<Vec<(Source, Schema)>> = LazyLock::new(|| {
    let schema = |text| Schema::from_toml(text).expect("a schema");
    let source = |text: &&str| toml::from_str::<Source>(text).expect("a source");
    let mut cases = Vec::new();
    for source in SOURCES.iter().map(source) {
        cases.extend(SCHEMAS.map(|text| (source.clone(), schema(text))));
        cases.push((source, schema(TEXT)));
    }
    cases
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (source, schema) = &CASES[usize::from(*choice) % CASES.len()];
    for file in &source.files {
        site::write(&file.to_string_lossy(), bytes);
    }
    site::load(source, schema);
    if *choice == 0 {
        kinds_hold(bytes, &source.dialect());
    }
});

/// What is called a column of numbers can be read as one, and a schema that was found by itself is one.
fn kinds_hold(bytes: &[u8], dialect: &Dialect) {
    let limits = Limits::default();
    let kinds = match csv::kinds(bytes, dialect, &limits) {
        Ok(kinds) => kinds,
        Err(error) => return one_line(error),
    };
    for (name, kind) in &kinds {
        match csv::read(bytes, dialect, &Wanted::from([(name.clone(), *kind)]), &limits) {
            Ok(table) => {
                let values = &table.column(name).expect("the wanted column").values;
                assert_eq!(matches!(values, Values::Number(_)), *kind == Kind::Number);
            }
            Err(error) => one_line(error),
        }
        match infer::schema(|| Ok(bytes), dialect, name, &limits) {
            Ok(found) => found.schema.check().expect("a schema"),
            Err(error) => one_line(error),
        }
    }
}
