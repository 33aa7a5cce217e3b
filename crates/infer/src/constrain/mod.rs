//! Output that must have a form: a JSON schema, a regular expression, a grammar.
//!
//! A [`Constraint`] says at each step which tokens may come next ([`Constraint::allowed`]), and is told which one came
//! ([`Constraint::accept`]). The sampler then chooses among those, with the probabilities they have among themselves.
//! The parser is `llguidance` (an Earley parser over a trie of the vocabulary), which computes a mask in under a
//! millisecond as a rule; its limits count work and not time, so a mask is the same on every machine.
//!
//! Two things of `llguidance` to know: a `$ref` of a schema must point into the schema itself (`#/…`), so nothing is ever
//! fetched; and it catches its own panics, for which it puts a hook before the process's panic hook once.

mod constraint;
mod index;

pub use constraint::{Constraint, ConstraintError, MAX_SOURCE_BYTES, json_rule, quoted};
pub use index::{IndexError, Vocabulary, VocabularyIndex};
