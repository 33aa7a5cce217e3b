//! Data on the device from end to end: the shipped data sets, sites that differ in everything but their patients, and
//! every format from real files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use littoral_node::data::array::Elements;
use littoral_node::data::partition::dirichlet;
use littoral_node::data::read::csv::Dialect;
use littoral_node::data::read::npy;
use littoral_node::data::split::split;
use littoral_node::data::statistics::Sums;
use littoral_node::data::{
    DataError, Features, Labels, Limits, LoadError, Prepared, Problem, SAMPLE_TOML, Schema, Source, Sources, infer,
    load, load_csv,
};

const BREAST_CANCER: &[u8] = include_bytes!("../../../data/breast_cancer.csv");
const DIGITS: &[u8] = include_bytes!("../../../data/digits.csv");

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("data").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("folder");
    folder
}

fn source(toml: &str) -> Source {
    toml::from_str(toml).expect(toml)
}

fn loaded(base: &Path, toml: &str, schema: &Schema) -> Prepared {
    load("d", &source(toml), schema, base, &Limits::default()).unwrap_or_else(|error| panic!("{toml}: {error}")).0
}

fn refused(base: &Path, toml: &str, schema: &Schema) -> DataError {
    match load("d", &source(toml), schema, base, &Limits::default()) {
        Err(LoadError::Data(error)) => error,
        other => panic!("{toml}: {other:?}"),
    }
}

// Shipped data sets.

fn shipped(bytes: &[u8], label: &str) -> (Schema, Prepared) {
    let found = infer::schema(|| Ok(bytes), &Dialect::default(), label, &Limits::default()).expect("infers");
    assert_eq!(found.left_out, []);
    let (rows, report) =
        load_csv("shipped", bytes, &Source::of("shipped.csv"), &found.schema, &Limits::default()).expect("loads");
    assert!(report.ignored.is_empty() && report.missing.is_empty());
    (found.schema, rows)
}

fn class_counts(rows: &Prepared) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    rows.classes().expect("classes").iter().for_each(|class| *counts.entry(*class).or_default() += 1);
    counts
}

#[test]
fn breast_cancer_is_what_uci_describes() {
    let (schema, rows) = shipped(BREAST_CANCER, "diagnosis");
    assert_eq!(schema.classes(), Some(["benign".to_owned(), "malignant".to_owned()].as_slice()));
    assert_eq!((rows.rows(), schema.inputs().len()), (569, 30));
    assert_eq!(class_counts(&rows), BTreeMap::from([(0, 357), (1, 212)]));
    // Mean and population deviation of `mean radius` by numpy on scikit-learn's copy, to the digits of an f32 input.
    let statistics = Sums::of(&rows, &schema.inputs()).expect("in range").standardisation();
    assert!((statistics.mean[0] - 14.127_291_739_894_55).abs() < 1e-6, "{}", statistics.mean[0]);
    assert!((1.0 / statistics.inv_std[0] - 3.520_950_760_711_062).abs() < 1e-6, "{}", statistics.inv_std[0]);
}

#[test]
fn digits_are_what_uci_describes() {
    let (schema, rows) = shipped(DIGITS, "digit");
    let digits: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    assert_eq!(schema.classes(), Some(digits.as_slice()));
    assert_eq!((rows.rows(), schema.inputs().len()), (1797, 64));
    let counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180];
    assert_eq!(class_counts(&rows), (0..).zip(counts).collect());
    let Features::F32 { values, .. } = &rows.features else { panic!("numbers") };
    assert!(values.iter().all(|pixel| (0.0..=16.0).contains(pixel) && pixel.fract() == 0.0));
    // Three pixels are blank in every image: no statistics, no division by zero.
    let statistics = Sums::of(&rows, &schema.inputs()).expect("in range").standardisation();
    assert_eq!(statistics.inv_std.iter().filter(|inverse| **inverse == 0.0).count(), 3);
}

