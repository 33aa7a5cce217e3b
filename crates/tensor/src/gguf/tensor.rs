//! The list of tensors: names, dimensions, kinds, and where their bytes are.

use super::DIMS_MAX;
use super::error::{GgufError, Shown, shown};
use super::read::Reader;
use crate::quant::Kind;
use std::fmt::{self, Display};
use std::ops::Range;

/// A name's length, the number of dimensions, a type and an offset.
pub(super) const INFO_BYTES_MIN: usize = 8 + 4 + 4 + 8;

/// A tensor of any kind, known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    pub name: &'a str,
    /// The type's number in the file; [`TensorInfo::kind`] if it is known.
    pub code: u32,
    dims: Dims,
    /// Where in the file its bytes are; for an unknown kind, the first of them.
    range: Range<usize>,
    /// Where in the file it is listed.
    listed_at: usize,
}

/// A tensor of a known kind with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    pub name: &'a str,
    pub kind: Kind,
    pub bytes: &'a [u8],
    /// Where in the file the bytes are.
    pub range: Range<usize>,
    dims: Dims,
}

/// At most four dimensions; the first is the one whose weights lie beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dims {
    sizes: [usize; DIMS_MAX],
    count: usize,
}

impl Dims {
    /// `None` if they are more than four, if one is 0, or if there is no number that is their product.
    pub fn of(dims: &[usize]) -> Option<Self> {
        let mut sizes = [1; DIMS_MAX];
        sizes.get_mut(..dims.len())?.copy_from_slice(dims);
        let weights = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
        (weights > 0).then_some(Self { sizes, count: dims.len() })
    }

    /// Bytes of all rows; `None` if a row is no whole number of blocks, or if there is no such number.
    pub fn bytes(&self, kind: Kind) -> Option<usize> {
        kind.row_bytes(self.columns())?.checked_mul(self.rows())
    }

    fn columns(&self) -> usize {
        self.sizes[0]
    }

    /// No overflow: all of them were multiplied when they were read.
    fn rows(&self) -> usize {
        self.sizes[1..].iter().product()
    }
}

impl<'a> TensorInfo<'a> {
    /// As the file has them: `dims()[0]` is the length of a row.
    pub fn dims(&self) -> &[usize] {
        &self.dims.sizes[..self.dims.count]
    }

    /// Weights in it.
    pub fn weights(&self) -> usize {
        self.dims.columns() * self.dims.rows()
    }

    pub fn kind(&self) -> Option<Kind> {
        Kind::of_code(self.code)
    }

    /// The type's name, also of those that are known by name only.
    pub fn kind_name(&self) -> String {
        kind_name(self.code)
    }

    /// Where in the file its bytes are; `None` for an unknown kind, whose size cannot be told.
    pub fn range(&self) -> Option<Range<usize>> {
        self.kind().map(|_| self.range.clone())
    }

    pub(super) fn with_bytes(&self, file: &'a [u8]) -> Result<Tensor<'a>, GgufError> {
        let Some(kind) = self.kind() else {
            let (name, got) = (shown(self.name), self.kind_name());
            return Err(GgufError::UnknownKind { name, offset: self.listed_at, got });
        };
        let range = self.range.clone();
        Ok(Tensor { name: self.name, kind, bytes: &file[range.clone()], range, dims: self.dims })
    }
}

impl Tensor<'_> {
    /// As the file has them: `dims()[0]` is the length of a row.
    pub fn dims(&self) -> &[usize] {
        &self.dims.sizes[..self.dims.count]
    }

    /// The length of a row.
    pub fn columns(&self) -> usize {
        self.dims.columns()
    }

    /// The product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.dims.rows()
    }
}

/// A tensor as it is listed.
pub(super) struct Stored<'a> {
    name: &'a str,
    dims: Dims,
    code: u32,
    /// From the start of the tensors' bytes.
    offset: u64,
    offset_at: usize,
    listed_at: usize,
}

impl<'a> Stored<'a> {
    pub fn read(reader: &mut Reader<'a>, index: usize) -> Result<Self, GgufError> {
        let listed_at = reader.offset();
        let name = reader.string(&format_args!("the name of tensor {index}"))?;
        let of = |part: &'static str| Part { part, name };
        let dims = dims(reader, name)?;
        let code_at = reader.offset();
        let code = reader.u32(&of("type"))?;
        if let Some(kind) = Kind::of_code(code)
            && !dims.columns().is_multiple_of(kind.columns())
        {
            let expected = format!("rows of a multiple of {} weights, as {kind} needs", kind.columns());
            return Err(GgufError::malformed(&of("type"), code_at, expected, format!("rows of {}", dims.columns())));
        }
        let offset_at = reader.offset();
        let offset = reader.u64(&of("offset"))?;
        Ok(Self { name, dims, code, offset, offset_at, listed_at })
    }

