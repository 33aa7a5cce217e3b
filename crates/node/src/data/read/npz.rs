//! NumPy's .npz: a zip archive of .npy files. One named array is read; the others are not touched, so an archive may
//! hold strings beside the numbers.
//!
//! Decompression is bounded by the array's own header: the entry is read as a stream, no further than its shape says.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

use super::npy;
use crate::data::array::Array;
use crate::data::error::{DataError, Problem, listed};
use crate::data::limits::Limits;

/// Reads the array that was saved under `name` (`numpy.savez(path, name=array)`).
pub fn read(input: impl Read + Seek, name: &str, limits: &Limits) -> Result<Array, DataError> {
    let mut archive = ZipArchive::new(input).map_err(|error| damaged(&error))?;
    let file_name = format!("{name}.npy");
    let Some(index) = archive.index_for_name(&file_name) else {
        let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect();
        let names = names.iter().map(|name| name.strip_suffix(".npy").unwrap_or(name));
        return Err(DataError::new(
            Problem::MissingColumn,
            format!("an array {name:?}"),
            format!("arrays {}", listed(names)),
            "name the arrays with `features` and `target` in this data set's mapping",
        ));
    };
    let entry = archive.by_index(index).map_err(|error| damaged(&error))?;
    npy::read(entry, limits).map_err(|error| error.in_column(name))
}

fn damaged(error: &ZipError) -> DataError {
    match error {
        ZipError::Io(error) => DataError::reading(error),
        other => {
            let hint = "write the file again with numpy.savez or numpy.savez_compressed";
            DataError::new(Problem::Malformed, "a zip archive", other.to_string(), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::data::array::Elements;

    fn npy(shape: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn archive(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, SimpleFileOptions::default()).expect("starts");
            writer.write_all(bytes).expect("writes");
        }
        writer.finish().expect("finishes").into_inner()
    }

    #[test]
    fn reads_one_array_beside_others() {
        let bytes = archive(&[("names.npy", b"not read".to_vec()), ("x.npy", npy("(1, 2)", &[7, 8]))]);
        let array = read(Cursor::new(&bytes), "x", &Limits::default()).expect("reads");
        assert_eq!(array, Array { shape: vec![1, 2], elements: Elements::U8(vec![7, 8]) });
        let error = read(Cursor::new(&bytes), "y", &Limits::default()).expect_err("no such array");
        assert!(error.problem == Problem::MissingColumn && error.got.contains("\"x\""), "{error}");
    }

    #[test]
    fn a_zip_bomb_is_not_unpacked() {
        let tight = Limits { file_bytes: 1 << 16, ..Limits::default() };
        // 64 MB of zeros in some 64 KB, with a header that tells the truth, and one that does not.
        let zeros = vec![0u8; 64 << 20];
        let honest = archive(&[("x.npy", npy("(67108864,)", &zeros))]);
        assert!(honest.len() < 1 << 17);
        assert_eq!(read(Cursor::new(&honest), "x", &tight).expect_err("bomb").problem, Problem::TooLarge);
        let lying = archive(&[("x.npy", npy("(2,)", &zeros))]);
        assert_eq!(read(Cursor::new(&lying), "x", &tight).expect_err("bomb").problem, Problem::Malformed);
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let whole = archive(&[("x.npy", npy("(4,)", &[1, 2, 3, 4]))]);
        for length in 0..whole.len() {
            assert!(read(Cursor::new(&whole[..length]), "x", &Limits::default()).is_err(), "{length}");
        }
        let mut flipped = whole.clone();
        let start = whole.windows(6).position(|w| w == b"x.npyM" || w == b"\x93NUMPY").unwrap_or(45);
        flipped[start + 2] ^= 0x10;
        assert!(read(Cursor::new(&flipped), "x", &Limits::default()).is_err(), "the checksum is not compared");
    }
}