#[test]
fn a_fleet_of_hospitals_has_the_statistics_of_one_place() {
    let (schema, rows) = shipped(BREAST_CANCER, "diagnosis");
    let central = Sums::of(&rows, &schema.inputs()).expect("in range");
    let shares = dirichlet(rows.classes().expect("classes"), 8, 0.3, 10, 7).expect("partitions");
    let mut words = vec![0i64; central.to_words().len()];
    let mut trained = 0;
    for share in &shares {
        let own = rows.select(share);
        let halves = split(&own, 0.2, 7).expect("splits");
        trained += halves.train.len();
        let own = Sums::of(&own, &schema.inputs()).expect("in range").to_words();
        words.iter_mut().zip(own).for_each(|(sum, word)| *sum += word);
    }
    assert_eq!(Sums::from_words(&words).expect("whole").standardisation(), central.standardisation());
    assert!(trained > 440, "a fifth is held out, less where classes are small: {trained}");
}

// Two hospitals.

const PATIENTS: &str = r#"
label = { name = "diagnosis", classes = ["benign", "malignant"] }

[[fields]]
name = "age"
unit = "years"

[[fields]]
name = "height"
unit = "m"

[[fields]]
name = "temperature"
unit = "°C"

[[fields]]
name = "sex"
kind = { category = { values = ["female", "male"] } }
"#;

const NORTH: &str =
    "age,height,temperature,sex,diagnosis\n40,1.75,37.5,female,benign\n,1.5,36,male,malignant\n61,2,,,benign\n";
const SOUTH: &str = "\u{feff}Diagnose;Geschlecht;\"Größe (cm)\";Temp F;Alter;Station\r\n\
                     B;w;175;99,5;40;3\r\nM;m;150;96,8;k.A.;4\r\nB;?;200;?;61;4\r\n";
const SOUTH_MAPPING: &str = r#"
files = ["south.csv"]
delimiter = ";"
decimal = ","
missing = ["", "?", "k.A."]

[columns]
"Alter" = "age"
"Größe (cm)" = { field = "height", scale = 0.01 }
"Temp F" = { field = "temperature", scale = 0.5555555555555556, offset = -17.77777777777778 }
"Geschlecht" = { field = "sex", codes = { w = "female", m = "male" } }
"Diagnose" = { field = "diagnosis", codes = { M = "malignant", B = "benign" } }
"#;

/// Equal bits, NaN included.
fn bits(rows: &Prepared) -> (Vec<u32>, &Labels) {
    let Features::F32 { values, .. } = &rows.features else { panic!("numbers") };
    (values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect(), &rows.labels)
}

#[test]
fn two_hospitals_that_differ_in_names_order_units_and_codes_give_the_same_rows() {
    let base = folder("hospitals");
    fs::write(base.join("north.csv"), NORTH).expect("writes");
    fs::write(base.join("south.csv"), SOUTH).expect("writes");
    let schema = Schema::from_toml(PATIENTS).expect("schema");
    let load = |toml: &str| load("patients", &source(toml), &schema, &base, &Limits::default()).expect(toml);
    let (north, north_report) = load("files = [\"north.csv\"]");
    let (south, south_report) = load(SOUTH_MAPPING);
    assert_eq!(bits(&north), bits(&south));
    assert_eq!(south_report.ignored, ["Station"]);
    let missing = [("age", 1), ("temperature", 1), ("sex", 1)].map(|(field, count)| (field.to_owned(), count));
    assert_eq!(
        (north_report.missing.as_slice(), south_report.missing.as_slice()),
        (missing.as_slice(), missing.as_slice())
    );
    let lines = "{\"sex\": \"female\", \"age\": 40, \"height\": 1.75, \"temperature\": \"37.5\", \"diagnosis\": \"benign\"}\n\
                 {\"sex\": \"male\", \"height\": 1.5, \"temperature\": 36, \"diagnosis\": \"malignant\"}\n\
                 {\"age\": 61, \"height\": 2, \"diagnosis\": \"benign\", \"sex\": null}\n";
    fs::write(base.join("west.jsonl"), lines).expect("writes");
    let (west, _) = load("files = [\"west.jsonl\"]");
    assert_eq!(bits(&north), bits(&west));
    let (both, report) = load("files = [\"north.csv\", \"north.csv\"]");
    assert_eq!((both.rows(), report.rows), (6, 6));
}

