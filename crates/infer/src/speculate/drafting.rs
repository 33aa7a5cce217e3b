//! The drafter's side of many conversations over the engine of a small model.
//!
//! Each answer that a far machine verifies has a twin in the small engine: a sequence that follows what is committed, and
//! writes what is to be drafted. The engine is the host's, and steps as it likes, here or through layers on several machines:
//! [`Drafting::before`] says what twins are to write, [`Drafting::after`] takes what they wrote out of what happened. All else
//! that the engine does is none of this one's business: answers of its own, and drafts of others that it verifies.
//!
//! There may be several verifiers of one large model, numbered as the host likes: if one is lost in the middle of an answer
//! another goes on with it ([`Drafting::moved`]), and if there is none the answer's twin does, from what was committed: the
//! rest is the small model's ([`Drafting::far`] says how many tokens were whose).

use super::asked;
use super::controller::Controller;
use super::drafter::{Drafted, Drafter, Output, Over, Patience, Policy, Sources, Work, Yields};
use crate::engine::{Engine, Event, Finish, Refused, Request, SequenceId};
use littoral_wire::Speculation;
use std::collections::BTreeMap;

/// Answers that the large model does not write any more, and of which is remembered what it wrote.
const ENDED_MAX: usize = 256;

/// What a twin is to write.
#[derive(Clone, Copy)]
struct Given {
    work: Work,
    since_us: u64,
    /// When the twin was told; not while it waits for a place, or a pass of it is on its way.
    told_us: Option<u64>,
}

struct Session {
    drafter: Drafter,
    number: u64,
    /// Tokens that the small model had written when it was handed over.
    before: usize,
    /// Tokens of an answer for which the small model's context has room. Its twin is kept below that: one that has ended could not
    /// go on with the answer if the verifier is lost.
    room: usize,
    /// Who verifies it, and who did: from which token of the answer on.
    verifiers: Vec<(usize, usize)>,
    /// How long its answer was when its verifier had forgotten it, and how often that was so.
    forgotten: (usize, u32),
    given: Option<Given>,
    /// Why its twin is no more, if it did not come to an end by itself.
    failed: Option<String>,
}

/// Drafts that take longer are none: the small model reads a long prompt, has no place for the answer, or lacks a machine. The
/// verifier goes on by itself until there are some.
const LATE_US: u64 = 1_000_000;

/// An answer of which nothing more came is begun anew so often.
const BEGUN_ANEW_MAX: u32 = 3;

impl Session {
    fn new(drafter: Drafter, number: u64, room: usize, verifier: usize) -> Self {
        let verifiers = vec![(verifier, drafter.answer().len())];
        Self { drafter, number, before: 0, room, verifiers, forgotten: (0, 0), given: None, failed: None }
    }

    /// Its verifier does not know it, as one that was started again: may it be begun anew over there?
    fn may_begin_anew(&mut self) -> bool {
        let tokens = self.drafter.answer().len();
        let times = if self.forgotten.0 == tokens { self.forgotten.1 } else { 0 };
        self.forgotten = (tokens, times + 1);
        times < BEGUN_ANEW_MAX
    }

    fn verifier(&self) -> usize {
        self.verifiers.last().map_or(0, |(verifier, _)| *verifier)
    }

    fn far(&self) -> Far {
        let (end, passes) = (self.drafter.answer().len(), self.drafter.passes());
        let ends = self.verifiers.iter().skip(1).map(|(_, start)| *start).chain([end]);
        let parts = self.verifiers.iter().zip(ends).map(|((verifier, start), end)| (*verifier, (end - start) as u64));
        let parts = parts.filter(|(_, tokens)| *tokens > 0).collect();
        let before = self.before as u64;
        Far { before, tokens: end as u64 - before, passes, parts, yields: self.drafter.yields() }
    }
}

/// How an answer that was verified came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Far {
    /// Tokens that the small model had written before.
    pub before: u64,
    /// Tokens that the large model chose.
    pub tokens: u64,
    /// Its passes.
    pub passes: u64,
    /// Which verifier chose how many of them, one after the other.
    pub parts: Vec<(usize, u64)>,
    /// What was drafted for them here.
    pub yields: Yields,
}

