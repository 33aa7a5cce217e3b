//! An [`Array`]: numbers with a shape, as .npy and IDX files hold them, and how their elements are decoded.
//!
//! The first dimension counts rows (images, examples). Elements are widened to four types: what is 8-bit unsigned stays
//! so (images), other integers become i64, floats stay.

use std::io::Read;

use super::error::{DataError, Problem};
use super::limits::{DIMENSIONS_MAX, Limits, ROWS_MAX};

/// Numbers in C order: the last index runs fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each dimension; an empty shape is one number.
    pub shape: Vec<usize>,
    /// As many elements as the product of the shape.
    pub elements: Elements,
}

/// The elements of an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements {
    /// 8-bit unsigned, and booleans as 0 and 1.
    U8(Vec<u8>),
    /// Every other integer.
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Array {
    /// Length of the first dimension, 1 for a single number.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Elements in one row.
    pub fn row_width(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// These rows, in this order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        fn pick<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
            rows.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
        }
        let width = self.row_width();
        let elements = match &self.elements {
            Elements::U8(values) => Elements::U8(pick(values, width, rows)),
            Elements::I64(values) => Elements::I64(pick(values, width, rows)),
            Elements::F32(values) => Elements::F32(pick(values, width, rows)),
            Elements::F64(values) => Elements::F64(pick(values, width, rows)),
        };
        let mut shape = self.shape.clone();
        shape.iter_mut().take(1).for_each(|length| *length = rows.len());
        Self { shape, elements }
    }

    /// Adds another array's rows, if they are of the same shape and type.
    pub fn append(&mut self, more: Self) -> bool {
        if self.shape.is_empty() || self.shape.get(1..) != more.shape.get(1..) {
            return false;
        }
        match (&mut self.elements, more.elements) {
            (Elements::U8(values), Elements::U8(more)) => values.extend(more),
            (Elements::I64(values), Elements::I64(more)) => values.extend(more),
            (Elements::F32(values), Elements::F32(more)) => values.extend(more),
            (Elements::F64(values), Elements::F64(more)) => values.extend(more),
            _ => return false,
        }
        self.shape[0] += more.shape[0];
        true
    }

    /// One element as f64 (integers beyond 2^53 round).
    pub fn number(&self, index: usize) -> Option<f64> {
        match &self.elements {
            Elements::U8(values) => values.get(index).map(|v| f64::from(*v)),
            Elements::I64(values) => values.get(index).map(|v| *v as f64),
            Elements::F32(values) => values.get(index).map(|v| f64::from(*v)),
            Elements::F64(values) => values.get(index).copied(),
        }
    }

    /// One element as an integer, if it is one.
    pub fn integer(&self, index: usize) -> Option<i64> {
        match &self.elements {
            Elements::U8(values) => values.get(index).map(|v| i64::from(*v)),
            Elements::I64(values) => values.get(index).copied(),
            Elements::F32(_) | Elements::F64(_) => {
                // Within 2^53 every integer is exact in f64.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                self.number(index).filter(|v| v.fract() == 0.0 && v.abs() <= EXACT).map(|v| v as i64)
            }
        }
    }
}

/// The type of an element on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    I64,
    F32,
    F64,
}

impl ElementType {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// Bytes of one element in memory.
    fn bytes_decoded(self) -> usize {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::F32 => 4,
            _ => 8,
        }
    }
}

/// Byte order of the elements on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Little,
    Big,
}

/// Number of elements of a shape, refused before anything is allocated if they would not fit the limits.
pub(super) fn elements_of(shape: &[u64], element: ElementType, limits: &Limits) -> Result<usize, DataError> {
    let too_large = |expected: String| {
        DataError::new(
            Problem::TooLarge,
            expected,
            format!("shape {shape:?}"),
            "split the array into several files; if the shape is absurd the file is damaged",
        )
    };
    if shape.len() > DIMENSIONS_MAX {
        return Err(DataError::new(
            Problem::TooLarge,
            format!("at most {DIMENSIONS_MAX} dimensions"),
            shape.len().to_string(),
            "reshape the array",
        ));
    }
    if shape.first().is_some_and(|rows| *rows > ROWS_MAX as u64) {
        return Err(too_large(format!("at most {ROWS_MAX} rows")));
    }
    // Each dimension is bounded even when another is 0, so that the product of some of them cannot overflow later.
    let mut factors = shape.iter().map(|length| (*length).max(1));
    let bound = factors.try_fold(1u64, |product, length| product.checked_mul(length));
    let bytes = bound.and_then(|count| count.checked_mul(element.bytes_decoded().max(element.bytes()) as u64));
    match bytes {
        Some(bytes) if bytes <= limits.file_bytes => Ok(shape.iter().product::<u64>() as usize),
        _ => Err(too_large(format!("at most {} bytes of elements", limits.file_bytes))),
    }
}

