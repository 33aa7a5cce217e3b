//! [`Prepared`]: one device's rows in the schema's order, in the form that training takes.
//!
//! Numbers are not standardised yet: mean and scale come from the fleet in the statistics round
//! ([`super::statistics`]), and missing values stay NaN until then.

use super::error::{DataError, Problem};

/// Rows ready for training, but for standardisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What the model sees.
    pub features: Features,
    /// What it shall say.
    pub labels: Labels,
}

/// The inputs, row after row.
#[derive(Debug, Clone, PartialEq)]
pub enum Features {
    /// `rows x width`; finite, or NaN where the value is missing.
    F32 { width: usize, values: Vec<f32> },
    /// `rows x width`; the model sees `value * scale + offset`. An image's pixels stand as height x width x channels.
    U8 { width: usize, values: Vec<u8>, scale: f32, offset: f32 },
    /// One text. A row is `window` ids, its targets are the same one place later; rows do not overlap, the last id is a
    /// target only, and ids that fill no window are not used.
    Tokens { ids: Vec<u16>, window: usize },
}

/// The targets, one per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// `ids[row] < classes`.
    Classes { ids: Vec<u32>, classes: u32 },
    /// `rows x width`, finite.
    Values { width: usize, values: Vec<f32> },
    /// The targets are the features' own next tokens.
    NextToken,
}

impl Prepared {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        let (length, width) = match &self.features {
            Features::F32 { width, values } => (values.len(), *width),
            Features::U8 { width, values, .. } => (values.len(), *width),
            Features::Tokens { ids, window } => (ids.len().saturating_sub(1), *window),
        };
        length.checked_div(width).unwrap_or(0)
    }

    /// Each row's class, if the labels are classes.
    pub fn classes(&self) -> Option<&[u32]> {
        match &self.labels {
            Labels::Classes { ids, .. } => Some(ids),
            Labels::Values { .. } | Labels::NextToken => None,
        }
    }

    /// The given rows, in that order. Indices beyond the last row are passed over.
    ///
    /// A text's rows should follow each other, as [`split`](super::split::split) gives them: where one is left out, the
    /// last target before the gap is the first id after it.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let features = match &self.features {
            Features::F32 { width, values } => Features::F32 { width: *width, values: pick(values, *width, rows) },
            Features::U8 { width, values, scale, offset } => {
                Features::U8 { width: *width, values: pick(values, *width, rows), scale: *scale, offset: *offset }
            }
            Features::Tokens { ids, window } => {
                let mut text = pick(ids, *window, rows);
                let end = rows.last().and_then(|last| ids.get((last + 1) * window));
                text.extend(end);
                Features::Tokens { ids: text, window: *window }
            }
        };
        let labels = match &self.labels {
            Labels::Classes { ids, classes } => Labels::Classes { ids: pick(ids, 1, rows), classes: *classes },
            Labels::Values { width, values } => Labels::Values { width: *width, values: pick(values, *width, rows) },
            Labels::NextToken => Labels::NextToken,
        };
        Self { features, labels }
    }

    /// Adds another file's rows. Both must come from one schema. A text goes on with the other text.
    pub fn append(&mut self, more: Self) -> Result<(), DataError> {
        let joined = match (&mut self.features, more.features) {
            (Features::F32 { width, values }, Features::F32 { width: w, values: v }) if *width == w => {
                values.extend(v);
                true
            }
            (Features::U8 { width, values, .. }, Features::U8 { width: w, values: v, .. }) if *width == w => {
                values.extend(v);
                true
            }
            (Features::Tokens { ids, window }, Features::Tokens { ids: i, window: w }) if *window == w => {
                ids.extend(i);
                true
            }
            _ => false,
        };
        let joined = joined
            && match (&mut self.labels, more.labels) {
                (Labels::Classes { ids, classes }, Labels::Classes { ids: i, classes: c }) if *classes == c => {
                    ids.extend(i);
                    true
                }
                (Labels::Values { width, values }, Labels::Values { width: w, values: v }) if *width == w => {
                    values.extend(v);
                    true
                }
                (Labels::NextToken, Labels::NextToken) => true,
                _ => false,
            };
        if joined {
            return Ok(());
        }
        let hint = "a data set's files must all have one form: images of one size, tables or text";
        Err(DataError::new(Problem::WrongForm, "rows of the form of the files before", "another form", hint))
    }
}

/// What the model takes; nothing is copied. An error says how features and labels disagree, which they do not if they
/// were prepared here.
impl TryFrom<Prepared> for littoral_model::Examples {
    type Error = littoral_model::ExamplesError;

    fn try_from(prepared: Prepared) -> Result<Self, Self::Error> {
        use littoral_model as model;
        let features = match prepared.features {
            Features::F32 { width, values } => model::Features::F32 { width, values },
            Features::U8 { width, values, scale, offset } => model::Features::U8 { width, values, scale, offset },
            Features::Tokens { ids, window } => model::Features::Tokens { ids, window },
        };
        let labels = match prepared.labels {
            Labels::Classes { ids, classes } => model::Labels::Classes { ids, classes },
            Labels::Values { width, values } => model::Labels::Values { width, values },
            Labels::NextToken => model::Labels::NextToken,
        };
        Self::new(features, labels)
    }
}

fn pick<T: Copy>(values: &[T], width: usize, rows: &[usize]) -> Vec<T> {
    let mut picked = Vec::with_capacity(rows.len() * width);
    for row in rows {
        let start = row.saturating_mul(width);
        picked.extend(values.get(start..start.saturating_add(width)).unwrap_or_default());
    }
    picked
}
