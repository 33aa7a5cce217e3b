//! How byte-level models cut text into words, over which joining then never reaches.
//!
//! Model files name these rules; the rules themselves are regular expressions in the tokenisers that the models were
//! trained with. Here they are written by hand as "how long is the next word". A library would have to be a backtracking
//! one (`fancy-regex`), as the expressions look ahead with `(?!\S)`: an engine with its own Unicode tables, and a running
//! time that a text can drive up, for four expressions of half a dozen branches each. By hand each character is looked at
//! a few times, and that is all.
//!
//! Categories are those of Unicode 16, as `unicode-general-category` has them. llama.cpp has those of Unicode 15: over
//! code points up to U+31FFF and the vocabularies at hand, ids differ only for punctuation that is newer, under `default`.

use super::vocabulary::VocabularyError;
use unicode_general_category::{GeneralCategory, get_general_category};

/// A rule for cutting words, as `tokenizer.ggml.pre` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    /// Runs of letters, of digits, of other characters, each with the space before it.
    Gpt2,
    /// Every digit for itself, then as GPT-2.
    Smollm,
    /// As GPT-2, but a word takes any one character before its letters, contractions have any case, and line feeds end
    /// words. Digits go together up to three.
    Llama3,
    /// As Llama 3, with digits one by one.
    Qwen2,
    /// What files mean that say `default` or nothing.
    Default,
}

const NAMES: [(&str, Words); 9] = [
    ("default", Words::Default),
    ("deepseek-r1-qwen", Words::Qwen2),
    ("gpt-2", Words::Gpt2),
    ("llama-bpe", Words::Llama3),
    ("llama-v3", Words::Llama3),
    ("llama3", Words::Llama3),
    ("megrez", Words::Qwen2),
    ("qwen2", Words::Qwen2),
    ("smollm", Words::Smollm),
];

impl Words {
    pub(super) fn named(name: &str) -> Result<Self, VocabularyError> {
        let found = NAMES.iter().find(|(known, _)| *known == name).map(|(_, words)| *words);
        found.ok_or_else(|| {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            VocabularyError::new("pre", format!("one of {}", known.join(", ")), format!("{name:?}"))
        })
    }

    /// Llama 3 takes a word that is a token as it is, whatever the joins would make of it.
    pub(super) fn whole_words(self) -> bool {
        self == Words::Llama3
    }

    /// Whether documents begin with `bos` if the file does not say.
    pub(super) fn add_bos(self) -> bool {
        self == Words::Llama3
    }

    /// Calls `word` with every word of a text, in order. Together they are the text.
    pub(super) fn each<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self {
            Words::Gpt2 => cut(text, gpt2, &mut word),
            Words::Llama3 => cut(text, |rest| llama3(rest, 3), &mut word),
            Words::Qwen2 => cut(text, |rest| llama3(rest, 1), &mut word),
            Words::Smollm => cut(text, digit_or_not, &mut |piece| cut(piece, gpt2, &mut word)),
            Words::Default => cut(text, marks_or_not, &mut |piece| {
                cut(piece, gpt2, &mut |piece| {
                    cut(piece, digits_or_not, &mut |piece| cut(piece, three_digits_or_not, &mut word))
                });
            }),
        }
    }
}

/// Cuts a text where `next` says: it is given the rest of the text, which is not empty, and answers with the length of
/// the first word in bytes.
fn cut<'t>(mut rest: &'t str, next: impl Fn(&str) -> usize, word: &mut impl FnMut(&'t str)) {
    while !rest.is_empty() {
        let (first, after) = rest.split_at(next(rest));
        word(first);
        rest = after;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
    Other,
}

fn class(c: char) -> Class {
    use GeneralCategory::*;
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        _ if c.is_whitespace() => Class::Space,
        _ if c.is_ascii() => Class::Other,
        _ => match get_general_category(c) {
            UppercaseLetter | LowercaseLetter | TitlecaseLetter | ModifierLetter | OtherLetter => Class::Letter,
            DecimalNumber | LetterNumber | OtherNumber => Class::Number,
            _ => Class::Other,
        },
    }
}

/// Bytes at the start of `text` whose characters are all like that.
fn run(text: &str, like: impl Fn(char) -> bool) -> usize {
    text.find(|c| !like(c)).unwrap_or(text.len())
}

