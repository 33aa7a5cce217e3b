//! Pulling an object chunk by chunk over a link, and starting again where an earlier try stopped.
//!
//! The receiver asks; so it decides how much is in flight, and that bounds its memory. A request that is not answered
//! within [`RETRY_MS`] is made again.

use super::{Effect, LinkId, Millis};
use bytes::Bytes;
use littoral_wire::object::Manifest;
use littoral_wire::{Message, ObjectId};
use std::collections::BTreeMap;

/// An unanswered request is repeated after this time.
pub const RETRY_MS: u64 = 4_000;

/// An object on its way.
#[derive(Debug)]
pub struct Fetch {
    object: ObjectId,
    manifest: Manifest,
    /// Where to ask; none while the source is away.
    source: Option<LinkId>,
    /// Chunks not asked for yet, descending, so that `pop` gives the first.
    missing: Vec<u32>,
    /// Asked for, and when.
    asked: BTreeMap<u32, Millis>,
    /// Arrived, and being written.
    writing: usize,
    window: usize,
    begun: bool,
}

impl Fetch {
    /// `window`: chunks in flight at most, at least 1.
    pub fn begin(manifest: Manifest, source: LinkId, window: usize, effects: &mut Vec<Effect>) -> Self {
        effects.push(Effect::Begin(manifest.clone()));
        Self {
            object: manifest.id(),
            manifest,
            source: Some(source),
            missing: Vec::new(),
            asked: BTreeMap::new(),
            writing: 0,
            window: window.max(1),
            begun: false,
        }
    }

    pub fn object(&self) -> ObjectId {
        self.object
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn source(&self) -> Option<LinkId> {
        self.source
    }

    /// The source is reachable (again) over this link: whatever was asked of the old one is asked anew.
    pub fn resume(&mut self, now: Millis, source: LinkId, effects: &mut Vec<Effect>) {
        if self.source != Some(source) {
            self.source = Some(source);
            self.put_back(|_| true);
        }
        self.ask(now, effects);
    }

    pub fn lost(&mut self, link: LinkId) {
        if self.source == Some(link) {
            self.source = None;
            self.put_back(|_| true);
        }
    }

    /// The host said which chunks are missing. Returns whether the object is whole.
    pub fn begun(&mut self, now: Millis, mut missing: Vec<u32>, effects: &mut Vec<Effect>) -> bool {
        missing.reverse();
        self.missing = missing;
        self.begun = true;
        self.ask(now, effects);
        self.whole()
    }

    /// A chunk came. One that was not asked for is ignored.
    pub fn chunk(&mut self, index: u32, bytes: Bytes, effects: &mut Vec<Effect>) {
        if self.asked.remove(&index).is_some() {
            self.writing += 1;
            effects.push(Effect::Keep { object: self.object, index, bytes });
        }
    }

    /// The host kept the chunk, or found that it is not what the manifest says. Returns whether the object is whole.
    pub fn kept(&mut self, now: Millis, index: u32, good: bool, effects: &mut Vec<Effect>) -> bool {
        self.writing = self.writing.saturating_sub(1);
        if !good {
            self.missing.push(index);
        }
        self.ask(now, effects);
        self.whole()
    }

    /// Repeats requests that were not answered.
    pub fn tick(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        self.put_back(|asked_at| now >= asked_at + RETRY_MS);
        self.ask(now, effects);
    }

    pub fn whole(&self) -> bool {
        self.begun && self.missing.is_empty() && self.asked.is_empty() && self.writing == 0
    }

    fn put_back(&mut self, which: impl Fn(Millis) -> bool) {
        let late: Vec<u32> = self.asked.iter().filter(|(_, at)| which(**at)).map(|(index, _)| *index).collect();
        for index in late {
            self.asked.remove(&index);
            self.missing.push(index);
        }
    }

    fn ask(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some(link) = self.source else { return };
        while self.asked.len() + self.writing < self.window {
            let Some(index) = self.missing.pop() else { return };
            self.asked.insert(index, now);
            effects.push(Effect::Send { link, message: Message::GetChunk { object: self.object, index } });
        }
    }
}

/// A chunk, to all who wait for it. Two jobs may wait for the same object; the bytes are written once for each, which does
/// no harm.
pub fn hand_out<'a>(fetches: impl Iterator<Item = &'a mut Fetch>, index: u32, bytes: Bytes, effects: &mut Vec<Effect>) {
    fetches.for_each(|fetch| fetch.chunk(index, bytes.clone(), effects));
}
