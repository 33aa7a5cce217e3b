//! How tokens are to be chosen.

use super::fields::{Fields, shown};
use crate::serve::refusal::Refusal;
use littoral_infer::sample::stop::StopStrings;
use littoral_infer::sample::{ParamsError, SamplingParams};
use serde_json::Value;
use std::collections::BTreeMap;

const STOPS_MAX: usize = 4;
const STOP_BYTES_MAX: usize = 1024;

/// `top_k`, `min_p`, `typical_p` and `repetition_penalty` are ours; the rest is OpenAI's.
pub fn sampling(fields: &mut Fields, vocabulary: usize) -> Result<SamplingParams, Refusal> {
    let default = SamplingParams::default();
    let params = SamplingParams {
        temperature: fields.number("temperature")?.unwrap_or(default.temperature),
        top_k: fields.whole("top_k", 0, u32::MAX.into())?.unwrap_or(default.top_k),
        top_p: fields.number("top_p")?.unwrap_or(default.top_p),
        min_p: fields.number("min_p")?.unwrap_or(default.min_p),
        typical_p: fields.number("typical_p")?.unwrap_or(default.typical_p),
        repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(default.repetition_penalty),
        frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(default.frequency_penalty),
        presence_penalty: fields.number("presence_penalty")?.unwrap_or(default.presence_penalty),
        logit_bias: bias(fields, vocabulary)?,
        seed: seed(fields)?,
        ..default
    };
    params.validate().map_err(|error| {
        let name = match &error {
            ParamsError::Range { field, .. } => field,
            ParamsError::Bias { .. } => "logit_bias",
        };
        Refusal::field(name, "invalid_value", error.to_string())
    })?;
    Ok(params)
}

/// Chance, if none is given.
fn seed(fields: &mut Fields) -> Result<u64, Refusal> {
    match fields.take("seed") {
        None => getrandom::u64().map_err(|e| Refusal::broken(format!("no random seed: {e}"))),
        Some(value) => {
            let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
            seed.ok_or_else(|| Refusal::invalid("seed", "a whole number of 64 bits", shown(&value)))
        }
    }
}

fn bias(fields: &mut Fields, vocabulary: usize) -> Result<BTreeMap<u32, f32>, Refusal> {
    let name = "logit_bias";
    let entries = match fields.take(name) {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(Refusal::invalid(name, "an object of token ids and numbers", shown(&other))),
    };
    let entry = |(id, value): (String, Value)| {
        let number = id.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary);
        let expected = format!("a token id below {vocabulary} and a number");
        let wrong = || Refusal::invalid(name, &expected, format!("{}: {}", shown(&id.clone().into()), shown(&value)));
        Ok((number.ok_or_else(wrong)?, value.as_f64().ok_or_else(wrong)? as f32))
    };
    entries.into_iter().map(entry).collect()
}

/// A string, or up to four.
pub fn stop(fields: &mut Fields) -> Result<StopStrings, Refusal> {
    let name = "stop";
    let expected = format!("a string of at most {STOP_BYTES_MAX} bytes, or up to {STOPS_MAX}");
    let wrong = |got: &Value| Refusal::invalid(name, &expected, shown(got));
    let string = |value: &Value| match value.as_str() {
        Some(text) if text.len() <= STOP_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(wrong(value)),
    };
    let stops = match fields.take(name) {
        None => Vec::new(),
        Some(Value::Array(items)) if items.len() <= STOPS_MAX => items.iter().map(string).collect::<Result<_, _>>()?,
        Some(Value::Array(items)) => return Err(Refusal::invalid(name, &expected, format!("{} items", items.len()))),
        Some(one) => vec![string(&one)?],
    };
    StopStrings::new(stops).map_err(|error| Refusal::field(name, "invalid_value", error.to_string()))
}
