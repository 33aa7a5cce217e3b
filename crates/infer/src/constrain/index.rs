//! A model's vocabulary, prepared once for all constraints.

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use std::sync::Arc;

/// What a constraint needs to know of a tokeniser.
pub trait Vocabulary {
    /// How many ids there are: they are 0 up to this.
    fn size(&self) -> usize;
    /// The bytes that a token stands for, which may be a part of a character; none for a control token, which stands for
    /// no text and can therefore never satisfy a constraint.
    fn bytes(&self, id: u32) -> Option<&[u8]>;
    /// The tokens that end a text, at least one. They are allowed where the text may end.
    fn ends(&self) -> &[u32];
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("the vocabulary has no token that ends a text")]
    NoEnd,
    #[error("the vocabulary says that token {id} ends a text, but it has {size} tokens")]
    EndOutside { id: u32, size: usize },
    #[error("the tokens of the vocabulary have {bytes} bytes together, and the index holds {most}")]
    TooLarge { bytes: usize, most: usize },
    #[error("the index of the vocabulary: {reason}")]
    Refused { reason: String },
}

/// A trie over the bytes of all tokens, with the masks that most schemas need worked out. For 151 936 tokens this takes
/// one to two seconds, so build it once for a model and not for a request; without the masks it would take half of that,
/// but a first mask within a JSON string four times as long. Cheap to clone and to share.
#[derive(Clone)]
pub struct VocabularyIndex {
    pub(super) factory: Arc<ParserFactory>,
    pub(super) size: usize,
}

impl VocabularyIndex {
    /// A trie has at most as many nodes as the tokens have bytes, and holds this many.
    const MOST_BYTES: usize = (1 << 22) - 2;
    /// The depth that the trie can hold. A longer token (some vocabularies have runs of spaces) is never allowed; the same
    /// text can be written with shorter ones.
    const LONGEST_TOKEN: usize = 1000;

    pub fn new(vocabulary: &impl Vocabulary) -> Result<Self, IndexError> {
        let size = vocabulary.size();
        let ends = vocabulary.ends();
        let &first_end = ends.first().ok_or(IndexError::NoEnd)?;
        if let Some(&id) = ends.iter().find(|&&id| id as usize >= size) {
            return Err(IndexError::EndOutside { id, size });
        }
        let words: Vec<Vec<u8>> = (0..size as u32).map(|id| word(id, vocabulary.bytes(id), ends)).collect();
        let bytes = words.iter().map(Vec::len).sum();
        if bytes > Self::MOST_BYTES {
            return Err(IndexError::TooLarge { bytes, most: Self::MOST_BYTES });
        }
        let trie = TokTrie::from(&TokRxInfo::new(size as u32, first_end), &words).with_eos_tokens(ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let refused = |error: &dyn std::fmt::Display| IndexError::Refused { reason: error.to_string() };
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| refused(&e))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory: Arc::new(factory), size })
    }
}

/// A token as the trie wants it. Control tokens begin with a byte that no text contains.
fn word(id: u32, bytes: Option<&[u8]>, ends: &[u32]) -> Vec<u8> {
    match bytes {
        Some(bytes) if !ends.contains(&id) => match bytes {
            // A lone 0xff, a byte-fallback token, is in no UTF-8 text, and here it would be taken for the mark.
            [TokTrie::SPECIAL_TOKEN_MARKER, ..] => Vec::new(),
            _ if bytes.len() > VocabularyIndex::LONGEST_TOKEN => Vec::new(),
            _ => bytes.to_vec(),
        },
        _ => [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<|control {id}|>").as_bytes()].concat(),
    }
}
