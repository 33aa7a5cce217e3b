//! What is said in a conversation stays text.
//!
//! A template's own words name control tokens, `<|im_end|>` and the like, so its text is read with them. But a message may
//! hold the same characters, and must not end its turn and begin one of somebody else by that. So before a template runs,
//! a mark is put inside of everything in messages and tools that would be read as a control token: one character that
//! stands nowhere else. Afterwards the marks are taken out, and what covers a place of one is text.
//!
//! Text without control tokens has no marks: templates trim, cut and compare it as ever. What a file calls user-defined
//! (`<think>` and `<tool_call>` in Qwen) is matched in any text and is not marked.
//!
//! Not covered: a template that itself puts a part of a control token before what was said, as `<` before a name.

use super::{Json, Prompt, TemplateError};
use crate::text::Tokeniser;
use minijinja::Value;
use minijinja::value::ValueKind;
use std::collections::HashSet;

/// Characters without a meaning of their own: the private planes.
const PRIVATE: [std::ops::RangeInclusive<char>; 2] = ['\u{F0000}'..='\u{FFFFD}', '\u{100000}'..='\u{10FFFD}'];

/// Messages and tools with marks.
pub(super) struct Marked {
    mark: char,
    messages: Vec<Json>,
    tools: Vec<Json>,
}

impl Marked {
    /// None if nothing that is said needs a mark. `source`: the template's.
    pub(super) fn of(prompt: &Prompt<'_>, tokeniser: &Tokeniser, source: &str) -> Result<Option<Self>, TemplateError> {
        let (mut any, mut used) = (false, HashSet::new());
        let mut look = |text: &str| {
            any |= tokeniser.marks(text).next().is_some();
            used.extend(text.chars().filter(is_private));
        };
        for Json(value) in prompt.messages.iter().chain(prompt.tools) {
            each_text(value, &mut look);
        }
        if !any {
            return Ok(None);
        }
        used.extend(source.chars().filter(is_private));
        let Some(mark) = PRIVATE.into_iter().flatten().find(|c| !used.contains(c)) else {
            let what =
                "the messages hold every private-use character and control tokens, too: no mark is left for them";
            return Err(TemplateError::Failed { line: 0, what: what.into() });
        };
        let marked =
            |values: &[Json]| values.iter().map(|Json(value)| Json(with_marks(value, mark, tokeniser))).collect();
        Ok(Some(Self { mark, messages: marked(prompt.messages), tools: marked(prompt.tools) }))
    }

    pub(super) fn prompt<'a>(&'a self, prompt: &Prompt<'a>) -> Prompt<'a> {
        Prompt { messages: &self.messages, tools: &self.tools, ..*prompt }
    }

    /// A text without its marks, and where they were.
    pub(super) fn take_out(&self, marked: &str) -> (String, Vec<usize>) {
        let (mut text, mut marks) = (String::with_capacity(marked.len()), Vec::new());
        for piece in marked.split(self.mark) {
            text.push_str(piece);
            marks.push(text.len());
        }
        // The last piece ends with the text and not with a mark.
        marks.pop();
        (text, marks)
    }
}

fn is_private(c: &char) -> bool {
    PRIVATE.iter().any(|range| range.contains(c))
}

/// Strings, and the names of values.
fn each_text(value: &Value, look: &mut impl FnMut(&str)) {
    match value.kind() {
        ValueKind::String => look(value.as_str().unwrap_or_default()),
        ValueKind::Seq => value.try_iter().into_iter().flatten().for_each(|item| each_text(&item, look)),
        ValueKind::Map => {
            for key in value.try_iter().into_iter().flatten() {
                each_text(&key, look);
                each_text(&value.get_item(&key).unwrap_or_default(), look);
            }
        }
        _ => {}
    }
}

fn with_marks(value: &Value, mark: char, tokeniser: &Tokeniser) -> Value {
    match value.kind() {
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let (mut marked, mut from) = (String::with_capacity(text.len()), 0);
            for at in tokeniser.marks(text) {
                marked.push_str(&text[from..at]);
                marked.push(mark);
                from = at;
            }
            if from == 0 {
                return value.clone();
            }
            (marked + &text[from..]).into()
        }
        ValueKind::Seq => {
            value.try_iter().into_iter().flatten().map(|item| with_marks(&item, mark, tokeniser)).collect()
        }
        ValueKind::Map => Value::from_pairs(value.try_iter().into_iter().flatten().map(|key| {
            let item = value.get_item(&key).unwrap_or_default();
            (with_marks(&key, mark, tokeniser), with_marks(&item, mark, tokeniser))
        })),
        _ => value.clone(),
    }
}
