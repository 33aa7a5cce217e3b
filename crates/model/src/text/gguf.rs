//! Where GGUF keeps a tokeniser.

use super::vocabulary::{Kind, Vocabulary, VocabularyError};
use littoral_tensor::gguf::{Entry, Gguf, GgufError};

impl<'a> Vocabulary<'a> {
    /// What the file says under `tokenizer.ggml`.
    ///
    /// # Errors
    /// If a key that every tokeniser needs is missing, or one has another type than GGUF gives it. Whether the parts fit
    /// each other shows when a [`Tokeniser`](super::Tokeniser) is made.
    pub fn from_gguf(file: &Gguf<'a>) -> Result<Self, VocabularyError> {
        let id = |name: &str| optional(file, name, |entry| entry.u32());
        let flag = |name: &str| optional(file, name, |entry| entry.bool());
        let kinds = optional(file, "token_type", |entry| entry.i32s())?.unwrap_or_default();
        let kinds = kinds.into_iter().enumerate().map(|(at, number)| {
            Kind::from_number(number).ok_or_else(|| {
                VocabularyError::new(format!("{}[{at}]", key("token_type")), "0 to 6", number.to_string())
            })
        });
        Ok(Self {
            model: file.metadata().str(&key("model")).map_err(refused)?,
            pre: optional(file, "pre", |entry| entry.str())?,
            tokens: file.metadata().strings(&key("tokens")).map_err(refused)?.collect(),
            scores: optional(file, "scores", |entry| entry.f32s())?.unwrap_or_default(),
            kinds: kinds.collect::<Result<_, _>>()?,
            merges: optional(file, "merges", |entry| Ok(entry.strings()?.collect()))?.unwrap_or_default(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            eot: id("eot_token_id")?,
            unknown: id("unknown_token_id")?,
            padding: id("padding_token_id")?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
        })
    }
}

/// The chat template of the file, if it has one.
///
/// # Errors
/// If it is not a string.
pub fn chat_template<'a>(file: &Gguf<'a>) -> Result<Option<&'a str>, VocabularyError> {
    file.metadata().get("tokenizer.chat_template").map(Entry::str).transpose().map_err(refused)
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

fn optional<'a, T>(
    file: &Gguf<'a>,
    name: &str,
    read: impl Fn(&Entry<'a>) -> Result<T, GgufError>,
) -> Result<Option<T>, VocabularyError> {
    file.metadata().get(&key(name)).map(read).transpose().map_err(refused)
}

fn refused(error: GgufError) -> VocabularyError {
    let (field, expected, got) = error.parts();
    VocabularyError::new(field, expected, got)
}
