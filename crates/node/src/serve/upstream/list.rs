//! What it says of its models, and why it refuses: as much of it as is used.

use serde::Deserialize;

#[derive(Deserialize)]
pub struct List {
    #[serde(default)]
    pub data: Vec<Listed>,
}

#[derive(Deserialize)]
pub struct Listed {
    pub id: Option<String>,
    /// Tokens of a text, as vLLM and others tell.
    #[serde(default)]
    pub max_model_len: Option<usize>,
}

/// As OpenAI's servers say it, or vLLM's older ones.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    error: Option<Words>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Words {
    #[serde(default)]
    pub message: Option<String>,
}

impl Problem {
    pub fn words(self) -> String {
        self.error.and_then(|error| error.message).or(self.message).unwrap_or_default()
    }
}
