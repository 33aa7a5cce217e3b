//! The verifier's side of many conversations over one engine.
//!
//! Sessions are sequences of the engine like any other, so one pass verifies the rounds of many drafters and writes the
//! answers of others. A drafter is known by its key: over a new link it goes on with the sessions that it had.
//!
//! A place in the engine is for who uses it. The sequence of a drafter that has no link, or that says nothing while others wait,
//! is set aside: what is left are ids, and when the drafter goes on they are read again, which makes the same text. So a drafter
//! that dies holds nobody up, and one whose link breaks loses no token.

use super::asked;
use super::verifier::{Counted, Pass, Verifier};
use crate::engine::{Engine, Event, Request, SequenceId};
use littoral_wire::message::Reason;
use littoral_wire::speculation::{Committed, Ending, ROUND_TOKENS_MAX};
use littoral_wire::{NodeId, Speculation};
use std::collections::BTreeMap;

/// Answers of one drafter that have not ended.
const SESSIONS_MAX: usize = 64;
/// Sessions that have ended and are remembered, so that the end can be told again.
const ENDED_MAX: usize = 256;
/// A drafter that is gone, or says nothing while others wait, keeps its places so long.
const PLACE_US: u64 = 1_000_000;
/// A session that was set aside and of which nothing was heard for so long makes room for a new one of its drafter. A drafter that
/// is there says where it stands sooner than that.
const LEFT_US: u64 = 10_000_000;

/// Where a session's answer is.
enum Stand {
    /// In the engine.
    In(SequenceId),
    /// Here: what was asked, and the tokens that the verifier has.
    Aside(Box<Request>),
    /// It has ended.
    Over,
}

struct Session {
    verifier: Verifier,
    stand: Stand,
    /// When a message of it came last.
    heard_us: u64,
    /// When its drafter had a link last.
    linked_us: u64,
    /// When there was something to do for it last.
    busy_us: u64,
}

/// What a pass came to for a session.
#[derive(Default)]
struct Chosen {
    tokens: Vec<Committed>,
    /// Or why it failed.
    ended: Option<Result<Ending, String>>,
}

/// A drafter and its number for an answer.
type Key = (NodeId, u64);

pub struct Sessions {
    tokeniser: [u8; 32],
    open: BTreeMap<Key, Session>,
    of: BTreeMap<SequenceId, Key>,
    counted: Counted,
}

impl Sessions {
    pub fn new(engine: &Engine) -> Self {
        Self {
            tokeniser: asked::tokeniser_digest(engine.model()),
            open: BTreeMap::new(),
            of: BTreeMap::new(),
            counted: Counted::default(),
        }
    }

    /// Is this sequence a session's?
    pub fn has(&self, sequence: SequenceId) -> bool {
        self.of.contains_key(&sequence)
    }

    /// Sessions that are being answered.
    pub fn running(&self) -> usize {
        self.of.len()
    }

    /// Sessions whose answers have not ended: those, and those that are set aside.
    pub fn unended(&self) -> usize {
        self.open.values().filter(|session| !matches!(session.stand, Stand::Over)).count()
    }

    /// Of all sessions that have ended.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes a message of a drafter, and returns what to answer it.
    pub fn hear(&mut self, engine: &mut Engine, peer: NodeId, said: Speculation, now_us: u64) -> Vec<Speculation> {
        let Some(session) = said.session() else { return Vec::new() };
        let key = (peer, session);
        if let Some(known) = self.open.get_mut(&key) {
            (known.heard_us, known.linked_us, known.busy_us) = (now_us, now_us, now_us);
            let told = known.verifier.hear(said);
            if known.verifier.is_closed() {
                self.end(engine, key);
            }
            return told;
        }
        match said {
            Speculation::Open { request, .. } => vec![self.open(engine, key, &request, now_us)],
            Speculation::Close { .. } => Vec::new(),
            _ => vec![Speculation::Gone { session, reason: "this machine does not know the session".into() }],
        }
    }

