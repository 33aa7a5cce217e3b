//! A model that answers: weights, tokeniser, and how a chat becomes a prompt.

use crate::constrain::{self, IndexError, VocabularyIndex};
use crate::pooling::Pooling;
use littoral_model::lm::{self, Config, LoadError, Stage};
use littoral_model::text::{ChatTemplate, TemplateError, Tokeniser, Vocabulary, VocabularyError, chat_template};
use littoral_tensor::gguf::{Gguf, GgufError};
use littoral_tensor::pool::Pool;
use std::ops::Range;
use std::sync::OnceLock;
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
    #[error("layers 0 to {layers} expected, got {got:?}")]
    Layers { layers: usize, got: Range<usize> },
    #[error("tokeniser and weights differ: {expected} tokens expected, as there are embeddings, got {got}")]
    Sizes { expected: usize, got: usize },
}

pub struct Model {
    pub name: String,
    pub stage: Stage,
    pub tokeniser: Tokeniser,
    /// `None`: the model has no way to chat; it goes on with a text.
    pub template: Option<ChatTemplate>,
    /// How a text's vector is made; `None`: not at all.
    pub pooling: Option<Pooling>,
    index: OnceLock<Result<VocabularyIndex, IndexError>>,
}

impl Model {
    /// All of a GGUF file. `done` hears of the parts of the file that are not needed any more.
    pub fn load(bytes: &[u8], pool: &Pool, done: &mut dyn FnMut(Range<usize>)) -> Result<Self, ModelError> {
        let (gguf, Parts { config, name, tokeniser, template, pooling }) = parts(bytes)?;
        let stage = lm::load(&gguf, &config, 0..config.layers, true, pool, done)?;
        Ok(Self { name, stage, tokeniser, template, pooling, index: OnceLock::new() })
    }

    /// A GGUF file without its layers: text, and both ends. Layers are elsewhere.
    pub fn load_ends(bytes: &[u8], pool: &Pool, done: &mut dyn FnMut(Range<usize>)) -> Result<Self, ModelError> {
        let (gguf, Parts { config, name, tokeniser, template, pooling }) = parts(bytes)?;
        let stage = lm::load(&gguf, &config, 0..0, true, pool, done)?;
        Ok(Self { name, stage, tokeniser, template, pooling, index: OnceLock::new() })
    }

    /// Some layers of a GGUF file, without the ends.
    pub fn load_layers(bytes: &[u8], range: Range<usize>, pool: &Pool) -> Result<Stage, ModelError> {
        let gguf = Gguf::parse(bytes)?;
        let config = lm::config(&gguf)?;
        if range.start >= range.end || range.end > config.layers {
            return Err(ModelError::Layers { layers: config.layers, got: range });
        }
        Ok(lm::load(&gguf, &config, range, false, pool, &mut |_| ())?)
    }

    /// The numbers of a GGUF file's model.
    pub fn config(bytes: &[u8]) -> Result<Config, ModelError> {
        Ok(lm::config(&Gguf::parse(bytes)?)?)
    }

    /// Whether [`Self::load`] would take this file. Its weights are not read, so that this is over at once.
    pub fn check(bytes: &[u8]) -> Result<(), ModelError> {
        let (gguf, Parts { config, .. }) = parts(bytes)?;
        Ok(lm::check(&gguf, &config)?)
    }

    /// Positions that a sequence may have.
    pub fn context(&self) -> usize {
        self.stage.config().context
    }

    /// What constraints need. Built when it is first asked for, which takes a second or two for a large vocabulary.
    pub fn index(&self) -> Result<&VocabularyIndex, &IndexError> {
        self.index.get_or_init(|| VocabularyIndex::new(&Words::of(self))).as_ref()
    }
}

/// A file without its weights.
struct Parts {
    config: Config,
    name: String,
    tokeniser: Tokeniser,
    template: Option<ChatTemplate>,
    pooling: Option<Pooling>,
}

fn parts(bytes: &[u8]) -> Result<(Gguf<'_>, Parts), ModelError> {
    let gguf = Gguf::parse(bytes)?;
    let config = lm::config(&gguf)?;
    let tokeniser = Tokeniser::new(&Vocabulary::from_gguf(&gguf)?)?;
    if tokeniser.len() > config.vocabulary {
        return Err(ModelError::Sizes { expected: config.vocabulary, got: tokeniser.len() });
    }
    let template = chat_template(&gguf)?.map(ChatTemplate::new).transpose()?;
    let name = gguf.metadata().get("general.name").map(|entry| entry.str()).transpose()?.unwrap_or("unnamed");
    let name = name.escape_debug().to_string();
    let pooling = Pooling::of(&gguf, config.architecture)?;
    Ok((gguf, Parts { config, name, tokeniser, template, pooling }))
}

/// The bytes of all tokens, in one piece.
struct Words {
    bytes: Vec<u8>,
    /// Token i's bytes end here; the ids that have no bytes have none.
    ends: Vec<usize>,
    /// Tokens that end a text.
    last: Vec<u32>,
}

impl Words {
    fn of(model: &Model) -> Self {
        let (tokeniser, mut bytes) = (&model.tokeniser, Vec::new());
        // The weights may have more ids than the tokeniser; those stand for nothing.
        let ids = 0..model.stage.config().vocabulary as u32;
        let ends = ids.clone().map(|id| {
            tokeniser.bytes(id, &mut bytes);
            bytes.len()
        });
        Self { ends: ends.collect(), bytes, last: ids.filter(|id| tokeniser.ends(*id)).collect() }
    }
}

impl constrain::Vocabulary for Words {
    fn size(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self, id: u32) -> Option<&[u8]> {
        let end = *self.ends.get(id as usize)?;
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end]).filter(|bytes| !bytes.is_empty())
    }

    fn ends(&self) -> &[u32] {
        &self.last
    }
}
