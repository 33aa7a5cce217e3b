//! Drafts near the person, verified far away: the pure parts.
//!
//! A small model guesses the next tokens, a large one says in one pass over all of them how many are its own (Leviathan et al.,
//! "Fast Inference from Transformers via Speculative Decoding", 2023). Read in this order:
//!
//! - [`accept`]: which drafted tokens hold. The default needs nothing new: draws are a function of (seed, position, id), so a
//!   drafted token holds where the verifier's own sampler chooses it, and the text is that of plain decoding, bit for bit.
//!   Where drafts declare what they were drawn from, the rule of Leviathan et al. keeps more of them and the law of the text; no
//!   engine here verifies by that rule yet, and sessions that ask for it are refused;
//! - [`lookup`]: drafts from the text itself, without a model; [`quoting`]: how long those hold;
//! - [`rate`]: what a way of drafting yields per second, as formulas;
//! - [`runs`], [`costs`], `round_trips`: what the formulas need, measured;
//! - [`controller`]: streams, drafts in rounds, or drafts ahead, whichever is fastest over this link, and the text or the model;
//!   [`turns`]: how many to
//!   draft where both models share one machine; [`both`]: the same with lookup beside the model;
//! - [`pair`]: a large and a small model on one machine, over their engines;
//! - [`drafter`] and [`verifier`]: the two ends of [`littoral_wire::Speculation`] as machines without a socket or a clock;
//!   [`drafting`] and [`sessions`]: many of them over an engine each;
//! - [`echoed`]: verdicts of a server that is not ours.
//!
//! Not here: who sends what over which link.

pub mod accept;
mod answer;
pub mod asked;
#[cfg(test)]
mod asked_in_tests;
pub mod both;
pub mod controller;
pub mod costs;
pub mod drafter;
pub mod drafting;
pub mod echoed;
pub mod lookup;
pub mod pair;
pub mod quoting;
pub mod rate;
mod round_trips;
pub mod runs;
pub mod sessions;
pub mod turns;
pub mod verifier;
