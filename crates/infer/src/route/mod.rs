//! Which model answers a request: the small one here, the large one far away, or both together.
//!
//! [`features`] are what is known of a request, [`score`] makes of them how likely the small model's answer is good enough,
//! [`calibrate`] finds from labelled examples the score from which on it is, with a distribution-free [`bound`] on how often
//! that is wrong; [`learn`] does both, and [`saved`] is the file of it. [`budget`] bounds what the large model is asked,
//! [`drift`] takes the promise back when traffic has changed, [`rule`] says what must not leave whatever a score says, and
//! [`decide`] puts them together, and [`routing`] keeps what a server needs for it. [`answer`] tells whether two answers are the same; [`measure`] how good a router is, in
//! RouteLLM's measures.
//!
//! Not here: models that are run, files, clocks. All inputs are plain values, all results are functions of them.

pub mod answer;
pub mod bound;
pub mod budget;
pub mod calibrate;
pub mod decide;
pub mod drift;
pub mod features;
pub mod learn;
pub mod measure;
pub mod routing;
pub mod rule;
pub mod saved;
pub mod score;
