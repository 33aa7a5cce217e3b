//! What is known of a request: its prompt, and how sure the small model was of what it wrote.
//!
//! Few numbers, each with a reason, all of them known on the device itself. *Before* an answer they are those of the prompt
//! and of the first token's distribution, which reading the prompt gives; *after* it, those of the whole answer too.

use super::answer::bare;
use serde::{Deserialize, Serialize};

/// How many of the most probable tokens are looked at ([`Request::top_logprobs`](crate::engine::Request)).
pub const TOP: usize = 8;

/// A log-probability that a model hardly ever gives to what it writes; stands in for minus infinity, and for an answer
/// without tokens.
const LOGPROB_MIN: f64 = -20.0;

/// When a score is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Pre-hoc: the prompt was read, nothing is written yet.
    Before,
    /// Cascade: the small model has answered.
    After,
}

/// What a model said of a token as it wrote it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSeen {
    /// Natural logarithm of the written token's probability.
    pub logprob: f32,
    /// Those of the most probable tokens, the greatest first, [`TOP`] at most.
    pub top: Vec<f32>,
}

impl TokenSeen {
    fn logprob(&self) -> f64 {
        finite(self.logprob)
    }

    /// How much more probable the best token is than the second, in nats; 0 to 20.
    fn margin(&self) -> f64 {
        match self.top[..] {
            [first, second, ..] => (finite(first) - finite(second)).max(0.0),
            _ => 0.0,
        }
    }

    /// Of the most probable tokens and of the rest taken for one, in nats: no more than the whole distribution's.
    fn entropy(&self) -> f64 {
        let weigh = |p: f64| if p > 0.0 { -p * libm::log(p) } else { 0.0 };
        let (mut rest, mut entropy) = (1.0, 0.0);
        for logprob in self.top.iter().take(TOP) {
            let p = libm::exp(finite(*logprob));
            rest -= p;
            entropy += weigh(p);
        }
        entropy + weigh(rest)
    }
}

fn finite(logprob: f32) -> f64 {
    if logprob.is_finite() { f64::from(logprob).clamp(LOGPROB_MIN, 0.0) } else { LOGPROB_MIN }
}

/// The names of the features, in their order.
pub fn names(when: When) -> &'static [&'static str] {
    const ALL: [&str; 16] = [
        // ln(1 + characters): long questions are harder.
        "prompt_length",
        // ln(1 + lines): so are those with code or data in them.
        "prompt_lines",
        // The share of digits, and the longest run of them, ln(1 + digits): small models miscalculate with long numbers.
        "prompt_digits",
        "prompt_number",
        // The share of signs that code has and prose has not.
        "prompt_code",
        // Of the first token.
        "first_logprob",
        "first_margin",
        "first_entropy",
        // Of the answer. Is it a part of the prompt? Then it was read there, and not worked out.
        "answer_copied",
        "answer_digits",
        "answer_length",
        "mean_logprob",
        "min_logprob",
        "min_margin",
        "mean_entropy",
        "max_entropy",
    ];
    match when {
        When::Before => &ALL[..8],
        When::After => &ALL,
    }
}

/// A request, and what the small model has written.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What was asked last, as it was typed.
    pub prompt: &'a str,
    /// Not looked at before an answer.
    pub answer: &'a str,
    /// The first token at least, or nothing if the model ended at once; after an answer, all of its tokens.
    pub tokens: &'a [TokenSeen],
}

/// The features of a request, in the order of [`names`]. Every one is finite.
pub fn features(when: When, seen: &Seen) -> Vec<f64> {
    let mut features = of_prompt(seen.prompt).to_vec();
    features.extend(match seen.tokens.first() {
        Some(first) => [first.logprob(), first.margin(), first.entropy()],
        None => [LOGPROB_MIN, 0.0, 0.0],
    });
    if when == When::After {
        features.extend(of_text(seen.prompt, seen.answer));
        features.extend(of_tokens(seen.tokens));
    }
    features
}

