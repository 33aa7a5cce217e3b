//! What one trains on: features and labels, and a client's share of them.
//!
//! Rows stay as small as they came: bytes of an image are converted when a batch is gathered, so that the 60,000
//! images of MNIST take 47 MB. A [`View`] is a list of rows over shared examples; a thousand clients share one copy.

use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The inputs of all rows, one row after another.
#[derive(Clone, Debug, PartialEq)]
pub enum Features {
    F32 {
        width: usize,
        values: Vec<f32>,
    },
    /// A value is `byte * scale + offset`.
    U8 {
        width: usize,
        values: Vec<u8>,
        scale: f32,
        offset: f32,
    },
    /// A text. A row is `window` tokens, and its labels are the same tokens one place later; rows do not overlap.
    Tokens {
        ids: Vec<u16>,
        window: usize,
    },
}

/// What is to be predicted, per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Labels {
    /// One of `classes` classes per row.
    Classes { ids: Vec<u32>, classes: u32 },
    /// `width` numbers per row.
    Values { width: usize, values: Vec<f32> },
    /// The token that follows; for [`Features::Tokens`] only.
    NextToken,
}

/// What a row of features looks like to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Values { width: usize },
    Tokens { window: usize },
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values { width } => write!(f, "rows of {width} values"),
            Self::Tokens { window } => write!(f, "windows of {window} tokens"),
        }
    }
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExamplesError {
    #[error("examples: {what} is {got}, expected {expected}")]
    Size { what: &'static str, expected: String, got: usize },
    #[error("examples: row {row} has class {class}, expected less than {classes}")]
    Class { row: usize, class: u32, classes: u32 },
    #[error("examples: labels `next token` need features that are tokens, and tokens need those labels")]
    Kinds,
    #[error("view: row {row} is beyond the {rows} rows of the examples")]
    Row { row: u32, rows: usize },
    #[error("standardise: {what} of column {column} is not finite")]
    NotFinite { what: &'static str, column: usize },
}

/// Data and model do not fit.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}: the model expects {expected}, the data has {got}")]
pub struct Mismatch {
    pub what: &'static str,
    pub expected: String,
    pub got: String,
}

/// Features and labels that are known to fit each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Examples {
    features: Features,
    labels: Labels,
    rows: usize,
    /// One more than the largest token.
    tokens: usize,
}

impl Examples {
    pub fn new(features: Features, labels: Labels) -> Result<Self, ExamplesError> {
        let rows = match &features {
            Features::F32 { width, values } => rows_of("length of the features", values.len(), *width)?,
            Features::U8 { width, values, .. } => rows_of("length of the features", values.len(), *width)?,
            Features::Tokens { ids, window } => {
                if *window == 0 {
                    return Err(size("window", "at least 1", 0));
                }
                // The last token of a text is a label only.
                ids.len().saturating_sub(1) / window
            }
        };
        if u32::try_from(rows).is_err() {
            return Err(size("number of rows", "less than 2^32", rows));
        }
        match (&features, &labels) {
            (Features::Tokens { .. }, Labels::NextToken) => {}
            (Features::Tokens { .. }, _) | (_, Labels::NextToken) => {
                return Err(ExamplesError::Kinds);
            }
            (_, Labels::Classes { ids, classes }) => {
                if ids.len() != rows {
                    return Err(size("number of labels", rows, ids.len()));
                }
                if let Some(row) = ids.iter().position(|class| class >= classes) {
                    return Err(ExamplesError::Class { row, class: ids[row], classes: *classes });
                }
            }
            (_, Labels::Values { width, values }) => {
                let labelled = rows_of("length of the labels", values.len(), *width)?;
                if labelled != rows {
                    return Err(size("number of labels", rows, labelled));
                }
            }
        }
        let tokens = match &features {
            Features::Tokens { ids, .. } => ids.iter().max().map_or(0, |&id| usize::from(id) + 1),
            _ => 0,
        };
        Ok(Self { features, labels, rows, tokens })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn features(&self) -> &Features {
        &self.features
    }

    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    pub fn shape(&self) -> Shape {
        match self.features {
            Features::F32 { width, .. } | Features::U8 { width, .. } => Shape::Values { width },
            Features::Tokens { window, .. } => Shape::Tokens { window },
        }
    }

    /// How many different tokens there can be: one more than the largest.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

fn rows_of(what: &'static str, len: usize, width: usize) -> Result<usize, ExamplesError> {
    if width == 0 {
        return Err(size("width", "at least 1", 0));
    }
    if !len.is_multiple_of(width) {
        return Err(size(what, format!("a multiple of the width {width}"), len));
    }
    Ok(len / width)
}

fn size(what: &'static str, expected: impl ToString, got: usize) -> ExamplesError {
    ExamplesError::Size { what, expected: expected.to_string(), got }
}

/// `(value - mean) * inv_std` per column, applied when a batch is gathered.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardise {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
}

impl Standardise {
    /// One mean and one inverse standard deviation per column, all finite. For a constant column give 0 or 1.
    pub fn new(mean: Vec<f32>, inv_std: Vec<f32>) -> Result<Self, ExamplesError> {
        if mean.len() != inv_std.len() {
            return Err(size("number of inverse deviations", mean.len(), inv_std.len()));
        }
        for (what, values) in [("mean", &mean), ("inverse deviation", &inv_std)] {
            if let Some(column) = values.iter().position(|value| !value.is_finite()) {
                return Err(ExamplesError::NotFinite { what, column });
            }
        }
        Ok(Self { mean, inv_std })
    }

    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    pub fn inv_std(&self) -> &[f32] {
        &self.inv_std
    }
}

/// Some rows of shared examples: one client's share. A row may occur more than once.
#[derive(Clone, Debug)]
pub struct View {
    examples: Arc<Examples>,
    rows: Vec<u32>,
    standardise: Option<Arc<Standardise>>,
}

impl View {
    pub fn new(examples: Arc<Examples>, rows: Vec<u32>) -> Result<Self, ExamplesError> {
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= examples.rows()) {
            return Err(ExamplesError::Row { row, rows: examples.rows() });
        }
        Ok(Self { examples, rows, standardise: None })
    }

    /// All rows, in their order.
    pub fn all(examples: Arc<Examples>) -> Self {
        let rows = (0..examples.rows() as u32).collect();
        Self { examples, rows, standardise: None }
    }

    /// The same rows, standardised when they are gathered.
    pub fn standardised(mut self, standardise: Arc<Standardise>) -> Result<Self, ExamplesError> {
        match self.examples.shape() {
            Shape::Values { width } if width == standardise.mean.len() => {}
            Shape::Values { width } => {
                return Err(size("number of means", width, standardise.mean.len()));
            }
            Shape::Tokens { .. } => {
                return Err(size("number of means", "none for tokens", standardise.mean.len()));
            }
        }
        self.standardise = Some(standardise);
        Ok(self)
    }

    pub fn examples(&self) -> &Examples {
        &self.examples
    }

    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub fn standardise(&self) -> Option<&Standardise> {
        self.standardise.as_deref()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(features: Features, labels: Labels) -> String {
        Examples::new(features, labels).unwrap_err().to_string()
    }

    #[test]
    fn lengths_that_disagree_are_refused() {
        let features = |len| Features::F32 { width: 3, values: vec![0.0; len] };
        let labels = |ids: &[u32]| Labels::Classes { ids: ids.to_vec(), classes: 2 };
        assert_eq!(Examples::new(features(6), labels(&[0, 1])).unwrap().rows(), 2);
        assert_eq!(
            error(features(7), labels(&[0])),
            "examples: length of the features is 7, expected a multiple of the width 3"
        );
        assert_eq!(error(features(6), labels(&[0])), "examples: number of labels is 1, expected 2");
        assert_eq!(error(features(6), labels(&[0, 2])), "examples: row 1 has class 2, expected less than 2");
        assert_eq!(error(features(6), Labels::NextToken), ExamplesError::Kinds.to_string());
        let empty = Features::U8 { width: 0, values: vec![], scale: 1.0, offset: 0.0 };
        assert_eq!(error(empty, labels(&[])), "examples: width is 0, expected at least 1");
    }

    #[test]
    fn a_text_keeps_its_last_token_as_label() {
        let text = |len| Examples::new(Features::Tokens { ids: vec![7; len], window: 4 }, Labels::NextToken).unwrap();
        assert_eq!((text(0).rows(), text(8).rows(), text(9).rows(), text(9).tokens()), (0, 1, 2, 8));
    }

    #[test]
    fn a_view_stays_inside() {
        let features = Features::F32 { width: 1, values: vec![0.0; 3] };
        let examples = Arc::new(Examples::new(features, Labels::Values { width: 1, values: vec![0.0; 3] }).unwrap());
        assert!(View::new(Arc::clone(&examples), vec![2, 0, 2]).is_ok());
        assert_eq!(View::new(Arc::clone(&examples), vec![3]).unwrap_err(), ExamplesError::Row { row: 3, rows: 3 });
        let two = Arc::new(Standardise::new(vec![0.0; 2], vec![1.0; 2]).unwrap());
        assert!(View::all(examples).standardised(two).is_err());
        assert!(Standardise::new(vec![0.0], vec![f32::INFINITY]).is_err());
    }
}
