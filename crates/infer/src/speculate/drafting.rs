//! The drafter's side of many conversations over the engine of a small model.
//!
//! Each answer that a far machine verifies has a twin in the small engine: a sequence that follows what is committed, and
//! writes what is to be drafted. Answers that nobody verifies are sequences of the same engine, so one engine serves both.
//!
//! There may be several verifiers of one large model, numbered as the host likes: if one is lost in the middle of an answer
//! another goes on with it ([`Drafting::moved`]), and if there is none the answer's twin does, from what was committed: the
//! rest is the small model's ([`Drafting::far`] says how many tokens were whose).

use super::asked;
use super::controller::Controller;
use super::drafter::{Drafted, Drafter, Output, Over, Patience, Policy, Sources, Work};
use crate::engine::{Engine, Event, Finish, Refused, Request, SequenceId};
use littoral_tensor::pool::Pool;
use littoral_wire::Speculation;
use std::collections::BTreeMap;

/// Answers that the large model does not write any more, and of which is remembered what it wrote.
const ENDED_MAX: usize = 256;

/// Who writes an answer.
pub enum Place {
    /// The small model, here.
    Here,
    /// The large model, far away; drafts are made as the policy says.
    Far(Policy),
}

struct Session {
    drafter: Drafter,
    number: u64,
    /// Tokens of an answer for which the small model's context has room. Its twin is kept below that: one that has ended could not
    /// go on with the answer if the verifier is lost.
    room: usize,
    /// Who verifies it, and who did: from which token of the answer on.
    verifiers: Vec<(usize, usize)>,
    /// How long its answer was when its verifier had forgotten it, and how often that was so.
    forgotten: (usize, u32),
    work: Option<(Work, u64)>,
}

/// An answer of which nothing more came is begun anew so often.
const BEGUN_ANEW_MAX: u32 = 3;

impl Session {
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
        Far { tokens: end as u64, passes, parts: parts.filter(|(_, tokens)| *tokens > 0).collect() }
    }
}

/// How an answer that was verified came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Far {
    /// Tokens that the large model chose.
    pub tokens: u64,
    /// Its passes.
    pub passes: u64,
    /// Which verifier chose how many of them, one after the other.
    pub parts: Vec<(usize, u64)>,
}

pub struct Drafting {
    small: Engine,
    tokeniser: [u8; 32],
    sessions: BTreeMap<SequenceId, Session>,
    /// Of answers that have ended, or are the small model's now.
    ended: BTreeMap<SequenceId, Far>,
    /// Numbers of sessions: random from the host, so that they are new after a restart.
    next: u64,
    /// Who verifies new answers.
    verifier: usize,
    outbox: Vec<(usize, Speculation)>,
    events: Vec<Event>,
    patience: Patience,
}

