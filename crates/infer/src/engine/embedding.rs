//! Texts that become vectors, read beside what others write.

use super::Draft;
use super::request::{Event, Finish, SequenceId};
use crate::model::Model;
use crate::pass::{Piece, Slot};
use crate::pooling::{Pooled, Pooling};
use littoral_model::lm::Wanted;
use littoral_tensor::vectors::rms_norm;

/// The texts of one request.
pub(super) struct Embedding {
    pub id: SequenceId,
    texts: std::vec::IntoIter<Vec<u32>>,
    pooling: Pooling,
    /// Those that are being read, in their order; how many came before them.
    open: Vec<Reading>,
    done: usize,
}

struct Reading {
    ids: Vec<u32>,
    slot: Slot,
    pooled: Pooled,
    /// Tokens that passes were given, and those of which vectors came out.
    sent: usize,
    seen: usize,
}

impl Embedding {
    pub fn new(id: SequenceId, texts: Vec<Vec<u32>>, pooling: Pooling) -> Self {
        Self { id, texts: texts.into_iter(), pooling, open: Vec::new(), done: 0 }
    }

    /// Gives at most `budget` tokens to a pass. Returns how many.
    pub fn plan(&mut self, budget: usize, model: &Model, next: &mut Slots, draft: &mut Draft) -> usize {
        let mut left = budget;
        let mut at = 0;
        while left > 0 {
            if at == self.open.len() {
                let Some(ids) = self.texts.next() else { break };
                let pooled = Pooled::new(self.pooling, model.stage.config().width);
                self.open.push(Reading { ids, slot: next.take(), pooled, sent: 0, seen: 0 });
            }
            let Reading { ids, slot, sent, .. } = &mut self.open[at];
            let tokens = left.min(ids.len() - *sent);
            if tokens > 0 {
                draft.push(self.id, Piece { slot: *slot, start: *sent, tokens, wanted: Wanted::All });
                draft.ids.extend_from_slice(&ids[*sent..*sent + tokens]);
                *sent += tokens;
                left -= tokens;
            }
            at += 1;
        }
        budget - left
    }

    /// Takes the vectors of a piece of these texts.
    pub fn hear(&mut self, piece: &Piece, vectors: &[f32], model: &Model) {
        let Some(reading) = self.open.iter_mut().find(|reading| reading.slot == piece.slot) else { return };
        let config = model.stage.config();
        let norm = model.stage.output_norm().expect("a model has one");
        let mut normed = vec![0.0; config.width];
        for vector in vectors.chunks_exact(config.width) {
            rms_norm(vector, norm, config.epsilon, &mut normed);
            reading.pooled.add(&normed);
        }
        reading.seen += piece.tokens;
    }

    /// Tells the vectors of texts that were read to their end. True when all have been told.
    pub fn tell(&mut self, events: &mut Vec<Event>, freed: &mut Vec<Slot>) -> bool {
        let whole = |reading: &Reading| reading.seen == reading.ids.len();
        // A text is begun only when those before it are planned to their end, so they end in order.
        let count = self.open.iter().take_while(|reading| whole(reading)).count();
        for reading in self.open.drain(..count) {
            let vector = reading.pooled.vector();
            events.push(Event::Embedded { sequence: self.id, text: self.done, vector });
            freed.push(reading.slot);
            self.done += 1;
        }
        let ended = self.open.is_empty() && self.texts.len() == 0;
        if ended {
            events.push(Event::Finished { sequence: self.id, why: Finish::End });
        }
        ended
    }

    /// What passes were given and did not give back is to be read again; all of a text, if its state is gone.
    pub fn rewind(&mut self, lost: impl Fn(Slot) -> bool, model: &Model) {
        for reading in &mut self.open {
            if lost(reading.slot) {
                reading.seen = 0;
                reading.pooled = Pooled::new(self.pooling, model.stage.config().width);
            }
            reading.sent = reading.seen;
        }
    }

    /// States of texts that are not wanted any more.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.open.iter().map(|reading| reading.slot)
    }
}

/// Gives slots.
#[derive(Default)]
pub(super) struct Slots(u64);

impl Slots {
    pub fn take(&mut self) -> Slot {
        self.0 += 1;
        Slot(self.0 - 1)
    }
}
