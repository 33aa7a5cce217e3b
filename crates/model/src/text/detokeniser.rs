//! Ids to text, one by one.

use super::tokeniser::Tokeniser;
use super::vocabulary::Kind;

/// The text of ids as they come. A character whose bytes are spread over tokens appears when it is whole.
pub struct Detokeniser<'t> {
    tokeniser: &'t Tokeniser,
    /// Bytes that begin a character.
    held: Vec<u8>,
    text: String,
    /// Whether a space that comes next was put there by the tokeniser and not written.
    strip_space: bool,
}

impl<'t> Detokeniser<'t> {
    /// For ids that go on a text, as those that a model writes do.
    pub fn new(tokeniser: &'t Tokeniser) -> Self {
        Self { tokeniser, held: Vec::new(), text: String::new(), strip_space: false }
    }

    /// For ids that begin a text: the space that some models put before it is taken away.
    pub fn at_start(tokeniser: &'t Tokeniser) -> Self {
        Self { strip_space: tokeniser.space_prefix(), ..Self::new(tokeniser) }
    }

    /// What this id adds to the text. Nothing while a character is not whole; U+FFFD for bytes that none can begin with
    /// or go on with, one for each longest part that could have been a character.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        let from = self.held.len();
        self.tokeniser.bytes(id, &mut self.held);
        if self.tokeniser.space_prefix() {
            match self.tokeniser.kind(id) {
                Kind::Control | Kind::Unknown | Kind::UserDefined => self.strip_space = true,
                _ if std::mem::take(&mut self.strip_space) && self.held.get(from) == Some(&b' ') => {
                    self.held.remove(from);
                }
                _ => {}
            }
        }
        let mut done = 0;
        for chunk in self.held.utf8_chunks() {
            self.text.push_str(chunk.valid());
            done += chunk.valid().len();
            let open = done + chunk.invalid().len() == self.held.len() && begins_character(chunk.invalid());
            if !open {
                self.text.push(char::REPLACEMENT_CHARACTER);
                done += chunk.invalid().len();
            }
        }
        self.held.drain(..done);
        &self.text
    }

    /// The end of the text: U+FFFD if a character is still not whole. The next id begins anew.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.held.is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
            self.held.clear();
        }
        &self.text
    }
}

/// Whether bytes may become a character: empty, or rejected for nothing but their end.
fn begins_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).map_or_else(|error| error.error_len().is_none(), |_| true)
}
