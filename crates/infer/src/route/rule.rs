//! What must not leave this machine, whatever a score, a budget or a price says.
//!
//! A request is local-only if it says so itself, if its API key is one of those that are, or if its text matches a policy. What
//! cannot be judged (a text too long to be searched) is local-only too: a rule that fails must fail closed.
//!
//! A **pattern** is found anywhere in a text, in capital or small letters, with any white space where it has white space, in any
//! of Unicode's compatible forms (`é` as one character or as two, wide and styled letters), and with characters in it that cannot
//! be seen. In it `?` stands for one character and `*` for any run of them. So `project alpha` is found in "the PROJECT\n Alpha
//! plan", and `iban ?? * 00` needs its parts in that order. Patterns see characters, not meaning: a text that spells a word
//! differently, or in another alphabet, is not found. A pattern for the name of a key must match all of it.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

pub const PATTERNS_MAX: usize = 256;
pub const PATTERN_CHARS_MAX: usize = 128;
/// Of all texts of a request together.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// As it is written in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    /// Patterns of texts that stay here.
    pub words: Vec<String>,
    /// Patterns of the names of API keys whose requests stay here.
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("{list}: at most {PATTERNS_MAX} patterns expected, got {got}")]
    TooMany { list: &'static str, got: usize },
    #[error("{list}, pattern {at}: at most {PATTERN_CHARS_MAX} characters expected, got {got}")]
    TooLong { list: &'static str, at: usize, got: usize },
    #[error("{list}, pattern {at}: something beside wildcards and white space expected, got `{}`", on_one_line(.got))]
    Empty { list: &'static str, at: usize, got: String },
}

#[derive(Clone, Debug, Default)]
pub struct Policy {
    words: Vec<Pattern>,
    keys: Vec<Pattern>,
}

/// What is known of a request before anything is computed for it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The request says itself that it is local-only.
    pub marked: bool,
    /// The name of its API key, not the key.
    pub key: Option<&'a str>,
    /// All of its texts: every message, of whatever role, and what else would be sent.
    pub texts: &'a [&'a str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// May leave.
    Free,
    LocalOnly(Why),
}

/// Why a request stays. Names the rule, never the text that it matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Marked,
    Key {
        pattern: String,
    },
    Text {
        pattern: String,
    },
    TooLong {
        bytes: usize,
    },
    /// A part of it that is no text, while there are words to look for.
    Unsearchable {
        what: &'static str,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Marked => write!(f, "the request is marked local-only"),
            Self::Key { pattern } if pattern.is_empty() => write!(f, "its API key is local-only"),
            Self::Key { pattern } => write!(f, "its API key is local-only (`{}`)", on_one_line(pattern)),
            Self::Text { pattern } => write!(f, "its text matches the local-only policy (`{}`)", on_one_line(pattern)),
            Self::Unsearchable { what } => write!(f, "it has {what}, in which a policy cannot look for words"),
            Self::TooLong { bytes } => {
                write!(f, "its text has {bytes} bytes, and a policy searches {TEXT_BYTES_MAX} at most")
            }
        }
    }
}

impl Policy {
    pub fn new(text: &PolicyText) -> Result<Self, PolicyError> {
        let compile = |list, patterns: &[String]| {
            if patterns.len() > PATTERNS_MAX {
                return Err(PolicyError::TooMany { list, got: patterns.len() });
            }
            patterns.iter().enumerate().map(|(at, text)| Pattern::new(list, at, text)).collect()
        };
        Ok(Self { words: compile("words", &text.words)?, keys: compile("keys", &text.keys)? })
    }

    /// Are there words to look for?
    pub fn searches(&self) -> bool {
        !self.words.is_empty()
    }

    /// Nothing is held back by it.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.keys.is_empty()
    }

    pub fn judge(&self, asked: &Asked) -> Rule {
        let pattern = |pattern: &Pattern| pattern.text.clone();
        if asked.marked {
            return Rule::LocalOnly(Why::Marked);
        }
        if let Some(key) = asked.key {
            let key = folded(key);
            if let Some(found) = self.keys.iter().find(|pattern| pattern.is_all_of(&key)) {
                return Rule::LocalOnly(Why::Key { pattern: pattern(found) });
            }
        }
        if self.words.is_empty() {
            return Rule::Free;
        }
        let bytes = asked.texts.iter().map(|text| text.len()).sum();
        if bytes > TEXT_BYTES_MAX {
            return Rule::LocalOnly(Why::TooLong { bytes });
        }
        for text in asked.texts {
            let text = folded(text);
            if let Some(found) = self.words.iter().find(|pattern| pattern.is_in(&text)) {
                return Rule::LocalOnly(Why::Text { pattern: pattern(found) });
            }
        }
        Rule::Free
    }
}

/// A pattern without its `*`: the pieces between them, in order.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    pieces: Vec<Vec<char>>,
    /// There is a `*` at the beginning, at the end, anywhere.
    open: [bool; 3],
}

