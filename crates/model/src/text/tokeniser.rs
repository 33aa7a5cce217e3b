//! Text to ids.

use super::added::{Added, Piece};
use super::alphabet;
use super::bpe::Bpe;
use super::detokeniser::Detokeniser;
use super::merge::Merger;
use super::sentencepiece::{SPACE, SentencePiece};
use super::tokens::{ENDS, Tokens};
use super::vocabulary::{Kind, Vocabulary, VocabularyError};

/// A vocabulary made ready, and checked.
///
/// ```
/// use littoral_model::text::{Kind, Tokeniser, Vocabulary};
///
/// let tokeniser = Tokeniser::new(&Vocabulary {
///     model: "gpt2",
///     pre: Some("gpt-2"),
///     tokens: vec!["a", "b", "Ġ", "ab", "Ġab", "<|end|>"],
///     kinds: [[Kind::Normal; 5].as_slice(), &[Kind::Control]].concat(),
///     merges: vec!["a b", "Ġ ab"],
///     ..Vocabulary::default()
/// })?;
/// assert_eq!(tokeniser.encode("ab ab<|end|>", true), [3, 4, 5]);
/// assert_eq!(tokeniser.decode(&[3, 4, 5]), "ab ab");
/// # Ok::<(), littoral_model::text::VocabularyError>(())
/// ```
pub struct Tokeniser {
    tokens: Tokens,
    algorithm: Algorithm,
    /// Tokens to match in any text, and in text that may name special tokens.
    plain: Added,
    special: Added,
    /// Those that are matched in the latter only.
    control: Added,
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    /// Ids after which nothing more is written, ascending.
    ends: Vec<u32>,
}

enum Algorithm {
    Bpe(Bpe),
    SentencePiece(SentencePiece),
}

const MODELS: &str = "gpt2, llama";

/// `</s>` is a control token in Llama 2, the end of struck-out text in Gemma, and a word like others in Qwen. llama.cpp
/// takes it for a control token in all of them. We do so in plain text, where to spell it out is safe for every model;
/// elsewhere the file's word counts, since Qwen has never seen that token, and Gemma's answers are to show it.
const AMBIGUOUS_END: &str = "</s>";