#[test]
fn every_mismatch_names_file_column_and_row_before_training() {
    let base = folder("mismatches");
    let schema = Schema::from_toml(PATIENTS).expect("schema");
    let check = |from: &str, to: &str, problem: Problem, column: &str, row: Option<u64>| {
        assert!(NORTH.contains(from));
        fs::write(base.join("site.csv"), NORTH.replacen(from, to, 1)).expect("writes");
        let error = refused(&base, "files = [\"site.csv\"]", &schema);
        assert_eq!(&*error.file, "site.csv", "{error}");
        assert_eq!(
            (error.problem, error.column.as_deref(), error.row),
            (problem, Some(format!("{column:?}").as_str()), row),
            "{error}"
        );
        assert!(!error.hint.is_empty() && !error.got.is_empty() && !error.expected.is_empty(), "{error}");
        error
    };
    let error = check("height", "Height ", Problem::MissingColumn, "height", None);
    assert!(error.hint.contains("\"Height\" = \"height\""), "{error}");
    let error = check("age,height", "years,size", Problem::MissingColumn, "age", None);
    assert!(error.expected.contains("\"age\", and for \"height\""), "all that are missing: {error}");
    check("1.5,", "\"1,5\",", Problem::NotANumber, "height", Some(2));
    check("1.5,", "1e300,", Problem::OutOfRange, "height", Some(2));
    check(",male,", ",m,", Problem::UnknownCode, "sex", Some(2));
    check("malignant", "maligne", Problem::UnknownClass, "diagnosis", Some(2));
    check("malignant", "NA", Problem::MissingLabel, "diagnosis", Some(2));
    let error = check(",male,", ",m,", Problem::UnknownCode, "sex", Some(2));
    assert_eq!(
        error.to_string(),
        "site.csv, column \"sex\", row 2: unknown category: expected one of \"female\", \"male\", got \"m\"; \
         hint: say what it means: codes = { \"m\" = … } for this column, or add it to `missing`"
    );
    fs::write(base.join("empty.csv"), "age,height,temperature,sex,diagnosis\n").expect("writes");
    assert_eq!(refused(&base, "files = [\"empty.csv\"]", &schema).problem, Problem::Empty);
    assert_eq!(refused(&base, "files = [\"nowhere.csv\"]", &schema).problem, Problem::Unreadable);
    fs::write(base.join("notes.txt"), "abc").expect("writes");
    assert_eq!(refused(&base, "files = [\"notes.txt\"]", &schema).problem, Problem::WrongForm);
}

// Arrays, images, text.

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::GrayImage::from_raw(width, height, pixels.to_vec()).expect("size");
    image.write_to(&mut bytes, image::ImageFormat::Png).expect("encodes");
    bytes.into_inner()
}

