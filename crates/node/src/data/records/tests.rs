use super::*;
use crate::data::partition::feature::Seat;
use std::fs;

const SEAT: Seat = Seat { device: 0, devices: 2, seed: 1 };

fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("littoral-records-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    dir
}

/// Writes rows and reads them again as a device would.
fn again(records: &Records, rows: &[usize], features: &[Feature], dir: &Path) -> (Source, Records) {
    let columns = records.changed_columns(features, &["y"]).expect("goes with them");
    let change = Change { features, seat: SEAT, columns: &columns };
    let place = Place { dir, set: "set", without_speakers: false };
    let source = records.write(rows, &change, &place).expect("writes");
    let read = Records::load("set", &source, dir, &Limits::default()).expect("reads");
    (source, read)
}

fn load(source: &Source, dir: &Path) -> Records {
    Records::load("whole", source, dir, &Limits::default()).expect("reads")
}

#[test]
fn a_table_keeps_its_dialect_and_its_texts() {
    let dir = folder("csv");
    fs::write(dir.join("a.csv"), "\u{feff}x;y;t\r\n1,5;b;\"p;q\"\r\n?;a;r\r\n2,5;b; s\r\n").expect("writes");
    let mut source = Source::of("a.csv");
    (source.delimiter, source.decimal) = (Some(';'), Some(','));
    let whole = load(&source, &dir);
    let labels = whole.labels(Some("y")).expect("a column").expect("labels");
    assert_eq!((labels.ids, labels.names), (vec![1, 0, 1], vec!["a".to_owned(), "b".into()]));
    let (part, _) = again(&whole, &[0, 2], &[], &dir);
    assert_eq!(part.dialect(), source.dialect());
    assert_eq!(fs::read_to_string(dir.join("set.csv")).expect("is there"), "x;y;t\n1,5;b;\"p;q\"\n2,5;b; s\n");
    // Numbers change, other columns and missing values do not.
    let (_, changed) = again(&whole, &[0, 1], &[Feature::Affine { strength: 1.0 }], &dir);
    let Rows::Csv { records, .. } = &changed.rows else { panic!("a table") };
    assert_ne!(&records[0][0], b"1,5");
    assert!(std::str::from_utf8(&records[0][0]).expect("text").replace(',', ".").parse::<f64>().is_ok());
    assert_eq!((&records[0][1], &records[0][2], &records[1][0]), (&b"b"[..], &b"p;q"[..], &b"?"[..]));
    let error = whole.keys("x").expect_err("a missing value");
    assert_eq!((error.problem, error.row), (Problem::MissingLabel, Some(2)));
    assert_eq!(whole.keys("z").expect_err("no z").problem, Problem::MissingColumn);
    fs::remove_dir_all(dir).expect("removes");
}

#[test]
fn lines_are_copied_as_they_stand() {
    let dir = folder("jsonl");
    fs::write(dir.join("a.jsonl"), "{\"b\": 1.50, \"a\": null}\n\n{\"b\": 2, \"site\": \"x\"}\n").expect("writes");
    let whole = load(&Source::of("a.jsonl"), &dir);
    again(&whole, &[0], &[], &dir);
    assert_eq!(fs::read_to_string(dir.join("set.jsonl")).expect("is there"), "{\"b\": 1.50, \"a\": null}\n");
    let (_, changed) = again(&whole, &[1], &[Feature::Affine { strength: 1.0 }], &dir);
    let Rows::Jsonl(lines) = &changed.rows else { panic!("lines") };
    assert!(object(&lines[0])["b"].as_f64().expect("a number") != 2.0 && object(&lines[0])["site"] == "x");
    fs::remove_dir_all(dir).expect("removes");
}

