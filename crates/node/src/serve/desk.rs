//! The one thread that writes. It steps what it has (`motor`) while somebody waits for a token, and sleeps otherwise.
//!
//! A reader that leaves drops its end of a channel; the thread sees that before its next step and gives the place to somebody else.
//! What a machine above answers has places of its own.

use super::drafters::Drafters;
use super::keys::Key;
use super::line::{Client, Line};
use super::load::Load;
use super::metrics::{Metrics, Outcome};
use super::motor::{Motor, Step};
use super::routed::{Asking, Placed, Placing, Routed};
use super::trial::Trial;
use super::words::{Piece, Token, Words};
use super::writer::{Asked, By, End, Input, Order, Room, Said, Share};
use crate::speculate::edge::Way;
use littoral_infer::engine::{Event, Finish, Refused, SequenceId};
use littoral_infer::route::decide::Reason;
use littoral_infer::route::rule::Rule;
use littoral_model::text::Tokeniser;
use littoral_tensor::pool::Pool;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;

/// Where all wait for rounds of drafters: how long before it is looked at what else there is.
const WAIT: Duration = Duration::from_millis(20);

/// An answer that waits for a place.
struct Waiting {
    asked: Asked,
    asking: Asking,
    placing: Placing,
    choice: usize,
    reader: UnboundedSender<Said>,
    at: Instant,
}

/// An answer that is being written.
struct Open<'m> {
    /// Where tokens become text.
    words: Option<Words<'m>>,
    choice: usize,
    reader: UnboundedSender<Said>,
    prompt: usize,
    key: Option<Arc<Key>>,
    /// What its reader wants to know of each token.
    logprobs: Option<usize>,
    /// While it is not decided who answers.
    trial: Option<Box<Trial<'m>>>,
    /// A machine above answers.
    above: bool,
    /// It may be another machine's.
    may_leave: bool,
    written: usize,
    /// Who wrote the last token.
    by: By,
    /// When it got its place.
    since: Instant,
    /// When the last token came, or at first the order.
    last: Instant,
}

pub(super) struct Desk<'m> {
    motor: Motor,
    routed: Option<Routed>,
    drafters: Drafters,
    tokeniser: &'m Tokeniser,
    room: Room,
    metrics: Arc<Metrics>,
    line: Line<Waiting>,
    /// What a machine above answers waits for none of the places here.
    above: Line<Waiting>,
    load: Load,
    open: HashMap<SequenceId, Open<'m>>,
    cut: Arc<AtomicBool>,
}

impl<'m> Desk<'m> {
    /// `cut`: set when all answers are to end where they are.
    pub fn new(
        motor: Motor,
        routed: Option<Routed>,
        tokeniser: &'m Tokeniser,
        room: Room,
        metrics: Arc<Metrics>,
        cut: Arc<AtomicBool>,
    ) -> Self {
        Self {
            drafters: Drafters::new(motor.engine()),
            motor,
            routed,
            tokeniser,
            room,
            metrics,
            line: Line::new(),
            above: Line::new(),
            load: Load::default(),
            open: HashMap::new(),
            cut,
        }
    }

