//! Can a server verify what is drafted here, and what would that cost?

use super::answer::{self, Answer};
use super::way::{self, Way};
use crate::serve::ask::Kind as Asked;
use crate::serve::upstream::{Unanswered, Upstream, shown};
use futures_util::StreamExt;
use littoral_infer::model::Model;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::{Affine, Costs};
use littoral_model::text::{Kind, Tokeniser};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
const TEXT: &str = "fn area(width: f64, height: f64) -> f64 {\n    width * height // 12, 1980\n}\nÜber";
/// Tokens from all over the vocabulary that are looked at.
const SPREAD: usize = 48;
/// Tokens that it is made to write, to see how long one takes.
const WRITTEN: usize = 12;

/// Of the places of the text, those at which another model may be seen to say something else: rounding, and a draw of two tokens
/// there, make few.
const CHANGED_SHARE: f64 = 0.25;

pub struct Found {
    pub way: Arc<Way>,
    /// Who was looked at.
    pub who: Who,
    /// How long a question took for each of its ids.
    pub id_s: f64,
    /// Of a question, a pass and the way there and back.
    pub costs: Costs,
    /// Of a token that it writes by itself.
    pub step_s: f64,
    /// Is a chat the same text there? Or why not.
    pub chats: Result<(), String>,
}

/// A model behind a URL, as far as it can be told from another one.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// What it is asked for as.
    pub asked_for: String,
    /// What its answers say that they are by, if they do.
    pub answers_by: Option<String>,
    /// What it would have written at each place of the text that is looked at.
    tops: Vec<Option<u32>>,
}

impl Who {
    /// Is an answer by whom was looked at?
    pub fn wrote(&self, answer: &Answer) -> Result<(), String> {
        match (&self.answers_by, &answer.model) {
            (Some(before), Some(now)) if before != now => {
                let [before, now] = [before, now].map(|name| shown(name));
                Err(format!("another model answers there: `{now}`, and it was `{before}` when it was looked at"))
            }
            _ => Ok(()),
        }
    }

    /// Does it say what was said then? Where it is a draw nothing is known.
    fn says(&self, tops: &[Option<u32>]) -> Result<(), String> {
        let both = self.tops.iter().zip(tops).filter(|(before, now)| before.is_some() && now.is_some());
        let (all, other) =
            both.fold((0, 0), |(all, other), (before, now)| (all + 1, other + usize::from(before != now)));
        match other as f64 > f64::from(all) * CHANGED_SHARE {
            true => {
                Err(format!("another model answers there: of {all} tokens of a text it would write {other} otherwise"))
            }
            false => Ok(()),
        }
    }
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
            Ok(who) => return measure(upstream, model, way, who, &ids).await,
            Err(not) => why.push(format!("by `{}` {not}", way.name())),
        }
    }
    Err(format!("drafts cannot be verified there: {}", why.join("; ")))
}

/// Is it still the model that was looked at? One that does not answer is not another one.
pub async fn look_again(upstream: &Upstream, model: &Model, found: &Found) -> Result<(), String> {
    let ids = ids(&model.tokeniser);
    let name = &found.who.asked_for;
    let Ok(answer) = asked(upstream, &found.way.question(name, &ids), answer::bytes_max(ids.len(), true)).await else {
        return Ok(());
    };
    found.who.wrote(&answer)?;
    found.who.says(&found.way.told(&answer.choice, &ids, 1, &model.tokeniser)?.tops)
}

