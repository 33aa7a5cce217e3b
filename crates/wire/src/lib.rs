//! Words: every message between machines, its bytes, versions, size bounds, and who machines are.
//!
//! Read in this order: [`codec`] (how bytes become values, totally), [`bounded`] (bounds that are part of a type),
//! [`identity`] (a machine is its key), [`hello`] (which protocol), [`object`] (big things travel as hashed chunks), [`given`],
//! [`message`] (the conversation), [`speculation`] (the one of a drafter and its verifier), [`pipeline`] (the one of machines
//! that share a model's layers), [`ticket`] (how a machine gets in).
//!
//! For other implementers, `vectors/README.md` has the layout of every message in tables, with test vectors beside it.
//!
//! ```
//! use littoral_wire::{DecodeError, Message, Wire};
//!
//! let frame = Message::Bye { reason: "low tide".into() }.to_bytes();
//! assert_eq!(frame, b"\x02\x08\0\0\0low tide");
//! assert_eq!(Message::from_bytes(&frame).unwrap().name(), "Bye");
//!
//! // A length that lies is an error that says what, where, what was expected and what stood there.
//! let lie = Message::from_bytes(b"\x02\x09\0\0\0low tide");
//! assert_eq!(lie, Err(DecodeError::Truncated { what: "text", offset: 1, expected: 9, got: 8 }));
//! ```
//!
//! This crate knows nothing of what the messages are for, opens no socket and draws no random number.
#![forbid(unsafe_code)]

pub mod bounded;
pub mod codec;
pub mod given;
pub mod hello;
pub mod identity;
pub mod message;
pub mod object;
pub mod pipeline;
pub mod speculation;
pub mod ticket;

pub use bounded::{Blob, List, Text};
pub use codec::{DecodeError, Wire};
pub use given::Given;
pub use identity::{NodeId, SecretKey};
pub use message::{Collection, JobId, Message};
pub use object::{Chain, Manifest, ObjectId};
pub use pipeline::Pipeline;
pub use speculation::Speculation;
