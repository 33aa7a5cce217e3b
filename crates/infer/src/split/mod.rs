//! One model over several machines.
//!
//! The **head** serves the requests: it has the tokeniser, the sampler, both ends of the model (embedding, final norm and
//! output matrix) and the first layers, perhaps none. Other devices have consecutive ranges of the rest. A token's vector
//! goes round: head, stage 1, stage 2, …, and back to the head, which makes logits of it. Solo: the head has all layers,
//! and nothing goes anywhere.
//!
//! [`plan`] decides who has which layers, and says why.

pub mod plan;