async fn asked(upstream: &Upstream, question: &serde_json::Value, bytes_max: usize) -> Result<Answer, String> {
    // It is asked about a text of ours: its words may be told.
    let said = upstream.say("completions", question, bytes_max, upstream.silence_max(0)).await;
    said.map_err(Unanswered::in_its_words)
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

/// Does it tell what is needed, of the tokens that are meant? And who is it?
async fn tell(upstream: &Upstream, model: &Model, way: &Way, ids: &[u32]) -> Result<Who, String> {
    let asked_for = upstream.asked_for();
    let answer = asked(upstream, &way.question(&asked_for, ids), answer::bytes_max(ids.len(), true)).await?;
    let told = way.told(&answer.choice, ids, 1, &model.tokeniser)?;
    let places = way.places(&answer.choice, ids.len())?;
    let texts = answer.choice.logprobs.as_ref().and_then(|told| told.tokens.as_deref()).unwrap_or_default();
    for (at, &id) in ids.iter().enumerate().skip(1) {
        let theirs = match way {
            Way::Ids => {
                let named = |(name, _): &&(String, _)| name.parse() == Ok(id);
                let place = places[at].as_ref().and_then(|place| place.0.iter().find(named));
                place.and_then(|(_, entry)| entry.decoded_token.as_deref())
            }
            Way::Echo(_) => texts.get(at).and_then(|text| text.as_deref()),
        };
        let ours = way::text(&model.tokeniser, id);
        same(id, ours.as_deref(), theirs)?;
    }
    Ok(Who { asked_for, answers_by: answer.model, tops: told.tops })
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
async fn measure(upstream: &Upstream, model: &Model, way: Way, who: Who, ids: &[u32]) -> Result<Found, String> {
    let (name, told) = (who.asked_for.as_str(), answer::bytes_max(ids.len(), true));
    let (mut asked_s, mut shortest_s) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..3 {
        let begun = Instant::now();
        who.wrote(&asked(upstream, &way.question(name, ids), told).await?)?;
        asked_s = asked_s.min(begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        who.wrote(&asked(upstream, &way::writing(name, &ids[..1], 1, false), answer::bytes_max(1, false)).await?)?;
        shortest_s = shortest_s.min(begun.elapsed().as_secs_f64());
    }
    let body = way::writing(name, ids, WRITTEN, true);
    let patience = upstream.silence_max(0);
    let pieces = upstream.listen("completions", &body, patience).await.map_err(Unanswered::in_its_words)?;
    let mut events = super::stream::answers(pieces, answer::bytes_max(ids.len(), false));
    let (mut first, mut last, mut count) = (None, Instant::now(), 0);
    loop {
        let event = tokio::time::timeout(patience, events.next()).await.map_err(|_| upstream.silent(patience))?;
        let Some(event) = event else { break };
        let told = way::streamed(&event.map_err(Unanswered::in_its_words)?, &model.tokeniser);
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
    let id_s = asked_s / ids.len() as f64;
    Ok(Found { way: Arc::new(way), who, id_s, costs, step_s, chats: chats(upstream, model).await })
}

/// Does its template make as many tokens of a chat as this model's?
async fn chats(upstream: &Upstream, model: &Model) -> Result<(), String> {
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hm, 12?"}]);
    let body = json!({"model": upstream.asked_for(), "messages": messages, "max_tokens": 1, "temperature": 0});
    let ours = crate::serve::ask::Ask::read(Asked::Chat, body.to_string().as_bytes(), model, &upstream.asked_for());
    let ours = ours.map_err(|_| "this model has no template for chats".to_owned())?.prompt_tokens;
    let bytes_max = answer::bytes_max(ours, false);
    let said = upstream.say("chat/completions", &body, bytes_max, upstream.silence_max(0)).await;
    let said: Answer = said.map_err(Unanswered::in_its_words)?;
    match said.usage.and_then(|usage| usage.prompt_tokens) {
        Some(theirs) if theirs == ours as u64 => Ok(()),
        Some(theirs) => Err(format!("its template makes {theirs} tokens of a short chat, and this model's {ours}")),
        None => Err("it does not count the tokens of a chat".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn another_model_is_seen_by_its_name_or_by_what_it_says() {
        let tops: Vec<Option<u32>> = (0..40).map(|at| (at % 10 != 0).then_some(at)).collect();
        let who = Who { answers_by: Some("a".into()), tops: tops.clone(), ..Who::default() };
        let wrote = |name: Option<&str>| who.wrote(&Answer { model: name.map(str::to_owned), ..Answer::default() });
        assert_eq!([wrote(Some("a")), wrote(None)], [Ok(()), Ok(())]);
        let why = "another model answers there: `b`, and it was `a` when it was looked at";
        assert_eq!(wrote(Some("b")), Err(why.into()));
        // Of the 36 places that are known nine may differ.
        let other = |count: usize| {
            let differing =
                tops.iter().enumerate().map(|(at, top)| if at <= count { top.map(|id| id + 1) } else { *top });
            who.says(&differing.collect::<Vec<_>>())
        };
        assert_eq!([other(0), other(9)], [Ok(()), Ok(())]);
        let why = "another model answers there: of 36 tokens of a text it would write 10 otherwise";
        assert_eq!(other(11), Err(why.into()));
        assert_eq!(who.says(&[None; 40]), Ok(()));
    }
}
