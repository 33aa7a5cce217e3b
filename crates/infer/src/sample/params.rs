//! What a request may ask of the sampler, and what it may not.

use std::collections::BTreeMap;

/// How to choose a token. The defaults are those of OpenAI's API (temperature 1, top-p 1, no penalties, no bias); what
/// that API does not have is off, as vLLM has it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits, 0 to 2. 0 is greedy: the highest logit, the lowest id among equals. Default 1.
    pub temperature: f32,
    /// Keep the k most probable tokens; 0 keeps all. Default 0.
    pub top_k: usize,
    /// Keep the smallest set of most probable tokens that holds this much probability, 0 to 1. Default 1: all.
    /// (Holtzman et al. 2020.)
    pub top_p: f32,
    /// Keep tokens at least this fraction as probable as the most probable one, 0 to 1. Default 0: all.
    /// (Nguyen et al. 2024.)
    pub min_p: f32,
    /// Keep the smallest set with this much probability of those tokens whose surprise is closest to the entropy, above
    /// 0, at most 1. Default 1: all. (Meister et al. 2023.)
    pub typical_p: f32,
    /// Divides a positive and multiplies a negative logit of every token among the last `repetition_window` of prompt
    /// and answer, above 0, at most 10. Default 1: none. (Keskar et al. 2019.)
    pub repetition_penalty: f32,
    /// In tokens. Default 64, as llama.cpp's; it matters only with a penalty.
    pub repetition_window: usize,
    /// Subtracted from a token's logit once for each time it stands in the answer, -2 to 2. Default 0. The prompt does
    /// not count, as in OpenAI's API and vLLM.
    pub frequency_penalty: f32,
    /// Subtracted from a token's logit if it stands in the answer, -2 to 2. Default 0.
    pub presence_penalty: f32,
    /// Added to the logits of single tokens, -100 to 100, or minus infinity to forbid one. Default empty.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Default 0. Choice i of several for one request should use `seed.wrapping_add(i)`: the noise of two seeds is
    /// independent, however close they are.
    pub seed: u64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

/// A parameter is outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ParamsError {
    #[error("{field} must be {allowed}, got {value}")]
    Range { field: &'static str, allowed: &'static str, value: f32 },
    #[error("logit_bias of token {id} must be -100 to 100, or minus infinity to forbid it, got {value}")]
    Bias { id: u32, value: f32 },
}

impl SamplingParams {
    /// The most probable token at every step.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The first parameter that is outside its range, as an error. NaN is in no range.
    pub fn validate(&self) -> Result<(), ParamsError> {
        let closed = |field, allowed, value: f32, low, high| match value >= low && value <= high {
            true => Ok(()),
            false => Err(ParamsError::Range { field, allowed, value }),
        };
        // The least positive f32 stands for "above 0".
        let above_zero = f32::from_bits(1);
        closed("temperature", "0 to 2", self.temperature, 0.0, 2.0)?;
        closed("top_p", "0 to 1", self.top_p, 0.0, 1.0)?;
        closed("min_p", "0 to 1", self.min_p, 0.0, 1.0)?;
        closed("typical_p", "above 0, at most 1", self.typical_p, above_zero, 1.0)?;
        closed("repetition_penalty", "above 0, at most 10", self.repetition_penalty, above_zero, 10.0)?;
        closed("frequency_penalty", "-2 to 2", self.frequency_penalty, -2.0, 2.0)?;
        closed("presence_penalty", "-2 to 2", self.presence_penalty, -2.0, 2.0)?;
        for (&id, &value) in &self.logit_bias {
            if !(-100.0..=100.0).contains(&value) && value != f32::NEG_INFINITY {
                return Err(ParamsError::Bias { id, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_its_range_is_refused_by_name() {
        let told = |change: fn(&mut SamplingParams)| {
            let mut params = SamplingParams::default();
            change(&mut params);
            params.validate().expect_err("refused").to_string()
        };
        assert_eq!(told(|p| p.temperature = -0.5), "temperature must be 0 to 2, got -0.5");
        assert_eq!(told(|p| p.top_p = f32::NAN), "top_p must be 0 to 1, got NaN");
        assert_eq!(told(|p| p.typical_p = 0.0), "typical_p must be above 0, at most 1, got 0");
        assert_eq!(told(|p| p.presence_penalty = 2.5), "presence_penalty must be -2 to 2, got 2.5");
        assert_eq!(
            told(|p| _ = p.logit_bias.insert(7, 101.0)),
            "logit_bias of token 7 must be -100 to 100, or minus infinity to forbid it, got 101"
        );
        SamplingParams::default().validate().expect("the defaults are valid");
        SamplingParams::greedy().validate().expect("greedy is valid");
    }
}
