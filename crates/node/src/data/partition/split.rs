//! The ways to cut a data set by name: `iid`, `dirichlet:0.3`, `label:2`, `column:site`, `quantity:lognormal:1`.
//!
//! A [`Split`] and what is known of the rows ([`Known`]) give each device's rows, in files and in memory alike.

use super::{ALPHA_MAX, ALPHA_MIN, Shares, SizeLaw, by_group, by_label, by_quantity, dirichlet, iid};
use crate::data::error::Invalid;
use std::fmt;
use std::str::FromStr;

/// Who gets which rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Split {
    /// All alike.
    Iid,
    /// Label skew: portions of each class from a symmetric Dirichlet distribution.
    Dirichlet { alpha: f64 },
    /// Label skew: so many classes on each device.
    Label { classes: usize },
    /// The rows with one value of this column stay together.
    Column { name: String },
    /// Sizes differ, distributions do not.
    Quantity(SizeLaw),
}

/// What is known of a data set's rows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    pub rows: usize,
    /// Each row's class.
    pub classes: Option<&'a [u32]>,
    /// Each row's value of the column that a [`Split::Column`] names, as any number.
    pub groups: Option<&'a [u32]>,
}

/// What a split may be.
pub const ALLOWED: &str = "iid, dirichlet:ALPHA, label:K, column:NAME, quantity:powerlaw:EXPONENT, quantity:lognormal:SIGMA or quantity:dirichlet:ALPHA";

impl Split {
    /// Whether it goes by classes.
    pub fn needs_classes(&self) -> bool {
        matches!(self, Self::Dirichlet { .. } | Self::Label { .. })
    }

    /// Each device's rows: every row on exactly one device, ascending. `devices`: none for one per value of a column.
    /// `rows_min`: each device has so many at least where the split leaves room for it; `label` and `column` do not.
    pub fn shares(
        &self,
        known: &Known<'_>,
        devices: Option<usize>,
        rows_min: usize,
        seed: u64,
    ) -> Result<Shares, Invalid> {
        let classes = || {
            let lacking = || Invalid::new("by", self.to_string(), "a split without classes: these rows have no label");
            known.classes.ok_or_else(lacking)
        };
        let some = || devices.ok_or_else(|| Invalid::new("devices", "none", "how many devices there are"));
        match self {
            Self::Iid => iid(known.rows, some()?, seed),
            Self::Dirichlet { alpha } => dirichlet(classes()?, some()?, *alpha, rows_min, seed),
            Self::Label { classes: k } => by_label(classes()?, some()?, *k, seed),
            Self::Column { .. } => {
                let groups = known.groups.unwrap_or_default();
                let values = || groups.iter().collect::<std::collections::BTreeSet<_>>().len();
                by_group(groups, devices.unwrap_or_else(values))
            }
            Self::Quantity(law) => by_quantity(known.rows, some()?, *law, rows_min, seed),
        }
    }
}

impl FromStr for Split {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let alpha = |text: &str| number("alpha", text, ALPHA_MIN, ALPHA_MAX);
        match (kind, rest) {
            ("iid", "") => Ok(Self::Iid),
            ("dirichlet", rest) => Ok(Self::Dirichlet { alpha: alpha(rest)? }),
            ("label", rest) => match rest.parse() {
                Ok(classes) if classes > 0 => Ok(Self::Label { classes }),
                _ => Err(Invalid::new("label", format!("{rest:?}"), "how many classes a device has, from 1 on")),
            },
            ("column", name) if !name.is_empty() => Ok(Self::Column { name: name.into() }),
            ("quantity", rest) => match rest.split_once(':').unwrap_or((rest, "")) {
                ("powerlaw", exponent) => {
                    let exponent = number("powerlaw", exponent, 0.1, 100.0)?;
                    Ok(Self::Quantity(SizeLaw::PowerLaw { exponent }))
                }
                ("lognormal", sigma) => {
                    Ok(Self::Quantity(SizeLaw::LogNormal { sigma: number("lognormal", sigma, 0.0, 10.0)? }))
                }
                ("dirichlet", rest) => Ok(Self::Quantity(SizeLaw::Dirichlet { alpha: alpha(rest)? })),
                _ => Err(Invalid::new(
                    "quantity",
                    format!("{rest:?}"),
                    "powerlaw:EXPONENT, lognormal:SIGMA or dirichlet:ALPHA",
                )),
            },
            _ => Err(Invalid::new("by", format!("{text:?}"), ALLOWED)),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Dirichlet { alpha } => write!(f, "dirichlet:{alpha}"),
            Self::Label { classes } => write!(f, "label:{classes}"),
            Self::Column { name } => write!(f, "column:{name}"),
            Self::Quantity(SizeLaw::PowerLaw { exponent }) => write!(f, "quantity:powerlaw:{exponent}"),
            Self::Quantity(SizeLaw::LogNormal { sigma }) => write!(f, "quantity:lognormal:{sigma}"),
            Self::Quantity(SizeLaw::Dirichlet { alpha }) => write!(f, "quantity:dirichlet:{alpha}"),
        }
    }
}

