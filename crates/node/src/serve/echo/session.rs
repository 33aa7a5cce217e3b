//! One answer: what is drafted goes up as questions, what holds comes back as commits, or the server goes on by itself.

use super::probe::Found;
use super::way::{self, Way};
use crate::serve::upstream::{Upstream, innermost};
use axum::body::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use littoral_infer::model::Model;
use littoral_infer::speculate::echoed::{Question, Told, commit};
use littoral_infer::speculate::verifier::{Pass, Verifier};
use littoral_wire::Speculation;
use littoral_wire::speculation::{COMMIT_TOKENS_MAX, Committed, Ending, ROUND_TOKENS_MAX, Request};
use serde_json::Value;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{AbortHandle, JoinSet};

/// Questions that are asked at once while drafting does not wait.
const QUESTIONS_MAX: usize = 3;
/// Of an answer about one question: 256 bytes for a token, and a prompt of 128 thousand.
const BYTES_MAX: usize = 32 << 20;
/// Tokens that the server writes by itself before it is asked again.
const STREAM_TOKENS: usize = 512;

/// How the server is asked.
pub struct Server {
    upstream: Arc<Upstream>,
    model: Arc<Model>,
    way: Arc<Way>,
    /// A token that it writes by itself, in microseconds.
    step_us: AtomicU64,
    /// The way there and back.
    round_trip_us: u64,
}

impl Server {
    pub fn new(upstream: Arc<Upstream>, model: Arc<Model>, found: &Found) -> Self {
        let step_us = AtomicU64::new((found.step_s * 1e6) as u64);
        let round_trip_us = (found.costs.round_trip_s * 1e6) as u64;
        Self { upstream, model, way: found.way.clone(), step_us, round_trip_us }
    }

    async fn ask(&self, ids: &[u32], from: usize) -> Result<Told, String> {
        let name = self.upstream.asked_for();
        // Where nothing is drafted the prompt need not be told.
        if from == ids.len() {
            let answer = self.upstream.say("completions", &way::writing(&name, ids, 1, false), BYTES_MAX).await?;
            return way::written(&answer["choices"][0], &self.model.tokeniser);
        }
        let answer = self.upstream.say("completions", &self.way.question(&name, ids), BYTES_MAX).await?;
        self.way.told(&answer, ids, from, &self.model.tokeniser)
    }
}

type Events = BoxStream<'static, Result<Value, Box<dyn Error + Send + Sync>>>;

/// What server-sent events say, up to the end.
pub fn events(pieces: BoxStream<'static, reqwest::Result<Bytes>>) -> Events {
    let begin = (pieces, Vec::<u8>::new());
    let next = |(mut pieces, mut held): (BoxStream<'static, reqwest::Result<Bytes>>, Vec<u8>)| async move {
        loop {
            if let Some(end) = held.windows(2).position(|end| end == b"\n\n") {
                let event: Vec<u8> = held.drain(..end + 2).collect();
                let Some(said) = event.strip_prefix(b"data: ") else { continue };
                if said.starts_with(b"[DONE]") {
                    return None;
                }
                let said: Result<Value, Box<dyn Error + Send + Sync>> =
                    serde_json::from_slice(said).map_err(Into::into);
                return Some((said, (pieces, held)));
            }
            match pieces.next().await {
                None => return None,
                Some(Ok(piece)) if held.len() + piece.len() <= BYTES_MAX => held.extend_from_slice(&piece),
                Some(Ok(_)) => return Some((Err("an event that is too long".into()), (pieces, Vec::new()))),
                Some(Err(why)) => return Some((Err(why.into()), (pieces, held))),
            }
        }
    };
    stream::unfold(begin, next).boxed()
}

/// What came of a question, or of a part of a stream.
struct Heard {
    asked: Question,
    told: Result<Told, String>,
    took_us: u64,
}

pub struct Session {
    number: u64,
    server: Arc<Server>,
    prompt: Vec<u32>,
    max_tokens: usize,
    verifier: Verifier,
    questions: JoinSet<Heard>,
    asked: Vec<(Question, AbortHandle)>,
    /// The next token is not to be told from outside: the server writes it.
    alone: bool,
    stream: Option<Writing>,
    opened: bool,
}

