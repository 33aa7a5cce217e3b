//! Plain UTF-8 text: characters or words to token ids, and a play cut into its speakers' parts.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::Read;

use crate::data::error::{DataError, Problem};
use crate::data::limits::{Limits, bounded};
use crate::data::schema::TextSchema;

/// Reads a whole text. A byte-order mark is dropped, CRLF becomes LF: sites' line ends must not differ.
pub fn read(input: impl Read, limits: &Limits) -> Result<String, DataError> {
    let mut bytes = Vec::new();
    bounded(input, limits.file_bytes).read_to_end(&mut bytes).map_err(|error| DataError::reading(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count();
        let got = format!("byte {:#04x} at offset {valid}", error.as_bytes()[valid]);
        let hint = "save the file as UTF-8 (iconv -f latin1 -t utf-8)";
        DataError::new(Problem::NotUtf8, "UTF-8 text", got, hint).in_row(line)
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(if text.contains('\r') { text.replace("\r\n", "\n") } else { text })
}

/// The token ids of a text and how many of them stand for something else: of its characters, or of its words if the
/// schema has some. An id is a place in the schema's alphabet or list; it has 16 bits, and
/// [`crate::data::schema::Schema::check`] bounds both.
///
/// What the schema does not know becomes its `unknown`; without one it is an error that names the line.
pub fn encode(text: &str, schema: &TextSchema) -> Result<(Vec<u16>, u64), DataError> {
    if schema.words.is_empty() {
        let mut line = 0;
        let characters = text.chars().map(|character| {
            let here = line;
            line += usize::from(character == '\n');
            (here, character)
        });
        let unknown = schema.unknown.as_deref().and_then(|unknown| unknown.chars().next());
        return ids_of(characters, schema.alphabet.chars(), unknown, "the alphabet's characters");
    }
    let words =
        text.lines().enumerate().flat_map(|(line, text)| words_of(text).into_iter().map(move |word| (line, word)));
    ids_of(words, schema.words.iter().cloned(), schema.unknown.clone(), "the schema's words")
}

fn ids_of<T: Hash + Eq + Debug>(
    tokens: impl Iterator<Item = (usize, T)>,
    known: impl Iterator<Item = T>,
    unknown: Option<T>,
    of: &str,
) -> Result<(Vec<u16>, u64), DataError> {
    let places: HashMap<T, u16> = known.zip(0..=u16::MAX).collect();
    let unknown = unknown.and_then(|token| places.get(&token).copied());
    let (mut ids, mut replaced) = (Vec::new(), 0);
    for (line, token) in tokens {
        let place = places.get(&token).copied();
        let Some(id) = place.or(unknown) else {
            let hint =
                "remove it from the text, or set `unknown` in the job's schema to one that stands for all others";
            let expected = format!("one of {of}, {} in all", places.len());
            return Err(DataError::new(Problem::UnknownCharacter, expected, format!("{token:?}"), hint).in_row(line));
        };
        ids.push(id);
        replaced += u64::from(place.is_none());
    }
    Ok((ids, replaced))
}

/// A text's words in lower case: runs of letters, digits and apostrophes. Every other visible character is a word by
/// itself.
pub fn words_of(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for character in text.chars() {
        let letter = character.is_alphanumeric() || matches!(character, '\'' | '’');
        let small = character.to_lowercase();
        match words.last_mut() {
            Some(word) if inside && letter => word.extend(small),
            _ if letter || !(character.is_whitespace() || character.is_control()) => words.push(small.collect()),
            _ => {}
        }
        inside = letter;
    }
    words
}

/// The characters of a text, each once, sorted: an alphabet for it.
pub fn alphabet(text: &str) -> String {
    text.chars().collect::<std::collections::BTreeSet<char>>().into_iter().collect()
}

/// A play's speeches, joined by speaker: blocks between empty lines, each with `SPEAKER:` as its first line. A block
/// without such a line goes on with the last speaker. Sorted by name; a natural non-IID partition.
pub fn by_speaker(play: &str) -> BTreeMap<&str, String> {
    let mut parts = BTreeMap::<&str, String>::new();
    let mut speaker = "";
    for block in play.split("\n\n") {
        let block = block.trim_start_matches('\n');
        let speech = match block.split_once('\n').unwrap_or((block, "")) {
            (first, rest) if first.ends_with(':') => {
                speaker = first.trim_end_matches(':');
                rest
            }
            _ => block,
        };
        if !speech.is_empty() {
            let part = parts.entry(speaker).or_default();
            part.push_str(speech.trim_end_matches('\n'));
            part.push('\n');
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_mark_do_not_matter() {
        let limits = Limits::default();
        let unix = read("a\nb\n".as_bytes(), &limits).expect("reads");
        assert_eq!(unix, read("\u{feff}a\r\nb\r\n".as_bytes(), &limits).expect("reads"));
    }

    #[test]
    fn encodes_and_names_the_line_of_a_stranger() {
        let schema = |alphabet: &str, unknown: Option<&str>| TextSchema {
            alphabet: alphabet.into(),
            words: Vec::new(),
            window: 1,
            unknown: unknown.map(str::to_owned),
        };
        assert_eq!(encode("ba\n", &schema("\nab", None)), Ok((vec![2, 1, 0], 0)));
        assert_eq!(encode("bäa", &schema("ab·", Some("·"))), Ok((vec![1, 2, 0], 1)));
        let error = encode("a\naß", &schema("\na", None)).expect_err("ß");
        assert_eq!((error.problem, error.row), (Problem::UnknownCharacter, Some(2)));
    }

    #[test]
    fn words_are_cut_at_signs_and_spaces() {
        assert_eq!(
            words_of(" To be, or not:\tthat's Ωmega7\n"),
            ["to", "be", ",", "or", "not", ":", "that's", "ωmega7"]
        );
        let words = ["be", "to", "?"].map(str::to_owned).to_vec();
        let mut schema = TextSchema { alphabet: String::new(), words, window: 1, unknown: Some("?".into()) };
        assert_eq!(encode("To be\nor not to be?", &schema), Ok((vec![1, 0, 2, 2, 1, 0, 2], 2)));
        schema.unknown = None;
        assert_eq!(encode("to\nbe or", &schema).expect_err("or").row, Some(2));
    }

    #[test]
    fn refuses_other_encodings_and_endless_input() {
        let error = read(b"caf\n\xe9".as_slice(), &Limits::default()).expect_err("latin1");
        assert_eq!((error.problem, error.row), (Problem::NotUtf8, Some(2)));
        let tight = Limits { file_bytes: 1 << 12, ..Limits::default() };
        assert_eq!(read(std::io::repeat(b'a'), &tight).expect_err("endless").problem, Problem::TooLarge);
    }

    #[test]
    fn a_play_is_cut_by_speaker() {
        let play = "ROMEO:\nO, she doth teach\nthe torches.\n\nJULIET:\nAy me!\n\nROMEO:\nShe speaks.\n";
        let parts = by_speaker(play);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts["ROMEO"], "O, she doth teach\nthe torches.\nShe speaks.\n");
    }
}
