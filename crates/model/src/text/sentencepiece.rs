//! SentencePiece: characters, pairs joined by the score of what they make, and bytes for characters without a token.

use super::merge::{Merger, NONE};
use super::tokens::Tokens;
use super::vocabulary::{Kind, Vocabulary, VocabularyError};

/// How these models write a space.
pub(super) const SPACE: char = '\u{2581}';

pub(super) struct SentencePiece {
    /// Per token; less is more urgent.
    ranks: Vec<u32>,
    /// The token of each byte: `<0x0A>`, or else the byte's own character, or else the unknown token, or [`NONE`].
    bytes: [u32; 256],
    space_prefix: bool,
}

impl SentencePiece {
    pub(super) fn new(vocabulary: &Vocabulary<'_>, tokens: &Tokens) -> Result<Self, VocabularyError> {
        let scores = &vocabulary.scores;
        if scores.len() != tokens.len() {
            return Err(VocabularyError::new("scores", tokens.len().to_string(), scores.len().to_string()));
        }
        if let Some(nan) = scores.iter().position(|score| score.is_nan()) {
            return Err(VocabularyError::new(format!("scores[{nan}]"), "a number", "NaN"));
        }
        let ranks = scores.iter().map(|&score| rank(score)).collect();
        let unknown = vocabulary.unknown.unwrap_or(NONE);
        let bytes = std::array::from_fn(|byte| {
            // Of what kind files say that a byte is differs, but none may be a control token.
            let named = tokens.find(&format!("<0x{byte:02X}>"));
            let named = named.filter(|&id| !matches!(tokens.kind(id), Kind::Control | Kind::Unknown));
            let own = || {
                let character = char::from(byte as u8);
                character.is_ascii().then(|| tokens.find_plain(character.encode_utf8(&mut [0; 4]))).flatten()
            };
            named.or_else(own).unwrap_or(unknown)
        });
        Ok(Self { ranks, bytes, space_prefix: vocabulary.add_space_prefix.unwrap_or(true) })
    }

    pub(super) fn space_prefix(&self) -> bool {
        self.space_prefix
    }

    /// Adds the ids of a text to `ids`; `first` says whether the text begins a document or follows a special token.
    pub(super) fn encode(&self, tokens: &Tokens, text: &str, first: bool, merger: &mut Merger, ids: &mut Vec<u32>) {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        escaped.extend((first && self.space_prefix).then_some(SPACE));
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));

        merger.clear();
        for (at, c) in escaped.char_indices() {
            let end = at + c.len_utf8();
            merger.push(at, end, tokens.find_plain(&escaped[at..end]).unwrap_or(NONE));
        }
        let symbols = merger.run(|left, right| {
            let whole = tokens.find_plain(&escaped[left.start..right.end])?;
            Some((self.ranks[whole as usize], whole))
        });
        for symbol in symbols {
            if symbol.id != NONE {
                ids.push(symbol.id);
                continue;
            }
            let bytes = escaped[symbol.start..symbol.end].bytes().map(|byte| self.bytes[usize::from(byte)]);
            ids.extend(bytes.filter(|&id| id != NONE));
        }
    }
}

/// A score as a number that falls where the score rises: the bits of a float, made to order like the float.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 and 0.0 are one score
    if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
}

#[cfg(test)]
mod tests {
    use super::rank;
    use crate::text::{Kind, Tokeniser, Vocabulary};

    #[test]
    fn ranks_fall_as_scores_rise() {
        let scores = [f32::NEG_INFINITY, -1000.0, -1.0, -1e-40, 0.0, 1e-40, 1.0, 1e30, f32::INFINITY];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) > rank(pair[1])));
        assert_eq!(rank(-0.0), rank(0.0));
    }

    #[test]
    fn a_control_token_that_looks_like_a_byte_is_not_written_by_text() {
        let tokeniser = Tokeniser::new(&Vocabulary {
            model: "llama",
            tokens: vec!["<s>", "<", "<0x0A>", "a"],
            scores: vec![0.0; 4],
            kinds: vec![Kind::Control, Kind::Control, Kind::Control, Kind::Normal],
            bos: Some(0),
            add_space_prefix: Some(false),
            ..Vocabulary::default()
        })
        .unwrap();
        assert_eq!(tokeniser.encode("a<\n", false), [3]);
        assert_eq!(tokeniser.encode("a<", true), [3, 1]);
    }
}