/// The server goes on by itself.
struct Writing {
    events: BoxStream<'static, Result<Told, String>>,
    /// Tokens of it.
    tokens: usize,
    last: Option<Instant>,
}

impl Session {
    pub fn new(number: u64, request: &Request, server: Arc<Server>) -> Self {
        let vocabulary = server.model.stage.config().vocabulary;
        Self {
            number,
            prompt: request.prompt.to_vec(),
            max_tokens: request.max_tokens as usize,
            verifier: Verifier::new(number, request, vocabulary, ROUND_TOKENS_MAX),
            server,
            questions: JoinSet::new(),
            asked: Vec::new(),
            alone: false,
            stream: None,
            opened: false,
        }
    }

    /// Until the drafter hangs up, or the server cannot be asked. `tell`: to the drafter.
    pub async fn run(mut self, mut inbox: UnboundedReceiver<Speculation>, tell: impl Fn(Speculation)) {
        loop {
            let told = tokio::select! {
                said = inbox.recv() => match said {
                    None => return,
                    // It takes its time for the way there and back, which here is none: it hears of it when it asks again.
                    Some(Speculation::Open { .. }) if !std::mem::replace(&mut self.opened, true) => Ok(Vec::new()),
                    Some(said) => Ok(self.verifier.hear(said)),
                },
                Some(heard) = self.questions.join_next() => match heard {
                    Ok(heard) => self.take(heard),
                    // It is of no use any more.
                    Err(_) => Ok(Vec::new()),
                },
                told = next(&mut self.stream) => self.written(told),
            };
            let told = told.and_then(|mut told| {
                told.extend(self.go_on()?);
                Ok(told)
            });
            match told {
                Ok(told) => told.into_iter().for_each(&tell),
                Err(why) => {
                    tracing::warn!("the server above does not go on with an answer: {why}");
                    return tell(Speculation::Gone { session: self.number, reason: why.into() });
                }
            }
        }
    }

    /// What is told from an answer on.
    fn take(&mut self, Heard { asked, told, took_us }: Heard) -> Result<Vec<Speculation>, String> {
        let before = self.asked.len();
        self.asked.retain(|(other, _)| *other != asked);
        if self.asked.len() == before {
            return Ok(Vec::new());
        }
        self.commit(&asked, &told?, took_us.saturating_sub(self.server.round_trip_us))
    }

    fn commit(&mut self, asked: &Question, told: &Told, pass_us: u64) -> Result<Vec<Speculation>, String> {
        let ends = |id| self.server.model.tokeniser.ends(id);
        let Some(commit) = commit(self.verifier.answer(), asked, told, ends, self.max_tokens) else {
            return Ok(Vec::new());
        };
        let nothing = commit.tokens.is_empty() && commit.finished.is_none();
        if nothing && self.alone {
            return Err("it was made to write a token, and wrote none".into());
        }
        self.alone = nothing;
        match self.alone {
            true => Ok(Vec::new()),
            false => Ok(self.committed(commit.tokens, commit.finished, pass_us)),
        }
    }

    fn committed(&mut self, tokens: Vec<u32>, finished: Option<Ending>, pass_us: u64) -> Vec<Speculation> {
        self.verifier.next_pass();
        let tokens = tokens.into_iter().take(COMMIT_TOKENS_MAX).map(|id| Committed { id, logprobs: None }).collect();
        self.verifier.committed(tokens, finished, u32::try_from(pass_us.max(1)).unwrap_or(u32::MAX))
    }