    /// Bytes in the file; at least one if the kind is not known. `None` if there is no such number.
    fn bytes(&self) -> Option<usize> {
        match Kind::of_code(self.code) {
            Some(kind) => self.dims.bytes(kind),
            None => Some(1),
        }
    }
}

fn dims(reader: &mut Reader<'_>, name: &str) -> Result<Dims, GgufError> {
    let what = Part { part: "dimensions", name };
    let offset = reader.offset();
    let count = reader.u32(&what)? as usize;
    if count > DIMS_MAX {
        return Err(GgufError::malformed(&what, offset, format!("at most {DIMS_MAX}"), count));
    }
    let mut sizes = [1; DIMS_MAX];
    let mut weights = 1usize;
    for size in &mut sizes[..count] {
        let offset = reader.offset();
        let got = reader.u64(&what)?;
        let product = usize::try_from(got).ok().and_then(|got| Some((got, weights.checked_mul(got)?)));
        match product {
            Some((got, product)) if got > 0 => (*size, weights) = (got, product),
            _ => {
                let expected = format!("at least 1, and a product of at most {}", usize::MAX);
                return Err(GgufError::malformed(&what, offset, expected, got));
            }
        }
    }
    Ok(Dims { sizes, count })
}

/// Finds each tensor's bytes in the file: aligned, there, and no other's. Gives where the first could begin, too.
pub(super) fn place(
    stored: Vec<Stored<'_>>,
    list_end: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<(usize, Vec<TensorInfo<'_>>), GgufError> {
    let data_start = list_end.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    let mut offsets_at = Vec::new();
    let mut tensors = Vec::new();
    for tensor in stored {
        let what = Part { part: "offset", name: tensor.name };
        let bytes = tensor.bytes();
        let start = usize::try_from(tensor.offset).ok().and_then(|offset| offset.checked_add(data_start));
        let end = start.and_then(|start| start.checked_add(bytes?));
        let range = match (start, end) {
            _ if !tensor.offset.is_multiple_of(alignment as u64) => {
                let expected = format!("a multiple of {alignment}");
                return Err(GgufError::malformed(&what, tensor.offset_at, expected, tensor.offset));
            }
            (Some(start), Some(end)) if end <= file_bytes => start..end,
            _ => {
                let len = match bytes {
                    None => "more bytes than any file has".to_owned(),
                    Some(1) => "at least 1 byte".to_owned(),
                    Some(bytes) => format!("{bytes} bytes"),
                };
                let expected = format!("{len} from {} + {data_start} on", tensor.offset);
                let got = format!("a file of {file_bytes} bytes");
                return Err(GgufError::malformed(&what, tensor.offset_at, expected, got));
            }
        };
        offsets_at.push(tensor.offset_at);
        let Stored { name, dims, code, listed_at, .. } = tensor;
        tensors.push(TensorInfo { name, code, dims, range, listed_at });
    }
    let mut by_start: Vec<usize> = (0..tensors.len()).collect();
    by_start.sort_by_key(|&index| tensors[index].range.start);
    // The nearest neighbours are apart, so all are.
    match by_start.windows(2).find(|pair| tensors[pair[0]].range.end > tensors[pair[1]].range.start) {
        None => Ok((data_start, tensors)),
        Some(pair) => {
            let (first, second) = (&tensors[pair[0]], &tensors[pair[1]]);
            let expected = format!("bytes apart from those of {}, {:?}", shown(first.name), first.range);
            let what = Part { part: "offset", name: second.name };
            Err(GgufError::malformed(&what, offsets_at[pair[1]], expected, format!("{:?}", second.range)))
        }
    }
}

/// The indices of tensors by their names, which are unique.
pub(super) fn by_name(tensors: &[TensorInfo<'_>]) -> Result<Vec<usize>, GgufError> {
    let mut by_name: Vec<usize> = (0..tensors.len()).collect();
    by_name.sort_by_key(|&index| tensors[index].name);
    match by_name.windows(2).find(|pair| tensors[pair[0]].name == tensors[pair[1]].name) {
        None => Ok(by_name),
        Some(pair) => Err(GgufError::malformed(
            &format_args!("the name of tensor {}", pair[1]),
            tensors[pair[1]].listed_at,
            "names that differ",
            format!("{} as tensor {} is", shown(tensors[pair[1]].name), pair[0]),
        )),
    }
}

/// What a part of a tensor is called in errors.
struct Part<'a> {
    part: &'static str,
    name: &'a str,
}

impl Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} of tensor {}", self.part, Shown(self.name))
    }
}

/// Types of GGML that have no [`Kind`], so that a refusal can call them what people do.
const OTHER_KINDS: [(u32, &str); 21] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

fn kind_name(code: u32) -> String {
    if let Some(kind) = Kind::of_code(code) {
        return kind.name().to_owned();
    }
    match OTHER_KINDS.iter().find(|(other, _)| *other == code) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("type {code}"),
    }
}
