//! The device's half: states, each consumed by the next.
//!
//! [`Keyed`] (keys of one use) → [`Sharing`] (neighbours known and checked) → [`Masked`] (what outlives the process).
//! Everything random comes from 32 bytes that the caller draws afresh for each session and never uses again.

mod keyed;
mod masked;
mod sharing;

pub use keyed::Keyed;
pub use masked::Masked;
pub use sharing::Sharing;
pub(super) use sharing::{point, sign};

use super::codec::Bitmap;
use super::merkle::Hash;
use super::session::Session;

/// Where a device stands.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    session: Session,
    bound: [u8; 32],
    /// Its place in the list.
    index: u32,
    /// The places of the list that are in the graph.
    present: Bitmap,
    /// Shares that open a secret in this graph.
    threshold: u32,
    /// Devices of which a sum is opened at least.
    minimum: u32,
    /// Of the list; zeros under the honest threat.
    root: Hash,
}
