//! Texts that become vectors, read beside what others write.

use super::request::{Event, Finish, SequenceId};
use crate::model::Model;
use crate::pooling::{Pooled, Pooling};
use littoral_model::lm::{Input, Part, State, Wanted};
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
    state: State,
    pooled: Pooled,
    /// Tokens that the next pass reads.
    share: usize,
}

impl Embedding {
    pub fn new(id: SequenceId, texts: Vec<Vec<u32>>, pooling: Pooling) -> Self {
        Self { id, texts: texts.into_iter(), pooling, open: Vec::new(), done: 0 }
    }

    /// Says what the next pass reads: at most `budget` tokens. Returns how many. `empty`: what each text begins with.
    pub fn plan(&mut self, budget: usize, model: &Model, empty: &State) -> usize {
        let mut left = budget;
        for reading in &mut self.open {
            reading.share = left.min(reading.ids.len() - reading.state.positions());
            left -= reading.share;
        }
        while left > 0 {
            let Some(ids) = self.texts.next() else { break };
            let share = left.min(ids.len());
            left -= share;
            let pooled = Pooled::new(self.pooling, model.stage.config().width);
            self.open.push(Reading { ids, state: empty.clone(), pooled, share });
        }
        budget - left
    }

    pub fn parts(&mut self) -> impl Iterator<Item = Part<'_>> {
        self.open.iter_mut().filter(|reading| reading.share > 0).map(|Reading { ids, state, share, .. }| {
            let at = state.positions();
            Part { input: Input::Ids(&ids[at..at + *share]), state, wanted: Wanted::None }
        })
    }

    /// Takes the vectors of the tokens that were planned. True when all texts have been told.
    pub fn hear(&mut self, mut vectors: &[f32], model: &Model, events: &mut Vec<Event>) -> bool {
        let config = model.stage.config();
        let norm = model.stage.output_norm().expect("a whole model has one");
        let mut normed = vec![0.0; config.width];
        for reading in &mut self.open {
            let (own, others) = vectors.split_at(reading.share * config.width);
            for vector in own.chunks_exact(config.width) {
                rms_norm(vector, norm, config.epsilon, &mut normed);
                reading.pooled.add(&normed);
            }
            vectors = others;
        }
        let whole = |reading: &Reading| reading.state.positions() == reading.ids.len();
        // A text is begun only when those before it are planned to their end, so they end in order.
        let count = self.open.iter().take_while(|reading| whole(reading)).count();
        for reading in self.open.drain(..count) {
            let vector = reading.pooled.vector();
            events.push(Event::Embedded { sequence: self.id, text: self.done, vector });
            self.done += 1;
        }
        let ended = self.open.is_empty() && self.texts.len() == 0;
        if ended {
            events.push(Event::Finished { sequence: self.id, why: Finish::End });
        }
        ended
    }
}
