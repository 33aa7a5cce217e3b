//! A site's arrays: .npy, .npz and IDX, plain or gzip. The first byte chooses the format, whether the features or the
//! labels are what is wrong, and whether the job wants numbers or images.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::{one_line, site};
use littoral_node::data::array::{Array, Elements};
use littoral_node::data::error::DataError;
use littoral_node::data::read::{gunzip, idx, npy, npz};
use littoral_node::data::{Limits, Schema, Source};
use std::io::Cursor;
use std::sync::LazyLock;

/// Two rows of two numbers, and their labels.
const NPY: [&[u8]; 2] = [
    b"\x93NUMPY\x01\x00\x36\0{'descr':'|u1','fortran_order':False,'shape':(2,2,1),}\n\x01\x02\x03\x04",
    b"\x93NUMPY\x01\x00\x33\0{'descr':'|u1','fortran_order':False,'shape':(2,),}  \n\0\x01",
];
const IDX: [&[u8]; 2] =
    [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, 1, 2, 3, 4], &[0, 0, 8, 1, 0, 0, 0, 2, 0, 1]];
static SCHEMAS: LazyLock<[Schema; 3]> = LazyLock::new(|| {
    [
        "label = { name = \"y\", classes = [\"no\", \"yes\"] }\nfields = [{ name = \"a\" }, { name = \"b\" }]",
        "label = { name = \"y\" }\nfields = [{ name = \"a\" }, { name = \"b\", kind = { category = { values = [\"2\", \"4\"] } } }]",
        "[image]\nheight = 2\nwidth = 1\nchannels = 1\nclasses = [\"no\", \"yes\"]",
    ]
    .map(|text| Schema::from_toml(text).expect("a schema"))
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (format, wrong, schema) = (choice % 3, choice / 3 % 2, choice / 6 % 3);
    let source = match format {
        0 => "files = ['x.npy']\nlabels = ['y.npy']",
        1 => "files = ['x.idx']\nlabels = ['y.idx']",
        _ => "files = ['x.npz']",
    };
    let source: Source = toml::from_str(source).expect("a source");
    let mut parts = match format {
        0 => NPY,
        _ => IDX,
    };
    parts[usize::from(wrong)] = bytes;
    for (file, part) in source.files.iter().chain(&source.labels).zip(parts) {
        site::write(&file.to_string_lossy(), if format == 2 { bytes } else { part });
    }
    site::load(&source, &SCHEMAS[usize::from(schema)]);
    let limits = Limits::default();
    match format {
        0 => whole(npy::read(bytes, &limits)),
        1 => whole(idx::read(gunzip(bytes).expect("bytes"), &limits)),
        _ => whole(npz::read(Cursor::new(bytes), "x", &limits)),
    }
});

/// An array has as many elements as its shape says.
fn whole(array: Result<Array, DataError>) {
    match array {
        Ok(array) => {
            let elements = match &array.elements {
                Elements::U8(values) => values.len(),
                Elements::I64(values) => values.len(),
                Elements::F32(values) => values.len(),
                Elements::F64(values) => values.len(),
            };
            assert_eq!(elements, array.shape.iter().product::<usize>());
        }
        Err(error) => one_line(error),
    }
}
