//! Who was right: by the exact answer where it is known, else by what the large model says.

use super::ask::Answered;
use super::prompts::Asked;
use littoral_infer::route::answer::same;
use littoral_infer::route::features::{Seen, When, features};
use littoral_infer::route::saved::ExampleSaid;

/// Two answers to one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub features: Vec<f64>,
    /// Right, or without an exact answer: as the large model's, which then is right by definition.
    pub small: bool,
    pub large: bool,
    pub agree: bool,
}

impl Judged {
    pub fn new(asked: &Asked, small: &Answered, large: &Answered) -> Self {
        let agree = same(&small.text, &large.text);
        let (small_right, large_right) = match &asked.answer {
            Some(answer) => (same(&small.text, answer), same(&large.text, answer)),
            None => (agree, true),
        };
        let seen = Seen { prompt: &asked.prompt, answer: &small.text, tokens: &small.tokens };
        let features = features(When::After, &seen);
        Self { features, small: small_right, large: large_right, agree }
    }

    /// The large model was right and the small one was not.
    pub fn worse(&self) -> bool {
        self.large && !self.small
    }

    pub fn example(&self) -> ExampleSaid {
        ExampleSaid { features: self.features.clone(), worse: self.worse() }
    }
}

/// How many of all are so, as a part; 0 of none.
pub fn share(all: &[Judged], is: impl Fn(&Judged) -> bool) -> f64 {
    all.iter().filter(|judged| is(judged)).count() as f64 / all.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worse_means_that_the_large_one_was_right_and_the_small_one_was_not() {
        let label = |answer: Option<&str>, small: &str, large: &str| {
            let asked = Asked { prompt: "?".into(), answer: answer.map(Into::into) };
            let said = |text: &str| Answered { text: text.into(), tokens: Vec::new() };
            Judged::new(&asked, &said(small), &said(large)).example().worse
        };
        assert!(label(Some("2"), "3", "2"));
        // Both wrong, both right, only the small one right: the large model would have been no better.
        assert!(!label(Some("2"), "3", "4") && !label(Some("2"), "2.", "2") && !label(Some("2"), "2", "3"));
        assert!(label(None, "yes", "no") && !label(None, "`yes`", "yes"));
    }
}
