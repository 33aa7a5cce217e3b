//! One model's layers on several machines.
//!
//! The **head** has the text, the sampler and both ends of the model; it plans passes ([`crate::engine`]) and they go
//! through its layers, those of the next machine, and so on, back to the head. What each machine has is a [`Holder`]: it
//! runs passes, and keeps what it sent in a [`log`], so that whoever takes over from a machine that is lost can hear it again.
//! [`worker`] is what a machine does that is not the head, [`lender`] whom it does that for; [`head`] is the head, and
//! [`membership`] decides when machines are taken in, given up and placed anew, [`holdings`] which layers machines are to get that
//! have no copy of the model's file. [`plan`] decides who has which layers, and says why, from a fleet that is written down or
//! [`measured`]; [`planned`] keeps to it as machines come and go, and [`place`] is what is done without a plan.

pub mod certify;
pub mod encoding;
pub mod head;
pub mod holder;
pub mod holdings;
pub mod lender;
pub mod log;
pub mod measured;
pub mod membership;
mod pace;
pub mod place;
pub mod plan;
pub mod planned;
mod requests;
pub mod words;
pub mod worker;

pub use holder::Holder;
pub use pace::Pace;

use crate::pass::Pass;
use littoral_wire::bounded::List;
use littoral_wire::pipeline::{Activations, Held, Pipeline, STATES_MAX};

/// What is said again of an epoch; always something, so that its end is heard.
fn again(epoch: u32, mut passes: Vec<(Pass, Vec<f32>)>, activations: Activations) -> Vec<Pipeline> {
    if passes.is_empty() {
        passes.push((Pass::default(), Vec::new()));
    }
    let last = passes.len() - 1;
    let told = passes.into_iter().enumerate().map(|(index, (pass, vectors))| {
        let pass = words::tell(epoch, 0, &pass, Vec::new(), activations, &vectors);
        pass.map(|pass| Pipeline::Again { last: index == last, pass })
    });
    // Each is of one piece, which travelled before.
    told.flatten().collect()
}

/// What a machine has of each sequence.
fn held(holder: &Holder) -> List<Held, STATES_MAX> {
    let state = |slot| Held { slot, positions: holder.positions(crate::pass::Slot(slot)) as u32 };
    let states = holder.slots().into_iter().rev().take(STATES_MAX).map(|slot| state(slot.0));
    List::new(states.collect()).unwrap_or_default()
}
