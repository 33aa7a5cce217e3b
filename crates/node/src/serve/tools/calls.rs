//! Calls in a text, while it is still being written.

use super::{CLOSE, Form, OPEN};
use serde_json::Value;

/// What stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Text(String),
    /// A call of this function; its arguments follow. Calls count from 0.
    Call {
        index: usize,
        name: String,
    },
    /// A piece of a call's arguments, which are JSON when all have come.
    Arguments {
        index: usize,
        piece: String,
    },
}

/// Cuts text that comes in pieces into words for the reader and calls. Calls that need not be checked come as they are
/// written, others when they are whole. Small models often forget the frame, or put a fence of Markdown in its place: an
/// object with which an answer begins, fenced or not, and that is a call, is one.
pub struct Calls {
    form: Form,
    held: String,
    place: Place,
    /// White space before what is held in a call: it parts calls and says nothing, unless there is no call.
    space: String,
    /// Calls so far.
    count: usize,
    /// There were other words.
    talked: bool,
    /// The last call stood in a fence, which is still open.
    fenced: bool,
}

enum Place {
    /// Between calls.
    Text,
    /// Behind `<tool_call>`, which is still held.
    Call,
    /// In an object that may be a call although nothing frames it. It begins behind so many bytes of what is held, a fence;
    /// so many were looked at.
    Bare { depth: Depth, from: usize, seen: usize },
    /// In the arguments of a call that is told already.
    Arguments(Depth),
    /// Behind the arguments.
    Closing,
}

/// How deep in brackets a piece of JSON ends, and whether within a string.
#[derive(Default)]
struct Depth {
    open: usize,
    string: bool,
    escaped: bool,
}

impl Calls {
    pub fn new(form: Form) -> Self {
        Self {
            form,
            held: String::new(),
            place: Place::Text,
            space: String::new(),
            count: 0,
            talked: false,
            fenced: false,
        }
    }

    /// How many calls there were.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn push(&mut self, piece: &str) -> Vec<Heard> {
        self.held.push_str(piece);
        let mut heard = Vec::new();
        while self.step(&mut heard) {}
        heard
    }

    /// The text has ended. A call that has not is text, unless it was made to be one: then it was cut short.
    pub fn finish(&mut self) -> Vec<Heard> {
        let rest = std::mem::take(&mut self.space) + &std::mem::take(&mut self.held);
        let cut = self.form.sure && (!matches!(self.place, Place::Text) || OPEN.starts_with(rest.trim_start()));
        let between_calls = self.count > 0 && rest.trim().is_empty() || self.fenced && FENCE.starts_with(rest.trim());
        if rest.is_empty() || cut || between_calls { Vec::new() } else { vec![Heard::Text(rest)] }
    }

    /// Whether there may be more to hear.
    fn step(&mut self, heard: &mut Vec<Heard>) -> bool {
        match &mut self.place {
            Place::Text if self.fenced && !self.talked && self.held.trim_start().starts_with(FENCE) => {
                let space = self.held.len() - self.held.trim_start().len();
                self.held.drain(..space + FENCE.len());
                self.fenced = false;
                true
            }
            Place::Text if self.fenced && !self.talked && FENCE.starts_with(self.held.trim_start()) => false,
            Place::Text if !self.form.sure && !self.talked && object(self.held.trim_start()) != Object::None => {
                let Object::From(from) = object(self.held.trim_start()) else { return false };
                self.part_space(self.held.len() - self.held.trim_start().len());
                self.place = Place::Bare { depth: Depth::default(), from, seen: from };
                true
            }
            Place::Bare { depth, from, seen } => {
                let mut new = self.held[*seen..].char_indices();
                let end = new.find(|(_, c)| depth.ends(*c)).map(|(at, c)| *seen + at + c.len_utf8());
                *seen = self.held.len();
                if let Some(end) = end {
                    let from = *from;
                    let call = serde_json::from_str(&self.held[from..end]).ok().and_then(|call| self.valid(&call));
                    self.fenced |= from > 0 && call.is_some();
                    self.tell(end, call, heard);
                }
                end.is_some()
            }
            Place::Text => match self.held.find(OPEN) {
                Some(at) => {
                    let shown = self.held[..at].trim_end().len();
                    self.talk(shown, heard);
                    self.part_space(at - shown);
                    self.place = Place::Call;
                    true
                }
                None => {
                    self.talk(self.held.len() - held_back(&self.held), heard);
                    false
                }
            },
            Place::Call if self.form.sure => self.begin(heard),
            Place::Call => self.whole(heard),
            Place::Arguments(depth) => {
                let index = self.count - 1;
                let end = self.held.char_indices().find(|(_, c)| depth.ends(*c)).map(|(at, c)| at + c.len_utf8());
                let piece: String = self.held.drain(..end.unwrap_or(self.held.len())).collect();
                if !piece.is_empty() {
                    heard.push(Heard::Arguments { index, piece });
                }
                if end.is_some() {
                    self.place = Place::Closing;
                }
                end.is_some()
            }
            Place::Closing => {
                let Some(at) = self.held.find(CLOSE) else { return false };
                self.held.drain(..at + CLOSE.len());
                self.place = Place::Text;
                true
            }
        }
    }

    /// The name of a call that was made to have the form.
    fn begin(&mut self, heard: &mut Vec<Heard>) -> bool {
        const ARGUMENTS: &str = "\"arguments\": ";
        let Some(at) = self.held.find(ARGUMENTS) else { return false };
        let head: String = self.held.drain(..at + ARGUMENTS.len()).collect();
        // <tool_call>\n{"name": "NAME", "arguments":
        let name = head.split('"').nth(3).unwrap_or_default().to_owned();
        heard.push(Heard::Call { index: self.count, name });
        self.count += 1;
        self.space.clear();
        self.place = Place::Arguments(Depth::default());
        true
    }

    /// A call, when all of it is there; what is none goes back to being text.
    fn whole(&mut self, heard: &mut Vec<Heard>) -> bool {
        for (at, _) in self.held.match_indices(CLOSE) {
            let call = match serde_json::from_str::<Value>(&self.held[OPEN.len()..at]) {
                // The end that was found may stand in a string.
                Err(error) if error.is_eof() => continue,
                Err(_) => None,
                Ok(call) => self.valid(&call),
            };
            self.tell(at + CLOSE.len(), call, heard);
            return true;
        }
        false
    }

    /// So many bytes of what is held are a call, or none.
    fn tell(&mut self, bytes: usize, call: Option<(String, String)>, heard: &mut Vec<Heard>) {
        self.place = Place::Text;
        let Some((name, piece)) = call else {
            self.held.insert_str(0, &self.space);
            let space = std::mem::take(&mut self.space);
            return self.talk(space.len() + bytes, heard);
        };
        self.held.drain(..bytes);
        self.space.clear();
        if self.count < self.form.most {
            heard.push(Heard::Call { index: self.count, name });
            heard.push(Heard::Arguments { index: self.count, piece });
            self.count += 1;
        }
    }

    /// So many bytes of what is held are for the reader.
    fn talk(&mut self, bytes: usize, heard: &mut Vec<Heard>) {
        if bytes > 0 {
            heard.push(Heard::Text(self.held.drain(..bytes).collect()));
            self.talked = true;
        }
    }

    /// So many bytes of what is held are white space before a call.
    fn part_space(&mut self, bytes: usize) {
        self.space = self.held.drain(..bytes).collect();
    }

    /// A function that there is, and an object.
    fn valid(&self, call: &Value) -> Option<(String, String)> {
        let name = self.form.names.iter().find(|name| call["name"] == name.as_str())?;
        call["arguments"].is_object().then(|| (name.clone(), call["arguments"].to_string()))
    }
}

