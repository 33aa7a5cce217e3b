//! What is asked of the head, so that it can be told that nothing will come of it.

use crate::engine::{Engine, Event, Finish, SequenceId};
use std::collections::BTreeSet;

/// Requests that an engine has let in and that have no end yet. Those that were cancelled stay until nothing runs.
#[derive(Default)]
pub(super) struct Requests {
    open: BTreeSet<SequenceId>,
}

impl Requests {
    /// What happened since this was last asked.
    pub fn events(&mut self, engine: &mut Engine) -> Vec<Event> {
        let events = engine.events();
        if engine.idle() {
            self.open.clear();
            return events;
        }
        for event in &events {
            match event {
                Event::Started { sequence, .. } => drop(self.open.insert(*sequence)),
                Event::Finished { sequence, .. } | Event::Embedded { sequence, .. } => {
                    self.open.remove(sequence);
                }
                Event::Token { .. } | Event::Tried { .. } => {}
            }
        }
        events
    }

    /// All that is asked fails for this reason, what waits as well. Nothing may be on its way.
    pub fn fail(&mut self, engine: &mut Engine, why: &str) -> Vec<Event> {
        let mut told = self.events(engine);
        loop {
            for sequence in std::mem::take(&mut self.open) {
                let running = engine.running();
                engine.cancel(sequence);
                // Of one that was cancelled nobody hears again.
                if engine.running() < running {
                    told.push(Event::Finished { sequence, why: Finish::Failed(why.to_owned()) });
                }
            }
            if engine.waiting() == 0 {
                return told;
            }
            // Who waits is let in, and so has a name; what is planned for it is never sent.
            engine.plan(usize::MAX);
            engine.void();
            told.extend(self.events(engine));
            if self.open.is_empty() && engine.waiting() > 0 {
                return told;
            }
        }
    }
}