#[test]
fn images_from_npy_npz_idx_and_a_folder_are_the_same_rows() {
    let base = folder("images");
    let schema = Schema::from_toml("[image]\nheight = 1\nwidth = 2\nchannels = 1\nclasses = [\"cat\", \"dog\"]")
        .expect("schema");
    let (pixels, labels) = ([1u8, 2, 3, 4, 5, 6], [0u8, 1, 1]);
    let (x, y) = (npy("|u1", "(3, 1, 2)", &pixels), npy("|u1", "(3,)", &labels));
    fs::write(base.join("x.npy"), &x).expect("writes");
    fs::write(base.join("y.npy"), &y).expect("writes");
    let mut archive = zip::ZipWriter::new(fs::File::create(base.join("both.npz")).expect("creates"));
    for (name, bytes) in [("x_train.npy", &x), ("y_train.npy", &y)] {
        archive.start_file(name, zip::write::SimpleFileOptions::default()).expect("starts");
        archive.write_all(bytes).expect("writes");
    }
    archive.finish().expect("finishes");
    let gzipped = |name: &str, header: &[u8], data: &[u8]| {
        let file = fs::File::create(base.join(name)).expect("creates");
        let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        encoder.write_all(&[header, data].concat()).expect("writes");
        encoder.finish().expect("finishes");
    };
    gzipped("x-idx3-ubyte.gz", &[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2], &pixels);
    gzipped("y-idx1-ubyte.gz", &[0, 0, 8, 1, 0, 0, 0, 3], &labels);
    for (class, name, index) in [("Katze", "a.png", 0), ("dog", "a.PNG", 1), ("dog", "b.png", 2)] {
        fs::create_dir_all(base.join("folder").join(class)).expect("folder");
        fs::write(base.join("folder").join(class).join(name), png(2, 1, &pixels[index * 2..][..2])).expect("writes");
    }
    fs::write(base.join("folder/dog/notes.md"), "").expect("writes");

    let expected = loaded(&base, "files = [\"x.npy\"]\nlabels = [\"y.npy\"]", &schema);
    assert_eq!(expected.labels, Labels::Classes { ids: vec![0, 1, 1], classes: 2 });
    assert!(matches!(&expected.features, Features::U8 { width: 2, values, .. } if *values == pixels));
    let npz = "files = [\"both.npz\"]\nfeatures = \"x_train\"\ntarget = \"y_train\"";
    assert_eq!(loaded(&base, npz, &schema), expected);
    let idx = "files = [\"x-idx3-ubyte.gz\"]\nlabels = [\"y-idx1-ubyte.gz\"]";
    assert_eq!(loaded(&base, idx, &schema), expected);
    let images = "files = [\"folder\"]\nformat = \"images\"\nclasses = { Katze = \"cat\" }";
    let (rows, report) = load("d", &source(images), &schema, &base, &Limits::default()).expect("images");
    assert_eq!((rows, report.ignored), (expected, vec!["folder/dog/notes.md".to_owned()]));

    // What does not fit is named.
    assert_eq!(refused(&base, "files = [\"folder\"]\nformat = \"images\"", &schema).problem, Problem::UnknownClass);
    fs::write(base.join("folder/dog/c.png"), png(1, 2, &[0, 0])).expect("writes");
    let error = refused(&base, images, &schema);
    assert_eq!((error.problem, &*error.file), (Problem::WrongShape, "folder/dog/c.png"), "{error}");
    fs::write(base.join("y.npy"), npy("|u1", "(3,)", &[0, 1, 2])).expect("writes");
    let error = refused(&base, "files = [\"x.npy\"]\nlabels = [\"y.npy\"]", &schema);
    assert_eq!((error.problem, error.row, &*error.file), (Problem::UnknownClass, Some(3), "y.npy"), "{error}");
    fs::write(base.join("y.npy"), npy("|u1", "(2,)", &[0, 1])).expect("writes");
    let error = refused(&base, "files = [\"x.npy\"]\nlabels = [\"y.npy\"]", &schema);
    assert_eq!((error.problem, &*error.file), (Problem::WrongShape, "y.npy"), "{error}");
}

#[test]
fn an_array_of_numbers_maps_by_position_or_by_number() {
    let base = folder("arrays");
    let schema = Schema::from_toml(
        "label = { name = \"y\" }\n[[fields]]\nname = \"a\"\n[[fields]]\nname = \"b\"\nkind = { category = { values = [\"no\", \"yes\"] } }",
    )
    .expect("schema");
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    fs::write(base.join("x.npy"), npy("<f4", "(2, 3)", &floats(&[9.0, 1.0, 500.0, 9.0, 0.0, f32::NAN])))
        .expect("writes");
    fs::write(base.join("y.npy"), npy("<f4", "(2,)", &floats(&[0.5, -1.0]))).expect("writes");
    let files = "files = [\"x.npy\"]\nlabels = [\"y.npy\"]\n";
    let columns =
        "[columns]\n2 = { field = \"a\", scale = 0.001 }\n1 = { field = \"b\", codes = { 0 = \"no\", 1 = \"yes\" } }\n";
    let rows = loaded(&base, &format!("{files}{columns}"), &schema);
    let Features::F32 { width: 3, values } = &rows.features else { panic!("{rows:?}") };
    assert_eq!((&values[..3], &values[4..]), ([0.5, 0.0, 1.0].as_slice(), [1.0, 0.0].as_slice()));
    assert!(values[3].is_nan());
    assert_eq!(rows.labels, Labels::Values { width: 1, values: vec![0.5, -1.0] });
    assert_eq!(refused(&base, files, &schema).problem, Problem::WrongShape, "three columns are not two fields");
}