impl Depth {
    /// Takes a character in. True if a value's last bracket closes.
    fn ends(&mut self, c: char) -> bool {
        match (self.string, c) {
            (true, _) if self.escaped => self.escaped = false,
            (true, '\\') => self.escaped = true,
            (_, '"') => self.string = !self.string,
            (false, '{' | '[') => self.open += 1,
            (false, '}' | ']') => {
                self.open = self.open.saturating_sub(1);
                return self.open == 0;
            }
            _ => {}
        }
        false
    }
}

const FENCE: &str = "```";

/// Whether an object begins a text, or what stands behind a fence with which the text begins.
#[derive(PartialEq)]
enum Object {
    /// Behind so many bytes.
    From(usize),
    /// It may, once more of the text is there.
    Later,
    None,
}

fn object(text: &str) -> Object {
    const LANGUAGE: &str = "json";
    let behind = match text.strip_prefix(FENCE) {
        Some(behind) if LANGUAGE.starts_with(behind) => return Object::Later,
        Some(behind) => behind.strip_prefix(LANGUAGE).unwrap_or(behind).trim_start(),
        None if !text.is_empty() && FENCE.starts_with(text) => return Object::Later,
        None => text,
    };
    match behind.chars().next() {
        Some('{') => Object::From(text.len() - behind.len()),
        None if !text.is_empty() => Object::Later,
        _ => Object::None,
    }
}

