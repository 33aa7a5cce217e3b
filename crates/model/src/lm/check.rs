//! Which numbers a model may have: those with which a pass neither panics nor gives what is no number.
//!
//! A [`Config`] comes from a file, or from another machine. Shapes of weights are not here: who reads them compares them.

use super::config::{Config, Rope, Yarn};
use thiserror::Error;

/// A model's numbers are bounded, so that what follows from them can be counted on.
pub(super) const LAYERS_MAX: u32 = 1_024;
pub(super) const HEADS_MAX: u32 = 1_024;
pub(super) const WIDTH_MAX: u32 = 1 << 20;

/// A number that no model here has; the field as GGUF files call it, behind the name of the architecture.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{field}: {expected} expected, got {got}")]
pub struct ConfigError {
    pub field: &'static str,
    pub expected: String,
    pub got: String,
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        counts(&[
            ("block_count", self.layers, 1, LAYERS_MAX),
            ("embedding_length", self.width, 1, WIDTH_MAX),
            ("attention.head_count", self.heads, 1, HEADS_MAX),
            ("attention.head_count_kv", self.kv_heads, 1, HEADS_MAX),
            ("attention.key_length", self.head_width, 1, WIDTH_MAX),
            ("feed_forward_length", self.inner, 1, WIDTH_MAX),
            ("vocabulary", self.vocabulary, 1, u32::MAX),
            ("context_length", self.context, 1, u32::MAX),
            ("attention.sliding_window", self.window, 0, u32::MAX),
            ("attention.sliding_window_pattern", self.window_period, 1, LAYERS_MAX),
        ])?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of {} heads", self.heads);
            return wrong("attention.head_count_kv", expected, self.kv_heads);
        }
        self.rope.check("rope.freq_base", self.head_width)?;
        self.rope_window.check("rope.freq_base_swa", self.head_width)?;
        above("attention.layer_norm_rms_epsilon", self.epsilon, 0.0)?;
        above("attention.scale", self.attention_scale, 0.0)?;
        above("embedding_scale", self.embedding_scale, 0.0)?;
        from("attn_logit_softcapping", self.attention_cap, 0.0)?;
        from("final_logit_softcapping", self.logit_cap, 0.0)
    }
}

impl Rope {
    fn check(&self, base: &'static str, head_width: usize) -> Result<(), ConfigError> {
        if self.width == 0 || self.width > head_width || !self.width.is_multiple_of(2) {
            return wrong("rope.dimension_count", format!("an even number up to {head_width}"), self.width);
        }
        if !self.factors.is_empty() && self.factors.len() != self.width / 2 {
            return wrong("rope_freqs", format!("{} factors, or none", self.width / 2), self.factors.len());
        }
        above(base, self.base, 1.0)?;
        above("rope.scaling.factor", self.scale, 0.0)?;
        self.factors.iter().try_for_each(|factor| above("rope_freqs", *factor, 0.0))?;
        match &self.yarn {
            None => Ok(()),
            Some(Yarn { factor, original_context, fast_turns, slow_turns, length }) => {
                counts(&[("rope.scaling.original_context_length", *original_context, 1, u32::MAX)])?;
                from("rope.scaling.factor", *factor, 1.0)?;
                from("rope.scaling.yarn_beta_fast", *fast_turns, 0.001)?;
                from("rope.scaling.yarn_beta_slow", *slow_turns, 0.001)?;
                from("rope.scaling.attn_factor", *length as f32, 0.0)
            }
        }
    }
}

/// Fields with their numbers, the least and the most.
fn counts(counts: &[(&'static str, usize, usize, u32)]) -> Result<(), ConfigError> {
    let within = |got: usize, least: usize, most: u32| got >= least && u32::try_from(got).is_ok_and(|got| got <= most);
    match counts.iter().find(|(_, got, least, most)| !within(*got, *least, *most)) {
        Some((field, got, least, most)) => wrong(field, format!("{least} to {most}"), got),
        None => Ok(()),
    }
}

// One NaN, and every logit is one: the model would run and say nothing.

fn above(field: &'static str, got: f32, bound: f32) -> Result<(), ConfigError> {
    if got > bound && got.is_finite() { Ok(()) } else { wrong(field, format!("a number above {bound}"), got) }
}

fn from(field: &'static str, got: f32, bound: f32) -> Result<(), ConfigError> {
    if got >= bound && got.is_finite() { Ok(()) } else { wrong(field, format!("a number from {bound} on"), got) }
}

fn wrong(field: &'static str, expected: String, got: impl ToString) -> Result<(), ConfigError> {
    Err(ConfigError { field, expected, got: got.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lm::Architecture;
    use crate::lm::tests::config;

    #[test]
    fn no_number_is_trusted() {
        let numbers: [fn(&mut Config) -> &mut f32; 9] = [
            |c| &mut c.epsilon,
            |c| &mut c.attention_scale,
            |c| &mut c.embedding_scale,
            |c| &mut c.attention_cap,
            |c| &mut c.logit_cap,
            |c| &mut c.rope.base,
            |c| &mut c.rope.scale,
            |c| &mut c.rope_window.scale,
            |c| &mut c.rope.factors[15],
        ];
        let mut good = config(Architecture::Gemma3);
        good.rope.factors = vec![1.0; 16];
        assert_eq!(good.check(), Ok(()));
        for number in numbers {
            for wrong in [f32::NAN, f32::INFINITY, -1.0] {
                let mut config = good.clone();
                *number(&mut config) = wrong;
                let error = config.check().unwrap_err();
                assert_eq!(error.got, wrong.to_string(), "{error}");
            }
        }
        let counts: [fn(&mut Config) -> &mut usize; 10] = [
            |c| &mut c.layers,
            |c| &mut c.width,
            |c| &mut c.heads,
            |c| &mut c.kv_heads,
            |c| &mut c.head_width,
            |c| &mut c.inner,
            |c| &mut c.vocabulary,
            |c| &mut c.context,
            |c| &mut c.window_period,
            |c| &mut c.rope.width,
        ];
        for count in counts {
            for wrong in [0, usize::MAX] {
                let mut config = good.clone();
                *count(&mut config) = wrong;
                assert!(config.check().is_err(), "{wrong}");
            }
        }
    }
}
