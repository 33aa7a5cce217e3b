//! A model's parameters: one flat slice, and a layout that names parts of it.
//!
//! The slice is the currency: averaging, clipping, masking and sending see `&[f32]` and nothing else. The layout is
//! for those who must know where a matrix lies: the layers, checkpoints, and algorithms that keep some segments home.

use std::ops::Range;
use thiserror::Error;

/// One named array inside the flat parameters, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Unique in its layout, such as `fc1.weight`.
    pub name: String,
    pub shape: Vec<usize>,
    /// Index of its first value.
    pub offset: usize,
    /// The product of `shape`; an empty shape is a single value.
    pub len: usize,
}

impl Segment {
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParamsError {
    #[error("layout: there are two segments `{name}`")]
    Duplicate { name: String },
    #[error("layout: segment `{name}` with shape {shape:?} passes the largest size of a slice")]
    TooLarge { name: String, shape: Vec<usize> },
    #[error("layout: no segment `{name}`; there are {known}")]
    Unknown { name: String, known: String },
    #[error("parameters: the layout has {expected} values, got {got}")]
    Length { expected: usize, got: usize },
}

/// Segments one after another, without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    len: usize,
}

impl Layout {
    /// Appends a segment and returns its range.
    pub fn push(&mut self, name: impl Into<String>, shape: &[usize]) -> Result<Range<usize>, ParamsError> {
        let name = name.into();
        if self.segments.iter().any(|segment| segment.name == name) {
            return Err(ParamsError::Duplicate { name });
        }
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        let end = len.and_then(|len| len.checked_add(self.len)).filter(|&end| end <= isize::MAX as usize / 8);
        let (Some(len), Some(end)) = (len, end) else {
            return Err(ParamsError::TooLarge { name, shape: shape.to_vec() });
        };
        self.segments.push(Segment { name, shape: shape.to_vec(), offset: self.len, len });
        self.len = end;
        Ok(end - len..end)
    }

    /// How many values the parameters have.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the segment of that name lies.
    pub fn segment(&self, name: &str) -> Result<Range<usize>, ParamsError> {
        self.segments.iter().find(|segment| segment.name == name).map(Segment::range).ok_or_else(|| {
            let known = self.segments.iter().map(|segment| segment.name.as_str()).collect::<Vec<_>>().join(", ");
            ParamsError::Unknown { name: name.to_owned(), known }
        })
    }
}

/// Values that are known to have a layout's length.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    layout: Layout,
    values: Vec<f32>,
}

impl Params {
    pub fn new(layout: Layout, values: Vec<f32>) -> Result<Self, ParamsError> {
        if values.len() != layout.len() {
            return Err(ParamsError::Length { expected: layout.len(), got: values.len() });
        }
        Ok(Self { layout, values })
    }

    pub fn zeros(layout: Layout) -> Self {
        let values = vec![0.0; layout.len()];
        Self { layout, values }
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The values of one segment.
    pub fn segment(&self, name: &str) -> Result<&[f32], ParamsError> {
        Ok(&self.values[self.layout.segment(name)?])
    }

    pub fn segment_mut(&mut self, name: &str) -> Result<&mut [f32], ParamsError> {
        let range = self.layout.segment(name)?;
        Ok(&mut self.values[range])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_follow_each_other() {
        let mut layout = Layout::default();
        assert_eq!(layout.push("fc1.weight", &[3, 2]), Ok(0..6));
        assert_eq!(layout.push("fc1.bias", &[2]), Ok(6..8));
        assert_eq!(layout.push("scale", &[]), Ok(8..9));
        assert_eq!(layout.len(), 9);
        assert_eq!(layout.segment("fc1.bias"), Ok(6..8));

        let mut params = Params::zeros(layout);
        params.segment_mut("fc1.bias").unwrap().fill(1.0);
        assert_eq!(params.values(), [0., 0., 0., 0., 0., 0., 1., 1., 0.]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let mut layout = Layout::default();
        layout.push("a", &[2]).unwrap();
        assert_eq!(layout.push("a", &[1]), Err(ParamsError::Duplicate { name: "a".into() }));
        assert!(matches!(layout.push("b", &[usize::MAX, 2]), Err(ParamsError::TooLarge { .. })));
        assert!(matches!(layout.push("b", &[usize::MAX]), Err(ParamsError::TooLarge { .. })));
        assert_eq!(layout.segment("z").unwrap_err().to_string(), "layout: no segment `z`; there are a");
        assert_eq!(Params::new(layout, vec![0.0; 3]), Err(ParamsError::Length { expected: 2, got: 3 }));
    }
}
