//! Byte-level BPE: words as bytes, pairs joined in the order in which training made them.

use super::alphabet;
use super::merge::{Merger, NONE, Symbol};
use super::tokens::{Tokens, starts};
use super::vocabulary::{Vocabulary, VocabularyError};
use super::words::Words;

pub(super) struct Bpe {
    words: Words,
    /// The token of each byte, [`NONE`] where the vocabulary lacks it.
    bytes: [u32; 256],
    /// Joins whose left token is `i` are `joins[starts[i]..starts[i + 1]]`, ordered by the right token.
    starts: Vec<u32>,
    joins: Vec<Join>,
}

struct Join {
    right: u32,
    rank: u32,
    whole: u32,
}

impl Bpe {
    pub(super) fn new(vocabulary: &Vocabulary<'_>, tokens: &Tokens) -> Result<Self, VocabularyError> {
        let words = Words::named(vocabulary.pre.unwrap_or("default"))?;
        if vocabulary.merges.is_empty() {
            return Err(VocabularyError::new("merges", "at least one for the model gpt2", "none"));
        }
        let mut together = String::new();
        let find = |text: &str, rank: usize| {
            tokens.find(text).ok_or_else(|| {
                let got = format!("{:?}, and no token {text:?}", vocabulary.merges[rank]);
                VocabularyError::new(format!("merges[{rank}]"), "two tokens that make a third", got)
            })
        };
        let mut sorted = Vec::with_capacity(vocabulary.merges.len());
        for (rank, merge) in vocabulary.merges.iter().enumerate() {
            let Some((left, right)) = merge.split_once(' ') else {
                let expected = "two tokens with a space between";
                return Err(VocabularyError::new(format!("merges[{rank}]"), expected, format!("{merge:?}")));
            };
            together.clear();
            together.extend([left, right]);
            let whole = find(&together, rank)?;
            let (left, right) = (find(left, rank)?, find(right, rank)?);
            if !tokens.is_plain(whole) {
                continue;
            }
            sorted.push((left, Join { right, rank: rank as u32, whole }));
        }
        // Of a pair that is there twice the first counts.
        sorted.sort_unstable_by_key(|(left, join)| (*left, join.right, join.rank));
        sorted.dedup_by_key(|(left, join)| (*left, join.right));
        let starts = starts(tokens.len(), sorted.iter().map(|(left, _)| *left as usize));
        let joins = sorted.into_iter().map(|(_, join)| join).collect();
        let bytes = std::array::from_fn(|byte| {
            tokens.find_plain(alphabet::letter(byte as u8).encode_utf8(&mut [0; 4])).unwrap_or(NONE)
        });
        Ok(Self { words, bytes, starts, joins })
    }

    pub(super) fn words(&self) -> Words {
        self.words
    }

    fn join(&self, left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let start = *self.starts.get(left.id as usize)? as usize;
        let end = *self.starts.get(left.id as usize + 1)? as usize;
        let joins = &self.joins[start..end];
        let found = joins.binary_search_by_key(&right.id, |join| join.right).ok()?;
        Some((joins[found].rank, joins[found].whole))
    }

    /// Adds the ids of a text to `ids`. A byte that has no token is left out, as llama.cpp does: vocabularies lack only
    /// bytes that valid text hardly ever has.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        self.words.each(text, |word| {
            if self.words.whole_words() {
                let letters: String = word.bytes().map(alphabet::letter).collect();
                if let Some(id) = tokens.find_plain(&letters) {
                    ids.push(id);
                    return;
                }
            }
            merger.clear();
            for (at, byte) in word.bytes().enumerate() {
                merger.push(at, at + 1, self.bytes[usize::from(byte)]);
            }
            let symbols = merger.run(|left, right| self.join(left, right));
            ids.extend(symbols.map(|symbol| symbol.id).filter(|&id| id != NONE));
        });
    }
}
