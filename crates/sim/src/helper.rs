//! Works of a simulation that runs in another process.

use crate::assignment::{Assignment, result_bytes};
use crate::attack::{Attack, Liars};
use crate::disk::{Content, Shelf};
use crate::faults::Kind;
use crate::fleet::{FleetSpec, machine_name};
use crate::workers::Ways;
use crate::world::Timed;
use littoral_node::job::{JobError, JobSpec};
use littoral_node::work::LocalData;
use std::sync::Arc;

/// Who computes works for a fleet of this description.
pub struct Helper {
    seed: u64,
    /// Machines before the first device.
    before: usize,
    devices: Vec<(String, Arc<dyn LocalData>)>,
    ways: Ways,
}

impl Helper {
    pub fn new(fleet: &FleetSpec, attack: Option<&Attack>) -> Result<Self, JobError> {
        let job = JobSpec::parse(&fleet.job_toml)?;
        let device = |number| (machine_name(&fleet.names, Kind::Device, number), (fleet.data)(number).0);
        let mut devices: Vec<_> = (0..fleet.devices).map(device).collect();
        let liars = attack.map(|attack| Liars::new(attack, &job, fleet.seed, &mut devices)).transpose()?;
        let ways = Ways { runner: fleet.runner, liars };
        Ok(Self { seed: fleet.seed, before: 1 + fleet.edges, devices, ways })
    }

    /// What comes of a work that reads these objects. None: there is no such device, or it is to be tried elsewhere.
    pub fn compute(&self, assignment: &Assignment, objects: &[Arc<Content>]) -> Option<Vec<u8>> {
        let place = assignment.place;
        let number = (place.node as usize).checked_sub(self.before)?;
        let (name, data) = self.devices.get(number)?;
        let data = match place.step_us {
            0 => Arc::clone(data),
            step_us => Arc::new(Timed { data: Arc::clone(data), step_us }),
        };
        let work = assignment.work(self.seed, number, name);
        let reads = assignment.reads();
        let of_it = objects.iter().filter(|content| reads.contains(&content.manifest.id()));
        let shelf = Shelf::of(of_it.cloned());
        let result = self.ways.compute(&work, &shelf, &*data);
        result_bytes(&result, &shelf.into_made())
    }
}
