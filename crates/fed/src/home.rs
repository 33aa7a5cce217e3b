//! What of a model stays at home: which of its parameters are shared, and which a device keeps to itself.
//!
//! A job's vector, the one that is versioned, planned, summed, masked and noised, holds the **shared** parameters and no
//! others: nothing on the wire has a place for the rest. A device puts both together before it trains, and takes them
//! apart again afterwards.
//!
//! ```text
//! whole     0 ......... a ...... b ............ params     as the model's layers read it
//! own                   [ a .. b )                         the device's
//! shared    0 ......... a b .................. len         everybody's, closed up
//! ```

use std::ops::Range;
use thiserror::Error;

/// Where a model's parameters lie: all that an algorithm may know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub params: usize,
    /// Of normalisation layers, running statistics among them.
    pub norms: Vec<Range<usize>>,
    /// Of each layer that has parameters, from the first to the last; a normalisation counts with the layer that it follows.
    pub layers: Vec<Vec<Range<usize>>>,
}

/// The parameters that stay on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    params: usize,
    /// In order, apart, none empty.
    own: Vec<Range<usize>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HomeError {
    #[error("{what}: {expected} parameters expected, got {got}")]
    Length { what: &'static str, expected: usize, got: usize },
    #[error("a model with normalisation layers expected, since these stay on devices, got one without")]
    NoNorm,
    #[error("algorithm.layers: 1 to {most} expected, since some of the model must be shared, got {got}")]
    Layers { most: usize, got: u32 },
}

impl Home {
    /// Everything is shared.
    pub fn empty(params: usize) -> Self {
        Self { params, own: Vec::new() }
    }

    /// These stay; in any order. What lies behind the parameters is left out.
    pub fn of(params: usize, ranges: impl IntoIterator<Item = Range<usize>>) -> Self {
        let cut = ranges.into_iter().map(|range| range.start..range.end.min(params));
        let mut ranges: Vec<Range<usize>> = cut.filter(|range| !range.is_empty()).collect();
        ranges.sort_by_key(|range| range.start);
        let mut own: Vec<Range<usize>> = Vec::new();
        for range in ranges {
            match own.last_mut().filter(|last| range.start <= last.end) {
                Some(last) => last.end = last.end.max(range.end),
                None => own.push(range),
            }
        }
        Self { params, own }
    }

    /// Of the whole model.
    pub fn params(&self) -> usize {
        self.params
    }

    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// In order, apart.
    pub fn own(&self) -> &[Range<usize>] {
        &self.own
    }

    /// All others, in order.
    pub fn shared(&self) -> Vec<Range<usize>> {
        let starts = std::iter::once(0).chain(self.own.iter().map(|range| range.end));
        let ends = self.own.iter().map(|range| range.start).chain([self.params]);
        starts.zip(ends).map(|(start, end)| start..end).filter(|range| !range.is_empty()).collect()
    }

    pub fn own_len(&self) -> usize {
        self.own.iter().map(Range::len).sum()
    }

    /// Parameters of the job's vector.
    pub fn shared_len(&self) -> usize {
        self.params - self.own_len()
    }

    /// Where these parameters of the model lie in the shared vector, if they are neighbours there and all shared.
    pub fn place(&self, whole: Range<usize>) -> Option<Range<usize>> {
        let meets = |range: &&Range<usize>| range.start < whole.end && whole.start < range.end;
        let before: usize = self.own.iter().take_while(|range| range.end <= whole.start).map(Range::len).sum();
        match self.own.iter().any(|range| meets(&range)) || whole.end > self.params {
            true => None,
            false => Some(whole.start - before..whole.end - before),
        }
    }

    /// The device's part of a whole vector. Panics if that is shorter.
    pub fn own_of(&self, whole: &[f32]) -> Vec<f32> {
        gather(&self.own, whole)
    }

    /// Everybody's part of a whole vector. Panics if that is shorter.
    pub fn shared_of(&self, whole: &[f32]) -> Vec<f32> {
        gather(&self.shared(), whole)
    }

    /// The same of a vector that is not needed any more.
    pub fn into_shared(&self, whole: Vec<f32>) -> Vec<f32> {
        if self.is_empty() { whole } else { self.shared_of(&whole) }
    }

    /// Both parts as one vector again.
    pub fn whole(&self, shared: &[f32], own: &[f32]) -> Result<Vec<f32>, HomeError> {
        let expect = |what, expected, got| match expected == got {
            true => Ok(()),
            false => Err(HomeError::Length { what, expected, got }),
        };
        expect("what is shared", self.shared_len(), shared.len())?;
        expect("what a device keeps", self.own_len(), own.len())?;
        let mut whole = vec![0.0; self.params];
        for (ranges, mut part) in [(&self.shared()[..], shared), (&self.own[..], own)] {
            for range in ranges {
                let (here, rest) = part.split_at(range.len());
                whole[range.clone()].copy_from_slice(here);
                part = rest;
            }
        }
        Ok(whole)
    }
}

fn gather(ranges: &[Range<usize>], whole: &[f32]) -> Vec<f32> {
    ranges.iter().flat_map(|range| whole[range.clone()].iter().copied()).collect()
}

#[cfg(test)]
// What stays may well be one range.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    #[test]
    fn taken_apart_and_put_together_it_is_the_same() {
        let whole: Vec<f32> = (0..10).map(|i| i as f32).collect();
        for (ranges, own) in [
            (vec![], vec![]),
            (vec![0..10], vec![0..10]),
            (vec![7..9, 2..4], vec![2..4, 7..9]),
            (vec![4..6, 2..4, 3..3, 8..30], vec![2..6, 8..10]),
        ] {
            let home = Home::of(10, ranges);
            assert_eq!(home.own(), own);
            let (shared, kept) = (home.shared_of(&whole), home.own_of(&whole));
            assert_eq!((shared.len(), kept.len()), (home.shared_len(), home.own_len()));
            assert_eq!(home.whole(&shared, &kept).unwrap(), whole);
            // Each parameter that is shared is where `place` says, and no other has a place.
            for (at, value) in whole.iter().enumerate() {
                let place = home.place(at..at + 1).map(|place| shared[place.start]);
                assert_eq!(place, (!own.iter().any(|range| range.contains(&at))).then_some(*value));
            }
        }
        let home = Home::of(10, [3..5]);
        assert_eq!(
            (home.place(0..3), home.place(0..4), home.place(5..10), home.place(5..11)),
            (Some(0..3), None, Some(3..8), None)
        );
        let wrong = home.whole(&[0.0; 8], &[0.0; 3]).unwrap_err();
        assert_eq!(wrong, HomeError::Length { what: "what a device keeps", expected: 2, got: 3 });
    }
}