impl Pattern {
    fn new(list: &'static str, at: usize, text: &str) -> Result<Self, PolicyError> {
        let got = text.chars().count();
        if got > PATTERN_CHARS_MAX {
            return Err(PolicyError::TooLong { list, at, got });
        }
        let trimmed = text.trim();
        // A pattern of keys may be `*`: no key's requests leave.
        let says = |c: char| !matches!(c, '*' | '?') && !c.is_whitespace() && !unseen(c);
        if trimmed.is_empty() || (list == "words" && !trimmed.contains(says)) {
            return Err(PolicyError::Empty { list, at, got: text.to_owned() });
        }
        // White space beside a `*` is in its run: finding more is the safe side.
        let pieces = trimmed.split('*').map(|piece| folded(piece.trim())).filter(|piece| !piece.is_empty()).collect();
        let open = [trimmed.starts_with('*'), trimmed.ends_with('*'), trimmed.contains('*')];
        Ok(Self { text: text.to_owned(), pieces, open })
    }

    fn is_in(&self, text: &[char]) -> bool {
        in_order(text, &self.pieces)
    }

    fn is_all_of(&self, text: &[char]) -> bool {
        let [open_first, open_last, open] = self.open;
        let (mut rest, mut pieces) = (text, &self.pieces[..]);
        if !open {
            return pieces.iter().all(|piece| piece.len() == rest.len() && begins(rest, piece));
        }
        if !open_first && let [first, others @ ..] = pieces {
            if !begins(rest, first) {
                return false;
            }
            (rest, pieces) = (&rest[first.len()..], others);
        }
        if !open_last && let [others @ .., last] = pieces {
            if rest.len() < last.len() || !begins(&rest[rest.len() - last.len()..], last) {
                return false;
            }
            (rest, pieces) = (&rest[..rest.len() - last.len()], others);
        }
        in_order(rest, pieces)
    }
}