impl Tokeniser {
    /// # Errors
    /// If the model or the rule for words is not known, or parts of the vocabulary do not fit each other; the error
    /// names the part.
    pub fn new(vocabulary: &Vocabulary<'_>) -> Result<Self, VocabularyError> {
        let tokens = Tokens::new(vocabulary)?;
        let Vocabulary { bos, eos, eot, unknown, padding, .. } = *vocabulary;
        let named = [("bos", bos), ("eos", eos), ("eot", eot), ("unknown", unknown), ("padding", padding)];
        for (name, id) in named {
            if let Some(id) = id.filter(|&id| id as usize >= tokens.len()) {
                return Err(VocabularyError::new(name, format!("less than {}", tokens.len()), id.to_string()));
            }
        }
        let (algorithm, bos_by_default) = match vocabulary.model {
            "gpt2" => {
                let bpe = Bpe::new(vocabulary, &tokens)?;
                let add_bos = bpe.words().add_bos();
                (Algorithm::Bpe(bpe), add_bos)
            }
            "llama" => (Algorithm::SentencePiece(SentencePiece::new(vocabulary, &tokens)?), true),
            other => return Err(VocabularyError::new("model", format!("one of {MODELS}"), format!("{other:?}"))),
        };
        let add_bos = vocabulary.add_bos.unwrap_or(bos_by_default);
        let add_eos = vocabulary.add_eos.unwrap_or(false);
        for (name, add, id) in [("bos", add_bos, bos), ("eos", add_eos, eos)] {
            if add && id.is_none() {
                return Err(VocabularyError::new(name, format!("an id, as documents get {name}"), "none"));
            }
        }

        let of_kinds = |kinds: &'static [Kind]| {
            let ids = (0..tokens.len() as u32).filter(|&id| kinds.contains(&tokens.kind(id)));
            ids.filter_map(|id| Some((id, tokens.text(id)?)))
        };
        let plain = of_kinds(&[Kind::UserDefined]).filter(|(_, text)| !is_control(Kind::UserDefined, text));
        let plain = Added::new(plain);
        let special = Added::new(of_kinds(&[Kind::UserDefined, Kind::Control, Kind::Unknown]));
        let control = of_kinds(&[Kind::UserDefined, Kind::Control, Kind::Unknown]);
        let control = Added::new(control.filter(|&(id, text)| is_control(tokens.kind(id), text)));
        let known = ENDS.iter().chain([&AMBIGUOUS_END]).filter_map(|text| tokens.find(text));
        let known = known.filter(|&id| tokens.kind(id) == Kind::Control);
        let mut ends: Vec<u32> = known.chain(eos).chain(eot).collect();
        ends.sort_unstable();
        ends.dedup();
        Ok(Self { tokens, algorithm, plain, special, control, bos, eos, eot, unknown, padding, add_bos, add_eos, ends })
    }

    /// The ids of a part of a text. With `special`, control tokens written in it count as such; text of people, who may
    /// write anything, goes in without.
    pub fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let added = if special { &self.special } else { &self.plain };
        self.of_pieces(added.cut(text, |_, _, _| true), text.len())
    }

    /// As [`encode`](Self::encode) with `special`, but a control token that covers a mark, or ends at one, is plain text.
    /// `marks`: places in the text, ascending.
    pub(super) fn encode_marked(&self, text: &str, marks: &[usize]) -> Vec<u32> {
        let may = |at: usize, len: usize, id: u32| {
            let next = marks.get(marks.partition_point(|&mark| mark <= at));
            let free = next.is_none_or(|&mark| at + len < mark);
            free || !is_control(self.tokens.kind(id), self.tokens.text(id).unwrap_or_default())
        };
        self.of_pieces(self.special.cut(text, may), text.len())
    }

    /// Where marks must stand in a text so that none of it becomes a control token in
    /// [`encode_marked`](Self::encode_marked), whatever comes behind it: after the first character of every control token,
    /// and of every one that the end of the text may cut.
    pub(super) fn marks(&self, text: &str) -> impl Iterator<Item = usize> {
        let control = text.char_indices().filter(|(at, c)| {
            let rest = &text.as_bytes()[*at..];
            // White space is left alone: templates trim it.
            self.control.begins(rest) && !c.is_whitespace()
        });
        control.map(|(at, c)| at + c.len_utf8())
    }

    fn of_pieces(&self, pieces: Vec<Piece<'_>>, bytes: usize) -> Vec<u32> {
        let mut ids = Vec::with_capacity(bytes / 3);
        let mut merger = Merger::default();
        // The start of a text counts as following a special token.
        let mut after_special = true;
        for piece in pieces {
            match (piece, &self.algorithm) {
                (Piece::Token(id), _) => ids.push(id),
                (Piece::Text(text), Algorithm::Bpe(bpe)) => bpe.encode(&self.tokens, text, &mut merger, &mut ids),
                (Piece::Text(text), Algorithm::SentencePiece(pieces)) => {
                    pieces.encode(&self.tokens, text, after_special, &mut merger, &mut ids);
                }
            }
            after_special = matches!(piece, Piece::Token(_));
        }
        ids
    }

    /// The ids of a whole text, with `bos` before it and `eos` after it if the file says so. Not for what a chat
    /// template made: that writes these itself.
    pub fn encode_document(&self, text: &str, special: bool) -> Vec<u32> {
        let bos = self.bos.filter(|_| self.add_bos);
        let eos = self.eos.filter(|_| self.add_eos);
        bos.into_iter().chain(self.encode(text, special)).chain(eos).collect()
    }

    /// The text of ids: what [`encode`](Self::encode) was given, if it gave them and no control token is among them.
    /// Those are not shown, and bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut detokeniser = Detokeniser::at_start(self);
        let mut text = String::new();
        for &id in ids {
            text.push_str(detokeniser.push(id));
        }
        text.push_str(detokeniser.finish());
        text
    }

    /// How many ids there are. A model's last layer may be wider; what it has beyond has no text.
    #[expect(clippy::len_without_is_empty, reason = "a vocabulary is never empty")]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// A token as the file writes it. None for an id that there is not.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.text(id)
    }

    /// The id of a token as the file writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokens.find(token)
    }

    /// [`Kind::Undefined`] for an id that there is not.
    pub fn kind(&self, id: u32) -> Kind {
        self.tokens.kind(id)
    }

    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    pub fn eot(&self) -> Option<u32> {
        self.eot
    }

    pub fn unknown(&self) -> Option<u32> {
        self.unknown
    }

    pub fn padding(&self) -> Option<u32> {
        self.padding
    }

    /// Whether nothing more is to be written after this token: `eos`, `eot`, or a control token that is known to end
    /// answers.
    pub fn ends(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// Adds the bytes that a token stands for. A control token, and an id that there is not, stand for none.
    pub fn bytes(&self, id: u32, bytes: &mut Vec<u8>) {
        let text = self.tokens.text(id).unwrap_or_default();
        match (self.tokens.kind(id), &self.algorithm) {
            (Kind::UserDefined, _) => bytes.extend_from_slice(text.as_bytes()),
            (Kind::Byte, _) => bytes.extend(byte(text)),
            (Kind::Normal, Algorithm::Bpe(_)) => {
                for c in text.chars() {
                    match alphabet::byte(c) {
                        Some(byte) => bytes.push(byte),
                        // Not of the alphabet, so that it can only stand for itself.
                        None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
            }
            (Kind::Normal, Algorithm::SentencePiece(_)) => {
                for c in text.chars() {
                    let c = if c == SPACE { ' ' } else { c };
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
            (Kind::Undefined | Kind::Unknown | Kind::Control | Kind::Unused, _) => {}
        }
    }

    /// Whether the first text after a special token begins with a space that was not written.
    pub(super) fn space_prefix(&self) -> bool {
        matches!(&self.algorithm, Algorithm::SentencePiece(pieces) if pieces.space_prefix())
    }
}

/// Whether a token that is matched as it is written counts only in text that may name special tokens.
fn is_control(kind: Kind, text: &str) -> bool {
    kind != Kind::UserDefined || text == AMBIGUOUS_END
}

/// The byte of `<0x0A>`.
fn byte(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
}
