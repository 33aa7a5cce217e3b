//! A language model's file, opened, and the type of its cache: for `run`, `serve`, `plan`, `tokenize`, `score` and `bench llm`. Names become files in `named`.

use crate::output::Failure;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use littoral_infer::model::{Model, ModelError};
use littoral_model::lm::{CacheType, StateError};
use littoral_tensor::Mapped;
use littoral_tensor::gguf::Gguf;
use littoral_tensor::pool::Pool;
use littoral_wire::pipeline::Activations;
use std::fs::File;
use std::path::Path;

/// The bytes of a file that is not changed while they are used.
pub fn map(path: &Path) -> Result<Mapped, Failure> {
    let refused = |e: std::io::Error| {
        Failure::new("the model was not opened", path.display().to_string(), "a readable GGUF file", e)
    };
    // Opening a pipe would wait for somebody who writes to it.
    if !path.metadata().map_err(refused)?.is_file() {
        return Err(refused(std::io::Error::other("something that is no file")));
    }
    let file = File::open(path).map_err(refused)?;
    Mapped::new(&file).map_err(refused)
}

/// Weights, tokeniser and template.
pub fn load(path: &Path, pool: &Pool) -> Result<Model, Failure> {
    let bytes = map(path)?;
    let loaded = Model::load(&bytes, pool, &mut |range| bytes.forget(range));
    loaded.map_err(|e| refused(path, &e))
}

/// Text and both ends of a model whose layers are elsewhere, and the bytes of its file.
pub fn load_ends(path: &Path, pool: &Pool) -> Result<(Model, Mapped), Failure> {
    let bytes = map(path)?;
    let loaded = Model::load_ends(&bytes, pool, &mut |range| bytes.forget(range));
    Ok((loaded.map_err(|e| refused(path, &e))?, bytes))
}

/// BLAKE3 of a model's file: machines that share its layers have the same.
pub fn digest(path: &Path) -> Result<[u8; 32], Failure> {
    let bytes = map(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    for piece in bytes.chunks(8 << 20) {
        hasher.update(piece);
        bytes.forget(at..at + piece.len());
        at += piece.len();
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Whether [`load`] would take this file, without its weights: over at once.
pub fn check(path: &Path) -> Result<(), Failure> {
    Model::check(&map(path)?).map_err(|e| refused(path, &e))
}

/// The file's header, as far as a tokeniser needs it.
pub fn header<'a>(path: &Path, bytes: &'a [u8]) -> Result<Gguf<'a>, Failure> {
    Gguf::parse(bytes).map_err(|e| refused(path, &e.into()))
}

/// `--cache-type`, by its names.
pub fn cache_type() -> impl TypedValueParser<Value = CacheType> {
    let names = PossibleValuesParser::new(CacheType::ALL.map(CacheType::name));
    names.map(|name| CacheType::of_name(&name).unwrap_or_default())
}

/// `--activations`, by their names.
pub fn activations() -> impl TypedValueParser<Value = Activations> {
    const KNOWN: [(&str, Activations); 3] =
        [("f32", Activations::F32), ("f16", Activations::F16), ("int8", Activations::Int8)];
    let named =
        |name: String| KNOWN.iter().find(|(known, _)| *known == name).map_or(Activations::F32, |(_, known)| *known);
    PossibleValuesParser::new(KNOWN.map(|(name, _)| name)).map(named)
}

impl From<StateError> for Failure {
    fn from(e: StateError) -> Self {
        let what = "the cache was not made";
        match e {
            StateError::HeadWidth { cache_type, head_width } => {
                let expected = format!("a model whose heads have a multiple of {} elements", cache_type.elements());
                Self::new(what, format!("--cache-type {cache_type}"), expected, format!("heads of {head_width}"))
                    .hint("--cache-type f16 fits every model")
            }
            other => Self::new(what, "the state of a sequence", "one that fits", other),
        }
    }
}

/// As many threads as there are processors, or what was asked for.
pub fn pool(threads: Option<usize>) -> Pool {
    Pool::new(threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)))
}

pub fn refused(path: &Path, error: &ModelError) -> Failure {
    let place = path.display().to_string();
    match error {
        ModelError::File(e) => {
            let (where_in_it, expected, got) = e.parts();
            Failure::new("the model was not loaded", format!("{place}, {where_in_it}"), expected, got)
        }
        other => Failure::new("the model was not loaded", place, "a language model that runs here", other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_does_not_fit_says_what_does() {
        let failure = Failure::from(StateError::HeadWidth { cache_type: CacheType::Q8_0, head_width: 80 });
        assert_eq!(
            failure.to_string(),
            "the cache was not made: --cache-type q8_0: a model whose heads have a multiple of 32 elements expected, got \
             heads of 80"
        );
        assert_eq!(failure.hint.as_deref(), Some("--cache-type f16 fits every model"));
    }
}
