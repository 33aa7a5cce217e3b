//! One generation's constraint.

use super::index::VocabularyIndex;
use crate::sample::TokenMask;
use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;

/// The longest schema, expression or grammar that is read. `llguidance` bounds what is built from it.
pub const MAX_SOURCE_BYTES: usize = 1 << 18;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("the {kind} has {bytes} bytes, and at most {MAX_SOURCE_BYTES} are read")]
    TooLong { kind: &'static str, bytes: usize },
    #[error("the JSON schema is not JSON: {reason}")]
    NotJson { line: usize, column: usize, reason: String },
    #[error("the JSON schema cannot be followed: {reason}")]
    Schema { reason: String },
    #[error("the regular expression cannot be followed: {reason}")]
    Regex { reason: String },
    #[error("the grammar cannot be followed: {reason}")]
    Grammar { reason: String },
    #[error("token {id} is not allowed here")]
    NotAllowed { id: u32 },
    #[error("{tokens} tokens cannot be taken back, there are {accepted}")]
    NothingToTakeBack { tokens: usize, accepted: usize },
    /// A limit of the parser was met. The generation cannot go on under this constraint.
    #[error("the constraint cannot go on: {reason}")]
    Failed { reason: String },
}

/// What may come next, given what came. Clone it to fork a generation.
#[derive(Clone)]
pub struct Constraint {
    matcher: Matcher,
    vocabulary: usize,
    accepted: usize,
}

impl Constraint {
    /// The text is JSON that fits this schema. `{"type": "object"}` is OpenAI's JSON mode.
    pub fn json_schema(index: &VocabularyIndex, schema: &str) -> Result<Self, ConstraintError> {
        bounded("JSON schema", schema)?;
        let schema = serde_json::from_str(schema).map_err(|e| ConstraintError::NotJson {
            line: e.line(),
            column: e.column(),
            reason: e.to_string(),
        })?;
        Self::of(index, TopLevelGrammar::from_json_schema(schema), |reason| ConstraintError::Schema { reason })
    }

    /// The whole text matches this expression, in the syntax of Rust's `regex` without look-around and back references.
    pub fn regex(index: &VocabularyIndex, expression: &str) -> Result<Self, ConstraintError> {
        bounded("regular expression", expression)?;
        Self::of(index, TopLevelGrammar::from_regex(expression), |reason| ConstraintError::Regex { reason })
    }

    /// The text is derived from `start` of a grammar in `llguidance`'s variant of Lark.
    pub fn grammar(index: &VocabularyIndex, lark: &str) -> Result<Self, ConstraintError> {
        bounded("grammar", lark)?;
        Self::of(index, TopLevelGrammar::from_lark(lark.to_owned()), |reason| ConstraintError::Grammar { reason })
    }

    fn of(
        index: &VocabularyIndex,
        grammar: TopLevelGrammar,
        error: impl Fn(String) -> ConstraintError,
    ) -> Result<Self, ConstraintError> {
        let parser = index.factory.create_parser(grammar).map_err(|e| error(in_one_line(&e)))?;
        Ok(Self { matcher: Matcher::new(Ok(parser)), vocabulary: index.size, accepted: 0 })
    }

    /// The tokens that may come next; only those that end a text once nothing can follow.
    pub fn allowed(&mut self) -> Result<TokenMask, ConstraintError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
        Ok(TokenMask::from_words(mask.as_slice(), self.vocabulary))
    }

    /// Takes a token. One that is not allowed changes nothing.
    pub fn accept(&mut self, id: u32) -> Result<(), ConstraintError> {
        if id as usize >= self.vocabulary || self.is_finished() {
            return Err(ConstraintError::NotAllowed { id });
        }
        match self.matcher.try_consume_tokens(&[id]).map_err(failed)? {
            0 => Err(ConstraintError::NotAllowed { id }),
            _ => {
                self.accepted += 1;
                Ok(())
            }
        }
    }

    /// Takes back the last tokens, for a draft that was refused.
    pub fn take_back(&mut self, tokens: usize) -> Result<(), ConstraintError> {
        if tokens > self.accepted {
            return Err(ConstraintError::NothingToTakeBack { tokens, accepted: self.accepted });
        }
        self.matcher.rollback(tokens).map_err(failed)?;
        self.accepted -= tokens;
        Ok(())
    }

    /// Whether the text may end here.
    pub fn may_end(&mut self) -> Result<bool, ConstraintError> {
        self.matcher.is_accepting().map_err(failed)
    }

    /// Whether nothing but the end can follow, or the end was accepted.
    pub fn is_finished(&self) -> bool {
        self.matcher.is_stopped()
    }
}

fn bounded(kind: &'static str, source: &str) -> Result<(), ConstraintError> {
    match source.len() {
        0..=MAX_SOURCE_BYTES => Ok(()),
        bytes => Err(ConstraintError::TooLong { kind, bytes }),
    }
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    ConstraintError::Failed { reason: in_one_line(&error) }
}

/// The first line, and what a further line calls an error. The other lines draw pictures of the source.
fn in_one_line(error: &impl std::fmt::Display) -> String {
    let told = error.to_string();
    let mut lines = told.lines();
    let first = lines.next().unwrap_or_default();
    lines.filter(|line| line.starts_with("error:")).fold(first.to_owned(), |told, line| format!("{told} {line}"))
}
