//! What may be asked of a chat itself: lines that begin with `/`.

use crate::output::Failure;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Clear,
    /// `None`: show it.
    System(Option<String>),
    /// `None`: show all.
    Set(Option<(String, String)>),
    Save(PathBuf),
    Load(PathBuf),
    Stats,
    Bye,
}

pub const HELP: &str = "\
/clear             begins a new conversation
/system TEXT       what the model is told before; \"\" tells it nothing; alone, shows it
/set FIELD VALUE   temperature, top_k, top_p, min_p, seed, max_tokens, …; alone, shows all
/save FILE         writes the conversation as JSON
/load FILE         goes on with a saved one
/stats             tokens, speed, how full the context is
/bye               leaves; Ctrl-D too
\"\"\"                begins a text of several lines, which \"\"\" at the end of a line ends
Ctrl-C             stops an answer; what is written stays";

impl Command {
    /// `line` begins with `/`.
    pub fn parse(line: &str) -> Result<Self, Failure> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let file = || match rest {
            "" => Err(Failure::new("nothing is done", name, "a file", "none")),
            path => Ok(PathBuf::from(path)),
        };
        Ok(match name {
            "/help" | "/?" => Self::Help,
            "/clear" => Self::Clear,
            "/system" if rest.is_empty() => Self::System(None),
            "/system" => Self::System(Some(if rest == "\"\"" { String::new() } else { rest.to_owned() })),
            "/set" if rest.is_empty() => Self::Set(None),
            "/set" => match rest.split_whitespace().collect::<Vec<_>>()[..] {
                [field, value] => Self::Set(Some((field.to_owned(), value.to_owned()))),
                _ => return Err(Failure::new("nothing is set", "/set", "a field and a value", rest)),
            },
            "/save" => Self::Save(file()?),
            "/load" => Self::Load(file()?),
            "/stats" => Self::Stats,
            "/bye" | "/exit" | "/quit" => Self::Bye,
            _ => return Err(Failure::new("no such command", "the chat", "one that /help lists", name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_what_is_none() {
        let set = Command::Set(Some(("temperature".into(), "0.7".into())));
        assert_eq!(Command::parse("/set  temperature 0.7 "), Ok(set));
        assert_eq!(Command::parse("/system \"\""), Ok(Command::System(Some(String::new()))));
        assert_eq!(Command::parse("/system You are\nbrief."), Ok(Command::System(Some("You are\nbrief.".into()))));
        assert_eq!(Command::parse("/save my notes.json"), Ok(Command::Save("my notes.json".into())));
        for wrong in ["/", "/sav", "/save", "/load ", "/set temperature", "/set a b c", "/etc/passwd"] {
            assert!(Command::parse(wrong).is_err(), "{wrong}");
        }
    }
}