impl Drafting {
    /// `first`: the number of the first session, which no earlier one had.
    pub fn new(small: Engine, first: u64, patience: Patience) -> Self {
        Self {
            tokeniser: asked::tokeniser_digest(small.model()),
            small,
            sessions: BTreeMap::new(),
            ended: BTreeMap::new(),
            next: first,
            verifier: 0,
            outbox: Vec::new(),
            events: Vec::new(),
            patience,
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.small
    }

    pub fn engine_mut(&mut self) -> &mut Engine {
        &mut self.small
    }

    /// What is to be sent, in order, where there is one verifier.
    pub fn outbox(&mut self) -> Vec<Speculation> {
        self.addressed().into_iter().map(|(_, said)| said).collect()
    }

    /// What is to be sent to which verifier, in order.
    pub fn addressed(&mut self) -> Vec<(usize, Speculation)> {
        std::mem::take(&mut self.outbox)
    }

    /// Who verifies answers that begin from now on.
    pub fn set_verifier(&mut self, verifier: usize) {
        self.verifier = verifier;
    }

    /// A verifier is lost: another, of the same large model, goes on with its answers. `learnt`: what is known of its link.
    pub fn moved(&mut self, from: usize, to: usize, learnt: Option<&Controller>, now_us: u64) {
        for id in self.of(from) {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.number = number;
            session.verifiers.push((to, session.drafter.answer().len()));
            let output = session.drafter.moved(number, learnt, now_us);
            self.take(id, output);
        }
    }

    /// Answers that this one verifies.
    fn of(&self, verifier: usize) -> Vec<SequenceId> {
        self.sessions.iter().filter(|(_, session)| session.verifier() == verifier).map(|(id, _)| *id).collect()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// As [`Engine::submit`]; far away its form cannot be demanded.
    pub fn submit(&mut self, request: Request, place: Place, now_us: u64) -> Result<SequenceId, Refused> {
        let Place::Far(policy) = place else { return self.small.submit(request) };
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
        let room = self.small.model().context().saturating_sub(twin.prompt.len());
        let id = self.small.submit(twin)?;
        self.small.pace(id, 0);
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let (drafter, output) = Drafter::new(number, told, policy, Sources::Both, self.patience, now_us);
        let verifiers = vec![(self.verifier, 0)];
        self.sessions.insert(id, Session { drafter, number, room, verifiers, forgotten: (0, 0), work: None });
        self.events.push(Event::Started { sequence: id, reused: 0 });
        self.take(id, output);
        Ok(id)
    }

    /// Nobody wants the rest.
    pub fn cancel(&mut self, id: SequenceId) {
        if let Some(mut session) = self.sessions.remove(&id) {
            let verifier = session.verifier();
            self.outbox.extend(session.drafter.close().send.into_iter().map(|said| (verifier, said)));
        }
        self.ended.remove(&id);
        self.small.cancel(id);
    }

    /// Answers that wait for the verifier or are written here.
    pub fn idle(&self) -> bool {
        self.sessions.is_empty() && self.small.idle()
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
    pub fn hear(&mut self, said: Speculation, now_us: u64) {
        self.hear_from(self.verifier, said, now_us);
    }

    /// Something came from a verifier. What another one has to say of an answer counts for nothing.
    pub fn hear_from(&mut self, verifier: usize, said: Speculation, now_us: u64) {
        let vocabulary = self.small.model().stage.config().vocabulary;
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
            return self.end(id, Finish::Failed(why));
        }
        // What is committed it chooses again; if it chooses otherwise the small model goes on, as with another verifier.
        if matches!(said, Speculation::Gone { .. }) && session.may_begin_anew() {
            session.number = self.next;
            self.next = self.next.wrapping_add(1);
            let output = session.drafter.moved(session.number, None, now_us);
            return self.take(id, output);
        }
        let output = session.drafter.hear(now_us, said);
        self.take(id, output);
    }

    /// A verifier is gone, and nobody waits for it any more.
    pub fn lost(&mut self, verifier: usize) {
        self.of(verifier).into_iter().for_each(|id| self.take_over(id));
    }

    /// There is a new link, where there is one verifier.
    pub fn reconnected(&mut self, now_us: u64) {
        self.reconnected_to(self.verifier, now_us);
    }

    /// There is a new link to a verifier.
    pub fn reconnected_to(&mut self, verifier: usize, now_us: u64) {
        for id in self.of(verifier) {
            let output = self.sessions.get_mut(&id).map(|session| session.drafter.reconnected(now_us));
            self.take(id, output.unwrap_or_default());
        }
    }

    /// When [`Self::tick`] is due.
    pub fn deadline_us(&self) -> Option<u64> {
        self.sessions.values().filter_map(|session| session.drafter.deadline_us()).min()
    }

    pub fn tick(&mut self, now_us: u64) {
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            let output = self.sessions.get_mut(&id).map(|session| session.drafter.tick(now_us));
            self.take(id, output.unwrap_or_default());
        }
    }

    /// One pass of the small model: for drafts, and for answers that are its own. False if there is nothing to do until
    /// something arrives.
    pub fn step(&mut self, pool: &Pool, now_us: &mut dyn FnMut() -> u64) -> bool {
        let begun = now_us();
        let mut without = Vec::new();
        for (id, session) in &mut self.sessions {
            let work = session.drafter.work();
            match self.small.runs(*id) {
                Some(true) => {}
                // It follows once it has a place.
                Some(false) => continue,
                None => {
                    without.push(*id);
                    continue;
                }
            }
            if work.is_some_and(|work| work.start + work.count >= session.room) {
                without.push(*id);
                continue;
            }
            if work != session.work.map(|(work, _)| work) {
                // What it has drafted goes along, as far as it is of use.
                session.work = work.map(|work| (work, begun));
                if let Some(work) = work {
                    self.small.rewrite(*id, &session.drafter.answer_from(0)[..work.start]);
                    self.small.pace(*id, work.start + work.count);
                }
            }
        }
        without.into_iter().for_each(|id| self.barren(id, begun));
        let Some(planned) = self.small.plan(usize::MAX) else { return false };
        let vectors = self.small.run(&planned, pool);
        self.small.finish(planned.number, &vectors, pool);
        let (of_twins, own): (Vec<Event>, Vec<Event>) =
            self.small.events().into_iter().partition(|event| self.sessions.contains_key(&sequence_of(event)));
        self.events.extend(own);
        self.bring(now_us());
        for event in of_twins {
            if let Event::Finished { sequence, .. } = event {
                self.barren(sequence, now_us());
            }
        }
        true
    }

    /// Its twin has nothing more to draft, for want of context for instance, and the verifier is told so.
    fn barren(&mut self, id: SequenceId, now_us: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.work = None;
        if let Some(work) = session.drafter.work() {
            let output = session.drafter.drafted(now_us, work, Vec::new(), 0);
            self.take(id, output);
        }
    }

    /// Brings drafters what is drafted.
    fn bring(&mut self, now_us: u64) {
        let mut done = Vec::new();
        for (id, _, answer) in self.small.answers() {
            let Some(Session { work: Some((work, begun)), .. }) = self.sessions.get(&id) else { continue };
            let drafted = answer.get(work.start..).unwrap_or_default();
            if drafted.len() >= work.count {
                done.push((id, *work, *begun, drafted[..work.count].to_vec()));
            }
        }
        for (id, work, begun, ids) in done {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.work = None;
            let drafted = ids.into_iter().map(|id| Drafted { id, declared: None }).collect();
            let output = session.drafter.drafted(now_us, work, drafted, now_us.saturating_sub(begun));
            self.take(id, output);
        }
    }

    /// What happened since this was last asked.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn take(&mut self, id: SequenceId, output: Output) {
        let Output { send, tokens, over } = output;
        let verifier = self.sessions.get(&id).map_or(self.verifier, Session::verifier);
        self.outbox.extend(send.into_iter().map(|said| (verifier, said)));
        for token in &tokens {
            let (token, logprob, top) = asked::chosen(token);
            self.events.push(Event::Token { sequence: id, id: token, logprob, top });
        }
        match over {
            None => {}
            Some(Over::Finished(ending)) => self.end(id, asked::finish(ending)),
            Some(Over::Lost | Over::Gone(_)) => self.take_over(id),
            // It has no place for it, or is another than the one before; nothing that it says was given out.
            Some(Over::Refused(_)) => self.take_over(id),
            Some(Over::Contradicted(_)) if self.was_moved(id) => self.take_over(id),
            Some(Over::Contradicted(at)) => {
                self.end(id, Finish::Failed(format!("the verifier took back what it had said at token {at}")));
            }
        }
    }

