//! What has been said so far: how it becomes a prompt, and a file.

use crate::input;
use crate::output::Failure;
use crate::pending::Pending;
use littoral_infer::model::Model;
use littoral_model::text::{Json, Prompt};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Far above what a context holds.
const FILE_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: Role,
    content: String,
}

pub struct Conversation {
    messages: Vec<Message>,
    /// The model is given the last message as it is, and nothing else.
    raw: bool,
}

impl Conversation {
    pub fn new(system: Option<&str>, raw: bool) -> Self {
        let mut new = Self { messages: Vec::new(), raw };
        if let Some(text) = system {
            new.push(Role::System, text);
        }
        new
    }

    pub fn push(&mut self, role: Role, content: &str) {
        self.messages.push(Message { role, content: content.to_owned() });
    }

    /// Takes the last message back.
    pub fn pop(&mut self) {
        self.messages.pop();
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// What the model is told before.
    pub fn system(&self) -> Option<&str> {
        self.messages.first().filter(|first| first.role == Role::System).map(|first| first.content.as_str())
    }

    /// An empty text: nothing is told.
    pub fn set_system(&mut self, text: &str) {
        if self.system().is_some() {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, Message { role: Role::System, content: text.to_owned() });
        }
    }

    /// Begins anew; what the model is told before stays.
    pub fn clear(&mut self) {
        self.messages.truncate(usize::from(self.system().is_some()));
    }

    /// The ids of all so far, up to where the answer begins.
    pub fn ids(&self, model: &Model) -> Result<Vec<u32>, Failure> {
        let Some(template) = model.template.as_ref().filter(|_| !self.raw) else {
            let last = self.messages.last().map_or("", |last| last.content.as_str());
            return Ok(model.tokeniser.encode_document(last, false));
        };
        let role = |role| match role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        let messages: Vec<Json> =
            self.messages.iter().map(|said| Json::message(role(said.role), &said.content)).collect();
        let token = |id: Option<u32>| id.and_then(|id| model.tokeniser.token(id)).unwrap_or_default();
        let prompt = Prompt {
            messages: &messages,
            add_generation_prompt: true,
            bos: token(model.tokeniser.bos()),
            eos: token(model.tokeniser.eos()),
            ..Prompt::default()
        };
        template
            .ids(&prompt, &model.tokeniser)
            .map_err(|e| Failure::new("no prompt", "the model's chat template", "a conversation that it takes", e))
    }

    /// Writes the messages as JSON. Takes the place of an older conversation, but of no other file.
    pub fn save(&self, path: &Path) -> Result<(), Failure> {
        if path.exists() && read(path).is_err() {
            let place = path.display().to_string();
            return Err(Failure::new("nothing is saved", place, "a new file, or a saved conversation", "another file"));
        }
        let mut text = serde_json::to_string_pretty(&self.messages).unwrap_or_default();
        text.push('\n');
        Pending::private(path)?.write(text)
    }

    /// Takes the messages of a file for what was said.
    pub fn load(&mut self, path: &Path) -> Result<(), Failure> {
        self.messages = read(path)?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<Message>, Failure> {
    let text = input::text(path, FILE_BYTES_MAX)?;
    serde_json::from_str(&text).map_err(|e| {
        let expected = "a JSON list of messages, each with a role (system, user, assistant) and content";
        Failure::new("nothing is loaded", path.display().to_string(), expected, e)
    })
}
