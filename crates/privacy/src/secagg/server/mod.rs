//! The server's half: states, each consumed by the next.
//!
//! [`Gathering`] (keys come in) → [`Listing`] (the list is fixed, nonces come in) → [`Sharing`] (sealed shares come in) →
//! [`Directory`] (what outlives the process) → [`Opening`] (survivors are known, shares come in) → the masks to take away.
//! A message that comes again is taken again; a different second one is refused. The server holds no secret that a device
//! would not be told, until it opens.

mod directory;
mod gathering;
mod opening;
mod sharing;

pub use directory::Directory;
pub use gathering::{Gathering, Listing};
pub use opening::{Missing, Opening, Unmask};
pub use sharing::{Inboxes, Sharing};
