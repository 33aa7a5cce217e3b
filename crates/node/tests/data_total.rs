//! Readers are total: any bytes give a value or an error, never a panic, and never more memory than the limits. Random
//! bytes rarely pass a magic number, so whole files with a few bytes changed are tried, too.

use std::io::Cursor;

use littoral_node::data::read::csv::Dialect;
use littoral_node::data::read::{csv, gunzip, idx, image, jsonl, npy, npz, text};
use littoral_node::data::table::{Cells, Kind, Wanted};
use littoral_node::data::{Limits, Schema, Source};
use proptest::prelude::*;

/// Small bounds, so that a wrong length which is believed shows as a slow test.
const TIGHT: Limits = Limits { file_bytes: 1 << 20, columns: 64, cells: 1 << 16, record_bytes: 1 << 16, distinct: 256 };

fn every_reader(bytes: &[u8]) {
    let wanted = Wanted::from([("a".to_owned(), Kind::Number), ("b".to_owned(), Kind::Text)]);
    let _ = csv::read(bytes, &Dialect::default(), &wanted, &TIGHT);
    let _ = csv::kinds(bytes, &Dialect { delimiter: b';', header: false, cells: Cells::default() }, &TIGHT);
    let _ = jsonl::read(bytes, &Cells::default(), &wanted, &TIGHT);
    let _ = jsonl::kinds(bytes, &Cells::default(), &TIGHT);
    let _ = npy::read(bytes, &TIGHT);
    let _ = npz::read(Cursor::new(bytes), "a", &TIGHT);
    let _ = gunzip(bytes).map(|unpacked| idx::read(unpacked, &TIGHT));
    let _ = image::read(bytes, (3, 4), &TIGHT);
    let _ = text::read(bytes, &TIGHT).map(|play| text::by_speaker(&play).len());
    if let Ok(toml) = std::str::from_utf8(bytes) {
        let _ = Schema::from_toml(toml);
        let _ = toml::from_str::<Source>(toml).map(|source| source.check("a"));
    }
}

fn whole_files() -> Vec<Vec<u8>> {
    use std::io::Write;
    let npy = b"\x93NUMPY\x01\x00\x3a\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n\0\0\0\0\0\0\0\0";
    let mut npz = zip::ZipWriter::new(Cursor::new(Vec::new()));
    npz.start_file("a.npy", zip::write::SimpleFileOptions::default()).expect("starts");
    npz.write_all(npy).expect("writes");
    let idx = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 1, 7, 8];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&idx).expect("writes");
    let picture = ::image::DynamicImage::new_rgb8(4, 3);
    let encoded = |format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encodes");
        bytes.into_inner()
    };
    vec![
        npy.to_vec(),
        npz.finish().expect("finishes").into_inner(),
        idx.to_vec(),
        gz.finish().expect("finishes"),
        encoded(::image::ImageFormat::Png),
        encoded(::image::ImageFormat::Jpeg),
        b"a,b\n1,\"x\"\n2,y\n".to_vec(),
        b"{\"a\": 1, \"b\": \"x\"}\n{\"a\": null}\n".to_vec(),
        b"label = { name = \"y\" }\nfields = [{ name = \"x\", unit = \"mm\" }]".to_vec(),
        b"files = [\"x.csv\"]\ncolumns = { a = { field = \"b\", scale = 0.1, codes = { c = \"d\" } } }".to_vec(),
    ]
}

#[test]
fn the_whole_files_are_whole() {
    let files = whole_files();
    assert!(npy::read(files[0].as_slice(), &TIGHT).is_ok());
    assert!(npz::read(Cursor::new(&files[1]), "a", &TIGHT).is_ok());
    assert!(idx::read(gunzip(files[3].as_slice()).expect("sniffs"), &TIGHT).is_ok());
    assert!(image::read(&files[4], (3, 4), &TIGHT).is_ok() && image::read(&files[5], (3, 4), &TIGHT).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        every_reader(&bytes);
    }

    #[test]
    fn whole_files_with_bytes_changed(
        file in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut files = whole_files();
        let mut bytes = files.swap_remove(file.index(files.len()));
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        every_reader(&bytes);
    }
}