/// Bytes at the end that may become a call: white space, and the beginning of `<tool_call>`.
fn held_back(text: &str) -> usize {
    let begun = (1..OPEN.len()).rev().find(|len| text.ends_with(&OPEN[..*len])).unwrap_or(0);
    let before = &text[..text.len() - begun];
    text.len() - before.trim_end().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(sure: bool, text: &str, pieces: usize) -> (String, Vec<(String, String)>) {
        let names = ["weather".to_owned(), "time".to_owned()];
        let mut calls = Calls::new(Form { names: names.into(), sure, most: 2 });
        let characters: Vec<char> = text.chars().collect();
        let mut all: Vec<Heard> =
            characters.chunks(pieces).flat_map(|piece| calls.push(&piece.iter().collect::<String>())).collect();
        all.extend(calls.finish());
        let (mut text, mut told) = (String::new(), Vec::new());
        for one in all {
            match one {
                Heard::Text(piece) => text.push_str(&piece),
                Heard::Call { index, name } => {
                    assert_eq!(index, told.len());
                    told.push((name, String::new()));
                }
                Heard::Arguments { index, piece } => told[index].1.push_str(&piece),
            }
        }
        assert_eq!(calls.count(), told.len());
        (text, told)
    }

    const TWO: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\":\"} \\\" </tool_call> é\",\"to\":[{}]}}\n\
                       </tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

    #[test]
    fn calls_are_the_same_in_one_piece_or_many() {
        let expected = vec![
            ("weather".to_owned(), "{\"city\":\"} \\\" </tool_call> é\",\"to\":[{}]}".to_owned()),
            ("time".to_owned(), "{}".to_owned()),
        ];
        for pieces in [1, 2, 7, 1000] {
            for sure in [true, false] {
                assert_eq!(heard(sure, TWO, pieces), (String::new(), expected.clone()), "{pieces} {sure}");
            }
            let (text, told) = heard(false, &format!("Let me see. \n\n{TWO}\n"), pieces);
            assert_eq!((text.as_str(), &told), ("Let me see.", &expected));
        }
    }

    #[test]
    fn a_call_without_its_frame_is_one_where_an_answer_begins() {
        let bare = " {\"name\": \"time\", \"arguments\": {\"at\": \"}\"}}\n{\"name\": \"time\", \"arguments\": {}}";
        for pieces in [1, 3, 1000] {
            let (text, told) = heard(false, bare, pieces);
            let arguments: Vec<&str> = told.iter().map(|(_, arguments)| arguments.as_str()).collect();
            assert_eq!((text.as_str(), arguments), ("", vec!["{\"at\":\"}\"}", "{}"]));
            let late = format!("So:{bare}");
            assert_eq!(heard(false, &late, pieces), (late, vec![]));
        }
    }

    #[test]
    fn a_fence_may_stand_for_the_frame_where_an_answer_begins() {
        let call = "{\"name\": \"time\", \"arguments\": {\"at\": \"```}\"}}";
        let one = vec![("time".to_owned(), "{\"at\":\"```}\"}".to_owned())];
        let two = [one.clone(), one.clone()].concat();
        for pieces in [1, 2, 5, 1000] {
            for (text, rest, told) in [
                (format!("```json\n{call}\n```"), "", &one),
                (format!("\n```\n{call}```\n"), "", &one),
                (format!("```json\n{call}\n``"), "", &one),
                (format!("```json\n{call}\n``` As you see, ```x```."), " As you see, ```x```.", &one),
                (format!("```json\n{call}\n{call}\n```"), "", &two),
                (format!("```json\n{call}\n```\n```json\n{call}\n```"), "", &two),
            ] {
                assert_eq!(heard(false, &text, pieces), (rest.to_owned(), told.clone()), "{text} {pieces}");
            }
            let late = format!("So:\n```json\n{call}\n```");
            assert_eq!(heard(false, &late, pieces), (late, vec![]));
        }
    }

    #[test]
    fn what_is_no_call_is_text() {
        for text in [
            "```json\n{\"answer\": 42}\n``` and so on",
            "```json\n{\"name\": \"other\", \"arguments\": {}}\n```",
            "```python\nprint({})\n```",
            "```js",
            "```json\n",
            "`x` and ``",
            "\n{\"answer\": 42} and {\"name\": \"time\", \"arguments\": {}}",
            "{\"name\": \"time\", \"argu",
            "{ } }",
            "a < b, a <tool, <tool_callers>",
            "<tool_call>\n{\"name\": \"weather\"}\n</tool_call>",
            "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call> and so on",
            "so \n <tool_call>weather()</tool_call>",
            "<tool_call>\n{\"name\": \"weather\", \"arguments\": {",
            " white space \n",
        ] {
            for pieces in [1, 3, 1000] {
                assert_eq!(heard(false, text, pieces), (text.to_owned(), vec![]));
            }
        }
    }

    #[test]
    fn a_call_that_was_cut_short_is_told_as_far_as_it_came() {
        for (text, told) in [("<tool_call>\n{\"nam", vec![]), (&TWO[..54], vec![("weather", "{\"city\":\"")])] {
            let told: Vec<_> = told.iter().map(|(name, part)| ((*name).to_owned(), (*part).to_owned())).collect();
            assert_eq!(heard(true, text, 5), (String::new(), told), "{text}");
        }
    }
}
