//! What a file says about its tokeniser, before anything is made of it.

use thiserror::Error;

/// The parts of a tokeniser, as GGUF names them. Strings are borrowed: a vocabulary lives only until the tokeniser stands.
///
/// Nothing is checked here; [`Tokeniser::new`](super::Tokeniser::new) does, since a part is right or wrong only together
/// with the others. What is `None` has a default that depends on `model`.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<'a> {
    /// `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub model: &'a str,
    /// How a byte-level model cuts text into words; a SentencePiece model has no such step and ignores it.
    pub pre: Option<&'a str>,
    /// The text of each id. `gpt2` writes bytes in its own alphabet, `llama` writes a space as U+2581.
    pub tokens: Vec<&'a str>,
    /// `llama` only, one per token: of two possible joins the one with the higher score is made first.
    pub scores: Vec<f32>,
    /// One per token, or none at all: then every token is [`Kind::Normal`].
    pub kinds: Vec<Kind>,
    /// `gpt2` only: `left right`, the most urgent join first.
    pub merges: Vec<&'a str>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub eot: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    /// Whether a document begins with `bos`. By default `llama` models and the `llama-bpe` words do.
    pub add_bos: Option<bool>,
    /// Whether a document ends with `eos`. By default none does.
    pub add_eos: Option<bool>,
    /// Whether text that begins a document, or follows a special token, gets a space before it. `llama` only; by default
    /// it does.
    pub add_space_prefix: Option<bool>,
}

/// What a token is for; the numbers are GGUF's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Undefined = 0,
    #[default]
    Normal = 1,
    /// Stands for what has no token.
    Unknown = 2,
    /// Written by programs, not by people: matched only where the caller trusts the text, and not shown.
    Control = 3,
    /// Matched as it is written, before everything else.
    UserDefined = 4,
    Unused = 5,
    /// One byte, `<0x0A>`, of a character that has no token.
    Byte = 6,
}

impl Kind {
    /// The kind of a number in `tokenizer.ggml.token_type`.
    pub fn from_number(number: i32) -> Option<Self> {
        use Kind::*;
        [Undefined, Normal, Unknown, Control, UserDefined, Unused, Byte].get(usize::try_from(number).ok()?).copied()
    }
}

/// A part of a vocabulary that no tokeniser can be made of.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("tokeniser: {field}: expected {expected}, got {got}")]
pub struct VocabularyError {
    pub field: String,
    pub expected: String,
    pub got: String,
}

const GOT_CHARS_MAX: usize = 120;

impl VocabularyError {
    pub(super) fn new(field: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        // Texts of a file may be of any length, and a message is one line.
        let got = got.into();
        let shown = got.chars().take(GOT_CHARS_MAX).collect::<String>();
        let got = if shown.len() < got.len() { shown + "…" } else { got };
        Self { field: field.into(), expected: expected.into(), got }
    }
}
