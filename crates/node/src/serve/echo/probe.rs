//! Can a server verify what is drafted here, and what would that cost?

use super::way::{self, Way};
use crate::serve::ask::Kind as Asked;
use crate::serve::upstream::{Upstream, innermost};
use futures_util::StreamExt;
use littoral_infer::model::Model;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::{Affine, Costs};
use littoral_model::text::{Kind, Tokeniser};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of an answer about a prompt of less than a hundred tokens.
const BYTES_MAX: usize = 1 << 20;
const TEXT: &str = "fn area(width: f64, height: f64) -> f64 {\n    width * height // 12, 1980\n}\nÜber";
/// Tokens from all over the vocabulary that are looked at.
const SPREAD: usize = 48;
/// Tokens that it is made to write, to see how long one takes.
const WRITTEN: usize = 12;

pub struct Found {
    pub way: Arc<Way>,
    /// Of a question, a pass and the way there and back.
    pub costs: Costs,
    /// Of a token that it writes by itself.
    pub step_s: f64,
    /// Is a chat the same text there? Or why not.
    pub chats: Result<(), String>,
}

impl Found {
    /// Before any answer.
    pub fn learnt(&self) -> Controller {
        Controller::not_along(self.costs, self.step_s)
    }
}

/// # Errors
/// Why it cannot.
pub async fn look(upstream: &Upstream, model: &Model) -> Result<Found, String> {
    let looked = tokio::time::timeout(PATIENCE, find(upstream, model)).await;
    looked.unwrap_or_else(|_| Err(format!("it did not answer a few short questions within {} s", PATIENCE.as_secs())))
}

async fn find(upstream: &Upstream, model: &Model) -> Result<Found, String> {
    let ids = ids(&model.tokeniser);
    let mut why = Vec::new();
    for way in [Way::Ids, Way::echo(model)] {
        match tell(upstream, model, &way, &ids).await {
            Ok(()) => return measure(upstream, model, way, &ids).await,
            Err(not) => why.push(format!("by `{}` {not}", way.name())),
        }
    }
    Err(format!("drafts cannot be verified there: {}", why.join("; ")))
}

/// A text, and tokens from all over the vocabulary that are texts by themselves.
fn ids(tokeniser: &Tokeniser) -> Vec<u32> {
    let mut ids = tokeniser.encode_document(TEXT, false);
    let known = |id: &u32| tokeniser.kind(*id) == Kind::Normal && way::text(tokeniser, *id).is_some();
    let all = tokeniser.len();
    let spread = (0..SPREAD).map(|at| (at * all / SPREAD) as u32);
    ids.extend(spread.filter_map(|from| (from..all as u32).take(all / SPREAD).find(known)));
    ids
}

/// Does it tell what is needed, of the tokens that are meant?
async fn tell(upstream: &Upstream, model: &Model, way: &Way, ids: &[u32]) -> Result<(), String> {
    let answer = upstream.say("completions", &way.question(&upstream.asked_for(), ids), BYTES_MAX).await?;
    way.told(&answer, ids, 1, &model.tokeniser)?;
    let places = way.places(&answer, ids.len())?;
    for (at, &id) in ids.iter().enumerate().skip(1) {
        let theirs = match way {
            Way::Ids => places[at][id.to_string()]["decoded_token"].as_str(),
            Way::Echo(_) => answer["choices"][0]["logprobs"]["tokens"][at].as_str(),
        };
        let ours = way::text(&model.tokeniser, id);
        same(id, ours.as_deref(), theirs)?;
    }
    Ok(())
}

/// Some servers show a space before a word in their own way, or not; what is no text by itself they show in any.
fn same(id: u32, ours: Option<&str>, theirs: Option<&str>) -> Result<(), String> {
    let Some(ours) = ours else { return Ok(()) };
    let Some(theirs) = theirs else { return Err(format!("it does not tell of token {id}")) };
    let shown = |text: &str| text.trim_start_matches([' ', '▁', 'Ġ']).to_owned();
    match shown(ours) == shown(theirs) {
        true => Ok(()),
        false => Err(format!("its token {id} is {theirs:?} and this model's {ours:?}: another vocabulary")),
    }
}

/// The time of a question, which reads the prompt again; of a token that it writes by itself; and what is left of the shortest
/// question without one, which is the way there and back.
async fn measure(upstream: &Upstream, model: &Model, way: Way, ids: &[u32]) -> Result<Found, String> {
    let (mut asked_s, mut shortest_s) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        let begun = Instant::now();
        upstream.say("completions", &way.question(&upstream.asked_for(), ids), BYTES_MAX).await?;
        asked_s = asked_s.min(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        upstream.say("completions", &way::writing(&upstream.asked_for(), &ids[..1], 1, false), BYTES_MAX).await?;
        shortest_s = shortest_s.min(begun.elapsed().as_secs_f64());
    }
    let body = way::writing(&upstream.asked_for(), ids, WRITTEN, true);
    let mut events = super::session::events(upstream.listen("completions", &body).await?);
    let (mut first, mut last, mut count) = (None, Instant::now(), 0);
    while let Some(event) = events.next().await {
        let told = way::streamed(&event.map_err(|why| innermost(&*why))?, &model.tokeniser);
        let told = told.map_err(|why| format!("in a stream {why}"))?;
        if !told.written.is_empty() {
            last = Instant::now();
            first = first.or(Some(last));
            count += told.written.len();
        }
    }
    let step_s = match first {
        Some(first) if count > 1 && last > first => (last - first).as_secs_f64() / (count - 1) as f64,
        // It wrote one token, or all at once.
        _ => asked_s / 2.0,
    };
    let step_s = step_s.clamp(1e-4, asked_s);
    let round_trip_s = (shortest_s - step_s).clamp(0.0, asked_s - step_s);
    let verify = Affine { fixed_s: asked_s - round_trip_s, per_token_s: step_s / 50.0 };
    let costs = Costs { verify, round_trip_s, ..Costs::GUESS };
    Ok(Found { way: Arc::new(way), costs, step_s, chats: chats(upstream, model).await })
}

/// Does its template make as many tokens of a chat as this model's?
async fn chats(upstream: &Upstream, model: &Model) -> Result<(), String> {
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm, 12?"}]);
    let body = json!({"model": upstream.asked_for(), "messages": messages, "max_tokens": 1, "temperature": 0});
    let ours = crate::serve::ask::Ask::read(Asked::Chat, body.to_string().as_bytes(), model, &upstream.asked_for());
    let ours = ours.map_err(|_| "this model has no template for chats".to_owned())?.prompt_tokens;
    let said: Value = upstream.say("chat/completions", &body, BYTES_MAX).await?;
    match said["usage"]["prompt_tokens"].as_u64() {
        Some(theirs) if theirs == ours as u64 => Ok(()),
        Some(theirs) => Err(format!("its template makes {theirs} tokens of a short chat, and this model's {ours}")),
        None => Err("it does not count the tokens of a chat".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn another_vocabulary_is_found_and_another_way_to_show_it_is_not() {
        for (ours, theirs) in [(" the", "the"), (" the", "▁the"), ("the", "the"), ("\n", "\n")] {
            assert_eq!(same(5, Some(ours), Some(theirs)), Ok(()));
        }
        assert_eq!(same(5, None, Some("\u{fffd}")), Ok(()));
        let why = "its token 5 is \"be\" and this model's \" the\": another vocabulary";
        assert_eq!(same(5, Some(" the"), Some("be")), Err(why.into()));
        assert_eq!(same(5, Some(" the"), None), Err("it does not tell of token 5".into()));
    }
}
