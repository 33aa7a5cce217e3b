//! Text and token ids: the tokenisers and chat templates that come inside a model's file.
//!
//! A [`Vocabulary`] is what the file says, as plain data. A [`Tokeniser`] is made of it once, checks it, and then turns
//! text into ids ([`encode`](Tokeniser::encode)) and ids into text ([`decode`](Tokeniser::decode)); a [`Detokeniser`]
//! does the latter id by id, while a model is still writing, and never shows half a character. A [`ChatTemplate`] turns
//! a conversation into the text that a model was trained on.
//!
//! Ids are those of llama.cpp, on purpose: that is what the weights in GGUF files are used with and compared by.
//! `oracles/tokens.py` asks it, `tests/tokens.rs` compares. The way of a text is:
//!
//! 1. `added`: tokens that are matched as they are written (`<|im_start|>`, runs of spaces) cut the text in pieces;
//! 2. `words`: byte-level models cut the pieces into words, by Unicode categories;
//! 3. `merge`: symbols are joined, the best pair first, as `bpe` or `sentencepiece` rank pairs.
//!
//! A vocabulary comes from outside. Wrong ones are refused when a tokeniser is built; afterwards every text has ids and
//! every sequence of ids, also one that no text gives, has a text.

mod added;
mod alphabet;
mod bpe;
mod detokeniser;
mod gguf;
mod merge;
mod sentencepiece;
mod template;
mod tokeniser;
mod tokens;
mod vocabulary;
mod words;

pub use detokeniser::Detokeniser;
pub use gguf::chat_template;
pub use template::{ChatTemplate, Json, Prompt, TemplateError};
pub use tokeniser::Tokeniser;
pub use vocabulary::{Kind, Vocabulary, VocabularyError};
