//! Vectors of texts, in the form of OpenAI's API.

use super::{broken, json_response};
use crate::serve::refusal::Refusal;
use crate::serve::writer::{End, Said};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use littoral_infer::pooling::unit;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

/// All vectors, when the last is there. With `dimensions`, the first elements of each, again of length 1.
pub async fn vectors(
    name: &str,
    mut said: UnboundedReceiver<Said>,
    prompt_tokens: usize,
    dimensions: Option<usize>,
    base64: bool,
) -> Result<Response, Refusal> {
    let mut data: Vec<Value> = Vec::new();
    loop {
        match said.recv().await {
            None => return Err(broken(None)),
            Some(Said::Placed { .. } | Said::Started { .. } | Said::Text { .. } | Said::Prompt { .. }) => {}
            Some(Said::Away { why }) => return Err(Refusal::broken(why)),
            Some(Said::Vector { text, vector }) => {
                let vector = dimensions.map_or_else(|| vector.clone(), |dimensions| shortened(&vector, dimensions));
                let embedding = if base64 { json!(STANDARD.encode(bytes(&vector))) } else { json!(vector) };
                data.push(json!({"object": "embedding", "index": text, "embedding": embedding}));
            }
            Some(Said::Ended { why: why @ (End::Unfit(_) | End::Failed(_) | End::Closing), .. }) => {
                return Err(broken(Some(&why)));
            }
            Some(Said::Ended { .. }) => break,
        }
    }
    Ok(json_response(&json!({
        "object": "list",
        "data": data,
        "model": name,
        "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
    })))
}

fn shortened(vector: &[f32], dimensions: usize) -> Vec<f32> {
    let first: Vec<f64> = vector.iter().take(dimensions).map(|x| f64::from(*x)).collect();
    unit(&first).into_iter().map(|x| x as f32).collect()
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|x| x.to_le_bytes()).collect()
}
