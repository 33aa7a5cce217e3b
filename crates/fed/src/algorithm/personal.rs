//! What the algorithms have in common that keep a model, or a part of one, for each device.
//!
//! The device half of such an algorithm is [`local_personal`](super::Algorithm::local_personal) in place of `local`: beside what is
//! sent it works out what the device is to keep. That becomes current only if the update is included, as other state on
//! devices; it is never sent, so the cloud half is FedAvg's and knows nothing of it.

use super::{LocalError, Start, run};
use crate::home::Home;
use crate::learner::Learner;
use crate::seal::Raw;
use std::ops::Range;

/// What a device keeps to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Nothing: its model is the version, adapted anew.
    Nothing,
    /// The parameters of the model that are not shared.
    Segments,
    /// A whole model beside the version.
    Model,
}

/// A device's own part, before or after a participation.
#[derive(Clone, Debug, PartialEq)]
pub struct Personal<'a> {
    pub home: &'a Home,
    /// As [`Keeps`] says: the segments one after the other, a whole model, or nothing.
    pub own: Vec<f32>,
}

impl<'a> Personal<'a> {
    /// What a device begins with: its own segments as the job's first model has them (`first`), a model as the version has it (`w`).
    pub fn first(keeps: Keeps, home: &'a Home, first: impl FnOnce() -> Vec<f32>, w: &[f32]) -> Self {
        let own = match keeps {
            Keeps::Nothing => Vec::new(),
            Keeps::Segments => home.own_of(&first()),
            Keeps::Model => w.to_vec(),
        };
        Self { home, own }
    }

    /// How many parameters are kept.
    pub fn len(keeps: Keeps, home: &Home) -> usize {
        match keeps {
            Keeps::Nothing => 0,
            Keeps::Segments => home.own_len(),
            Keeps::Model => home.params(),
        }
    }
}

/// Trains everything, what is shared and what is not, and takes it apart.
pub(super) fn train_whole(
    start: &Start<'_>,
    personal: &mut Personal<'_>,
    learner: &mut dyn Learner,
) -> Result<Raw, LocalError> {
    let home = personal.home;
    let mut w = home.whole(start.w, &personal.own)?;
    let steps = learner.steps();
    let (loss, _) = run(&mut w, steps, learner, None);
    Ok(told(start, personal, &w, loss, learner))
}

/// After training: what is sent of the whole model `w`, and what is kept.
pub(super) fn told(start: &Start<'_>, personal: &mut Personal<'_>, w: &[f32], loss: f32, learner: &dyn Learner) -> Raw {
    let home = personal.home;
    personal.own = home.own_of(w);
    let mut delta = home.shared_of(w);
    delta.iter_mut().zip(start.w).for_each(|(local, &w)| *local -= w);
    Raw { examples: learner.examples(), loss, wholes: Vec::new(), sections: vec![delta] }
}

/// So many steps in which some parameters stay bit for bit as they are, whatever the optimiser would make of them. Returns the mean
/// loss.
pub(super) fn train_but(fixed: &[Range<usize>], w: &mut [f32], steps: usize, learner: &mut dyn Learner) -> f32 {
    let kept: Vec<f32> = fixed.iter().flat_map(|range| w[range.clone()].iter().copied()).collect();
    let (mut loss, mut made) = (0f64, 0);
    while made < steps {
        let mut still = |_: &[f32], gradient: &mut [f32]| {
            fixed.iter().for_each(|range| gradient[range.clone()].fill(0.0));
        };
        loss += f64::from(learner.step(w, Some(&mut still)));
        made += 1;
        // Weight decay and running statistics move without a gradient.
        let mut kept = &kept[..];
        for range in fixed {
            let (here, rest) = kept.split_at(range.len());
            w[range.clone()].copy_from_slice(here);
            kept = rest;
        }
        if learner.spent() {
            break;
        }
    }
    (loss / made.max(1) as f64) as f32
}
