//! Where the words of a chat come from: a terminal with a line editor and a history, or any other standard input.

use super::command::Command;
use crate::output::{self, Failure};
use crate::sources;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

/// Of one message; far above what a context holds.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bounds of the history. Longer entries are not remembered.
const HISTORY_ENTRIES_MAX: usize = 1000;
const ENTRY_BYTES_MAX: usize = 4096;
/// The file escapes line ends and backslashes: an entry may be twice as long in it.
const HISTORY_BYTES_MAX: u64 = 2 * (HISTORY_ENTRIES_MAX * (ENTRY_BYTES_MAX + 1)) as u64;
/// Around a text of several lines.
const FENCE: &str = "\"\"\"";

/// What somebody wants.
pub enum Wish {
    Message(String),
    Command(Result<Command, Failure>),
    /// Ctrl-C where a line is awaited.
    Nothing,
    End,
}

enum Line {
    Text(String),
    Interrupted,
    End,
}

pub enum Lines {
    Terminal(Box<Terminal>),
    /// Standard input, whatever it is.
    Stream,
}

pub struct Terminal {
    editor: Editor<(), DefaultHistory>,
    /// `None`: nothing that is typed outlives this process.
    history: Option<PathBuf>,
}

impl Lines {
    /// `remember`: the history is read, and gets what is typed.
    pub fn of_terminal(remember: bool) -> Result<Self, Failure> {
        let config = Config::builder().max_history_size(HISTORY_ENTRIES_MAX).map_err(unread)?;
        let config = config.history_ignore_space(true).build();
        let editor = Editor::with_config(config).map_err(unread)?;
        let mut terminal = Terminal { editor, history: None };
        if remember && let Err(why) = terminal.open_history() {
            output::talk(&format!("what you type is not remembered: {why}"));
        }
        Ok(Self::Terminal(Box::new(terminal)))
    }

    /// A line, or several between fences. Empty lines are passed over.
    pub fn next(&mut self) -> Result<Wish, Failure> {
        let mut text = match self.line(">>> ")? {
            Line::Text(text) => text,
            Line::Interrupted => return Ok(Wish::Nothing),
            Line::End => return Ok(Wish::End),
        };
        while is_open(&text) {
            match self.line("... ")? {
                Line::Text(more) => text.extend(["\n", &more]),
                Line::Interrupted => return Ok(Wish::Nothing),
                Line::End => {
                    return Err(Failure::new("no answer", "the last message", format!("{FENCE} at its end"), "none"));
                }
            }
            bounded(text.len())?;
        }
        if let Self::Terminal(terminal) = self {
            terminal.remember(&text);
        }
        Ok(match text.trim() {
            command if command.starts_with('/') => Wish::Command(Command::parse(&without_fences(command))),
            message => Wish::Message(without_fences(message)),
        })
    }

    fn line(&mut self, prompt: &str) -> Result<Line, Failure> {
        match self {
            Self::Stream => stream_line(),
            Self::Terminal(terminal) => match terminal.editor.readline(prompt) {
                Ok(line) => bounded(line.len()).map(|()| Line::Text(line)),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(e) => Err(unread(e)),
            },
        }
    }
}

impl Terminal {
    fn open_history(&mut self) -> Result<(), String> {
        let path = sources::home().map_err(|e| e.to_string())?.join("history");
        let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(|e| at(&e))?;
        // What is typed is the user's own affair, and so from the first byte on.
        let file = File::options().append(true).create(true).mode(0o600).open(&path).map_err(|e| at(&e))?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(|e| at(&e))?;
        let bytes = file.metadata().map_err(|e| at(&e))?.len();
        if bytes > HISTORY_BYTES_MAX {
            return Err(at(&format!("at most {HISTORY_BYTES_MAX} bytes expected, got {bytes}")));
        }
        self.editor.load_history(&path).map_err(|e| at(&e))?;
        self.history = Some(path);
        Ok(())
    }

    /// Also when the file does not take it, it is there for this chat.
    fn remember(&mut self, text: &str) {
        if text.trim().is_empty() || text.len() > ENTRY_BYTES_MAX {
            return;
        }
        let added = self.editor.add_history_entry(text);
        let Some(path) = self.history.clone().filter(|_| matches!(added, Ok(true))) else { return };
        if let Err(e) = self.editor.append_history(&path) {
            output::talk(&format!("what you type is not remembered any more: {}: {e}", path.display()));
            self.history = None;
        }
    }
}

fn stream_line() -> Result<Line, Failure> {
    let failed = |got: String| Failure::new("no answer", "standard input", "lines of text in UTF-8", got);
    let mut bytes = Vec::new();
    let mut input = io::stdin().lock().take(MESSAGE_BYTES_MAX as u64 + 1);
    if input.read_until(b'\n', &mut bytes).map_err(|e| failed(e.to_string()))? == 0 {
        return Ok(Line::End);
    }
    bounded(bytes.len())?;
    let mut line = String::from_utf8(bytes).map_err(|e| failed(e.to_string()))?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(Line::Text(line))
}

fn bounded(bytes: usize) -> Result<(), Failure> {
    if bytes <= MESSAGE_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::new("no answer", "the message", format!("at most {MESSAGE_BYTES_MAX} bytes"), "more"))
}

fn unread(e: ReadlineError) -> Failure {
    Failure::new("the chat ends", "the terminal", "lines", e)
}

/// A fence may stand at the beginning of a message, or of what a command is given.
fn fenced(text: &str) -> Option<(&str, &str)> {
    let start = text.trim_start();
    let at = match start.strip_prefix("/system") {
        Some(rest) => start.len() - rest.trim_start().len(),
        None => 0,
    };
    Some((&start[..at], start[at..].strip_prefix(FENCE)?))
}

fn is_open(text: &str) -> bool {
    fenced(text).is_some_and(|(_, inner)| !inner.trim_end().ends_with(FENCE))
}

fn without_fences(text: &str) -> String {
    let inner = fenced(text).and_then(|(before, inner)| Some((before, inner.trim_end().strip_suffix(FENCE)?)));
    let Some((before, inner)) = inner else { return text.to_owned() };
    let inner = inner.strip_prefix('\n').unwrap_or(inner);
    format!("{before}{}", inner.strip_suffix('\n').unwrap_or(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences() {
        for open in ["\"\"\"", "\"\"\"a", " \"\"\"a\"\"\"b", "/system \"\"\"You", "\"\"\"\n/clear"] {
            assert!(is_open(open), "{open}");
        }
        for closed in ["", "a", "a \"\"\"", "\"\"\"a\"\"\"", "\"\"\"a\nb\"\"\" ", "/system x", "/clear \"\"\""] {
            assert!(!is_open(closed), "{closed}");
        }
        assert_eq!(without_fences("\"\"\"\na\n\n b\n\"\"\""), "a\n\n b");
        assert_eq!(without_fences("/system \"\"\"a\nb\"\"\""), "/system a\nb");
        assert_eq!(without_fences("say \"\"\"a\"\"\""), "say \"\"\"a\"\"\"");
    }
}