#[test]
fn text_becomes_windows_of_tokens() {
    let base = folder("text");
    let schema = Schema::from_toml("[text]\nalphabet = \"\\nab\"\nwindow = 2").expect("schema");
    fs::write(base.join("one.txt"), "ab\r\nab\n").expect("writes");
    fs::write(base.join("two.txt"), "b").expect("writes");
    // Two files are one text: seven ids are three windows and the last one's target.
    let toml = "files = [\"one.txt\", \"two.txt\"]";
    let (rows, report) = load("d", &source(toml), &schema, &base, &Limits::default()).expect("loads");
    let tokens = |ids: &[u16]| Features::Tokens { ids: ids.to_vec(), window: 2 };
    assert_eq!((report.rows, &rows.features), (3, &tokens(&[1, 2, 0, 1, 2, 0, 2])));
    let halves = split(&rows, 0.34, 1).expect("splits");
    assert_eq!(rows.select(&halves.train).features, tokens(&[1, 2, 0, 1, 2]));
    assert_eq!(rows.select(&halves.held_out).features, tokens(&[2, 0, 2]));
    assert_eq!(refused(&base, "files = [\"two.txt\"]", &schema).problem, Problem::Empty);
    fs::write(base.join("one.txt"), "ab\na c").expect("writes");
    let error = refused(&base, toml, &schema);
    let place = (error.problem, error.row, &*error.file);
    assert_eq!(place, (Problem::UnknownCharacter, Some(2), "one.txt"), "{error}");
}

#[test]
fn the_sample_is_a_configuration() {
    #[derive(serde::Deserialize)]
    struct Device {
        data: Sources,
    }
    let device: Device = toml::from_str(SAMPLE_TOML).expect("sample");
    for (name, source) in &device.data {
        source.check(name).expect(name);
    }
    assert_eq!(device.data.len(), 7);
}

/// The larger public files, where they are: `LITTORAL_DATA` names the folder.
#[test]
fn public_files_read_whole() {
    let Some(base) = std::env::var_os("LITTORAL_DATA").map(PathBuf::from) else {
        eprintln!("LITTORAL_DATA is not set: MNIST, MedNIST and the others are not read");
        return;
    };
    let classes = |count: usize| (0..count).map(|class| format!("\"{class}\"")).collect::<Vec<_>>().join(", ");
    let images = |side: usize, count: usize| {
        let classes = classes(count);
        Schema::from_toml(&format!("[image]\nheight = {side}\nwidth = {side}\nchannels = 1\nclasses = [{classes}]"))
            .expect("schema")
    };
    let mnist = loaded(
        &base,
        "files = [\"mnist/train-images-idx3-ubyte.gz\"]\nlabels = [\"mnist/train-labels-idx1-ubyte.gz\"]",
        &images(28, 10),
    );
    assert_eq!((mnist.rows(), class_counts(&mnist)[&1]), (60_000, 6_742));
    let partition = fs::read(base.join("mnist/partition_dir0.3_1000x60.npy")).expect("reads");
    let partition = npy::read(partition.as_slice(), &Limits::default()).expect("NumPy wrote it");
    assert_eq!(partition.shape, [1000, 60]);
    let Elements::I64(indices) = partition.elements else { panic!("int32") };
    assert!(indices.iter().all(|index| (0..60_000).contains(index)));
    let mednist = "files = [\"mednist64_6x1000.npz\"]\nfeatures = \"x_train\"\ntarget = \"y_train\"";
    assert_eq!(loaded(&base, mednist, &images(64, 6)).rows(), 6_000);
    let credit = fs::read(base.join("credit_card_default.csv")).expect("reads");
    let found = infer::schema(|| Ok(credit.as_slice()), &Dialect::default(), "Y", &Limits::default()).expect("infers");
    let rows = loaded(&base, "files = [\"credit_card_default.csv\"]", &found.schema);
    assert_eq!((rows.rows(), found.schema.inputs().len()), (30_000, 24));
    Sums::of(&rows, &found.schema.inputs()).expect("amounts squared are in range");
    let play = fs::read_to_string(base.join("tinyshakespeare.txt")).expect("reads");
    let speakers = littoral_node::data::read::text::by_speaker(&play);
    assert_eq!(speakers.values().filter(|part| part.chars().count() >= 2_000).count(), 99);
}