    fn was_moved(&self, id: SequenceId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.verifiers.len() > 1 || session.forgotten.1 > 0)
    }

    fn end(&mut self, id: SequenceId, why: Finish) {
        if let Some(session) = self.sessions.remove(&id) {
            self.outbox.push((session.verifier(), Speculation::Close { session: session.number }));
            self.remember(id, session.far());
        }
        self.small.cancel(id);
        self.events.push(Event::Finished { sequence: id, why });
    }

    /// The small model writes the rest.
    fn take_over(&mut self, id: SequenceId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.outbox.push((session.verifier(), Speculation::Close { session: session.number }));
        let (answer, far) = (session.drafter.answer(), session.far());
        let (max_tokens, ignore_end) = (session.drafter.max_tokens(), session.drafter.ignores_end());
        let top_logprobs = session.drafter.top_logprobs();
        let why = match self.small.runs(id) {
            _ if answer.len() >= session.room => Some(Finish::Context),
            Some(true) => None,
            // It begins once it has a place.
            Some(false) if answer.is_empty() => None,
            Some(false) => Some(Finish::Failed("the verifier is lost, and the small model has no place for it".into())),
            // Its context has no room for what the large one has written.
            None => Some(Finish::Context),
        };
        if let Some(why) = why {
            self.remember(id, far);
            self.small.cancel(id);
            return self.events.push(Event::Finished { sequence: id, why });
        }
        self.small.rewrite(id, answer);
        self.small.release(id, max_tokens, ignore_end, top_logprobs);
        self.remember(id, far);
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