fn of_prompt(prompt: &str) -> [f64; 5] {
    let (mut all, mut digits, mut code, mut run, mut longest) = (0u64, 0u64, 0u64, 0u64, 0u64);
    for c in prompt.chars() {
        all += 1;
        run = if c.is_ascii_digit() { run + 1 } else { 0 };
        longest = longest.max(run);
        digits += u64::from(c.is_ascii_digit());
        code += u64::from("{}[]()<>=;_*/\\|&#`\"".contains(c));
    }
    let share = |part: u64| part as f64 / all.max(1) as f64;
    let logarithm = |count: u64| libm::log1p(count as f64);
    [logarithm(all), logarithm(prompt.lines().count() as u64), share(digits), logarithm(longest), share(code)]
}

fn of_text(prompt: &str, answer: &str) -> [f64; 2] {
    let (all, digits) =
        answer.chars().fold((0u64, 0u64), |(all, digits), c| (all + 1, digits + u64::from(c.is_ascii_digit())));
    let answer = bare(answer).to_lowercase();
    let copied = !answer.is_empty() && prompt.to_lowercase().contains(&answer);
    [f64::from(u8::from(copied)), digits as f64 / all.max(1) as f64]
}

fn of_tokens(tokens: &[TokenSeen]) -> [f64; 6] {
    if tokens.is_empty() {
        return [0.0, LOGPROB_MIN, LOGPROB_MIN, 0.0, 0.0, 0.0];
    }
    let mean = |of: fn(&TokenSeen) -> f64| tokens.iter().map(of).sum::<f64>() / tokens.len() as f64;
    let least = |of: fn(&TokenSeen) -> f64| tokens.iter().map(of).fold(f64::INFINITY, f64::min);
    let greatest = tokens.iter().map(TokenSeen::entropy).fold(0.0, f64::max);
    [
        libm::log1p(tokens.len() as f64),
        mean(TokenSeen::logprob),
        least(TokenSeen::logprob),
        least(TokenSeen::margin),
        mean(TokenSeen::entropy),
        greatest,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(of: &[f32]) -> TokenSeen {
        TokenSeen { logprob: of[0].ln(), top: of.iter().map(|p| p.ln()).collect() }
    }

    #[test]
    fn features_of_a_known_request() {
        // Half, a quarter, and a quarter that is not listed: entropy 1.5 ln 2. Then a sure token: nothing is left to be unsure of.
        let tokens = [token(&[0.5, 0.25]), TokenSeen { logprob: 0.0, top: vec![0.0, f32::NEG_INFINITY] }];
        let seen = Seen { prompt: "f(12)\n = 345", answer: "F(12).", tokens: &tokens };
        let got = features(When::After, &seen);
        let ln2 = std::f64::consts::LN_2;
        let half = 0.75 * ln2;
        let expected = [
            12f64.ln() + (13f64 / 12.0).ln(), // 12 characters
            3f64.ln(),
            5.0 / 12.0,
            4f64.ln(),
            3.0 / 12.0,
            -ln2,
            ln2,
            1.5 * ln2,
            1.0,
            2.0 / 6.0,
            3f64.ln(),
            -ln2 / 2.0,
            -ln2,
            ln2,
            half,
            1.5 * ln2,
        ];
        assert_eq!(got.len(), names(When::After).len());
        for ((got, expected), name) in got.iter().zip(expected).zip(names(When::After)) {
            // Log-probabilities are f32.
            assert!((got - expected).abs() < 1e-6, "{name}: {got}, {expected}");
        }
        assert_eq!(features(When::Before, &seen), got[..8]);
    }

    proptest! {
        #[test]
        fn every_feature_is_finite(
            prompt in ".*", answer in ".*",
            logprobs in proptest::collection::vec(proptest::collection::vec(proptest::num::f32::ANY, 0..10), 0..4),
        ) {
            let seen = |top: Vec<f32>| TokenSeen { logprob: top.first().copied().unwrap_or(f32::NAN), top };
            let tokens: Vec<TokenSeen> = logprobs.into_iter().map(seen).collect();
            for when in [When::Before, When::After] {
                let features = features(when, &Seen { prompt: &prompt, answer: &answer, tokens: &tokens });
                prop_assert_eq!(features.len(), names(when).len());
                prop_assert!(features.iter().all(|feature| feature.is_finite()), "{features:?}");
            }
        }
    }
}
