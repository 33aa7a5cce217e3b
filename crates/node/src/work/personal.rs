//! What a device has of its own of a job: read before it trains, made anew if it is lost, kept for the next time.
//!
//! f32, little-endian, in the order of [`Personal`]. Only this device reads it, and nobody is served it.

use super::bench::Room;
use super::local::declined;
use super::version::{put_reals, reals};
use super::{ObjectFault, Objects, Training, WorkFault};
use crate::job::JobSpec;
use littoral_fed::algorithm::{Keeps, Personal};
use littoral_model::View;
use littoral_wire::object::Manifest;

pub struct Own<'a> {
    keeps: Keeps,
    pub personal: Personal<'a>,
    /// It was to be here and is not.
    pub anew: bool,
}

impl<'a> Own<'a> {
    /// `None`: the job's devices have nothing of their own. `w`: the version. A device that was never part of the job begins with what
    /// the job begins with, and so does one whose part is lost: nobody else counts on it.
    pub fn read(
        spec: &'a JobSpec,
        kept: Option<&Manifest>,
        w: &[f32],
        objects: &dyn Objects,
    ) -> Result<Option<Self>, WorkFault> {
        let Some(keeps) = spec.algorithm().keeps() else { return Ok(None) };
        let home = spec.home();
        let expected = 4 * Personal::len(keeps, home);
        let mut bytes = vec![0; expected];
        let found = match kept.filter(|kept| kept.bytes() == expected as u64) {
            None => false,
            Some(kept) => match objects.read(kept.id(), 0, &mut bytes) {
                Ok(()) => true,
                Err(ObjectFault::Missing(_) | ObjectFault::Damaged { .. }) => false,
                // It may be read when the disk is better.
                Err(fault @ ObjectFault::Disk(_)) => return Err(fault.into()),
            },
        };
        let personal = match found {
            true => Personal { home, own: reals(&bytes).collect() },
            false => Personal::first(keeps, home, || spec.model().init(spec.seed()), w),
        };
        Ok(Some(Self { keeps, personal, anew: kept.is_some() && !found }))
    }

    /// The device's own model: what it would use. `view`: its training rows; `room` is for one step of them.
    pub fn model(
        &self,
        spec: &JobSpec,
        w: &[f32],
        view: &View,
        seed: u64,
        room: &mut Room,
    ) -> Result<Vec<f32>, WorkFault> {
        let mut training = Training::new(spec.model(), view, &spec.text().local, seed, room);
        let model = spec.algorithm().own_model(w, &self.personal, &mut training).map_err(declined)?;
        training.fault().map_or(Ok(model), |fault| Err(declined(fault)))
    }

    /// What the device keeps if its update is included.
    pub fn keep(self, objects: &dyn Objects) -> Result<Option<Manifest>, WorkFault> {
        if self.keeps == Keeps::Nothing {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(4 * self.personal.own.len());
        put_reals(&self.personal.own, &mut bytes);
        let mut object = objects.create()?;
        object.append(&bytes)?;
        Ok(Some(object.finish()?))
    }
}
