//! Questions about a text, in the two forms that servers have for them, and what their answers say.
//!
//! Token ids go up and come back (`prompt` as ids, `return_token_ids`), so nothing is cut into tokens twice. The probabilities of
//! two tokens are asked for at each place: where they are the same it cannot be told which one the server writes.

use super::answer::{Answer, Choice, Place};
use littoral_infer::model::Model;
use littoral_infer::speculate::echoed::Told;
use littoral_model::text::{Kind, Tokeniser};
use littoral_wire::speculation::COMMIT_TOKENS_MAX;
use serde_json::{Value, json};
use std::collections::HashMap;

/// How a server tells of a prompt's tokens.
#[derive(Debug)]
pub enum Way {
    /// `prompt_logprobs`, by ids: vLLM and this server.
    Ids,
    /// `echo` with `logprobs`, by the tokens' texts: OpenAI's first form, and SGLang. A text that several tokens have names none.
    Echo(HashMap<String, Option<u32>>),
}

/// One token more than these, or several, and their ids.
pub fn writing(model: &str, ids: &[u32], max_tokens: usize, stream: bool) -> Value {
    let mut body = json!({"model": model, "prompt": ids, "max_tokens": max_tokens, "temperature": 0});
    // A model's own defaults may have some, which what is told of a prompt knows nothing of.
    (body["presence_penalty"], body["frequency_penalty"]) = (json!(0), json!(0));
    body["return_token_ids"] = json!(true);
    body["stream"] = json!(stream);
    body
}

impl Way {
    pub fn echo(model: &Model) -> Self {
        let mut texts: HashMap<String, Option<u32>> = HashMap::new();
        for id in 0..model.tokeniser.len() as u32 {
            if let Some(text) = text(&model.tokeniser, id) {
                texts.entry(text).and_modify(|known| *known = None).or_insert(Some(id));
            }
        }
        Self::Echo(texts)
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Ids => "prompt_logprobs",
            Self::Echo(_) => "echo",
        }
    }

    /// A question about these ids.
    pub fn question(&self, model: &str, ids: &[u32]) -> Value {
        let mut body = writing(model, ids, 1, false);
        match self {
            Self::Ids => (body["prompt_logprobs"], body["repetition_penalty"]) = (json!(2), json!(1)),
            Self::Echo(_) => (body["echo"], body["logprobs"]) = (json!(true), json!(2)),
        }
        body
    }

    /// What an answer says of the ids from `from` on, at least 1, and of what follows them.
    pub fn told(&self, choice: &Choice, ids: &[u32], from: usize, tokeniser: &Tokeniser) -> Result<Told, String> {
        let places = self.places(choice, ids.len())?;
        let top = |place: &Option<Place>| self.top(place.as_ref()?);
        let tops = places.iter().take(ids.len()).skip(from).map(top).collect();
        Ok(Told { tops, ..written(choice, tokeniser)? })
    }

    /// An entry for each id.
    pub fn places<'c>(&self, choice: &'c Choice, ids: usize) -> Result<&'c [Option<Place>], String> {
        let places = match self {
            Self::Ids => choice.prompt_logprobs.as_deref(),
            Self::Echo(_) => choice.logprobs.as_ref().and_then(|told| told.top_logprobs.as_deref()),
        };
        let places = places.ok_or("it does not tell the log-probabilities of prompts")?;
        match places.len() < ids {
            true => Err(format!("it tells of {} tokens of a prompt of {ids}", places.len())),
            false => Ok(places),
        }
    }

    /// The most probable token, if there is one.
    fn top(&self, place: &Place) -> Option<u32> {
        let mut best: Option<(&str, f64)> = None;
        let mut tied = false;
        for (name, entry) in &place.0 {
            let logprob = entry.logprob?;
            match best {
                Some((_, most)) if logprob < most => {}
                Some((_, most)) if logprob == most => tied = true,
                _ => (best, tied) = (Some((name.as_str(), logprob)), false),
            }
        }
        let (name, _) = best.filter(|_| !tied)?;
        match self {
            Self::Ids => name.parse().ok(),
            Self::Echo(texts) => texts.get(name).copied().flatten(),
        }
    }
}

/// The tokens that a choice has written, and whether that is the text's end.
pub fn written(choice: &Choice, tokeniser: &Tokeniser) -> Result<Told, String> {
    let ids = choice.token_ids.as_ref().ok_or("it does not tell the ids of the tokens that it writes")?;
    if ids.len() > COMMIT_TOKENS_MAX {
        return Err(format!("at most {COMMIT_TOKENS_MAX} tokens at once expected, got {}", ids.len()));
    }
    let mut written = ids.clone();
    let ended = choice.finish_reason.as_deref() == Some("stop");
    // Another end than this model knows is no part of the text either.
    if ended && written.last().is_some_and(|&id| tokeniser.kind(id) == Kind::Control) {
        written.pop();
    }
    Ok(Told { tops: Vec::new(), written, ended })
}

/// The same of an event of a stream. The last may tell nothing but that it is the end, or count tokens.
pub fn streamed(event: &Answer, tokeniser: &Tokeniser) -> Result<Told, String> {
    let choice = &event.choice;
    let silent = choice.token_ids.is_none() && choice.text.as_deref().unwrap_or_default().is_empty();
    match silent {
        true => Ok(Told { ended: choice.finish_reason.as_deref() == Some("stop"), ..Told::default() }),
        false => written(choice, tokeniser),
    }
}

/// A token's text; `None` if it is none by itself.
pub fn text(tokeniser: &Tokeniser, id: u32) -> Option<String> {
    let mut bytes = Vec::new();
    tokeniser.bytes(id, &mut bytes);
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(way: &Way, place: Value) -> Option<u32> {
        way.top(&serde_json::from_value(place).unwrap())
    }

    #[test]
    fn the_most_probable_is_found_and_ties_are_not_guessed() {
        let entry = |logprob: f64, rank: u32| json!({"logprob": logprob, "rank": rank, "decoded_token": "x"});
        let ids = |place| top(&Way::Ids, place);
        assert_eq!(ids(json!({"7": entry(-2.0, 9), "12": entry(-0.5, 1), "3": entry(-1.0, 2)})), Some(12));
        assert_eq!(ids(json!({"7": entry(-0.5, 1), "12": entry(-0.5, 2)})), None);
        assert_eq!(ids(json!({"7": entry(-0.5, 2), "12": entry(-0.5, 2), "5": entry(-0.1, 1)})), Some(5));
        assert_eq!([ids(json!({})), ids(json!({"x": entry(0.0, 1)})), ids(json!({"7": "x"}))], [None; 3]);
        let echo = Way::Echo([("a".to_owned(), Some(4)), ("b".to_owned(), None)].into());
        assert_eq!(top(&echo, json!({"a": -0.1, "c": -3.0})), Some(4));
        // A text of several tokens, one of none.
        assert_eq!([top(&echo, json!({"b": -0.1, "a": -3.0})), top(&echo, json!({"c": -0.1, "a": -3.0}))], [None; 2]);
    }

    #[test]
    fn what_is_not_told_is_said() {
        let of = |choice: Value| {
            let choice: Choice = serde_json::from_value(choice).unwrap();
            Way::Ids.places(&choice, 2).map(<[_]>::len)
        };
        assert_eq!(of(json!({"prompt_logprobs": [null, {}]})), Ok(2));
        assert_eq!(of(json!({"prompt_logprobs": [null]})), Err("it tells of 1 tokens of a prompt of 2".into()));
        assert_eq!(of(json!({"text": "x"})), Err("it does not tell the log-probabilities of prompts".into()));
    }
}
