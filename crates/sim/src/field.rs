//! The field: when devices are there, and how fast they are, for a simulated fleet.
//!
//! [`availability`] holds traces, read from CSV or [`diurnal`] ones made from a seed; [`speed`] holds speeds, link rates and
//! memory, read or drawn. The world asks both by a device's number. `docs/traces.md` has the formats and the models.
//!
//! Small on purpose: four bytes for each change of a device's state, sixteen for its speeds, so that a week of a hundred
//! thousand devices is some 50 MB.

pub mod availability;
pub mod diurnal;
mod lines;
pub mod speed;

pub use availability::{Availability, State};
pub use lines::FieldError;
pub use speed::{SpeedLaw, Speeds};

use crate::stream::Stream;
use littoral_fed::check_in::CheckIn;
use std::sync::Arc;

/// What the devices of a fleet live through. The default: always there, all of one speed.
#[derive(Clone, Debug, Default)]
pub struct Field {
    pub availability: Option<Arc<Availability>>,
    pub speeds: Option<Arc<Speeds>>,
    /// Whether edges, or the cloud, send devices away that have nothing to do.
    pub check_in: CheckIn,
}

/// Which of `trace`'s devices each of the fleet's is: those of the same names, if all are there; else in the trace's order,
/// and in turn if it has fewer.
pub fn matched(trace: &[String], fleet: &[String]) -> Vec<u32> {
    let places: std::collections::HashMap<&str, u32> = trace.iter().map(String::as_str).zip(0..).collect();
    let by_name: Option<Vec<u32>> = fleet.iter().map(|name| places.get(name.as_str()).copied()).collect();
    by_name.unwrap_or_else(|| (0..fleet.len()).map(|device| (device % trace.len().max(1)) as u32).collect())
}

/// Uniform in (0, 1), 53 bits, never 0 or 1.
fn unit(stream: &mut Stream) -> f64 {
    (stream.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Box and Muller; `libm`'s functions are the same on every machine.
fn normal(stream: &mut Stream) -> f64 {
    (-2.0 * libm::log(unit(stream))).sqrt() * libm::cos(std::f64::consts::TAU * unit(stream))
}

fn exponential(stream: &mut Stream, mean: f64) -> f64 {
    -mean * libm::log(unit(stream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_name_or_taken_in_turn() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let trace = names(&["b", "a", "c"]);
        assert_eq!(matched(&trace, &names(&["a", "b"])), [1, 0]);
        assert_eq!(matched(&trace, &names(&["a", "x", "y", "z"])), [0, 1, 2, 0]);
    }
}
