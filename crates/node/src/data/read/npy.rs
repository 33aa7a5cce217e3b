//! NumPy's .npy, format versions 1.0 to 3.0
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
//!
//! Reads C order and the types bool, i8 to i64, u8 to u32, f32 and f64, in either byte order. Fortran order, objects,
//! strings, complex and half precision are refused with the line of Python that writes them readably. Pickled objects
//! are never executed.

use std::io::Read;

use crate::data::array::{Array, ElementType, Order, elements_of, read_elements};
use crate::data::error::{DataError, Problem, shown};
use crate::data::limits::{DIMENSIONS_MAX, Limits, NPY_HEADER_BYTES_MAX, bounded};

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Reads one array and expects the end of the file after it.
pub fn read(input: impl Read, limits: &Limits) -> Result<Array, DataError> {
    let mut input = bounded(input, limits.file_bytes);
    let mut start = [0u8; 8];
    exact(&mut input, &mut start)?;
    let (magic, version) = start.split_at(6);
    if magic != MAGIC {
        let hint = "write the file with numpy.save; for .npz set format = \"npz\"";
        return Err(DataError::new(Problem::Malformed, "NumPy's magic number", format!("{magic:02x?}"), hint));
    }
    let length = match version[0] {
        1 => {
            let mut length = [0u8; 2];
            exact(&mut input, &mut length)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 | 3 => {
            let mut length = [0u8; 4];
            exact(&mut input, &mut length)?;
            u32::from_le_bytes(length) as usize
        }
        other => {
            let hint = "write the file with a NumPy that uses version 1 to 3";
            return Err(DataError::new(Problem::Unsupported, "format version 1, 2 or 3", other.to_string(), hint));
        }
    };
    if length > NPY_HEADER_BYTES_MAX {
        let expected = format!("a header of at most {NPY_HEADER_BYTES_MAX} bytes");
        return Err(DataError::new(Problem::TooLarge, expected, format!("{length} bytes"), "the file is damaged"));
    }
    let mut header = vec![0u8; length];
    exact(&mut input, &mut header)?;
    let header = std::str::from_utf8(&header)
        .map_err(|_| DataError::new(Problem::NotUtf8, "a header in UTF-8", "other bytes", "the file is damaged"))?;
    let header = Header::parse(header)?;
    let (element, order) = element_type(&header.descr)?;
    if header.fortran_order && header.shape.len() > 1 {
        return Err(DataError::new(
            Problem::Unsupported,
            "C order",
            "fortran_order: True",
            "numpy.save(path, numpy.ascontiguousarray(array))",
        ));
    }
    let count = elements_of(&header.shape, element, limits)?;
    let elements = read_elements(input, count, element, order)?;
    Ok(Array { shape: header.shape.iter().map(|length| *length as usize).collect(), elements })
}

fn exact(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), DataError> {
    input.read_exact(buffer).map_err(|error| DataError::reading(&error))
}

fn element_type(descr: &str) -> Result<(ElementType, Order), DataError> {
    let unsupported = || {
        let expected = "b1, i1, i2, i4, i8, u1, u2, u4, f4 or f8";
        DataError::new(Problem::Unsupported, expected, shown(descr), "numpy.save(path, array.astype(\"<f4\"))")
    };
    let order = match descr.as_bytes().first() {
        Some(b'<' | b'|' | b'=') => Order::Little,
        Some(b'>') => Order::Big,
        _ => return Err(unsupported()),
    };
    let element = match &descr[1..] {
        "b1" => ElementType::Bool,
        "i1" => ElementType::I8,
        "u1" => ElementType::U8,
        "i2" => ElementType::I16,
        "u2" => ElementType::U16,
        "i4" => ElementType::I32,
        "u4" => ElementType::U32,
        "i8" => ElementType::I64,
        "f4" => ElementType::F32,
        "f8" => ElementType::F64,
        _ => return Err(unsupported()),
    };
    Ok((element, order))
}

/// The header: a Python dictionary literal with exactly these three keys.
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<u64>,
}

impl Header {
    /// Parses the part of Python's literals that NumPy writes here, and nothing more.
    fn parse(text: &str) -> Result<Self, DataError> {
        let malformed = |what: &str| {
            let got = format!("{what} in {}", shown(text.trim_end()));
            let hint = "write the file with numpy.save; structured types are not read";
            DataError::new(Problem::Malformed, "{'descr': …, 'fortran_order': …, 'shape': (…), }", got, hint)
        };
        let mut literal = Literal { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        if !literal.take("{") {
            return Err(malformed("no dictionary"));
        }
        while !literal.take("}") {
            let key = literal.string().ok_or_else(|| malformed("no key"))?;
            if !literal.take(":") {
                return Err(malformed("no value"));
            }
            let new = match key {
                "descr" => descr.replace(literal.string().ok_or_else(|| malformed("descr"))?.to_owned()).is_none(),
                "fortran_order" => {
                    fortran_order.replace(literal.truth().ok_or_else(|| malformed("fortran_order"))?).is_none()
                }
                "shape" => shape.replace(literal.tuple().ok_or_else(|| malformed("shape"))?).is_none(),
                _ => return Err(malformed("an unknown key")),
            };
            if !new {
                return Err(malformed("a key twice"));
            }
            if !literal.take(",") && !literal.rest.trim_start().starts_with('}') {
                return Err(malformed("no comma"));
            }
        }
        if !literal.rest.trim().is_empty() {
            return Err(malformed("text after the dictionary"));
        }
        Ok(Self {
            descr: descr.ok_or_else(|| malformed("no descr"))?,
            fortran_order: fortran_order.ok_or_else(|| malformed("no fortran_order"))?,
            shape: shape.ok_or_else(|| malformed("no shape"))?,
        })
    }
}

struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    /// Moves over `token` and the space before it, if it is next.
    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn string(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let (string, rest) = rest[1..].split_once(quote)?;
        self.rest = rest;
        Some(string).filter(|string| !string.contains('\\'))
    }