    fn open(
        &mut self,
        engine: &mut Engine,
        key: Key,
        request: &littoral_wire::speculation::Request,
        now_us: u64,
    ) -> Speculation {
        let session = key.1;
        let refused = |reason: String| Speculation::Refused { session, reason: Reason::new(reason) };
        if request.tokeniser != self.tokeniser {
            return refused(asked::OTHER_VOCABULARY.into());
        }
        if request.drafts == littoral_wire::speculation::Drafts::Declared {
            return refused("drafts that are ids only expected, got distributions".into());
        }
        if !has_room(engine) {
            return refused("too many answers wait here already: ask again later".into());
        }
        if !self.make_room(engine, key.0, now_us) {
            return refused(format!("at most {SESSIONS_MAX} answers at once expected from one machine, got one more"));
        }
        match engine.submit(asked::hear(request)) {
            Err(why) => refused(why.to_string()),
            Ok(sequence) => {
                engine.pace(sequence, 0);
                let vocabulary = engine.model().stage.config().vocabulary;
                let verifier = Verifier::new(session, request, vocabulary, ROUND_TOKENS_MAX);
                let stand = Stand::In(sequence);
                let session = Session { verifier, stand, heard_us: now_us, linked_us: now_us, busy_us: now_us };
                self.open.insert(key, session);
                self.of.insert(sequence, key);
                Speculation::Opened { session: key.1 }
            }
        }
    }

    /// May this drafter have one more answer? One that it left behind when it died, perhaps, goes for it.
    fn make_room(&mut self, engine: &mut Engine, peer: NodeId, now_us: u64) -> bool {
        let own = || self.open.range((peer, 0)..=(peer, u64::MAX));
        let written = own().filter(|(_, session)| !matches!(session.stand, Stand::Over)).count();
        if written < SESSIONS_MAX {
            return true;
        }
        let left = |session: &Session| {
            matches!(session.stand, Stand::Aside(_)) && now_us.saturating_sub(session.heard_us) >= LEFT_US
        };
        let left = own().filter(|(_, session)| left(session)).min_by_key(|(_, session)| session.heard_us);
        let Some(key) = left.map(|(key, _)| *key) else { return false };
        self.end(engine, key);
        true
    }

    fn end(&mut self, engine: &mut Engine, key: Key) {
        if let Some(Session { verifier, stand, .. }) = self.open.remove(&key) {
            if let Stand::In(sequence) = stand {
                self.of.remove(&sequence);
                engine.cancel(sequence);
            }
            let counted = verifier.counted();
            self.counted.tokens += counted.tokens;
            self.counted.passes += counted.passes;
            self.counted.drafted += counted.drafted;
            self.counted.accepted += counted.accepted;
        }
    }

    /// There is a link to this drafter: of answers that it only listens to it need say nothing. Those that wait for it may be
    /// given up there.
    pub fn linked(&mut self, peer: NodeId, now_us: u64) {
        for (_, session) in self.open.range_mut((peer, 0)..=(peer, u64::MAX)) {
            session.linked_us = now_us;
            if !matches!(session.stand, Stand::Over) && session.verifier.streams() {
                session.heard_us = now_us;
            }
        }
    }

