//! The filters in their order, over as few tokens as possible.

use super::draw;
use super::filters::{self, Candidate};
use super::noise::Noise;
use super::params::SamplingParams;
use super::rank::{Scored, best};
use littoral_tensor::weights::{ONE, log_weight, weigh, weight};

/// Room that is kept from step to step.
#[derive(Default)]
pub(super) struct Chain {
    weights: Vec<f32>,
    best: Vec<Scored>,
    candidates: Vec<Candidate>,
}

impl Chain {
    /// Temperature, filters, draw. `highest` is the highest logit, finite; the temperature is above 0.
    pub(super) fn draw(&mut self, params: &SamplingParams, logits: &[f32], highest: f32, noise: Noise) -> Option<u32> {
        let filtered = params.top_k > 0 || params.typical_p < 1.0 || params.top_p < 1.0 || params.min_p > 0.0;
        if filtered {
            draw::among(noise, self.survivors(params, logits, highest))
        } else {
            self.weigh(params, logits, highest);
            draw::over(noise, &self.weights)
        }
    }

    /// The tokens that pass every filter, in no particular order.
    pub(super) fn survivors(&mut self, params: &SamplingParams, logits: &[f32], highest: f32) -> &mut Vec<Candidate> {
        let mut total = match params.top_k {
            0 => self.gather(params, logits, highest),
            k => self.gather_best(params, logits, highest, k),
        };
        if params.typical_p < 1.0 {
            filters::typical(&mut self.candidates, total, params.typical_p);
            total = filters::sum(&self.candidates);
        }
        if params.top_p < 1.0 {
            filters::top_p(&mut self.candidates, total, params.top_p);
        }
        if params.min_p > 0.0 {
            filters::min_p(&mut self.candidates, params.min_p);
        }
        &mut self.candidates
    }

    /// The `k` best as candidates; the sum of their masses. A temperature changes no rank, so they are chosen by logits.
    fn gather_best(&mut self, params: &SamplingParams, logits: &[f32], highest: f32, k: usize) -> u64 {
        best(logits, k, &mut self.best);
        self.candidates.clear();
        self.candidates.extend(self.best.iter().filter_map(|s| {
            let log_weight = log_weight(s.logit, highest, params.temperature);
            let weight = weight(log_weight);
            (weight > 0.0).then_some(Candidate { id: s.id, log_weight, weight })
        }));
        filters::sum(&self.candidates)
    }

    /// Every token that a filter could keep as a candidate; the sum of *all* masses.
    fn gather(&mut self, params: &SamplingParams, logits: &[f32], highest: f32) -> u64 {
        let total = self.weigh(params, logits, highest);
        let floor = self.floor(params, total);
        self.candidates.clear();
        for (block, weights) in self.weights.chunks(128).enumerate() {
            // Most blocks hold nothing; this test is vectorised.
            if weights.iter().fold(false, |any, &weight| any | (weight > floor)) {
                for (id, &weight) in (block * 128..).zip(weights) {
                    if weight > floor {
                        let log_weight = log_weight(logits[id], highest, params.temperature);
                        self.candidates.push(Candidate { id: id as u32, log_weight, weight });
                    }
                }
            }
        }
        total
    }

    fn weigh(&mut self, params: &SamplingParams, logits: &[f32], highest: f32) -> u64 {
        self.weights.resize(logits.len(), 0.0);
        weigh(logits, highest, params.temperature, &mut self.weights)
    }

    /// A weight such that whatever is not above it is dropped by top-p or min-p anyway.
    ///
    /// If all n tokens had a mass under (1 - p) total / n, all together would hold less than 1 - p. Those that do can
    /// therefore be left out: the others hold p, and top-p needs no more. Typical keeps improbable tokens, so before it
    /// nothing can be left out.
    fn floor(&self, params: &SamplingParams, total: u64) -> f32 {
        if params.typical_p < 1.0 {
            return 0.0;
        }
        // The weight 1 is always present here, so min-p compares with min_p itself. Just under it, since it is kept.
        let by_min_p = params.min_p.next_down().max(0.0);
        // Lowered by far more than rounding (of a mass by half a unit, of the product and of a weight to f32) can amount
        // to: a lower floor keeps more than needed, and never too little.
        let spare = (1.0 - f64::from(params.top_p)) * total as f64 / self.weights.len() as f64;
        let by_top_p = ((spare * 0.999 - 2.0) / ONE as f64) as f32;
        by_min_p.max(by_top_p).max(0.0)
    }
}
