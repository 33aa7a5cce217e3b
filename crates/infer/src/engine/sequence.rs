//! A request that runs: what was written, what passes are to take, and how their logits become tokens.

use super::request::{Event, Finish, PromptToken, Request, SequenceId};
use crate::constrain::{Constraint, ConstraintError};
use crate::model::Model;
use crate::pass::{Piece, Slot};
use crate::sample::{History, LogProbs, Sampler};
use littoral_model::lm::Wanted;

pub(super) struct Sequence {
    pub id: SequenceId,
    pub slot: Slot,
    pub request: Request,
    pub sampler: Sampler,
    pub answer: Vec<u32>,
    /// Positions that passes were given, and those whose outcome is known. They differ while a pass is on its way.
    pub sent: usize,
    pub seen: usize,
    /// A first pass has come back: the state is where it should be.
    pub begun: bool,
    /// Tokens that may follow an answer of so many tokens, to be tried in the next pass, and those that the pass on its way
    /// tries.
    pub proposal: (usize, Vec<u32>),
    pub trying: Vec<u32>,
    /// It writes while its answer is shorter than this.
    pub pace: usize,
    /// What is told of each token of the prompt, and how many of them were.
    pub told: Option<(usize, usize)>,
}

impl Sequence {
    fn text(&self) -> usize {
        self.request.prompt.len() + self.answer.len()
    }

    /// Does it write: is the last token the only one that no pass has taken?
    pub fn writes(&self) -> bool {
        self.sent + 1 == self.text()
    }

    /// May a pass take something of it?
    pub fn ready(&self) -> bool {
        self.sent < self.text() && (self.sent + 1 < self.text() || self.answer.len() < self.pace)
    }

    /// Gives at most `budget` tokens to a pass, and what is proposed on top.
    pub fn plan(&mut self, budget: usize, ids: &mut Vec<u32>) -> Option<Piece> {
        if !self.ready() || budget == 0 {
            return None;
        }
        let (start, text) = (self.sent, self.text());
        let end = text.min(start + budget);
        let token = |at: usize| match at.checked_sub(self.request.prompt.len()) {
            None => self.request.prompt[at],
            Some(at) => self.answer[at],
        };
        ids.extend((start..end).map(token));
        self.sent = end;
        let mut tokens = end - start;
        let wanted = if end < text || self.answer.len() >= self.pace {
            // What is read ends with the text, but no token is to be written: the last one waits.
            if end == text {
                self.sent -= 1;
                tokens -= 1;
                ids.pop();
            }
            Wanted::None
        } else {
            let (at, proposal) = std::mem::take(&mut self.proposal);
            self.trying = if at == self.answer.len() { proposal } else { Vec::new() };
            ids.extend_from_slice(&self.trying);
            tokens += self.trying.len();
            self.sent += self.trying.len();
            Wanted::Tail(1 + self.trying.len())
        };
        let wanted = if self.told.is_some() && start < self.request.prompt.len() { Wanted::All } else { wanted };
        (tokens > 0).then_some(Piece { slot: self.slot, start, tokens, wanted })
    }

    /// What the logits of a piece say of the prompt's tokens, if that is to be told.
    pub fn tell_prompt(&mut self, piece: &Piece, logits: &[f32], model: &Model, prompts: &mut Vec<PromptToken>) {
        let Some((top, told)) = &mut self.told else { return };
        if piece.start >= self.request.prompt.len() {
            return;
        }
        for (row, logits) in logits.chunks_exact(model.stage.config().vocabulary).enumerate() {
            let at = piece.start + row + 1;
            let Some(&id) = self.request.prompt.get(at) else { return };
            // What was read again after a loss was told before.
            if at > *told {
                let all = LogProbs::of(logits);
                let (logprob, rank) = (all.get(id), all.rank(id));
                prompts.push(PromptToken { sequence: self.id, at, id, logprob, rank, top: all.top(*top) });
                *told = at;
            }
        }
    }

