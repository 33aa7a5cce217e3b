//! What a server answers to a question about a text: as much of it as is used, and no more than was asked for.

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// Of an answer that tells of no token.
const FIXED_BYTES: usize = 64 << 10;
/// Of a token of the prompt that is repeated as an id.
const ID_BYTES: usize = 16;
/// Of a token whose place is told: three entries with a text, a number of 20 digits and a rank have 350.
const PLACE_BYTES: usize = 512;
/// Two tokens are asked for at each place, and the text's own is told beside them; some servers tell a few more.
const ENTRIES_MAX: usize = 8;

/// Bytes of an answer to a question about so many ids, of whose places it tells, or not.
pub fn bytes_max(ids: usize, told: bool) -> usize {
    FIXED_BYTES + ids.saturating_mul(if told { PLACE_BYTES } else { ID_BYTES })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Who it is by, as the server calls it.
    pub model: Option<String>,
    /// The first; the default if there is none, as where a stream counts its tokens.
    #[serde(rename = "choices", deserialize_with = "first")]
    pub choice: Choice,
    pub error: Option<crate::serve::upstream::list::Words>,
    pub usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
pub struct Usage {
    pub prompt_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Choice {
    pub token_ids: Option<Vec<u32>>,
    pub text: Option<String>,
    pub finish_reason: Option<String>,
    pub prompt_logprobs: Option<Vec<Option<Place>>>,
    pub logprobs: Option<Logprobs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Logprobs {
    pub tokens: Option<Vec<Option<String>>>,
    pub top_logprobs: Option<Vec<Option<Place>>>,
}

/// The most probable tokens at a place: by id, or by text.
#[derive(Debug, Default)]
pub struct Place(pub Vec<(String, Entry)>);

#[derive(Debug, Default, PartialEq)]
pub struct Entry {
    pub logprob: Option<f64>,
    pub decoded_token: Option<String>,
}

fn first<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Choice, D::Error> {
    struct First;

    impl<'de> Visitor<'de> for First {
        type Value = Choice;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            write!(f, "a list of choices")
        }

        fn visit_unit<E: Error>(self) -> Result<Choice, E> {
            Ok(Choice::default())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut choices: A) -> Result<Choice, A::Error> {
            let first = choices.next_element()?.unwrap_or_default();
            while choices.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    deserializer.deserialize_any(First)
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Place;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "at most {ENTRIES_MAX} tokens at a place")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Place, A::Error> {
                let mut place = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    if place.len() == ENTRIES_MAX {
                        return Err(A::Error::invalid_length(ENTRIES_MAX + 1, &self));
                    }
                    place.push(entry);
                }
                Ok(Place(place))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// A number, or an object with it; anything else tells nothing.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a log-probability")
            }

            fn visit_f64<E: Error>(self, logprob: f64) -> Result<Entry, E> {
                Ok(Entry { logprob: Some(logprob), decoded_token: None })
            }

            fn visit_i64<E: Error>(self, logprob: i64) -> Result<Entry, E> {
                self.visit_f64(logprob as f64)
            }

            fn visit_u64<E: Error>(self, logprob: u64) -> Result<Entry, E> {
                self.visit_f64(logprob as f64)
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Entry, E> {
                Ok(Entry::default())
            }

            fn visit_unit<E: Error>(self) -> Result<Entry, E> {
                Ok(Entry::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Entry, A::Error> {
                let mut entry = Entry::default();
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "logprob" => entry.logprob = fields.next_value()?,
                        "decoded_token" => entry.decoded_token = fields.next_value()?,
                        _ => drop(fields.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(entry)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As vLLM 0.10 writes it for two log-probabilities, with the widest numbers and a text of escapes.
    #[test]
    fn what_servers_tell_is_within_its_bound() {
        let entry = |id: u32| {
            let text = "\u{1}\u{2}\u{3}\u{4}";
            format!("\"{id}\": {}", json!({"logprob": -12.345678329467773, "rank": 151_643, "decoded_token": text}))
        };
        let place = format!("{{{}, {}, {}}}", entry(151_641), entry(151_642), entry(151_643));
        let told = |ids: usize| {
            let (places, ids) = (vec![&place[..]; ids].join(", "), vec!["151643"; ids].join(", "));
            format!("{{\"choices\": [{{\"prompt_logprobs\": [{places}], \"prompt_token_ids\": [{ids}]}}]}}")
        };
        for ids in [1, 4_000] {
            let text = told(ids);
            assert!(text.len() <= bytes_max(ids, true), "{} bytes for {ids} ids", text.len());
            let answer: Answer = serde_json::from_str(&text).unwrap();
            let places = answer.choice.prompt_logprobs.unwrap();
            let decoded = places[0].as_ref().unwrap().0[2].1.decoded_token.as_deref();
            assert_eq!((places.len(), decoded), (ids, Some("\u{1}\u{2}\u{3}\u{4}")));
        }
    }

    #[test]
    fn more_than_was_asked_for_is_refused_and_what_is_not_used_is_not_kept() {
        let place = |entries: usize| {
            let entries: Vec<String> = (0..entries).map(|id| format!("\"{id}\": -1")).collect();
            let text = format!("{{\"choices\": [{{\"prompt_logprobs\": [null, {{{}}}]}}]}}", entries.join(", "));
            serde_json::from_str::<Answer>(&text).map_err(|why| why.to_string())
        };
        assert_eq!(place(8).unwrap().choice.prompt_logprobs.unwrap()[1].as_ref().unwrap().0.len(), 8);
        let why = place(9).unwrap_err();
        assert!(why.starts_with("invalid length 9, expected at most 8 tokens at a place"), "{why}");
        let odd =
            json!({"choices": [{"text": "a"}, 7, [[]]], "x": [[[1]]], "usage": {"prompt_tokens": 3}, "error": null});
        let odd: Answer = serde_json::from_value(odd).unwrap();
        assert_eq!((odd.choice.text.as_deref(), odd.usage.unwrap().prompt_tokens), (Some("a"), Some(3)));
        for nothing in [json!({}), json!({"choices": []}), json!({"choices": null})] {
            let answer: Answer = serde_json::from_value(nothing).unwrap();
            assert!(answer.choice.token_ids.is_none() && answer.model.is_none());
        }
        assert!(serde_json::from_value::<Answer>(json!({"choices": [{"token_ids": [-1]}]})).is_err());
    }
}
