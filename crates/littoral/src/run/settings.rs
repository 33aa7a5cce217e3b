//! How answers are written, as `/set` changes it.

use crate::output::Failure;
use littoral_infer::sample::{ParamsError, SamplingParams};
use std::fmt::Display;
use std::str::FromStr;

#[derive(Clone, Debug)]
pub struct Settings {
    pub sampling: SamplingParams,
    /// At least 1.
    pub max_tokens: usize,
}

const WHAT: &str = "nothing is set";

impl Settings {
    /// Names and values, in the order in which they are shown.
    pub fn fields(&self) -> [(&'static str, String); 10] {
        let of = &self.sampling;
        [
            ("temperature", of.temperature.to_string()),
            ("top_k", of.top_k.to_string()),
            ("top_p", of.top_p.to_string()),
            ("min_p", of.min_p.to_string()),
            ("typical_p", of.typical_p.to_string()),
            ("repetition_penalty", of.repetition_penalty.to_string()),
            ("frequency_penalty", of.frequency_penalty.to_string()),
            ("presence_penalty", of.presence_penalty.to_string()),
            ("seed", of.seed.to_string()),
            ("max_tokens", self.max_tokens.to_string()),
        ]
    }

    /// Gives one field a value. One that it cannot have changes nothing.
    pub fn set(&mut self, field: &str, value: &str) -> Result<(), Failure> {
        let mut changed = self.clone();
        let of = &mut changed.sampling;
        match field {
            "temperature" => of.temperature = number(field, value)?,
            "top_k" => of.top_k = number(field, value)?,
            "top_p" => of.top_p = number(field, value)?,
            "min_p" => of.min_p = number(field, value)?,
            "typical_p" => of.typical_p = number(field, value)?,
            "repetition_penalty" => of.repetition_penalty = number(field, value)?,
            "frequency_penalty" => of.frequency_penalty = number(field, value)?,
            "presence_penalty" => of.presence_penalty = number(field, value)?,
            "seed" => of.seed = number(field, value)?,
            "max_tokens" => changed.max_tokens = number(field, value)?,
            _ => {
                let known = self.fields().map(|(name, _)| name).join(", ");
                return Err(Failure::new(WHAT, "/set", format!("one of {known}"), field));
            }
        }
        if changed.max_tokens == 0 {
            return Err(Failure::new(WHAT, field, "at least 1", value));
        }
        changed.sampling.validate().map_err(|error| match error {
            ParamsError::Range { field, allowed, value } => Failure::new(WHAT, field, allowed, value),
            other => Failure::new(WHAT, field, "a value within its range", other),
        })?;
        *self = changed;
        Ok(())
    }
}

fn number<T: FromStr<Err: Display>>(field: &str, value: &str) -> Result<T, Failure> {
    value.parse().map_err(|e| Failure::new(WHAT, field, "a number", format!("{value}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_shown_can_be_set() {
        let mut settings = Settings { sampling: SamplingParams::default(), max_tokens: 7 };
        for (field, _) in settings.fields() {
            settings.set(field, "1").expect(field);
        }
        assert!(settings.fields().iter().all(|(_, value)| value == "1"), "{:?}", settings.fields());
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let mut settings = Settings { sampling: SamplingParams::default(), max_tokens: 7 };
        for (field, value) in [("temperature", "2.5"), ("top_k", "-1"), ("max_tokens", "0"), ("warmth", "1")] {
            settings.set(field, value).expect_err(field);
        }
        assert_eq!((settings.sampling, settings.max_tokens), (SamplingParams::default(), 7));
    }
}