/// The first place of each piece behind the one before is as good as any later one.
fn in_order(text: &[char], pieces: &[Vec<char>]) -> bool {
    let mut rest = text;
    pieces.iter().all(|piece| match find(rest, piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

fn find(text: &[char], piece: &[char]) -> Option<usize> {
    let last = text.len().checked_sub(piece.len())?;
    (0..=last).find(|at| begins(&text[*at..], piece))
}

fn begins(text: &[char], piece: &[char]) -> bool {
    text.len() >= piece.len() && piece.iter().zip(text).all(|(wanted, c)| *wanted == '?' || wanted == c)
}

/// A pattern as it is told: one space for any white space, and what cannot be seen escaped.
fn on_one_line(pattern: &str) -> String {
    pattern.split_whitespace().collect::<Vec<_>>().join(" ").escape_debug().to_string()
}

/// Unicode's compatibility form (NFKC) in small letters, the sigma at a word's end as any other, with one space for any white space
/// and without what cannot be seen.
fn folded(text: &str) -> Vec<char> {
    let mut folded: Vec<char> = Vec::with_capacity(text.len());
    let seen = text.nfkc().filter(|&c| !unseen(c));
    // Styled capitals are letters by then. Composed again after they are small: some have no capital of one character.
    let small = seen.flat_map(char::to_lowercase).map(|c| if c == 'ς' { 'σ' } else { c });
    for c in small.nfkc() {
        match c.is_whitespace() {
            true if folded.last() == Some(&' ') => {}
            true => folded.push(' '),
            false => folded.push(c),
        }
    }
    folded
}

/// Unicode's Default_Ignorable_Code_Point: soft hyphens, joiners, marks of direction, variants.
fn unseen(c: char) -> bool {
    matches!(u32::from(c),
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfff8 | 0x1bca0..=0x1bca3
        | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(words: &[&str], keys: &[&str]) -> Policy {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Policy::new(&PolicyText { words: own(words), keys: own(keys) }).expect("a policy")
    }

    fn stays(policy: &Policy, texts: &[&str]) -> bool {
        policy.judge(&Asked { marked: false, key: None, texts }) != Rule::Free
    }

    #[test]
    fn patterns_find_what_they_say() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(stays(&policy(&[pattern], &[]), &["", text]), expected, "{pattern:?} in {text:?}");
        };
        for (pattern, text) in [
            ("project alpha", "the PROJECT\n\t Alpha plan"),
            ("patient", "two inPATIENTs"),
            ("mrn-????", "see MRN-1234."),
            ("iban ?? * 00", "IBAN DE 12 34 00"),
            ("*secret*", "a Secret"),
            ("STRASSE", "strasse"),
            ("ÄRZTE", "Ärztebericht"),
            ("ΛΟΓΟΣ", "λογος"),
            ("λογος", "ΛΟΓΟΣ"),
            ("λογος", "λογοσ"),
            ("a*b*c", "xaxxbxxcx"),
            // With marks of their own, in either order, and in whichever case has one character for it.
            ("andr\u{e9}", "Andre\u{301}"),
            ("ANDRE\u{301}", "andr\u{e9}"),
            ("andr?s", "Andre\u{301}s"),
            ("\u{1e96}", "H\u{331}"),
            ("q\u{307}\u{323}", "Q\u{323}\u{307}"),
            ("\u{212b}ngstrom", "A\u{30a}ngstrom"),
            // In letters of another width or style, and with what cannot be seen.
            ("patient", "pat\u{ad}i\u{200b}ent"),
            ("pat\u{200d}ient", "patient"),
            ("patient", "\u{ff30}\u{ff21}\u{ff34}\u{ff29}\u{ff25}\u{ff2e}\u{ff34}"),
            ("patient", "\u{1d40f}\u{1d41a}\u{1d42d}\u{1d422}\u{1d41e}\u{1d427}\u{1d42d}"),
            ("\u{c4}rzte", "A\u{308}rztebericht"),
        ] {
            check(pattern, text, true);
        }
        for (pattern, text) in [
            ("project alpha", "projectalpha"),
            ("mrn-????", "mrn-12"),
            ("a*b", "b a"),
            ("ab", "a b"),
            ("aba*aba", "ababa"),
        ] {
            check(pattern, text, false);
        }
    }

    #[test]
    fn keys_match_as_a_whole() {
        let check = |pattern: &str, key: &str, expected: bool| {
            let asked = Asked { marked: false, key: Some(key), texts: &[] };
            let free = policy(&[], &[pattern]).judge(&asked) == Rule::Free;
            assert_eq!(!free, expected, "{pattern:?} for {key:?}");
        };
        for (pattern, key) in [
            ("clinic", "Clinic"),
            ("clinic-*", "clinic-3"),
            ("*-eu", "a-eu"),
            ("a*b*c", "a12b3c"),
            ("*", "any"),
            ("a?c", "abc"),
            ("a*", "a"),
        ] {
            check(pattern, key, true);
        }
        for (pattern, key) in [
            ("clinic", "clinic-3"),
            ("clinic-*", "my-clinic-3"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("*-eu", "eu"),
            ("ab*bc", "abc"),
        ] {
            check(pattern, key, false);
        }
    }

    #[test]
    fn what_is_marked_stays_and_a_reason_tells_no_text() {
        let policy = policy(&["secret"], &["clinic"]);
        let judge = |marked, key, texts: &[&str]| match policy.judge(&Asked { marked, key, texts }) {
            Rule::Free => "free".to_owned(),
            Rule::LocalOnly(why) => why.to_string(),
        };
        assert_eq!(judge(true, None, &[]), "the request is marked local-only");
        assert_eq!(judge(false, Some("CLINIC"), &["hello"]), "its API key is local-only (`clinic`)");
        let told = judge(false, Some("other"), &["hello", "my Secret is 17"]);
        assert_eq!(told, "its text matches the local-only policy (`secret`)");
        assert_eq!(judge(false, None, &["hello"]), "free");
        let odd = self::policy(&["project\n\t alpha\u{202e}\u{7}"], &[]);
        let Rule::LocalOnly(why) =
            odd.judge(&Asked { marked: false, key: None, texts: &["Project Alpha\u{202e}\u{7}"] })
        else {
            panic!("it matches")
        };
        assert_eq!(why.to_string(), "its text matches the local-only policy (`project alpha\\u{202e}\\u{7}`)");
        let long = "x".repeat(TEXT_BYTES_MAX);
        assert!(judge(false, None, &[&long, "y"]).starts_with("its text has 1048577 bytes"));
        assert_eq!(judge(false, None, &[&long]), "free");
    }

    #[test]
    fn policies_that_cannot_be_meant() {
        let error = |words: Vec<String>| {
            let text = PolicyText { words, keys: vec![] };
            Policy::new(&text).map(|_| ()).map_err(|e| e.to_string())
        };
        let expected = "words, pattern 1: something beside wildcards and white space expected, got `* ?`";
        assert_eq!(error(vec!["a".into(), "* ?".into()]), Err(expected.into()));
        assert!(error(vec!["x".repeat(129)]).is_err() && error(vec!["x".into(); 257]).is_err());
        assert!(error(vec!["x".repeat(128); 256]).is_ok());
    }

    /// Backtracking over characters: slow, obvious.
    fn matches(pattern: &[char], text: &[char]) -> bool {
        match pattern {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|at| matches(rest, &text[at..])),
            ['?', rest @ ..] => !text.is_empty() && matches(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && matches(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_the_obvious_matcher(pattern in "[ab*?]{1,6}", text in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            let compiled = Pattern::new("keys", 0, &pattern).expect("a pattern");
            prop_assert_eq!(compiled.is_all_of(&chars(&text)), matches(&chars(&pattern), &chars(&text)));
            prop_assert_eq!(compiled.is_in(&chars(&text)), matches(&chars(&format!("*{pattern}*")), &chars(&text)));
        }
    }
}
