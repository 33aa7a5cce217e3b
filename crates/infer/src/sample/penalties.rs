//! What changes logits before anything else: penalties, bias, the mask of allowed tokens.

use super::mask::TokenMask;
use super::params::SamplingParams;
use super::sampler::{History, SampleError};

/// A copy of the logits that penalties may write to, and counts that are all zero between two calls. Kept from step to
/// step so that a step allocates nothing.
#[derive(Default)]
pub(super) struct Penalties {
    changed: Vec<f32>,
    counts: Vec<u32>,
}

impl Penalties {
    /// The logits with everything applied: the given slice itself if nothing is asked for.
    pub(super) fn apply<'a>(
        &'a mut self,
        params: &SamplingParams,
        logits: &'a [f32],
        history: History<'_>,
        allowed: Option<&TokenMask>,
    ) -> Result<&'a [f32], SampleError> {
        let repetition = params.repetition_penalty != 1.0 && params.repetition_window > 0;
        let counted = params.frequency_penalty != 0.0 || params.presence_penalty != 0.0;
        if !repetition && !counted && params.logit_bias.is_empty() && allowed.is_none() {
            return Ok(logits);
        }
        let vocabulary = logits.len();
        if repetition || counted {
            history.check(vocabulary)?;
        }
        self.changed.clear();
        self.changed.extend_from_slice(logits);
        self.counts.resize(vocabulary, 0);
        if repetition {
            for id in history.last(params.repetition_window) {
                self.counts[id as usize] = 1;
            }
            for id in history.last(params.repetition_window) {
                if std::mem::take(&mut self.counts[id as usize]) > 0 {
                    let logit = &mut self.changed[id as usize];
                    *logit = if *logit > 0.0 {
                        *logit / params.repetition_penalty
                    } else {
                        *logit * params.repetition_penalty
                    };
                }
            }
        }
        if counted {
            for &id in history.answer {
                self.counts[id as usize] += 1;
            }
            for &id in history.answer {
                let count = std::mem::take(&mut self.counts[id as usize]);
                if count > 0 {
                    self.changed[id as usize] -= count as f32 * params.frequency_penalty + params.presence_penalty;
                }
            }
        }
        for (&id, bias) in &params.logit_bias {
            *self.changed.get_mut(id as usize).ok_or(SampleError::BiasOutside { id, vocabulary })? += bias;
        }
        if let Some(mask) = allowed {
            if mask.vocabulary() != vocabulary {
                return Err(SampleError::MaskLength { mask: mask.vocabulary(), vocabulary });
            }
            mask.apply(&mut self.changed);
        }
        Ok(&self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand. Token 0 stands in the prompt only, 1 once and 2 twice in the answer, 3 nowhere, 4 before the window.
    #[test]
    fn penalties_by_hand() {
        let history = History { prompt: &[4, 0], answer: &[2, 1, 2] };
        let logits = [1.0, -1.0, 4.0, 3.0, 2.0];
        let after = |params: SamplingParams| {
            Penalties::default().apply(&params, &logits, history, None).expect("valid").to_vec()
        };
        let off = SamplingParams::default();
        assert_eq!(after(off.clone()), logits);
        assert_eq!(
            after(SamplingParams { repetition_penalty: 2.0, repetition_window: 4, ..off.clone() }),
            [0.5, -2.0, 2.0, 3.0, 2.0]
        );
        assert_eq!(after(SamplingParams { frequency_penalty: 0.5, ..off.clone() }), [1.0, -1.5, 3.0, 3.0, 2.0]);
        assert_eq!(after(SamplingParams { presence_penalty: 0.5, ..off.clone() }), [1.0, -1.5, 3.5, 3.0, 2.0]);
        // All at once, in the documented order: (4 / 2 - 2 * 0.5 - 0.25) + 10, not (4 + 10) / 2 and so on.
        let all = SamplingParams {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            logit_bias: [(2, 10.0)].into(),
            ..off
        };
        assert_eq!(after(all)[2], 10.75);
    }

    #[test]
    fn nothing_is_left_from_one_call_to_the_next() {
        let params = SamplingParams { frequency_penalty: 1.0, repetition_penalty: 1.5, ..SamplingParams::default() };
        let mut used = Penalties::default();
        for answer in [&[0, 0, 1][..], &[1], &[]] {
            let history = History { prompt: &[2], answer };
            let fresh = Penalties::default().apply(&params, &[3.0; 3], history, None).expect("valid").to_vec();
            assert_eq!(used.apply(&params, &[3.0; 3], history, None).expect("valid"), fresh);
        }
    }
}
