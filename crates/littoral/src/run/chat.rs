//! A conversation: over a terminal with prompts and an editor, else an answer to each line that comes in.

use super::answer::{Answer, End, Unanswered, Writer, tokens_per_s};
use super::command::{Command, HELP};
use super::conversation::{Conversation, Role};
use super::interrupt;
use super::lines::{Lines, Wish};
use crate::output::{self, Failure};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

struct Chat<'a> {
    name: &'a str,
    writer: Writer,
    conversation: Conversation,
    json: bool,
    /// Somebody sits there: a mistake is told and the chat goes on, Ctrl-C stops an answer only.
    terminal: bool,
    stop: Arc<AtomicBool>,
    totals: Totals,
}

/// Of all answers of this chat.
#[derive(Default)]
struct Totals {
    answers: usize,
    read: usize,
    written: usize,
    /// Tokens after the first of an answer, and how long they took.
    steps: usize,
    decoding: Duration,
    /// Of the conversation, in the context.
    tokens: usize,
}

/// `remember`: what is typed is kept for the next chat.
pub fn chat(name: &str, writer: Writer, conversation: Conversation, json: bool, remember: bool) -> Result<(), Failure> {
    let terminal = !json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let (mut lines, stop) = match terminal {
        true => (Lines::of_terminal(remember)?, interrupt::watch()?),
        false => (Lines::Stream, Arc::default()),
    };
    let mut chat = Chat { name, writer, conversation, json, terminal, stop, totals: Totals::default() };
    if terminal {
        output::aside(&format!("{name}: /help shows what else can be asked, /bye or Ctrl-D leaves"));
    }
    loop {
        let done = match lines.next() {
            Ok(Wish::End | Wish::Command(Ok(Command::Bye))) => return Ok(()),
            Ok(Wish::Nothing) => {
                output::aside("/bye or Ctrl-D leaves");
                Ok(())
            }
            Ok(Wish::Command(command)) => command.and_then(|command| chat.obey(command)),
            Ok(Wish::Message(text)) if text.trim().is_empty() => Ok(()),
            Ok(Wish::Message(text)) => chat.say(&text),
            // Without a terminal's lines there is nothing to go on with.
            Err(failure) => return Err(failure),
        };
        match done {
            Err(failure) if terminal => failure.print(false),
            other => other?,
        }
    }
}

impl Chat<'_> {
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.conversation.push(Role::User, text);
        let answer = match self.answer() {
            Ok(answer) => answer,
            Err(why) => {
                self.conversation.pop();
                return match why {
                    Unanswered::Full { context, got } if self.terminal => {
                        output::talk(&full(context, &format!("{got} tokens with this message")));
                        Ok(())
                    }
                    why => Err(Failure::from(why).hint("/clear begins a new conversation")),
                };
            }
        };
        if self.json {
            output::object(&answer.to_json());
        } else {
            output::line("");
        }
        if self.terminal {
            output::aside(&answer.to_string());
        }
        if answer.text.is_empty() && answer.end == End::Stopped {
            self.conversation.pop();
            output::aside("stopped before the first word: the message is taken back");
            return Ok(());
        }
        self.conversation.push(Role::Assistant, &answer.text);
        self.totals.add(&answer);
        if answer.end == End::Context {
            let context = self.writer.engine.model().context();
            output::talk(&full(context, &format!("{} tokens", self.totals.tokens)));
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, Unanswered> {
        let ids = self.conversation.ids(self.writer.engine.model()).map_err(Unanswered::Failed)?;
        // A Ctrl-C from before was for something else.
        self.stop.store(false, Ordering::Relaxed);
        let quiet = self.json;
        self.writer.answer(ids, &self.stop, &mut |piece| {
            if !quiet {
                output::piece(piece);
            }
        })
    }

    fn obey(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Help => output::talk(HELP),
            Command::Clear => {
                self.conversation.clear();
                self.totals.tokens = 0;
            }
            Command::System(None) => {
                output::talk(self.conversation.system().unwrap_or("the model is told nothing before"))
            }
            Command::System(Some(text)) => self.conversation.set_system(&text),
            Command::Set(None) => {
                let fields = self.writer.settings.fields().map(|(field, value)| format!("{field:<20} {value}"));
                output::talk(&fields.join("\n"));
            }
            Command::Set(Some((field, value))) => self.writer.settings.set(&field, &value)?,
            Command::Save(path) => {
                self.conversation.save(&path)?;
                output::aside(&format!("{} messages are in {}", self.conversation.len(), path.display()));
            }
            Command::Load(path) => {
                self.conversation.load(&path)?;
                self.totals.tokens = 0;
                output::aside(&format!("{} messages from {}", self.conversation.len(), path.display()));
            }
            Command::Stats => output::talk(&self.stats()),
            Command::Bye => {}
        }
        Ok(())
    }

    fn stats(&self) -> String {
        let (of, context) = (&self.totals, self.writer.engine.model().context());
        format!(
            "{}: {} answers, {} tokens read, {} written at {:.1} tok/s\n{} of {context} tokens of the context are used, \
             by {} messages",
            self.name,
            of.answers,
            of.read,
            of.written,
            tokens_per_s(of.steps, of.decoding),
            of.tokens,
            self.conversation.len(),
        )
    }
}

impl Totals {
    fn add(&mut self, answer: &Answer) {
        self.answers += 1;
        self.read += answer.prompt_tokens - answer.reused;
        self.written += answer.ids.len();
        self.steps += answer.ids.len().saturating_sub(1);
        self.decoding += answer.decoding;
        self.tokens = answer.prompt_tokens + answer.ids.len();
    }
}

fn full(context: usize, got: &str) -> String {
    format!(
        "the context is full: it has {context} tokens, the conversation {got}; /clear begins a new one, /save FILE keeps \
         this one"
    )
}
