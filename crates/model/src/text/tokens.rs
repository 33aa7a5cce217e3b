//! The texts of all tokens in one string, found by id and by text.
//!
//! A vocabulary has up to some hundred thousand tokens; a `String` and a map entry for each would be 30 MB for Gemma,
//! this is 6 MB. The index is an array sorted by hash, then text: like a hash table it is nearly always one probe, and a
//! file whose texts were chosen to collide costs a binary search instead of a walk over all of them.

use super::vocabulary::{Kind, Vocabulary, VocabularyError};

pub(super) struct Tokens {
    text: String,
    /// Token `i` is `text[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    /// `(hash, id)` in order of hash, then text. Empty texts are left out: nothing can be written as them.
    index: Vec<(u32, u32)>,
    /// Where in `index` the hashes begin whose upper bits are `i`.
    buckets: Vec<u32>,
    /// Bits of a hash that say nothing about its bucket.
    shift: u32,
}

/// Control tokens that end an answer in the model families that Littoral runs. A file names one or two of its own; and
/// since some name none and call these tokens normal, they are control tokens whatever the file says, as in llama.cpp.
pub(super) const ENDS: [&str; 12] = [
    "<|end_of_text|>",
    "<|end|>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|file_sep|>",
    "<|fim_pad|>",
    "<|im_end|>",
    "<|repo_name|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
];

/// Tokens in a vocabulary. The largest known has 2^18.
const TOKENS_MAX: usize = 1 << 24;

impl Tokens {
    pub(super) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self, VocabularyError> {
        let Vocabulary { tokens, kinds, .. } = vocabulary;
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(VocabularyError::new("tokens", format!("1 to {TOKENS_MAX}"), tokens.len().to_string()));
        }
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(VocabularyError::new("token_type", tokens.len().to_string(), kinds.len().to_string()));
        }
        let bytes: usize = tokens.iter().map(|token| token.len()).sum();
        if u32::try_from(bytes).is_err() {
            return Err(VocabularyError::new("tokens", "less than 4 GiB of text", format!("{bytes} bytes")));
        }
        let mut text = String::with_capacity(bytes);
        let ends = tokens.iter().map(|token| {
            text.push_str(token);
            text.len() as u32
        });
        let ends: Vec<u32> = ends.collect();
        let kinds = if kinds.is_empty() { vec![Kind::Normal; tokens.len()] } else { kinds.clone() };

        let ids = (0..tokens.len() as u32).filter(|&id| !tokens[id as usize].is_empty());
        let mut index: Vec<(u32, u32)> = ids.map(|id| (hash(tokens[id as usize]), id)).collect();
        index.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0).then_with(|| tokens[a.1 as usize].cmp(tokens[b.1 as usize])).then(a.1.cmp(&b.1))
        });
        if let Some(twice) = index.windows(2).find(|pair| tokens[pair[0].1 as usize] == tokens[pair[1].1 as usize]) {
            let (first, second) = (twice[0].1, twice[1].1);
            let got = format!("the text of token {first} again, {:?}", tokens[first as usize]);
            return Err(VocabularyError::new(format!("tokens[{second}]"), "a text of its own", got));
        }
        let bits = index.len().next_power_of_two().trailing_zeros().clamp(1, 31);
        let shift = 32 - bits;
        let buckets = starts(1 << bits, index.iter().map(|(hash, _)| (hash >> shift) as usize));
        let mut tokens = Self { text, ends, kinds, index, buckets, shift };
        for id in ENDS.iter().filter_map(|text| tokens.find(text)).collect::<Vec<u32>>() {
            tokens.kinds[id as usize] = Kind::Control;
        }
        Ok(tokens)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a token; none for an id that there is not.
    pub(super) fn text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        Some(&self.text[start..end])
    }

    /// [`Kind::Undefined`] for an id that there is not.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Undefined)
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        let hash = hash(text);
        let bucket = (hash >> self.shift) as usize;
        let range = &self.index[self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize];
        let at = range.binary_search_by(|&(other, id)| {
            other.cmp(&hash).then_with(|| self.text(id).unwrap_or_default().cmp(text))
        });
        at.ok().map(|at| range[at].1)
    }

    /// Whether text may become this token by joining. A text that is not trusted must never turn into a control token,
    /// whatever the ranks of a vocabulary would allow.
    pub(super) fn is_plain(&self, id: u32) -> bool {
        !matches!(self.kind(id), Kind::Control | Kind::Unknown | Kind::Byte)
    }

    pub(super) fn find_plain(&self, text: &str) -> Option<u32> {
        self.find(text).filter(|&id| self.is_plain(id))
    }
}

/// FNV-1a, with its upper half folded in.
fn hash(text: &str) -> u32 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ hash >> 32) as u32
}

/// Where each of `groups` begins in a list of items that are sorted by group, and where the last ends.
pub(super) fn starts(groups: usize, group_of_each: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut starts = vec![0; groups + 1];
    for group in group_of_each {
        starts[group + 1] += 1;
    }
    for group in 0..groups {
        starts[group + 1] += starts[group];
    }
    starts
}
