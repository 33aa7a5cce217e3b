//! What an edge does with a request before it drafts: the shipped rule and the shipped routing, over requests that say in three
//! ways that they must stay.

use super::checks::Bug;
use littoral_infer::route::calibrate::{Labelled, calibrate};
use littoral_infer::route::decide::{Link, Place, Prices};
use littoral_infer::route::features::{Seen, When, names};
use littoral_infer::route::routing::{Coming, First, Routing};
use littoral_infer::route::rule::{Asked, Policy, PolicyText, Rule};
use littoral_infer::route::saved::Router;
use littoral_infer::route::score::{Example, Scorer};

/// Prompts that are longer are too hard for the small model, as far as anybody knows.
const HARD_CHARS: u64 = 60;

/// What a request says of itself.
pub(super) struct Saying {
    marked: bool,
    key: &'static str,
    text: String,
}

impl Saying {
    /// `number`: of the request. What must stay says so by a field, a key or its text, in turn.
    pub fn new(number: u64, prompt_tokens: u64, local_only: bool) -> Self {
        let text = "word ".repeat(prompt_tokens as usize);
        let free = Self { marked: false, key: "anybody", text };
        match (local_only, number % 3) {
            (false, _) => free,
            (true, 0) => Self { marked: true, ..free },
            (true, 1) => Self { key: "ward-7", ..free },
            (true, _) => Self { text: format!("{}about Patient\n Ada", free.text), ..free },
        }
    }
}

pub(super) struct Deciding {
    policy: Policy,
    routing: Routing,
}

impl Deciding {
    pub fn new() -> Self {
        let policy = PolicyText { words: vec!["patient ada".into()], keys: vec!["ward-*".into()] };
        let example = |chars: u64| {
            let mut features = vec![0.0; names(When::Before).len()];
            features[0] = libm::log1p(chars as f64);
            Example { features, worse: chars > HARD_CHARS }
        };
        let examples: Vec<Example> = (0..800).map(|n| example(5 + n % 200)).collect();
        let scorer = Scorer::fit(When::Before, &examples).expect("both kinds of examples");
        let labelled: Vec<Labelled> =
            examples.iter().map(|e| Labelled { score: scorer.score(&e.features), worse: e.worse }).collect();
        let calibration = calibrate(&labelled, &[0.9, 0.8, 0.7], 0.1, 0.1).ok();
        let router = Router { scorer, calibration, nothing: None };
        Self {
            policy: Policy::new(&policy).expect("a policy"),
            routing: Routing::new(Some(router), None, None, Prices::default()),
        }
    }

    /// Does the small model answer it, and nothing of it leave?
    pub fn stays(&mut self, saying: &Saying, linked: bool, bug: Option<Bug>) -> bool {
        let Saying { marked, key, text } = saying;
        let rule = match bug {
            Some(Bug::LetsLocalOnlyLeave) => Rule::Free,
            _ => self.policy.judge(&Asked { marked: *marked, key: Some(*key), texts: &[text.as_str()] }),
        };
        let link = Link { up: linked, model: None, drafting: None };
        let coming = Coming { rule: rule.clone(), unaskable: None, scorable: true };
        let decision = match self.routing.first(&coming, link, 0.0) {
            First::Decided(decision) => decision,
            // By its prompt alone.
            First::Try(_) => self.routing.scored(&Seen { prompt: text, answer: "", tokens: &[] }, &rule, link),
        };
        decision.place == Place::Edge
    }
}
