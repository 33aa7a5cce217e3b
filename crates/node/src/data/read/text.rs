//! Plain UTF-8 text: characters to token ids, and a play cut into its speakers' parts.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use crate::data::error::{DataError, Problem};
use crate::data::limits::{Limits, bounded};

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

/// The token ids of a text and how many characters were replaced.
///
/// A character's id is its place in `alphabet`. One that is not in it becomes `unknown` if that is given, else it is an
/// error that names the line. An id has 16 bits; [`crate::data::schema::Schema::check`] bounds the alphabet.
pub fn encode(text: &str, alphabet: &str, unknown: Option<char>) -> Result<(Vec<u16>, u64), DataError> {
    let ids: HashMap<char, u16> = alphabet.chars().zip(0..=u16::MAX).collect();
    let unknown = unknown.and_then(|character| ids.get(&character).copied());
    let (mut tokens, mut replaced, mut line) = (Vec::with_capacity(text.len()), 0, 0);
    for character in text.chars() {
        match ids.get(&character).copied().or(unknown) {
            Some(id) => {
                tokens.push(id);
                replaced += u64::from(!ids.contains_key(&character));
            }
            None => {
                let hint = "remove it from the text, or set `unknown` in the job's schema to a character that stands for all others";
                let expected = format!("one of the alphabet's {} characters", ids.len());
                return Err(
                    DataError::new(Problem::UnknownCharacter, expected, format!("{character:?}"), hint).in_row(line)
                );
            }
        }
        line += usize::from(character == '\n');
    }
    Ok((tokens, replaced))
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
        assert_eq!(encode("ba\n", "\nab", None), Ok((vec![2, 1, 0], 0)));
        assert_eq!(encode("bäa", "ab·", Some('·')), Ok((vec![1, 2, 0], 1)));
        let error = encode("a\naß", "\na", None).expect_err("ß");
        assert_eq!((error.problem, error.row), (Problem::UnknownCharacter, Some(2)));
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
