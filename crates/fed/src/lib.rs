//! Federation: what is trained, what leaves a device, how it is summed, what becomes of the sum.
//!
//! One round, read downwards:
//!
//! 1. [`learner`]: what an algorithm needs of a model and a device's data;
//! 2. [`algorithm`]: both halves of each federated algorithm, one file each; [`home`]: what of a model they leave on devices;
//! 3. [`plan`]: fixed point, decided once per job and known to all;
//! 4. [`compress`]: fewer bytes: maps that sums pass through, and codes that an edge decodes;
//! 5. [`seal`]: what happens to an update before it may leave the device, spelled by types;
//! 6. [`aggregate`]: sums of updates, in any order and over any tree, with the same bits;
//! 7. [`robust`]: what stands in for a sum where some devices may lie;
//! 8. [`open`]: a total becomes numbers again, for the algorithm's cloud half;
//! 9. [`included`]: who is in the new version, signed;
//! 10. [`round`]: the state machine over all of this: who is asked, what is waited for, what counts.
//!
//! Pure: bytes, time and seeds come in as arguments. It knows no neural network, no socket and no file.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod algorithm;
pub mod check_in;
pub mod compress;
pub mod distribution;
pub mod dp;
pub mod drift;
pub mod home;
pub mod included;
pub mod learner;
pub mod masks;
pub mod open;
pub mod plan;
pub mod robust;
pub mod roster;
pub mod round;
pub mod seal;
pub mod staleness;

mod whole;

pub use learner::Learner;
