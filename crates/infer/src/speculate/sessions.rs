//! The verifier's side of many conversations over one engine.
//!
//! Sessions are sequences of the engine like any other, so one pass verifies the rounds of many drafters and writes the
//! answers of others. A drafter is known by its key: over a new link it goes on with the sessions that it had.

use super::asked;
use super::verifier::{Counted, Pass, Verifier};
use crate::engine::{Engine, Event, SequenceId};
use littoral_wire::message::Reason;
use littoral_wire::speculation::{Committed, Ending, ROUND_TOKENS_MAX};
use littoral_wire::{NodeId, Speculation};
use std::collections::BTreeMap;

/// Sessions of one drafter.
const SESSIONS_MAX: usize = 64;
/// Sessions that have ended and are remembered, so that the end can be told again.
const ENDED_MAX: usize = 256;

struct Session {
    verifier: Verifier,
    sequence: SequenceId,
    /// When a message of it came last.
    heard_us: u64,
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

    /// Of all sessions that have ended.
    pub fn counted(&self) -> Counted {
        self.counted
    }

    /// Takes a message of a drafter, and returns what to answer it.
    pub fn hear(&mut self, engine: &mut Engine, peer: NodeId, said: Speculation, now_us: u64) -> Vec<Speculation> {
        let Some(session) = said.session() else { return Vec::new() };
        let key = (peer, session);
        if let Some(known) = self.open.get_mut(&key) {
            known.heard_us = now_us;
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
            return refused("a draft model with the vocabulary of the large one expected, got another".into());
        }
        if request.drafts == littoral_wire::speculation::Drafts::Declared {
            return refused("drafts that are ids only expected, got distributions".into());
        }
        self.make_room(engine, key.0);
        match engine.submit(asked::hear(request)) {
            Err(why) => refused(why.to_string()),
            Ok(sequence) => {
                engine.pace(sequence, 0);
                let vocabulary = engine.model().stage.config().vocabulary;
                let verifier = Verifier::new(session, request, vocabulary, ROUND_TOKENS_MAX);
                self.open.insert(key, Session { verifier, sequence, heard_us: now_us });
                self.of.insert(sequence, key);
                Speculation::Opened { session }
            }
        }
    }

    /// The session of this drafter that was silent longest goes, if it has too many.
    fn make_room(&mut self, engine: &mut Engine, peer: NodeId) {
        let own = || self.open.range((peer, 0)..=(peer, u64::MAX));
        if own().count() < SESSIONS_MAX {
            return;
        }
        if let Some(key) = own().min_by_key(|(_, session)| session.heard_us).map(|(key, _)| *key) {
            self.end(engine, key);
        }
    }

    fn end(&mut self, engine: &mut Engine, key: Key) {
        if let Some(Session { verifier, sequence, .. }) = self.open.remove(&key) {
            if self.of.remove(&sequence).is_some() {
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
        let of = &self.of;
        let open = self.open.range_mut((peer, 0)..=(peer, u64::MAX)).map(|(_, session)| session);
        open.filter(|session| of.contains_key(&session.sequence) && session.verifier.streams())
            .for_each(|session| session.heard_us = now_us);
    }

    /// Ends sessions of which nothing was heard for so long.
    pub fn expire(&mut self, engine: &mut Engine, before_us: u64) {
        let old: Vec<Key> =
            self.open.iter().filter(|(_, session)| session.heard_us < before_us).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.end(engine, key));
        let ended: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, session)| !self.of.contains_key(&session.sequence))
            .map(|(key, _)| *key)
            .collect();
        for key in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            self.end(engine, *key);
        }
    }

    /// Before a pass: says what each session's sequence is to try, or that it waits.
    pub fn before(&mut self, engine: &mut Engine) {
        for (sequence, key) in &self.of {
            let Some(Session { verifier, .. }) = self.open.get_mut(key) else { continue };
            // What a pass on its way tries is settled already.
            if engine.is_away(*sequence) {
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
            let Some(Session { verifier, .. }) = self.open.get_mut(&key) else { continue };
            let (ending, failed) = match ended {
                None => (None, None),
                Some(Ok(ending)) => (Some(ending), None),
                Some(Err(why)) => (None, Some(why)),
            };
            let pass_us = u32::try_from(pass_us).unwrap_or(u32::MAX);
            told.extend(verifier.committed(tokens, ending, pass_us).into_iter().map(|said| (key.0, said)));
            if ending.is_some() || failed.is_some() {
                self.of.remove(&sequence);
            }
            if let Some(why) = failed {
                self.open.remove(&key);
                told.push((key.0, Speculation::Gone { session: key.1, reason: Reason::new(why) }));
            }
        }
        told
    }
}
