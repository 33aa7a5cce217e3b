//! A small model near the person, a large one far away: the two processes and the link between them.
//!
//! What is said and decided is in [`littoral_infer::speculate`]. [`verify`] is the far side: it listens for machines whose drafts
//! it verifies; [`edge`] is the near one.

pub mod edge;
pub mod verify;