/// Reads exactly `count` elements and the end of the file. Memory grows with the bytes that are really there.
pub(super) fn read_elements(
    mut reader: impl Read,
    count: usize,
    element: ElementType,
    order: Order,
) -> Result<Elements, DataError> {
    use ElementType as T;
    let read = &mut reader;
    let elements = match element {
        T::U8 => Elements::U8(decode::<1, u8>(read, count, order, |[b]| b)?),
        T::Bool => {
            let bytes = decode::<1, u8>(read, count, order, |[b]| b)?;
            if let Some(index) = bytes.iter().position(|b| *b > 1) {
                let got = format!("{} at element {index}", bytes[index]);
                return Err(DataError::new(Problem::Malformed, "booleans 0 or 1", got, "write the array again"));
            }
            Elements::U8(bytes)
        }
        T::I8 => Elements::I64(decode::<1, i64>(read, count, order, |b| i8::from_le_bytes(b).into())?),
        T::U16 => Elements::I64(decode::<2, i64>(read, count, order, |b| u16::from_le_bytes(b).into())?),
        T::I16 => Elements::I64(decode::<2, i64>(read, count, order, |b| i16::from_le_bytes(b).into())?),
        T::U32 => Elements::I64(decode::<4, i64>(read, count, order, |b| u32::from_le_bytes(b).into())?),
        T::I32 => Elements::I64(decode::<4, i64>(read, count, order, |b| i32::from_le_bytes(b).into())?),
        T::I64 => Elements::I64(decode::<8, i64>(read, count, order, i64::from_le_bytes)?),
        T::F32 => Elements::F32(decode::<4, f32>(read, count, order, f32::from_le_bytes)?),
        T::F64 => Elements::F64(decode::<8, f64>(read, count, order, f64::from_le_bytes)?),
    };
    let mut left_over = [0u8; 1];
    match read.read(&mut left_over) {
        Ok(0) => Ok(elements),
        Ok(_) => Err(DataError::new(
            Problem::Malformed,
            format!("the end of the file after {count} elements"),
            "bytes left over",
            "the header and the data disagree: write the file again",
        )),
        Err(error) => Err(DataError::reading(&error)),
    }
}

/// Decodes elements of N bytes, given to `value` in little-endian order.
fn decode<const N: usize, V>(
    reader: &mut impl Read,
    count: usize,
    order: Order,
    value: impl Fn([u8; N]) -> V,
) -> Result<Vec<V>, DataError> {
    const BLOCK_BYTES: usize = 1 << 16;
    let mut block = [0u8; BLOCK_BYTES];
    // A header that claims much more than the file holds reserves one block only.
    let mut values = Vec::with_capacity(count.min(BLOCK_BYTES));
    while values.len() < count {
        let bytes = ((count - values.len()) * N).min(BLOCK_BYTES);
        reader.read_exact(&mut block[..bytes]).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => DataError::new(
                Problem::Malformed,
                format!("{count} elements"),
                format!("the end of the file after {} to {} of them", values.len(), values.len() + bytes / N),
                "the file is incomplete: copy it again",
            ),
            _ => DataError::reading(&error),
        })?;
        let (chunks, _) = block[..bytes].as_chunks::<N>();
        values.extend(chunks.iter().map(|chunk| {
            let mut chunk = *chunk;
            if order == Order::Big {
                chunk.reverse();
            }
            value(chunk)
        }));
    }
    Ok(values)
}