fn first_class(text: &str) -> Option<Class> {
    text.chars().next().map(class)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, in lower case or in any.
fn contraction(text: &str, any_case: bool) -> Option<usize> {
    let after = text.strip_prefix('\'')?.as_bytes();
    let is = |ending: &&str| {
        after.get(..ending.len()).is_some_and(|bytes| {
            if any_case { bytes.eq_ignore_ascii_case(ending.as_bytes()) } else { bytes == ending.as_bytes() }
        })
    };
    ["s", "t", "m", "d", "re", "ve", "ll"].iter().find(|ending| is(ending)).map(|ending| 1 + ending.len())
}

/// `\s+(?!\S)|\s+`: a run of white space, without its last character if a word follows that this one belongs to.
fn white(text: &str) -> usize {
    let len = run(text, char::is_whitespace);
    let last = text[..len].chars().next_back().map_or(0, char::len_utf8);
    if len < text.len() && len > last { len - last } else { len }
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn gpt2(text: &str) -> usize {
    if let Some(len) = contraction(text, false) {
        return len;
    }
    let after = text.strip_prefix(' ').unwrap_or(text);
    match first_class(after) {
        None | Some(Class::Space) => white(text),
        Some(kind) => text.len() - after.len() + run(after, |c| class(c) == kind),
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn llama3(text: &str, digits: usize) -> usize {
    if let Some(len) = contraction(text, true) {
        return len;
    }
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return 0 };
    let after = chars.as_str();
    let kind = class(first);
    let joins = kind == Class::Letter
        || (kind != Class::Number && !line_end(first) && first_class(after) == Some(Class::Letter));
    if joins {
        return first.len_utf8() + run(after, |c| class(c) == Class::Letter);
    }
    if kind == Class::Number {
        return text.chars().take(digits).take_while(|&c| class(c) == Class::Number).map(char::len_utf8).sum();
    }
    let unspaced = if first == ' ' { after } else { text };
    if first_class(unspaced) == Some(Class::Other) {
        let others = run(unspaced, |c| class(c) == Class::Other);
        return text.len() - unspaced.len() + others + run(&unspaced[others..], line_end);
    }
    let whites = run(text, char::is_whitespace);
    match text[..whites].rfind(line_end) {
        Some(last) => last + 1,
        None => white(text),
    }
}

fn line_end(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// `\p{N}`, and what is between.
fn digit_or_not(text: &str) -> usize {
    match text.chars().next() {
        Some(first) if class(first) == Class::Number => first.len_utf8(),
        _ => run(text, |c| class(c) != Class::Number),
    }
}

/// `\p{N}+`, and what is between.
fn digits_or_not(text: &str) -> usize {
    let digits = first_class(text) == Some(Class::Number);
    run(text, |c| (class(c) == Class::Number) == digits)
}

/// `[0-9][0-9][0-9]`, and what is between.
fn three_digits_or_not(text: &str) -> usize {
    let three = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    match text.as_bytes().windows(3).position(three) {
        Some(0) => 3,
        Some(before) => before,
        None => text.len(),
    }
}

/// `[\p{P}$+<=>^~|]+`, and what is between.
fn marks_or_not(text: &str) -> usize {
    use GeneralCategory::*;
    let mark = |c: char| {
        matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|')
            || matches!(
                get_general_category(c),
                ConnectorPunctuation
                    | DashPunctuation
                    | OpenPunctuation
                    | ClosePunctuation
                    | InitialPunctuation
                    | FinalPunctuation
                    | OtherPunctuation
            )
    };
    let marks = text.chars().next().is_some_and(mark);
    run(text, |c| mark(c) == marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rule: Words, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        rule.each(text, |word| words.push(word));
        assert_eq!(words.concat(), text);
        words
    }

    #[test]
    fn gpt2_gives_a_word_the_space_before_it() {
        assert_eq!(words(Words::Gpt2, "I'm  it's 12a"), ["I", "'m", " ", " it", "'s", " 12", "a"]);
        assert_eq!(words(Words::Gpt2, "a\t\n b  "), ["a", "\t\n", " b", "  "]);
        assert_eq!(words(Words::Gpt2, "'S 'x!?\u{0301}é٣"), ["'", "S", " '", "x", "!?\u{0301}", "é", "٣"]);
    }

    #[test]
    fn smollm_looks_at_digits_first() {
        // The run of spaces is not followed by a word of its own piece, so that it stays whole.
        assert_eq!(words(Words::Smollm, "a  12 b"), ["a", "  ", "1", "2", " b"]);
    }

    #[test]
    fn llama3_lets_a_character_lead_letters_and_line_feeds_trail_marks() {
        assert_eq!(words(Words::Llama3, "I'M\tyou(x) 1234"), ["I", "'M", "\tyou", "(x", ")", " ", "123", "4"]);
        assert_eq!(words(Words::Llama3, "a;\r\n\n  \n  b"), ["a", ";\r\n\n", "  \n", " ", " b"]);
        assert_eq!(words(Words::Llama3, "x \n \t"), ["x", " \n", " \t"]);
        assert_eq!(words(Words::Qwen2, "12 \u{3000}字"), ["1", "2", " ", "\u{3000}字"]);
    }

    #[test]
    fn default_takes_marks_out_and_digits_in_threes() {
        assert_eq!(words(Words::Default, "a=-1 12345٣!"), ["a", "=-", "1", " ", "123", "45٣", "!"]);
    }

    #[test]
    fn an_unknown_rule_is_refused_by_name() {
        let error = Words::named("tekken").unwrap_err().to_string();
        assert!(error.contains("\"tekken\"") && error.contains("llama-bpe, llama-v3"), "{error}");
    }
}