    fn truth(&mut self) -> Option<bool> {
        if self.take("True") {
            Some(true)
        } else if self.take("False") {
            Some(false)
        } else {
            None
        }
    }

    /// `()`, `(3,)` or `(3, 4)`; a negative or huge length is no tuple of lengths.
    fn tuple(&mut self) -> Option<Vec<u64>> {
        let mut lengths = Vec::new();
        if !self.take("(") {
            return None;
        }
        while !self.take(")") {
            let rest = self.rest.trim_start();
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            lengths.push(rest[..digits].parse().ok()?);
            // Python 2 wrote long integers with an L.
            self.rest = rest[digits..].strip_prefix('L').unwrap_or(&rest[digits..]);
            let more = self.take(",");
            let ends = self.rest.trim_start().starts_with(')');
            if (!more && !ends) || lengths.len() > DIMENSIONS_MAX {
                return None;
            }
        }
        Some(lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::array::Elements;

    pub(crate) fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn header(descr: &str, shape: &str) -> String {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}   \n")
    }

    fn check(descr: &str, data: &[u8], expected: Elements) {
        for version in [1, 2, 3] {
            let array = read(npy(version, &header(descr, "(2,)"), data).as_slice(), &Limits::default()).expect(descr);
            assert_eq!(array, Array { shape: vec![2], elements: expected.clone() });
        }
    }

    #[test]
    fn reads_every_type() {
        check("|b1", &[0, 1], Elements::U8(vec![0, 1]));
        check("|u1", &[0, 255], Elements::U8(vec![0, 255]));
        check("|i1", &[0, 255], Elements::I64(vec![0, -1]));
        check("<i2", &[1, 0, 0xff, 0xff], Elements::I64(vec![1, -1]));
        check(">u2", &[1, 0, 0xff, 0xff], Elements::I64(vec![256, 65535]));
        check("<i4", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Elements::I64(vec![1, -1]));
        check("<u4", &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], Elements::I64(vec![1, 4_294_967_295]));
        let both = |a: &[u8], b: &[u8]| [a, b].concat();
        check("<i8", &both(&1i64.to_le_bytes(), &i64::MIN.to_le_bytes()), Elements::I64(vec![1, i64::MIN]));
        check("<f4", &both(&1.5f32.to_le_bytes(), &(-0.5f32).to_le_bytes()), Elements::F32(vec![1.5, -0.5]));
        check(">f8", &both(&1.5f64.to_be_bytes(), &(-0.5f64).to_be_bytes()), Elements::F64(vec![1.5, -0.5]));
    }

    fn refused(bytes: &[u8]) -> DataError {
        read(bytes, &Limits::default()).expect_err("must be refused")
    }

    #[test]
    fn refuses_what_it_does_not_read_with_advice() {
        let fortran = "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }\n";
        let error = refused(&npy(1, fortran, &[0; 4]));
        assert!(error.problem == Problem::Unsupported && error.hint.contains("ascontiguousarray"), "{error}");
        for descr in ["|O", "<U9", "<c16", "<f2", "<u8", "", "é1"] {
            let error = refused(&npy(3, &header(descr, "(1,)"), &[0; 16]));
            assert_eq!(error.problem, Problem::Unsupported, "{error}");
        }
        assert_eq!(refused(&npy(4, &header("<f4", "(1,)"), &[0; 4])).problem, Problem::Unsupported);
    }

    #[test]
    fn attacks_end_in_an_error() {
        let shape = |shape: &str| refused(&npy(1, &header("<f8", shape), &[0; 8])).problem;
        // A shape that claims far more than the file holds must not be allocated.
        assert_eq!(shape("(99999999999,)"), Problem::TooLarge);
        assert_eq!(shape("(4294967296, 4294967296)"), Problem::TooLarge);
        assert_eq!(shape("(0, 18446744073709551615)"), Problem::TooLarge);
        assert_eq!(shape("(-1,)"), Problem::Malformed);
        assert_eq!(shape("(18446744073709551616,)"), Problem::Malformed);
        assert_eq!(shape("(1 2)"), Problem::Malformed);
        assert_eq!(shape("(1"), Problem::Malformed);
        assert_eq!(shape(&format!("({})", "1,".repeat(40))), Problem::Malformed);
        assert_eq!(shape("(500000000,)"), Problem::Malformed, "within the limit, but the bytes are not there");
        assert_eq!(refused(b"PK\x03\x04 not npy").problem, Problem::Malformed);
        assert_eq!(refused(b"\x93NUM").problem, Problem::Malformed);
        assert_eq!(refused(&npy(1, &header("<f8", "(1,)"), &[0; 9])).problem, Problem::Malformed);
        assert_eq!(refused(&npy(1, &header("|b1", "(1,)"), &[2])).problem, Problem::Malformed);
        let mut long = MAGIC.to_vec();
        long.extend([2, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(refused(&long).problem, Problem::TooLarge);
    }

    #[test]
    fn every_prefix_of_a_file_is_refused() {
        let whole = npy(1, &header("<f8", "(2, 1)"), &[0; 16]);
        assert!(read(whole.as_slice(), &Limits::default()).is_ok());
        for length in 0..whole.len() {
            assert_eq!(refused(&whole[..length]).problem, Problem::Malformed, "{length}");
        }
    }
}