    /// Until all writers are gone.
    pub fn work(mut self, incoming: &mpsc::Receiver<Input>, pool: &Pool) {
        loop {
            // Machines come and go while nobody asks: a chain looks after them.
            let nothing = self.open.is_empty() && self.waiting() == 0 && self.drafters.running() == 0;
            if nothing && !self.motor.restless() {
                let Ok(input) = incoming.recv() else { return };
                self.hear(input);
            }
            loop {
                match incoming.try_recv() {
                    Ok(input) => self.hear(input),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) if self.open.is_empty() => return,
                    Err(mpsc::TryRecvError::Disconnected) => break,
                }
            }
            if self.cut.load(SeqCst) {
                self.end_all(&End::Closing);
            }
            self.forget_those_who_left();
            self.admit();
            self.hand_over();
            self.metrics.running.store(self.open.len() as u64, Relaxed);
            self.metrics.waiting.store(self.waiting() as u64, Relaxed);
            self.routed.iter_mut().for_each(Routed::keep);
            self.drafters.before(&mut self.motor);
            let begun = Instant::now();
            match self.motor.step(pool) {
                Ok(Step { events, idle }) => {
                    let took = self.motor.pass_time().unwrap_or_else(|| begun.elapsed());
                    self.drafters.after(&events, took);
                    for token in self.motor.engine_mut().prompts() {
                        if let Some(open) = self.open.get(&token.sequence) {
                            let _ = open.reader.send(Said::Prompt { choice: open.choice, token });
                        }
                    }
                    events.into_iter().for_each(|event| self.tell(event));
                    // Drafters are at work.
                    if idle && let Ok(input) = incoming.recv_timeout(WAIT) {
                        self.hear(input);
                    }
                }
                Err(why) => {
                    tracing::error!("{why}");
                    self.routed.iter_mut().for_each(Routed::keep_all);
                    return self.end_all(&End::Failed(why));
                }
            }
            self.metrics.running.store(self.open.len() as u64, Relaxed);
        }
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Order(order) => self.take(order),
            Input::Drafter(said) => self.drafters.hear(said, &mut self.motor),
            Input::Audited { worse } => self.routed.iter_mut().for_each(|routed| routed.audited(worse)),
            Input::Keep(kept) => {
                self.routed.iter_mut().for_each(Routed::keep_all);
                let _ = kept.send(());
            }
        }
    }

    fn take(&mut self, order: Order) {
        let Order { client, asked, asking, reader, taken, at } = order;
        let (link, wait_ms) = (self.motor.link(), self.wait_ms(client));
        let placing = match (&mut self.routed, asking.only) {
            (Some(_), Some(only)) => Placing::Decided(only.placed()),
            (Some(routed), None) => routed.first(&asking, &asked, link, wait_ms),
            (None, _) => Placing::Decided(Placed::Here(String::new())),
        };
        if let Placing::Decided(Placed::Away(why)) = placing {
            let _ = taken.send(Ok(()));
            let _ = reader.send(Said::Away { why });
            return;
        }
        let _ = taken.send(match self.check(&asked) {
            Err(refused) => Err(refused),
            Ok(()) => {
                for (choice, asked) in asked.into_iter().enumerate() {
                    let (asking, placing, reader) = (asking.clone(), placing.clone(), reader.clone());
                    let line = match placing {
                        Placing::Decided(Placed::Upstream(..)) => &mut self.above,
                        _ => &mut self.line,
                    };
                    line.push(client, Waiting { asked, asking, placing, choice, reader, at });
                }
                Ok(())
            }
        });
    }

    /// Until one more answer for this client would get its place.
    fn wait_ms(&self, client: Client) -> f64 {
        if !self.motor.is_whole() {
            return f64::INFINITY;
        }
        let places = self.room.running_max;
        let own = self.open.values().filter(|open| !open.above);
        let least = own.map(|open| open.since.elapsed()).min().unwrap_or_default();
        // Machines below have the same passes.
        let taken = self.written_here() + self.drafters.running();
        self.load.wait_ms(self.line.before(client), places.saturating_sub(taken), places, least)
    }

    /// Requests without a place.
    fn waiting(&self) -> usize {
        self.line.len() + self.above.len()
    }

    /// Answers that have one of the places here.
    fn written_here(&self) -> usize {
        self.open.values().filter(|open| !open.above).count()
    }

    fn check(&self, asked: &[Asked]) -> Result<(), Refused> {
        for one in asked {
            match one {
                Asked::Text { request, .. } => self.motor.engine().check(request)?,
                Asked::Vectors { texts } => drop(self.motor.engine().check_texts(texts)?),
            }
        }
        let Room { running_max, waiting_max } = self.room;
        if asked.len() > running_max + waiting_max {
            // To come again would not help.
            let expected = format!(
                "at most {} answers in all, {running_max} at once and {waiting_max} that wait,",
                running_max + waiting_max
            );
            return Err(Refused::Field { field: "n", expected, got: asked.len().to_string() });
        }
        let free = self.room.running_max.saturating_sub(self.written_here());
        if self.waiting() + asked.len() > free + self.room.waiting_max {
            return Err(Refused::Busy { waiting: self.waiting() });
        }
        Ok(())
    }

    fn forget_those_who_left(&mut self) {
        let lines = [&mut self.line, &mut self.above].into_iter();
        let mut gone = lines.map(|line| line.retain(|waiting| !waiting.reader.is_closed())).sum();
        let (motor, load) = (&mut self.motor, &mut self.load);
        self.open.retain(|id, open| {
            let left = open.reader.is_closed();
            if left {
                motor.cancel(*id);
                if !open.above {
                    load.heard(open.since.elapsed());
                }
                gone += 1;
            }
            !left
        });
        self.metrics.ended(Outcome::Cancelled, gone);
    }

    fn admit(&mut self) {
        // The engine may have no room for one more, with machines that draft: then those in the line wait there, and who comes
        // when that is full is told to come again.
        while self.motor.engine().waiting_room() > 0 {
            let (here, most) = (self.written_here(), self.room.running_max);
            let next = if here < most { self.line.pop() } else { None };
            let next = next.or_else(|| if self.open.len() - here < most { self.above.pop() } else { None });
            let Some(Waiting { asked, asking, placing, choice, reader, at }) = next else { return };
            let mut open = Open {
                words: None,
                choice,
                reader,
                prompt: 0,
                key: asking.key.clone(),
                logprobs: None,
                trial: None,
                above: false,
                may_leave: false,
                written: 0,
                by: By::Here,
                since: Instant::now(),
                last: at,
            };
            let mut told = None;
            let submitted = match asked {
                Asked::Text { request, stop, prompt_logprobs } => {
                    let request = *request;
                    told = prompt_logprobs;
                    open.may_leave = asking.rule == Rule::Free && asking.only.is_none() && told.is_none();
                    (open.prompt, open.logprobs) = (request.prompt.len(), request.top_logprobs);
                    match placing {
                        Placing::Try(when) => {
                            let trial = Trial::new(when, asking, request, stop, self.tokeniser);
                            let request = trial.asked();
                            open.trial = Some(Box::new(trial));
                            self.motor.submit(request, Way::Here)
                        }
                        Placing::Decided(placed) => {
                            open.words = Some(Words::new(self.tokeniser, stop));
                            let way = open.place(placed, self.motor.linked(), false);
                            self.motor.submit(request, way)
                        }
                    }
                }
                Asked::Vectors { texts } => {
                    open.prompt = texts.iter().map(Vec::len).sum();
                    self.motor.submit_texts(texts)
                }
            };
            if let (Ok(id), Some(top)) = (&submitted, told) {
                self.motor.engine_mut().tell_prompt(*id, top);
            }
            self.opened(submitted, open);
        }
    }

    /// While some layers have no machine, one above that has the same model goes on with answers that may leave.
    fn hand_over(&mut self) {
        let may = |routed: &Routed| routed.goes_on_above(self.motor.link());
        if self.motor.is_whole() || !self.routed.as_ref().is_some_and(may) {
            return;
        }
        for (id, open) in &mut self.open {
            if open.may_leave && open.trial.is_none() && self.motor.hand_over(*id) {
                (open.may_leave, open.above) = (false, true);
                tracing::info!("an answer of {} tokens goes on above", open.written);
            }
        }
    }

    fn opened(&mut self, submitted: Result<SequenceId, Refused>, open: Open<'m>) {
        match submitted {
            Ok(id) => {
                self.open.insert(id, open);
            }
            // It was checked before, and there was room, so this is our fault.
            Err(why) => {
                self.metrics.ended(Outcome::Failed, 1);
                let (choice, why) = (open.choice, End::Failed(why.to_string()));
                let _ = open.reader.send(Said::Ended { choice, why, written: 0, share: Share::default() });
            }
        }
    }

    /// The small model has begun an answer: is it enough to decide whose it is to be?
    fn try_on(&mut self, sequence: SequenceId, event: Event) {
        let Some(open) = self.open.get_mut(&sequence) else { return };
        let (Some(trial), Some(routed)) = (&mut open.trial, &mut self.routed) else { return };
        if !trial.hear(event) {
            return;
        }
        let (placed, audit) = routed.tried(trial, self.motor.link());
        let link = self.motor.linked();
        let Some(trial) = open.trial.take() else { return };
        match placed {
            Placed::Here(_) => {
                open.place(placed, link, audit);
                let (_, stop) = trial.asked_for();
                open.words = Some(Words::new(self.tokeniser, stop));
                trial.heard().into_iter().for_each(|event| self.tell(event));
            }
            Placed::Upstream(..) => {
                let Some(mut open) = self.open.remove(&sequence) else { return };
                self.motor.cancel(sequence);
                let (request, stop) = trial.asked_for();
                open.words = Some(Words::new(self.tokeniser, stop));
                let way = open.place(placed, link, false);
                let submitted = self.motor.submit(request, way);
                self.opened(submitted, open);
            }
            Placed::Away(why) => {
                self.motor.cancel(sequence);
                if let Some(open) = self.open.remove(&sequence) {
                    self.load.heard(open.since.elapsed());
                    let _ = open.reader.send(Said::Away { why });
                }
            }
        }
    }

    fn tell(&mut self, event: Event) {
        // Those of other machines' drafts, too.
        if let Event::Tried { proposed, accepted, .. } = event {
            return self.metrics.tried(proposed, accepted);
        }
        let (Event::Started { sequence, .. }
        | Event::Token { sequence, .. }
        | Event::Tried { sequence, .. }
        | Event::Embedded { sequence, .. }
        | Event::Finished { sequence, .. }) = event;
        // An answer that a stop string ended is not open any more, and may have an end of its own in the same step.
        let Some(open) = self.open.get_mut(&sequence) else { return };
        if open.trial.is_some() {
            return self.try_on(sequence, event);
        }
        let choice = open.choice;
        match event {
            Event::Started { reused, .. } => {
                self.metrics.tokens_read.fetch_add((open.prompt - reused) as u64, Relaxed);
                self.metrics.tokens_reused.fetch_add(reused as u64, Relaxed);
                let _ = open.reader.send(Said::Started { choice, reused });
            }
            Event::Token { id, logprob, mut top, .. } => {
                // It may have been asked for more than its reader wants.
                let logprob = logprob.filter(|_| open.logprobs.is_some());
                top.truncate(open.logprobs.unwrap_or(0));
                let now = Instant::now();
                let after = now - open.last;
                match open.written {
                    0 => self.metrics.first_token(after),
                    _ => self.metrics.next_token(after),
                }
                self.metrics.tokens_written.fetch_add(1, Relaxed);
                open.last = now;
                open.written += 1;
                open.key.iter().for_each(|key| key.used(1));
                let Some(words) = &mut open.words else { return };
                let piece = words.push(id, logprob.map(|logprob| Token { id, logprob, top }));
                let stopped = words.stopped();
                open.by = self.motor.writer(sequence, open.written as u64);
                open.say(piece);
                if stopped {
                    self.end(sequence, End::Stop);
                    self.motor.cancel(sequence);
                }
            }
            Event::Tried { .. } => {}
            Event::Embedded { text, vector, .. } => {
                let _ = open.reader.send(Said::Vector { text, vector });
            }
            Event::Finished { why, .. } => {
                let piece = open.words.as_mut().map(Words::finish).unwrap_or_default();
                open.say(piece);
                let stopped = open.words.as_ref().is_some_and(Words::stopped);
                let why = match why {
                    _ if stopped => End::Stop,
                    Finish::End => End::Stop,
                    Finish::Length | Finish::Context => End::Length,
                    Finish::Unfit(why) => End::Unfit(why),
                    Finish::Failed(why) => End::Failed(why),
                };
                self.end(sequence, why);
            }
        }
    }

    fn end(&mut self, sequence: SequenceId, why: End) {
        let Some(open) = self.open.remove(&sequence) else { return };
        if !open.above {
            self.load.heard(open.since.elapsed());
        }
        let share = self.motor.share(sequence, open.written as u64);
        self.motor.forget(sequence);
        self.metrics.shared(&share);
        self.metrics.ended(
            match why {
                End::Stop => Outcome::Stop,
                End::Length => Outcome::Length,
                End::Unfit(_) => Outcome::Refused,
                End::Failed(_) | End::Closing => Outcome::Failed,
            },
            1,
        );
        let _ = open.reader.send(Said::Ended { choice: open.choice, why, written: open.written, share });
    }

    fn end_all(&mut self, why: &End) {
        while let Some(Waiting { choice, reader, .. }) = self.line.pop().or_else(|| self.above.pop()) {
            self.metrics.ended(Outcome::Failed, 1);
            let _ = reader.send(Said::Ended { choice, why: why.clone(), written: 0, share: Share::default() });
        }
        for sequence in self.open.keys().copied().collect::<Vec<_>>() {
            self.end(sequence, why.clone());
            self.motor.cancel(sequence);
        }
    }
}

impl Open<'_> {
    /// Tells its reader who writes; what is to go to the machine above stays here if its link is gone by now.
    fn place(&mut self, placed: Placed, link: Option<usize>, audit: bool) -> Way {
        let (by, way, why) = match (placed, link) {
            (Placed::Upstream(why, way), Some(machine)) => {
                self.above = true;
                (By::Upstream(machine), way, why)
            }
            (Placed::Upstream(..), None) => (By::Here, Way::Here, Reason::CloudDown.to_string()),
            (Placed::Here(why) | Placed::Away(why), _) => (By::Here, Way::Here, why),
        };
        let _ = self.reader.send(Said::Placed { by, why, audit });
        way
    }

    fn say(&self, piece: Piece) {
        if !piece.is_empty() {
            let _ = self.reader.send(Said::Text { choice: self.choice, piece, by: self.by });
        }
    }
}