/// An answer that the small model is to go on with, once no pass over its twin is on its way.
struct Left {
    answer: Vec<u32>,
    max_tokens: usize,
    ignore_end: bool,
    top_logprobs: Option<usize>,
}

pub struct Drafting {
    tokeniser: [u8; 32],
    vocabulary: usize,
    sessions: BTreeMap<SequenceId, Session>,
    left: BTreeMap<SequenceId, Left>,
    /// Of answers that have ended, or are the small model's now.
    ended: BTreeMap<SequenceId, Far>,
    /// Numbers of sessions: random from the host, so that they are new after a restart.
    next: u64,
    /// Who drafts for new answers, and who verifies them.
    sources: Sources,
    verifier: usize,
    outbox: Vec<(usize, Speculation)>,
    events: Vec<Event>,
    patience: Patience,
}

impl Drafting {
    /// `small`: the engine that all later calls are given. `first`: the number of the first session, which no earlier one had.
    pub fn new(small: &Engine, first: u64, patience: Patience) -> Self {
        Self {
            tokeniser: asked::tokeniser_digest(small.model()),
            vocabulary: small.model().stage.config().vocabulary,
            sessions: BTreeMap::new(),
            left: BTreeMap::new(),
            ended: BTreeMap::new(),
            next: first,
            sources: Sources::default(),
            verifier: 0,
            outbox: Vec::new(),
            events: Vec::new(),
            patience,
        }
    }

    /// What is to be sent, in order, where there is one verifier.
    pub fn outbox(&mut self) -> Vec<Speculation> {
        self.addressed().into_iter().map(|(_, said)| said).collect()
    }

    /// What is to be sent to which verifier, in order.
    pub fn addressed(&mut self) -> Vec<(usize, Speculation)> {
        std::mem::take(&mut self.outbox)
    }

    /// Who drafts for answers that begin from now on.
    pub fn set_sources(&mut self, sources: Sources) {
        self.sources = sources;
    }

    /// Who verifies answers that begin from now on.
    pub fn set_verifier(&mut self, verifier: usize) {
        self.verifier = verifier;
    }

    /// A verifier is lost: another, of the same large model, goes on with its answers. `learnt`: what is known of its link.
    pub fn moved(&mut self, small: &mut Engine, from: usize, to: usize, learnt: Option<&Controller>, now_us: u64) {
        for id in self.of(from) {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.number = number;
            session.verifiers.push((to, session.drafter.answer().len()));
            let output = session.drafter.moved(number, learnt, now_us);
            self.take(small, id, output);
        }
    }

    /// Answers that this one verifies.
    fn of(&self, verifier: usize) -> Vec<SequenceId> {
        self.sessions.iter().filter(|(_, session)| session.verifier() == verifier).map(|(id, _)| *id).collect()
    }

    /// Takes a request in that the large model is to answer; drafts are made as the policy says.
    ///
    /// # Errors
    /// As [`Engine::submit`]; far away its form cannot be demanded.
    pub fn submit(
        &mut self,
        small: &mut Engine,
        request: Request,
        policy: Policy,
        now_us: u64,
    ) -> Result<SequenceId, Refused> {
        if request.constraint.is_some() {
            let (expected, got) = ("none where another machine writes".into(), "one".into());
            return Err(Refused::Field { field: "constraint", expected, got });
        }
        let too_long = |over: littoral_wire::bounded::OverBound| Refused::Field {
            field: "prompt",
            expected: format!("lists of at most {}", over.maximum),
            got: over.got.to_string(),
        };
        let told = asked::tell(&request, self.tokeniser).map_err(too_long)?;
        // Its text is for the other one to end.
        let twin = Request { top_logprobs: None, ignore_end: true, max_tokens: usize::MAX, ..request };
        let room = small.model().context().saturating_sub(twin.prompt.len());
        let id = small.submit(twin)?;
        small.pace(id, 0);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (drafter, output) = Drafter::new(number, told, policy, self.sources, self.patience, now_us);
        let session = Session::new(drafter, number, room, self.verifier);
        self.sessions.insert(id, session);
        self.events.push(Event::Started { sequence: id, reused: 0 });
        self.take(small, id, output);
        Ok(id)
    }

