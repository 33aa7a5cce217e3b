//! One generation's constraint.

use super::index::VocabularyIndex;
use crate::sample::TokenMask;
use llguidance::Matcher;
use llguidance::api::{StopReason, TopLevelGrammar};
use serde_json::{Value, json};
use std::fmt;

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
    /// What came is the beginning of no text that fits: a rule that needs itself has no end.
    #[error("no token can come next")]
    Stuck,
    /// A limit of the parser was met. The generation cannot go on under this constraint.
    #[error("the constraint cannot go on: {reason}")]
    Failed { reason: String },
}

/// White space between the parts of JSON, as a model likes to write it: a space, or a line break and what the next line is
/// moved in by. Were it free, as it is in JSON, a small model could write spaces until its context is full.
const WHITESPACE: &str = r"\x20|\x0A[\x20]{0,32}|\x0A\x09{0,16}";

/// What may come next, given what came. Clone it to fork a generation.
pub struct Constraint {
    matcher: Box<Matcher>,
    vocabulary: usize,
    accepted: usize,
}

impl Clone for Constraint {
    /// Nothing is shared with the copy: the parser's limits count what its caches did not have, so that shared caches would
    /// let one generation's text depend on another's.
    fn clone(&self) -> Self {
        Self { matcher: Box::new(self.matcher.deep_clone()), ..*self }
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").field("accepted", &self.accepted).finish_non_exhaustive()
    }
}

impl Constraint {
    /// The text is JSON that fits this schema, properties in the schema's order. `{"type": "object"}` is OpenAI's JSON
    /// mode. Between its parts stands nothing, a space, or a line break and up to 32 spaces, unless the schema has
    /// `llguidance`'s own settings under `x-guidance`.
    pub fn json_schema(index: &VocabularyIndex, schema: &str) -> Result<Self, ConstraintError> {
        bounded("JSON schema", schema)?;
        let schema = serde_json::from_str(schema).map_err(|e| ConstraintError::NotJson {
            line: e.line(),
            column: e.column(),
            reason: e.to_string(),
        })?;
        let grammar = TopLevelGrammar::from_json_schema(spaced(schema));
        Self::of(index, grammar, |reason| ConstraintError::Schema { reason })
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

    /// The text is one of these.
    pub fn choice(index: &VocabularyIndex, texts: &[String]) -> Result<Self, ConstraintError> {
        let grammar = format!("start: {}", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" | "));
        Self::grammar(index, &grammar)
    }

    /// A source that no text can begin to fit, or whose first step is beyond the parser's limits, is refused here and not
    /// in the middle of a generation.
    fn of(
        index: &VocabularyIndex,
        grammar: TopLevelGrammar,
        error: impl Fn(String) -> ConstraintError,
    ) -> Result<Self, ConstraintError> {
        let parser = index.factory.create_parser(grammar).map_err(|e| error(in_one_line(&e)))?;
        let matcher = Box::new(Matcher::new(Ok(parser)));
        let constraint = Self { matcher, vocabulary: index.size, accepted: 0 };
        match constraint.clone().step() {
            Ok(()) => Ok(constraint),
            Err(ConstraintError::Failed { reason }) => Err(error(reason)),
            Err(other) => Err(error(other.to_string())),
        }
    }

    /// How many token ids its masks are for.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The tokens that may come next, at least one; only those that end a text once nothing can follow.
    pub fn allowed(&mut self) -> Result<TokenMask, ConstraintError> {
        let mut mask = self.matcher.compute_mask_or_eos().map_err(failed)?;
        // A grammar may name tokens by their ids, and among them one that ends a text, which is not taken before the end.
        if !self.is_finished() && !self.may_end()? {
            let environment = self.matcher.tok_env().map_err(failed)?;
            environment.tok_trie().eos_tokens().iter().for_each(|id| mask.disallow_token(*id));
        }
        if mask.is_zero() {
            return Err(ConstraintError::Stuck);
        }
        Ok(TokenMask::from_words(mask.as_slice(), self.vocabulary))
    }

    /// Takes any token that may come next. Some limits are looked at then, and not before.
    fn step(&mut self) -> Result<(), ConstraintError> {
        let any = self.allowed()?.ids().next();
        any.map_or(Err(ConstraintError::Stuck), |id| self.accept(id))
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

/// A schema as it stands in a grammar, `%json {…}`, with the white space of [`Constraint::json_schema`].
pub fn json_rule(schema: &Value) -> String {
    format!("%json {}", spaced(schema.clone()))
}

/// A text as it stands in a grammar: as in JSON, but that DEL is escaped too.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn spaced(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": WHITESPACE}));
    }
    schema
}

fn bounded(kind: &'static str, source: &str) -> Result<(), ConstraintError> {
    match source.len() {
        0..=MAX_SOURCE_BYTES => Ok(()),
        bytes => Err(ConstraintError::TooLong { kind, bytes }),
    }
}

fn failed(error: impl std::fmt::Display) -> ConstraintError {
    match in_one_line(&error) {
        reason if reason == StopReason::NoExtensionBias.to_string() => ConstraintError::Stuck,
        reason => ConstraintError::Failed { reason },
    }
}

/// The first line, and what a further line calls an error. The other lines draw pictures of the source.
fn in_one_line(error: &impl std::fmt::Display) -> String {
    let told = error.to_string();
    let mut lines = told.lines();
    let first = lines.next().unwrap_or_default();
    lines.filter(|line| line.starts_with("error:")).fold(first.to_owned(), |told, line| format!("{told} {line}"))
}