    /// Takes the logits of a piece's wanted tokens, `vocabulary` each: writes on as long as what was proposed is what the
    /// sampler chooses, and one token more.
    pub fn hear(&mut self, piece: &Piece, logits: &[f32], model: &Model, events: &mut Vec<Event>) -> Option<Finish> {
        self.begun = true;
        let vocabulary = model.stage.config().vocabulary;
        // Of a prompt that is told, rows before that of the text's last token choose nothing.
        let first = piece.start + piece.tokens - logits.len() / vocabulary;
        let logits = &logits[logits.len().min((self.text() - 1).saturating_sub(first) * vocabulary)..];
        if logits.is_empty() {
            self.seen = piece.start + piece.tokens;
            return None;
        }
        let tried = std::mem::take(&mut self.trying);
        let (mut accepted, mut finish) = (0, None);
        for (index, logits) in logits.chunks_exact(vocabulary).enumerate() {
            let (event, why) = self.choose(logits, model);
            let chosen =
                event.as_ref().map(|event| matches!(event, Event::Token { id, .. } if tried.get(index) == Some(id)));
            events.extend(event);
            finish = why;
            match chosen {
                Some(true) => accepted += 1,
                _ => break,
            }
            if finish.is_some() {
                break;
            }
        }
        if !tried.is_empty() {
            events.push(Event::Tried { sequence: self.id, proposed: tried.len(), accepted });
        }
        // The state is cut to this when the next pass begins there.
        self.seen = self.text() - 1;
        self.sent = self.seen;
        finish
    }

    /// The next token, and whether it is the last.
    fn choose(&mut self, logits: &[f32], model: &Model) -> (Option<Event>, Option<Finish>) {
        let chosen = match self.draw(logits) {
            Ok(chosen) => chosen,
            Err(why) => return (None, Some(why)),
        };
        let Self { id, request, answer, .. } = self;
        if !request.ignore_end && model.tokeniser.ends(chosen) {
            return (None, Some(Finish::End));
        }
        let (logprob, top) = match request.top_logprobs {
            None => (None, Vec::new()),
            Some(count) => {
                let all = LogProbs::of(logits);
                (Some(all.get(chosen)), all.top(count))
            }
        };
        answer.push(chosen);
        let event = Event::Token { sequence: *id, id: chosen, logprob, top };
        let length = request.prompt.len() + answer.len();
        let finish = match () {
            () if request.constraint.as_ref().is_some_and(Constraint::is_finished) => Some(Finish::End),
            () if answer.len() >= request.max_tokens => Some(Finish::Length),
            () if length >= model.context() => Some(Finish::Context),
            () => None,
        };
        (Some(event), finish)
    }

    /// A token that the sampler chooses, among those that the constraint allows, if there is one; it hears of the choice.
    fn draw(&mut self, logits: &[f32]) -> Result<u32, Finish> {
        let Self { request, sampler, answer, .. } = self;
        let history = History { prompt: &request.prompt, answer };
        let Some(constraint) = &mut request.constraint else {
            return sampler.pick(logits, history, None).map_err(|why| Finish::Failed(why.to_string()));
        };
        let unfit = |why: ConstraintError| Finish::Unfit(why.to_string());
        let allowed = constraint.allowed().map_err(unfit)?;
        let chosen = sampler.pick(logits, history, Some(&allowed)).map_err(|why| Finish::Failed(why.to_string()))?;
        constraint.accept(chosen).map_err(unfit)?;
        Ok(chosen)
    }

    /// Its state has so many positions, or none of what is on its way: the rest is to be read again.
    pub fn rewind(&mut self, positions: usize) {
        self.seen = self.seen.min(positions);
        self.sent = self.seen;
        // What was tried may be tried again.
        if self.proposal.1.is_empty() {
            self.proposal = (self.answer.len(), std::mem::take(&mut self.trying));
        }
    }

    /// The answer is this now: what it has in common with the one before stays.
    pub fn rewrite(&mut self, answer: &[u32]) {
        let common = self.answer.iter().zip(answer).take_while(|(a, b)| a == b).count();
        let kept = (self.request.prompt.len() + common).min(self.seen);
        self.answer.truncate(common);
        self.answer.extend_from_slice(&answer[common..]);
        self.sampler.seek(self.answer.len() as u64);
        self.proposal.1.clear();
        // The last token is always read: what follows is made of its logits.
        self.seen = kept.min(self.text() - 1);
        self.sent = self.seen;
    }
}