/// IDX images with labels, and NumPy's floats: what is written is NumPy's, and holds the same numbers.
#[test]
fn arrays_come_back() {
    let dir = folder("array");
    let images: Vec<u8> = [0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 2].into_iter().chain(1..13).collect();
    fs::write(dir.join("x-ubyte"), images).expect("writes");
    fs::write(dir.join("y-ubyte"), [0, 0, 8, 1, 0, 0, 0, 3, 9, 10, 9]).expect("writes");
    let mut source = Source::of("x-ubyte");
    source.labels = vec!["y-ubyte".into()];
    let whole = load(&source, &dir);
    assert_eq!(whole.labels(None).expect("has them").expect("labels").names, ["9", "10"]);
    let (part, read) = again(&whole, &[0, 2], &[], &dir);
    assert_eq!((part.format("set"), part.labels.len()), (Ok(Format::Npy), 1));
    let Rows::Array { features, labels } = &read.rows else { panic!("an array") };
    assert_eq!(features.shape, [2, 2, 2]);
    assert_eq!(features.elements, super::super::array::Elements::U8(vec![1, 2, 3, 4, 9, 10, 11, 12]));
    assert_eq!(labels.elements, super::super::array::Elements::U8(vec![9, 9]));
    assert!(whole.changed_columns(&[Feature::Affine { strength: 1.0 }], &[]).is_err(), "images have no gain");
    assert!(whole.keys("0").is_err());
    fs::remove_dir_all(dir).expect("removes");
}

#[test]
fn speeches_keep_their_speakers() {
    let dir = folder("text");
    fs::write(dir.join("a.txt"), "ROMEO:\nO, she doth\n\nJULIET:\nAy me!\n\nand more\n\nROMEO:\nShe speaks.\n")
        .expect("writes");
    let whole = load(&Source::of("a.txt"), &dir);
    let keys = whole.keys(SPEAKER).expect("speakers");
    assert_eq!((keys.ids, keys.names), (vec![1, 0, 0, 1], vec!["JULIET".to_owned(), "ROMEO".into()]));
    let write = |without_speakers| {
        let change = Change { features: &[], seat: SEAT, columns: &BTreeMap::new() };
        whole.write(&[1, 2], &change, &Place { dir: &dir, set: "set", without_speakers }).expect("writes");
        fs::read_to_string(dir.join("set.txt")).expect("is there")
    };
    assert_eq!((write(false).as_str(), write(true).as_str()), ("JULIET:\nAy me!\n\nand more\n", "Ay me!\nand more\n"));
    fs::write(dir.join("b.txt"), "one\ntwo\n").expect("writes");
    let lines = load(&Source::of("b.txt"), &dir);
    assert_eq!((lines.count(), lines.keys(SPEAKER).is_err()), (2, true));
    fs::remove_dir_all(dir).expect("removes");
}

#[test]
fn images_are_copied_or_turned() {
    let dir = folder("images");
    for (class, shade) in [("cat", 10u8), ("dog", 200)] {
        fs::create_dir_all(dir.join("whole").join(class)).expect("a folder");
        let image = image::GrayImage::from_raw(2, 3, vec![shade; 6]).expect("an image");
        image.save(dir.join("whole").join(class).join("1.png")).expect("writes");
    }
    let mut source = Source::of("whole");
    source.format = Some(Format::Images);
    let whole = load(&source, &dir);
    let (part, read) = again(&whole, &[1], &[], &dir);
    assert_eq!(
        (part.format("set"), read.labels(None).expect("folders").expect("labels").names),
        (Ok(Format::Images), vec!["dog".to_owned()])
    );
    let copied = |path: &Path| fs::read(path).expect("a file");
    assert_eq!(copied(&dir.join("set/dog/1.png")), copied(&dir.join("whole/dog/1.png")));
    again(&whole, &[0], &[Feature::Contrast { strength: 2.0 }], &dir);
    let changed = image::open(dir.join("set/cat/1.png")).expect("an image").into_luma8();
    assert!(changed.dimensions() == (2, 3) && changed.into_raw() != vec![10; 6]);
    fs::remove_dir_all(dir).expect("removes");
}
