//! The words of `--by`: one split of rows, and any number of changes of features.

use crate::output::Failure;
use littoral_node::data::partition::feature::Feature;
use littoral_node::data::partition::split::Split;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq)]
pub enum By {
    Split(Split),
    Feature(Feature),
}

impl FromStr for By {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.starts_with("feature") {
            true => text.parse().map(Self::Feature),
            false => text.parse().map(Self::Split),
        };
        read.map_err(|e| format!("{}, for `{}`", e.allowed, e.field))
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split(split) => split.fmt(f),
            Self::Feature(feature) => feature.fmt(f),
        }
    }
}

/// The split, IID if none is named, and the changes in their order.
pub fn one_split(by: &[By]) -> Result<(Split, Vec<Feature>), Failure> {
    let mut splits = by.iter().filter_map(|by| match by {
        By::Split(split) => Some(split.clone()),
        By::Feature(_) => None,
    });
    let split = splits.next().unwrap_or(Split::Iid);
    if let Some(second) = splits.next() {
        let expected = "one split of rows, and changes of features beside it";
        return Err(Failure::usage("--by", expected, format!("{split} and {second}")));
    }
    let features = by.iter().filter_map(|by| match by {
        By::Feature(feature) => Some(*feature),
        By::Split(_) => None,
    });
    Ok((split, features.collect()))
}
