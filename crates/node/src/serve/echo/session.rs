//! One answer: what is drafted goes up as questions, what holds comes back as commits, or the server goes on by itself.

use super::answer::{self, Answer};
use super::probe::{Found, Who};
use super::stream::answers;
use super::way::{self, Way};
use crate::serve::upstream::{Unanswered, Upstream};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use littoral_infer::model::Model;
use littoral_infer::speculate::echoed::{Question, Told, commit};
use littoral_infer::speculate::verifier::{Pass, Verifier};
use littoral_wire::Speculation;
use littoral_wire::speculation::{COMMIT_TOKENS_MAX, Committed, Ending, ROUND_TOKENS_MAX, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Questions that are asked at once while drafting does not wait.
const QUESTIONS_MAX: usize = 3;
/// A question may take so many times as long, for each of its ids, as a short one took when the server was looked at.
const SLOWER: f64 = 4.0;
/// Tokens that the server writes by itself before it is asked again.
const STREAM_TOKENS: usize = 512;

/// How the server is asked.
pub struct Server {
    upstream: Arc<Upstream>,
    model: Arc<Model>,
    way: Arc<Way>,
    who: Who,
    /// Why it is not the one that was looked at any more.
    changed: watch::Sender<Option<String>>,
    /// Of a question for each id.
    id_s: f64,
    /// A token that it writes by itself, in microseconds.
    step_us: AtomicU64,
    /// The way there and back.
    round_trip_us: u64,
}

impl Server {
    pub fn new(upstream: Arc<Upstream>, model: Arc<Model>, found: &Found) -> Self {
        let step_us = AtomicU64::new((found.step_s * 1e6) as u64);
        let round_trip_us = (found.costs.round_trip_s * 1e6) as u64;
        let (way, who, changed) = (found.way.clone(), found.who.clone(), watch::Sender::new(None));
        Self { upstream, model, way, who, changed, id_s: found.id_s, step_us, round_trip_us }
    }

    /// Tells why somebody else answers there than was looked at.
    pub fn changed(&self) -> watch::Receiver<Option<String>> {
        self.changed.subscribe()
    }

    /// What another one says is of no use.
    fn by_the_same(&self, answer: Answer) -> Result<Answer, String> {
        self.who.wrote(&answer).inspect_err(|why| drop(self.changed.send_replace(Some(why.clone()))))?;
        Ok(answer)
    }

    fn patience(&self, ids: usize) -> Duration {
        let reading = Duration::try_from_secs_f64(SLOWER * self.id_s * ids as f64).unwrap_or(Duration::MAX);
        let [short, long] = [0, usize::MAX].map(|bytes| self.upstream.silence_max(bytes));
        short.saturating_add(reading).min(long)
    }

    async fn ask(&self, ids: &[u32], from: usize) -> Result<Told, String> {
        // Where nothing is drafted the prompt need not be told.
        let drafted = from < ids.len();
        let name = &self.who.asked_for;
        let question = if drafted { self.way.question(name, ids) } else { way::writing(name, ids, 1, false) };
        let (bytes_max, patience) = (answer::bytes_max(ids.len(), drafted), self.patience(ids.len()));
        let said = self.upstream.say("completions", &question, bytes_max, patience).await;
        let answer = self.by_the_same(said.map_err(|why| why.to_string())?)?;
        match drafted {
            true => self.way.told(&answer.choice, ids, from, &self.model.tokeniser),
            false => way::written(&answer.choice, &self.model.tokeniser),
        }
    }
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
    /// How long it may be silent.
    patience: Duration,
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
                told = Self::next(&mut self.stream, &self.server) => self.written(told),
            };
            let told = told.and_then(|mut told| {
                told.extend(self.go_on()?);
                Ok(told)
            });
            match told {
                Ok(told) => told.into_iter().for_each(&tell),
                Err(why) => {
                    tracing::warn!("the server above does not go on with an answer: {why}");
                    return tell(Speculation::Refused { session: self.number, reason: why.into() });
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
        let patience = server.patience(ids.len());
        let opening = async move {
            let body = way::writing(&server.who.asked_for, &ids, max_tokens, true);
            let pieces = match server.upstream.listen("completions", &body, patience).await {
                Ok(pieces) => pieces,
                Err(why) => return stream::once(async move { Err(why.to_string()) }).boxed(),
            };
            let told = move |answer: Result<Answer, Unanswered>| {
                way::streamed(&server.by_the_same(answer.map_err(|why| why.to_string())?)?, &server.model.tokeniser)
            };
            answers(pieces, answer::bytes_max(ids.len(), false)).map(told).boxed()
        };
        Writing { events: stream::once(opening).flatten().boxed(), tokens: 0, last: None, patience }
    }

    /// Something of a stream; waits for ever where nothing is written.
    async fn next(writing: &mut Option<Writing>, server: &Server) -> Option<Result<Told, String>> {
        let Some(Writing { events, patience, .. }) = writing else { return std::future::pending().await };
        let next = tokio::time::timeout(*patience, events.next()).await;
        next.unwrap_or_else(|_| Some(Err(server.upstream.silent(*patience))))
    }
}