    /// An answer of the small model's that the large one is to go on with, as one of the same model can: it chooses what is written
    /// again, and if it would have chosen otherwise the small one goes on after all. False: it cannot be asked for this one.
    pub fn hand_over(&mut self, small: &mut Engine, id: SequenceId, policy: Policy, now_us: u64) -> bool {
        if self.sessions.contains_key(&id) || self.left.contains_key(&id) {
            return false;
        }
        let Some((request, answer)) = small.follow(id) else { return false };
        let Ok(told) = asked::tell(&request, self.tokeniser) else {
            small.release(id, request.max_tokens, request.ignore_end, request.top_logprobs);
            return false;
        };
        let room = small.model().context().saturating_sub(request.prompt.len());
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (sources, patience) = (self.sources, self.patience);
        let (drafter, output) = Drafter::going_on(number, told, policy, sources, patience, &answer, now_us);
        let session = Session { before: answer.len(), ..Session::new(drafter, number, room, self.verifier) };
        self.sessions.insert(id, session);
        self.take(small, id, output);
        true
    }

    /// Nobody wants the rest of an answer, whoever writes it.
    pub fn cancel(&mut self, small: &mut Engine, id: SequenceId) {
        if let Some(mut session) = self.sessions.remove(&id) {
            let verifier = session.verifier();
            self.outbox.extend(session.drafter.close().send.into_iter().map(|said| (verifier, said)));
        }
        self.ended.remove(&id);
        self.left.remove(&id);
        small.cancel(id);
    }

    /// Does no answer wait for a verifier, or for what it has become here to begin?
    pub fn idle(&self) -> bool {
        self.sessions.is_empty() && self.left.is_empty()
    }

    /// How an answer that the large model writes, or wrote, stands; `None`: it is the small one's.
    pub fn far(&self, id: SequenceId) -> Option<Far> {
        self.sessions.get(&id).map(Session::far).or_else(|| self.ended.get(&id).cloned())
    }

    /// Nobody will ask how this answer came about.
    pub fn forget(&mut self, id: SequenceId) {
        self.ended.remove(&id);
    }

    /// What the drafter of a session has learnt, for the next answer.
    pub fn learnt(&self, session: u64) -> Option<&Controller> {
        self.sessions.values().find(|open| open.number == session)?.drafter.controller()
    }

    /// Something came, where there is one verifier.
    pub fn hear(&mut self, small: &mut Engine, said: Speculation, now_us: u64) {
        self.hear_from(small, self.verifier, said, now_us);
    }

    /// Something came from a verifier. What another one has to say of an answer counts for nothing.
    pub fn hear_from(&mut self, small: &mut Engine, verifier: usize, said: Speculation, now_us: u64) {
        let vocabulary = self.vocabulary;
        let found = self.sessions.iter_mut().find(|(_, session)| Some(session.number) == said.session());
        let found = found.filter(|(_, session)| session.verifier() == verifier);
        let Some((id, session)) = found else {
            // One that was given up while there was no link goes on over there for nobody.
            if let Speculation::Commit { session, .. } | Speculation::Opened { session } = said {
                self.outbox.push((verifier, Speculation::Close { session }));
            }
            return;
        };
        // Weights may have more ids than the vocabulary, and the large model's more than the small one's.
        let foreign = match &said {
            Speculation::Commit { tokens, .. } => tokens.iter().find(|token| token.id as usize >= vocabulary),
            _ => None,
        };
        let id = *id;
        if let Some(token) = foreign {
            let why = format!("token ids below {vocabulary} expected from the verifier, got {}", token.id);
            return self.end(small, id, Finish::Failed(why));
        }
        // What is committed it chooses again; if it chooses otherwise the small model goes on, as with another verifier.
        if matches!(said, Speculation::Gone { .. }) && session.may_begin_anew() {
            session.number = self.next;
            self.next = self.next.wrapping_add(1);
            let output = session.drafter.moved(session.number, None, now_us);
            return self.take(small, id, output);
        }
        let output = session.drafter.hear(now_us, said);
        self.take(small, id, output);
    }

