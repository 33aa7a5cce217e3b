//! Why a server did not answer.
//!
//! What it says itself may quote what it was asked, which is somebody's text: that is for who asked. Shown, as in a log, is no
//! more than what kind of answer it was.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    what: String,
    /// Its own, in one short line.
    words: Option<String>,
}

impl Unanswered {
    pub fn with_words(what: impl Into<String>, words: String) -> Self {
        Self { what: what.into(), words: Some(words).filter(|words| !words.is_empty()) }
    }

    /// For who asked.
    pub fn in_its_words(self) -> String {
        match self.words {
            Some(words) => format!("{}: {words}", self.what),
            None => self.what,
        }
    }
}

impl From<String> for Unanswered {
    fn from(what: String) -> Self {
        Self { what, words: None }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_not_shown_to_everybody() {
        let refused = Unanswered::with_words("400 Bad Request", "`Ada Quill` is too long".into());
        assert_eq!(refused.to_string(), "400 Bad Request");
        assert_eq!(refused.in_its_words(), "400 Bad Request: `Ada Quill` is too long");
        assert_eq!(Unanswered::with_words("500", String::new()).in_its_words(), "500");
    }
}
