//! A model that answers: weights, tokeniser, and how a chat becomes a prompt.

use littoral_model::lm::{self, LoadError, Stage};
use littoral_model::text::{ChatTemplate, TemplateError, Tokeniser, Vocabulary, VocabularyError, chat_template};
use littoral_tensor::gguf::{Gguf, GgufError};
use littoral_tensor::pool::Pool;
use std::ops::Range;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ModelError {
    #[error(transparent)]
    File(#[from] GgufError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the tokeniser of the file: {0}")]
    Vocabulary(#[from] VocabularyError),
    #[error("the chat template of the file: {0}")]
    Template(#[from] TemplateError),
    #[error("tokeniser and weights differ: {expected} tokens expected, as there are embeddings, got {got}")]
    Sizes { expected: usize, got: usize },
}

pub struct Model {
    pub name: String,
    pub stage: Stage,
    pub tokeniser: Tokeniser,
    /// `None`: the model has no way to chat; it goes on with a text.
    pub template: Option<ChatTemplate>,
}

impl Model {
    /// All of a GGUF file. `done` hears of the parts of the file that are not needed any more.
    pub fn load(bytes: &[u8], pool: &Pool, done: &mut dyn FnMut(Range<usize>)) -> Result<Self, ModelError> {
        let gguf = Gguf::parse(bytes)?;
        let config = lm::config(&gguf)?;
        let tokeniser = Tokeniser::new(&Vocabulary::from_gguf(&gguf)?)?;
        if tokeniser.len() > config.vocabulary {
            return Err(ModelError::Sizes { expected: config.vocabulary, got: tokeniser.len() });
        }
        let template = chat_template(&gguf)?.map(ChatTemplate::new).transpose()?;
        let name = gguf.metadata().get("general.name").map(|entry| entry.str()).transpose()?.unwrap_or("unnamed");
        let name = name.escape_debug().to_string();
        let stage = lm::load(&gguf, &config, 0..config.layers, pool, done)?;
        Ok(Self { name, stage, tokeniser, template })
    }

    /// Positions that a sequence may have.
    pub fn context(&self) -> usize {
        self.stage.config().context
    }
}