    /// A verifier is gone, and nobody waits for it any more.
    pub fn lost(&mut self, small: &mut Engine, verifier: usize) {
        self.of(verifier).into_iter().for_each(|id| self.take_over(small, id));
    }

    /// There is a new link, where there is one verifier.
    pub fn reconnected(&mut self, small: &mut Engine, now_us: u64) {
        self.reconnected_to(small, self.verifier, now_us);
    }

    /// There is a new link to a verifier.
    pub fn reconnected_to(&mut self, small: &mut Engine, verifier: usize, now_us: u64) {
        for id in self.of(verifier) {
            let output = self.sessions.get_mut(&id).map(|session| session.drafter.reconnected(now_us));
            self.take(small, id, output.unwrap_or_default());
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline_us(&self) -> Option<u64> {
        self.sessions.values().filter_map(|session| session.drafter.deadline_us()).min()
    }

    pub fn tick(&mut self, small: &mut Engine, now_us: u64) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let output = self.sessions.get_mut(&id).map(|session| session.drafter.tick(now_us));
            self.take(small, id, output.unwrap_or_default());
        }
    }

    /// Before a pass: what each twin is to write. Twins of which a pass is on its way are left alone: they can be told when it is
    /// back.
    pub fn before(&mut self, small: &mut Engine, now_us: u64) {
        self.settle(small);
        let mut without = Vec::new();
        for (id, session) in &mut self.sessions {
            let work = session.drafter.work();
            if work != session.given.map(|given| given.work) {
                session.given = work.map(|work| Given { work, since_us: now_us, told_us: None });
            }
            let runs = small.runs(*id);
            let Some(given) = session.given.as_mut().filter(|_| runs.is_some()) else {
                without.extend(runs.is_none().then_some(*id));
                continue;
            };
            let Given { work, since_us, told_us } = *given;
            if work.start + work.count >= session.room || now_us.saturating_sub(since_us) > LATE_US {
                without.push(*id);
            } else if told_us.is_none() && runs == Some(true) && !small.is_away(*id) {
                // What it has drafted goes along, as far as it is of use.
                given.told_us = Some(now_us);
                small.rewrite(*id, &session.drafter.answer_from(0)[..work.start]);
                small.pace(*id, work.start + work.count);
            }
        }
        without.into_iter().for_each(|id| self.barren(small, id, now_us));
    }

