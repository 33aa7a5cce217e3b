//! Texts of which vectors are wanted.

use super::fields::{Fields, shown};
use crate::serve::refusal::Refusal;
use littoral_infer::model::Model;
use serde_json::Value;

/// Texts of one request; as OpenAI has it.
const TEXTS_MAX: usize = 2_048;

/// A request for vectors, read.
pub struct Vectors {
    pub texts: Vec<Vec<u32>>,
    pub prompt_tokens: usize,
    /// Elements of each vector, if not all.
    pub dimensions: Option<usize>,
    /// Vectors as the bytes of their f32, little-endian, in base64.
    pub base64: bool,
}

impl Vectors {
    /// # Errors
    /// The first field that cannot be done, by name. `name` is the model's here.
    pub fn read(body: &[u8], model: &Model, name: &str) -> Result<Self, Refusal> {
        let mut fields = Fields::parse(body)?;
        super::model(&mut fields, name)?;
        let texts = super::texts("input", TEXTS_MAX, false, &mut fields, model)?;
        let dimensions = fields.whole("dimensions", 1, model.stage.config().width as u64)?;
        let base64 = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let got = shown(&Value::from(other));
                return Err(Refusal::invalid("encoding_format", "float or base64", got));
            }
        };
        // They are made here, always.
        fields.take(super::asking::LOCAL_ONLY);
        fields.end()?;
        let prompt_tokens = texts.iter().map(Vec::len).sum();
        Ok(Self { texts, prompt_tokens, dimensions, base64 })
    }
}