pub(super) fn number(field: &str, text: &str, min: f64, max: f64) -> Result<f64, Invalid> {
    let found = text.parse::<f64>().ok().filter(|value| (min..=max).contains(value));
    found.ok_or_else(|| Invalid::new(field, format!("{text:?}"), format!("a number from {min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [&str; 7] = [
        "iid",
        "dirichlet:0.3",
        "label:2",
        "column:site",
        "quantity:powerlaw:1.5",
        "quantity:lognormal:1",
        "quantity:dirichlet:0.5",
    ];

    #[test]
    fn splits_are_written_and_read() {
        for text in ALL {
            assert_eq!(text.parse::<Split>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "iid:1",
            "dirichlet",
            "dirichlet:0",
            "dirichlet:NaN",
            "label:0",
            "label:x",
            "column:",
            "quantity",
            "quantity:lognormal:-1",
            "quantity:powerlaw:inf",
            "Dirichlet:1",
        ] {
            assert!(text.parse::<Split>().is_err(), "{text:?}");
        }
    }

    proptest! {
        /// Whatever the split: every row on exactly one device, nobody without rows, and the same again.
        #[test]
        fn every_row_goes_to_one_device(
            classes in proptest::collection::vec(0u32..4, 60..200),
            devices in 2usize..12,
            seed: u64,
        ) {
            let groups: Vec<u32> = (0..classes.len() as u32).map(|row| row % 13).collect();
            let known = Known { rows: classes.len(), classes: Some(&classes), groups: Some(&groups) };
            for text in ALL {
                let split: Split = text.parse().expect("parses");
                // A rare class among many devices may leave somebody without rows: that is refused, not given.
                let Ok(shares) = split.shares(&known, Some(devices), 3, seed) else {
                    prop_assert!(text.starts_with("label"), "{}", text);
                    continue;
                };
                prop_assert_eq!(shares.len(), devices);
                prop_assert!(shares.iter().all(|rows| !rows.is_empty() && rows.is_sorted()), "{}", text);
                let mut all = shares.concat();
                all.sort_unstable();
                prop_assert_eq!(all, (0..classes.len()).collect::<Vec<_>>(), "{}", text);
                prop_assert_eq!(shares, split.shares(&known, Some(devices), 3, seed).expect("again"));
            }
        }
    }

    #[test]
    fn a_device_has_the_classes_that_it_was_promised() {
        let classes: Vec<u32> = (0..5_000).map(|row| row % 10).collect();
        let known = Known { rows: classes.len(), classes: Some(&classes), groups: None };
        for (devices, k) in [(50, 2), (10, 1), (4, 3), (7, 10)] {
            let shares = Split::Label { classes: k }.shares(&known, Some(devices), 1, 3).expect("splits");
            for rows in &shares {
                let mine: std::collections::BTreeSet<u32> = rows.iter().map(|row| classes[*row]).collect();
                assert_eq!(mine.len(), k, "{devices} devices");
            }
        }
        let refused =
            |devices, k| Split::Label { classes: k }.shares(&known, Some(devices), 1, 3).expect_err("refused");
        assert_eq!((&*refused(4, 2).field, &*refused(4, 11).field), ("devices", "label"));
    }

    /// The sizes' medians and tails are the laws'.
    #[test]
    fn sizes_follow_their_law() {
        let (rows, devices) = (10_000_000, 10_000);
        let sizes = |law| {
            let shares = by_quantity(rows, devices, law, 0, 5).expect("splits");
            let mut sizes: Vec<f64> = shares.iter().map(|rows| rows.len() as f64).collect();
            sizes.sort_by(f64::total_cmp);
            sizes
        };
        // Log-normal: the 84.13th percentile is e^sigma medians. 10,000 draws put a quantile's logarithm within 0.0176
        // sigma (one standard error there, sqrt(p (1 - p) / n) over the density 0.242); four of them, and one row of rounding.
        let log_normal = sizes(SizeLaw::LogNormal { sigma: 1.0 });
        let ratio = log_normal[8_413] / log_normal[5_000];
        assert!((ratio.ln() - 1.0).abs() < 0.075, "{ratio}");
        // Pareto: x_p = (1 - p)^(-1/a); from the median to the 99th percentile a factor 50^(1/1.5) = 13.6. The logarithm's
        // standard error there is sqrt(0.99 / 0.01 / n) / a = 0.066; four of them.
        let pareto = sizes(SizeLaw::PowerLaw { exponent: 1.5 });
        let ratio = pareto[9_900] / pareto[5_000];
        assert!((ratio.ln() - 50f64.ln() / 1.5).abs() < 0.27, "{ratio}");
        assert!(sizes(SizeLaw::LogNormal { sigma: 0.0 }).iter().all(|size| *size == 1_000.0));
    }
}
