//! IDX, the format of the MNIST files (<http://yann.lecun.com/exdb/mnist/>): a magic number that holds the type and the
//! number of dimensions, big-endian lengths, big-endian elements. Gzip is unpacked by [`super::gunzip`] before.

use std::io::Read;

use crate::data::array::{Array, ElementType, Order, elements_of, read_elements};
use crate::data::error::{DataError, Problem};
use crate::data::limits::{DIMENSIONS_MAX, Limits, bounded};

/// Reads one array and expects the end of the file after it.
pub fn read(input: impl Read, limits: &Limits) -> Result<Array, DataError> {
    let mut input = bounded(input, limits.file_bytes);
    let mut magic = [0u8; 4];
    input.read_exact(&mut magic).map_err(|error| DataError::reading(&error))?;
    let element = match magic {
        [0, 0, 0x08, _] => ElementType::U8,
        [0, 0, 0x09, _] => ElementType::I8,
        [0, 0, 0x0b, _] => ElementType::I16,
        [0, 0, 0x0c, _] => ElementType::I32,
        [0, 0, 0x0d, _] => ElementType::F32,
        [0, 0, 0x0e, _] => ElementType::F64,
        _ => {
            let expected = "IDX's magic number 00 00 (08|09|0b|0c|0d|0e) dimensions";
            let hint = "check that this is an IDX file, or set `format`";
            return Err(DataError::new(Problem::Malformed, expected, format!("{magic:02x?}"), hint));
        }
    };
    let dimensions = usize::from(magic[3]);
    if dimensions == 0 || dimensions > DIMENSIONS_MAX {
        let expected = format!("1 to {DIMENSIONS_MAX} dimensions");
        return Err(DataError::new(Problem::Malformed, expected, dimensions.to_string(), "the file is damaged"));
    }
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let mut length = [0u8; 4];
        input.read_exact(&mut length).map_err(|error| DataError::reading(&error))?;
        shape.push(u64::from(u32::from_be_bytes(length)));
    }
    let count = elements_of(&shape, element, limits)?;
    let elements = read_elements(input, count, element, Order::Big)?;
    Ok(Array { shape: shape.iter().map(|length| *length as usize).collect(), elements })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::super::gunzip;
    use super::*;
    use crate::data::array::Elements;

    const IMAGES: &[u8] = &[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 9, 8, 7, 6];

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).expect("packs");
        encoder.finish().expect("packs")
    }

    #[test]
    fn reads_plain_and_gzipped() {
        let expected = Array { shape: vec![2, 1, 2], elements: Elements::U8(vec![9, 8, 7, 6]) };
        assert_eq!(read(IMAGES, &Limits::default()).expect("plain"), expected);
        let gz = packed(IMAGES);
        let unpacked = gunzip(gz.as_slice()).expect("sniffs");
        assert_eq!(read(unpacked, &Limits::default()).expect("gzipped"), expected);
        let floats = [0, 0, 0x0d, 1, 0, 0, 0, 1, 0x3f, 0xc0, 0, 0];
        assert_eq!(read(floats.as_slice(), &Limits::default()).expect("floats").elements, Elements::F32(vec![1.5]));
    }

    #[test]
    fn every_prefix_is_refused_packed_or_not() {
        let gz = packed(IMAGES);
        for length in 0..IMAGES.len() {
            let error = read(&IMAGES[..length], &Limits::default()).expect_err("truncated");
            assert_eq!(error.problem, Problem::Malformed, "{length}");
        }
        for length in 2..gz.len() {
            let unpacked = gunzip(&gz[..length]).expect("sniffs");
            let error = read(unpacked, &Limits::default()).expect_err("truncated");
            assert_eq!(error.problem, Problem::Malformed, "{length}");
        }
    }

    #[test]
    fn attacks_end_in_an_error() {
        let refused = |bytes: &[u8]| read(bytes, &Limits::default()).expect_err("refused").problem;
        assert_eq!(refused(&[0, 0, 8, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Problem::TooLarge);
        assert_eq!(refused(&[0, 0, 8, 0]), Problem::Malformed);
        assert_eq!(refused(&[0, 0, 8, 33]), Problem::Malformed);
        assert_eq!(refused(&[0, 0, 7, 1, 0, 0, 0, 0]), Problem::Malformed);
        assert_eq!(refused(b"\x93NUMPY"), Problem::Malformed);
        let bomb = packed(&[&[0, 0, 8, 1, 0, 0, 0, 2][..], &vec![0; 32 << 20]].concat());
        let unpacked = gunzip(bomb.as_slice()).expect("sniffs");
        assert_eq!(read(unpacked, &Limits::default()).expect_err("bomb").problem, Problem::Malformed);
    }
}