    /// Something of a stream.
    fn written(&mut self, told: Option<Result<Told, String>>) -> Result<Vec<Speculation>, String> {
        let Some(writing) = &mut self.stream else { return Ok(Vec::new()) };
        let Some(told) = told else {
            let tokens = writing.tokens;
            self.stream = None;
            // As many as it was asked for: it is asked again.
            return if tokens > 0 { Ok(Vec::new()) } else { Err("it wrote nothing".into()) };
        };
        let told = told?;
        let now = Instant::now();
        let took = writing.last.replace(now).map(|last| (now - last).as_micros() as u64);
        writing.tokens += told.written.len();
        if told.written.is_empty() && !told.ended {
            return Ok(Vec::new());
        }
        let step_us = match took.filter(|_| !told.written.is_empty()) {
            Some(took_us) => {
                let step_us = took_us / told.written.len() as u64;
                let before = self.server.step_us.load(Relaxed);
                self.server.step_us.store((before * 15 + step_us) / 16, Relaxed);
                step_us
            }
            // The first has come a long way.
            None => self.server.step_us.load(Relaxed),
        };
        let text = self.verifier.answer().to_vec();
        self.commit(&Question { start: text.len(), text }, &told, step_us)
    }

    /// Asks what is to be asked.
    fn go_on(&mut self) -> Result<Vec<Speculation>, String> {
        let answer = self.verifier.answer();
        self.asked.retain(|(asked, task)| {
            let useful = asked.text.starts_with(answer);
            if !useful {
                task.abort();
            }
            useful
        });
        if self.verifier.finished().is_some() {
            self.stream = None;
            return Ok(Vec::new());
        }
        let (start, text) = (answer.len(), self.prompt.len() + answer.len());
        let room = self.server.upstream.context().map_or(usize::MAX, |context| context.saturating_sub(text));
        if room == 0 {
            return Ok(self.committed(Vec::new(), Some(Ending::Context), 0));
        }
        match self.verifier.next_pass() {
            Pass::Hold => self.stream = None,
            Pass::Plain if self.stream.is_none() => {
                self.questions.abort_all();
                self.asked.clear();
                self.stream = Some(self.stream(self.max_tokens.saturating_sub(start).min(STREAM_TOKENS).min(room)));
            }
            Pass::Plain => {}
            Pass::Verify { tokens, .. } => {
                self.stream = None;
                let drafted = if self.alone { 0 } else { tokens.len().min(room - 1) };
                let text = [self.verifier.answer(), &tokens[..drafted]].concat();
                let covered = self.asked.iter().any(|(asked, _)| asked.text.len() >= text.len());
                if !covered && self.asked.len() < QUESTIONS_MAX {
                    self.ask(Question { start, text });
                }
            }
        }
        Ok(Vec::new())
    }

    fn ask(&mut self, asked: Question) {
        let ids = [&self.prompt[..], &asked.text].concat();
        let (server, from, question) = (self.server.clone(), self.prompt.len() + asked.start, asked.clone());
        let task = self.questions.spawn(async move {
            let begun = Instant::now();
            let told = server.ask(&ids, from).await;
            Heard { asked: question, told, took_us: begun.elapsed().as_micros() as u64 }
        });
        self.asked.push((asked, task));
    }

    fn stream(&self, max_tokens: usize) -> Writing {
        let ids = [&self.prompt[..], self.verifier.answer()].concat();
        let server = self.server.clone();
        let opening = async move {
            let body = way::writing(&server.upstream.asked_for(), &ids, max_tokens, true);
            match server.upstream.listen("completions", &body).await {
                Ok(pieces) => told_by(events(pieces), server.model.clone()).boxed(),
                Err(why) => stream::once(async { Err(why) }).boxed(),
            }
        };
        Writing { events: stream::once(opening).flatten().boxed(), tokens: 0, last: None }
    }
}

fn told_by(events: Events, model: Arc<Model>) -> impl Stream<Item = Result<Told, String>> {
    events.map(move |event| {
        let event = event.map_err(|why| innermost(&*why))?;
        if let Some(why) = event["error"]["message"].as_str() {
            return Err(why.chars().take(200).collect());
        }
        way::streamed(&event, &model.tokeniser)
    })
}

/// Waits for ever where nothing is written.
async fn next(writing: &mut Option<Writing>) -> Option<Result<Told, String>> {
    match writing {
        Some(writing) => writing.events.next().await,
        None => std::future::pending().await,
    }
}