    /// After a pass, or while some are on their way: takes what happened in the engine. Returns what happened to answers, in its order:
    /// to those that are verified, and what is not of twins.
    pub fn after(&mut self, small: &mut Engine, events: Vec<Event>, now_us: u64) -> Vec<Event> {
        // What was heard of an answer comes before what the small model has gone on with meanwhile.
        let mut told = self.events();
        let is_twin = |id| self.sessions.contains_key(&id) || self.left.contains_key(&id);
        let (of_twins, others): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| is_twin(sequence_of(event)));
        told.extend(others);
        self.bring(small, now_us);
        for event in of_twins {
            let Event::Finished { sequence, why } = event else { continue };
            if let Some(Left { .. }) = self.left.remove(&sequence) {
                self.events.push(Event::Finished { sequence, why });
                continue;
            }
            if let (Some(session), Finish::Failed(why)) = (self.sessions.get_mut(&sequence), why) {
                session.failed = Some(why);
            }
            self.barren(small, sequence, now_us);
        }
        told.extend(self.events());
        told
    }

    /// Its twin has nothing more to draft, for want of context for instance, and the verifier is told so.
    fn barren(&mut self, small: &mut Engine, id: SequenceId, now_us: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.given = None;
        if let Some(work) = session.drafter.work() {
            let output = session.drafter.drafted(now_us, work, Vec::new(), 0);
            self.take(small, id, output);
        }
    }

    /// Brings drafters what is drafted.
    fn bring(&mut self, small: &mut Engine, now_us: u64) {
        let mut done = Vec::new();
        for (id, _, answer) in small.answers() {
            let given = self.sessions.get(&id).and_then(|session| session.given);
            let Some(Given { work, told_us: Some(told_us), .. }) = given else { continue };
            let drafted = answer.get(work.start..).unwrap_or_default();
            if drafted.len() >= work.count {
                done.push((id, work, told_us, drafted[..work.count].to_vec()));
            }
        }
        for (id, work, told_us, ids) in done {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.given = None;
            let drafted = ids.into_iter().map(|id| Drafted { id, declared: None }).collect();
            let output = session.drafter.drafted(now_us, work, drafted, now_us.saturating_sub(told_us));
            self.take(small, id, output);
        }
    }

    /// What happened to answers that are verified since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn take(&mut self, small: &mut Engine, id: SequenceId, output: Output) {
        let Output { send, tokens, over } = output;
        let verifier = self.sessions.get(&id).map_or(self.verifier, Session::verifier);
        self.outbox.extend(send.into_iter().map(|said| (verifier, said)));
        for token in &tokens {
            let (token, logprob, top) = asked::chosen(token);
            self.events.push(Event::Token { sequence: id, id: token, logprob, top });
        }
        match over {
            None => {}
            Some(Over::Finished(ending)) => self.end(small, id, asked::finish(ending)),
            Some(Over::Lost | Over::Gone(_)) => self.take_over(small, id),
            // It has no place for it, or is another than the one before; nothing that it says was given out.
            Some(Over::Refused(_)) => self.take_over(small, id),
            Some(Over::Contradicted(_)) if self.was_moved(id) => self.take_over(small, id),
            Some(Over::Contradicted(at)) => {
                let why = format!("the verifier took back what it had said at token {at}");
                self.end(small, id, Finish::Failed(why));
            }
        }
    }

    fn was_moved(&self, id: SequenceId) -> bool {
        let moved = |session: &Session| session.verifiers.len() > 1 || session.forgotten.1 > 0 || session.before > 0;
        self.sessions.get(&id).is_some_and(moved)
    }

    fn end(&mut self, small: &mut Engine, id: SequenceId, why: Finish) {
        if let Some(session) = self.sessions.remove(&id) {
            self.outbox.push((session.verifier(), Speculation::Close { session: session.number }));
            self.remember(id, session.far());
        }
        small.cancel(id);
        self.events.push(Event::Finished { sequence: id, why });
    }

    /// The small model writes the rest.
    fn take_over(&mut self, small: &mut Engine, id: SequenceId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.outbox.push((session.verifier(), Speculation::Close { session: session.number }));
        let answer = session.drafter.answer();
        self.remember(id, session.far());
        let why = match (small.runs(id), session.failed) {
            _ if answer.len() >= session.room => Some(Finish::Context),
            // It goes on once it has a place.
            (Some(_), _) => None,
            (None, Some(why)) => Some(Finish::Failed(format!("the verifier is lost, and the model here: {why}"))),
            // Its context has no room for what the large one has written.
            (None, None) => Some(Finish::Context),
        };
        if let Some(why) = why {
            small.cancel(id);
            return self.events.push(Event::Finished { sequence: id, why });
        }
        let left = Left {
            answer: answer.to_vec(),
            max_tokens: session.drafter.max_tokens(),
            ignore_end: session.drafter.ignores_end(),
            top_logprobs: session.drafter.top_logprobs(),
        };
        self.left.insert(id, left);
        self.settle(small);
    }

    /// Answers that have become the small model's begin.
    fn settle(&mut self, small: &mut Engine) {
        let back: Vec<(SequenceId, Left)> = self.left.extract_if(.., |id, _| !small.is_away(*id)).collect();
        for (id, left) in back {
            let Left { answer, max_tokens, ignore_end, top_logprobs } = left;
            small.rewrite(id, &answer);
            small.release(id, max_tokens, ignore_end, top_logprobs);
        }
    }

    fn remember(&mut self, id: SequenceId, far: Far) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_first();
        }
        self.ended.insert(id, far);
    }
}

fn sequence_of(event: &Event) -> SequenceId {
    match event {
        Event::Started { sequence, .. }
        | Event::Token { sequence, .. }
        | Event::Tried { sequence, .. }
        | Event::Embedded { sequence, .. }
        | Event::Finished { sequence, .. } => *sequence,
    }
}
