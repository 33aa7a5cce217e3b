//! A device's own train / held-out split.
//!
//! The held-out rows never train; a device evaluates each new model on them and sends counts. Classes keep their shares
//! (stratified), and training keeps at least one row of each class that the device has.

use super::error::Invalid;
use super::prepared::{Features, Prepared};
use super::random::{seeded, shuffle};

/// Row indices, each ascending; together every row once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Rows that train.
    pub train: Vec<usize>,
    /// Rows that evaluate.
    pub held_out: Vec<usize>,
}

/// Splits by a seed. `held_out_fraction` is in `0..1` (0 holds nothing out).
///
/// Rows with classes are drawn within each class; rows without are drawn together. The windows of a text are not drawn,
/// since neighbours continue each other: the last part of the text is held out.
pub fn split(prepared: &Prepared, held_out_fraction: f64, seed: u64) -> Result<Split, Invalid> {
    if !(0.0..1.0).contains(&held_out_fraction) {
        return Err(Invalid::new("held_out_fraction", held_out_fraction, "0 up to, not including, 1"));
    }
    let rows = prepared.rows();
    if matches!(prepared.features, Features::Tokens { .. }) {
        let held = quota(rows, held_out_fraction);
        return Ok(Split { train: (0..rows - held).collect(), held_out: (rows - held..rows).collect() });
    }
    let mut random = seeded("littoral data split 1", seed);
    let mut groups = match prepared.classes() {
        Some(classes) => {
            let mut groups = std::collections::BTreeMap::<u32, Vec<usize>>::new();
            for (row, class) in classes.iter().enumerate() {
                groups.entry(*class).or_default().push(row);
            }
            groups.into_values().collect()
        }
        None => vec![(0..rows).collect::<Vec<usize>>()],
    };
    // Largest remainder: each class holds out the whole part of its share, the rows that this leaves over go to the
    // classes that lost most by rounding.
    let mut held: Vec<usize> = groups.iter().map(|group| (group.len() as f64 * held_out_fraction) as usize).collect();
    let mut order: Vec<usize> = (0..groups.len()).collect();
    let lost = |group: usize| (groups[group].len() as f64 * held_out_fraction).fract();
    order.sort_by(|a, b| lost(*b).total_cmp(&lost(*a)));
    let mut left = quota(rows, held_out_fraction).saturating_sub(held.iter().sum());
    for group in order {
        if left > 0 && held[group] + 1 < groups[group].len() {
            held[group] += 1;
            left -= 1;
        }
    }
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for (group, held) in groups.iter_mut().zip(held) {
        shuffle(&mut random, group);
        held_out.extend(&group[..held]);
        train.extend(&group[held..]);
    }
    train.sort_unstable();
    held_out.sort_unstable();
    Ok(Split { train, held_out })
}

/// Rows to hold out of `rows`: rounded, and never all of them.
fn quota(rows: usize, fraction: f64) -> usize {
    ((rows as f64 * fraction).round() as usize).min(rows.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prepared::Labels;
    use super::*;

    fn rows_of(ids: Vec<u32>) -> Prepared {
        let features = Features::F32 { width: 1, values: vec![0.0; ids.len()] };
        Prepared { features, labels: Labels::Classes { ids, classes: 4 } }
    }

    #[test]
    fn classes_keep_their_shares() {
        let mut ids = vec![0; 50];
        ids.extend([1; 25]);
        ids.push(2);
        let split = split(&rows_of(ids.clone()), 0.2, 7).expect("splits");
        let held = |class| split.held_out.iter().filter(|row| ids[**row] == class).count();
        assert_eq!((held(0), held(1), held(2)), (10, 5, 0), "the only row of class 2 trains");
    }

    #[test]
    fn the_seed_decides() {
        let rows = rows_of(vec![0; 100]);
        let one = split(&rows, 0.2, 1).expect("splits");
        assert_eq!(one, split(&rows, 0.2, 1).expect("splits"));
        assert_ne!(one, split(&rows, 0.2, 2).expect("splits"));
    }

    #[test]
    fn a_text_holds_out_its_end() {
        let text = Prepared { features: Features::Tokens { ids: vec![0; 21], window: 2 }, labels: Labels::NextToken };
        assert_eq!(split(&text, 0.2, 1).expect("splits").held_out, [8, 9]);
    }

    #[test]
    fn wrong_fractions_are_refused() {
        for fraction in [-0.1, 1.0, f64::NAN] {
            assert_eq!(split(&rows_of(vec![0]), fraction, 1).expect_err("refused").field, "held_out_fraction");
        }
    }

    proptest! {
        #[test]
        fn every_row_once(ids in proptest::collection::vec(0u32..4, 0..60), fraction in 0.0..1.0f64, seed: u64) {
            let rows = ids.len();
            let classes: std::collections::BTreeSet<u32> = ids.iter().copied().collect();
            let split = split(&rows_of(ids.clone()), fraction, seed).expect("splits");
            let trained: std::collections::BTreeSet<u32> = split.train.iter().map(|row| ids[*row]).collect();
            prop_assert_eq!(trained, classes, "training has every class");
            let mut all = [split.train, split.held_out].concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
    }
}