    /// Ends sessions of which nothing was heard for so long.
    pub fn expire(&mut self, engine: &mut Engine, before_us: u64) {
        let old: Vec<Key> =
            self.open.iter().filter(|(_, session)| session.heard_us < before_us).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.end(engine, key));
        let over = self.open.iter().filter(|(_, session)| matches!(session.stand, Stand::Over));
        let mut over: Vec<(u64, Key)> = over.map(|(key, session)| (session.heard_us, *key)).collect();
        over.sort_unstable();
        for (_, key) in over.iter().take(over.len().saturating_sub(ENDED_MAX)) {
            self.end(engine, *key);
        }
    }

    /// Before a pass: gives places to who uses them, and says what each session's sequence is to try, or that it waits.
    pub fn before(&mut self, engine: &mut Engine, now_us: u64) {
        self.set_aside(engine, now_us);
        self.take_back(engine, now_us);
        for (sequence, key) in &self.of {
            let Some(Session { verifier, busy_us, .. }) = self.open.get_mut(key) else { continue };
            // What a pass on its way tries is settled already.
            if engine.is_away(*sequence) {
                *busy_us = now_us;
                continue;
            }
            let at = verifier.answer().len();
            match verifier.next_pass() {
                Pass::Hold => engine.pace(*sequence, at),
                Pass::Plain => engine.pace(*sequence, at + 1),
                Pass::Verify { tokens, .. } => {
                    engine.propose(*sequence, at, &tokens);
                    engine.pace(*sequence, at + 1);
                }
            }
            if !engine.is_held(*sequence) {
                *busy_us = now_us;
            }
        }
    }

    /// Whose drafter is gone leaves the engine, at once if others wait; who only says nothing leaves it for those who wait.
    fn set_aside(&mut self, engine: &mut Engine, now_us: u64) {
        let mut waiting = engine.waiting();
        let mut kept = BTreeMap::new();
        for (sequence, key) in std::mem::take(&mut self.of) {
            let Some(session) = self.open.get_mut(&key) else { continue };
            let gone_us = now_us.saturating_sub(session.linked_us);
            let gone = gone_us >= PLACE_US || (gone_us > 0 && waiting > 0);
            let silent = waiting > 0 && now_us.saturating_sub(session.busy_us) >= PLACE_US;
            if !gone && !silent {
                kept.insert(sequence, key);
                continue;
            }
            if !gone {
                waiting -= 1;
            }
            if let Some(request) = engine.set_aside(sequence) {
                session.stand = Stand::Aside(Box::new(request));
            }
        }
        self.of = kept;
    }

    /// Whose drafter is there and waits for a verdict, or for a token, has a place again, or waits for one.
    fn take_back(&mut self, engine: &mut Engine, now_us: u64) {
        for (key, session) in &mut self.open {
            let Stand::Aside(request) = &session.stand else { continue };
            if session.linked_us < now_us || !has_room(engine) || session.verifier.next_pass() == Pass::Hold {
                continue;
            }
            // It was taken in once, and its answer has not ended: nothing but the room could be refused.
            if let Ok(sequence) = engine.resubmit((**request).clone(), session.verifier.answer().to_vec()) {
                (session.stand, session.busy_us) = (Stand::In(sequence), now_us);
                self.of.insert(sequence, *key);
            }
        }
    }

    /// After a pass that took so long: what is to be told to whom. Events of other sequences are left alone.
    pub fn after(&mut self, events: &[Event], pass_us: u64) -> Vec<(NodeId, Speculation)> {
        let mut chosen: BTreeMap<SequenceId, Chosen> = BTreeMap::new();
        for event in events {
            match event {
                Event::Token { sequence, id, logprob, top } if self.has(*sequence) => {
                    chosen.entry(*sequence).or_default().tokens.push(asked::committed(*id, *logprob, top));
                }
                Event::Finished { sequence, why } if self.has(*sequence) => {
                    let ended = asked::ending(why).ok_or_else(|| format!("{why:?}"));
                    chosen.entry(*sequence).or_default().ended = Some(ended);
                }
                _ => {}
            }
        }
        let mut told = Vec::new();
        for (sequence, Chosen { tokens, ended }) in chosen {
            let Some(key) = self.of.get(&sequence).copied() else { continue };
            let Some(Session { verifier, stand, .. }) = self.open.get_mut(&key) else { continue };
            let (ending, failed) = match ended {
                None => (None, None),
                Some(Ok(ending)) => (Some(ending), None),
                Some(Err(why)) => (None, Some(why)),
            };
            let pass_us = u32::try_from(pass_us).unwrap_or(u32::MAX);
            told.extend(verifier.committed(tokens, ending, pass_us).into_iter().map(|said| (key.0, said)));
            if ending.is_some() || failed.is_some() {
                self.of.remove(&sequence);
                *stand = Stand::Over;
            }
            if let Some(why) = failed {
                self.open.remove(&key);
                told.push((key.0, Speculation::Gone { session: key.1, reason: Reason::new(why) }));
            }
        }
        told
    }
}

/// Drafters leave half of the places in which requests wait to others.
fn has_room(engine: &Engine) -> bool {
    2 * engine.waiting_room() > engine.limits().waiting_max
}
