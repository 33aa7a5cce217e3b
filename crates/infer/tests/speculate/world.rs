//! A drafter and a verifier under a virtual clock: models that are functions, a link that may lose, double, overtake and break.

use littoral_infer::sample::Noise;
use littoral_infer::speculate::controller::Controller;
use littoral_infer::speculate::costs::{Affine, Costs};
use littoral_infer::speculate::drafter::{Drafted, Drafter, Output, Over, Patience, Policy, Sources, Work, Yields};
use littoral_infer::speculate::verifier::{Counted, Pass, Verifier};
use littoral_wire::bounded::List;
use littoral_wire::speculation::{Committed, Drafts, Ending, Real, Request, Sampling, Speculation};
use littoral_wire::{Wire, speculation};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const VOCABULARY: u32 = 50;

/// What `verify` is to a controller that knows nothing of the far machine: a plain pass, and a 30th of it per drafted token.
pub fn guessed_verify(pass_s: f64) -> Affine {
    Affine { fixed_s: pass_s, per_token_s: pass_s / 30.0 }
}

/// A text that repeats itself: passages of so many tokens, each of which copies an earlier one with this chance, and of a copy
/// each token is another with that.
#[derive(Clone, Copy, Debug)]
pub struct Repeats {
    pub passage: usize,
    pub copied: f64,
    pub broken: f64,
}

/// What the two models say, and how long they take.
#[derive(Clone)]
pub struct Models {
    pub seed: u64,
    /// The chance that the small model says the same at a position of the answer.
    pub acceptance: fn(usize, f64) -> f64,
    pub alpha: f64,
    pub repeats: Option<Repeats>,
    pub end_at: Option<usize>,
    pub draft_us: u64,
    pub pass_us: u64,
    pub pass_token_us: u64,
}

impl Models {
    pub fn target(&self, text: &[u32]) -> u32 {
        if let Some(id) = self.repeats.and_then(|repeats| self.copied(repeats, text)) {
            return id;
        }
        let last = text.last().copied().unwrap_or(0);
        (Noise::new(self.seed, text.len() as u64).uniform(last) * f64::from(VOCABULARY)) as u32
    }

    fn copied(&self, Repeats { passage, copied, broken }: Repeats, text: &[u32]) -> Option<u32> {
        let (index, within) = (text.len() / passage, text.len() % passage);
        let noise = Noise::new(self.seed ^ 0xc0b1, index as u64);
        let of = (noise.uniform(0) * index as f64) as usize;
        let copies = index > 0 && noise.uniform(1) < copied && noise.uniform(within as u32 + 2) >= broken;
        copies.then(|| text[of * passage + within])
    }

    fn draft(&self, text: &[u32]) -> u32 {
        let same =
            Noise::new(self.seed ^ 0x5eed, text.len() as u64).uniform(0) < (self.acceptance)(text.len(), self.alpha);
        (self.target(text) + u32::from(!same)) % VOCABULARY
    }

    /// Plain decoding.
    pub fn text(&self, max_tokens: usize) -> Vec<u32> {
        let mut text = Vec::new();
        while text.len() < max_tokens && Some(text.len()) != self.end_at {
            text.push(self.target(&text));
        }
        text
    }
}

#[derive(Clone, Copy, Default)]
pub struct Link {
    pub round_trip_us: u64,
    /// Parts of a thousand messages.
    pub lost: u64,
    pub doubled: u64,
    /// A message takes up to so much longer, and may be overtaken.
    pub jitter_us: u64,
    /// A thousandth of messages break the link: all under way are lost, and it is back after so long.
    pub breaks_us: Option<u64>,
    /// From then on it has another round trip.
    pub becomes: Option<(u64, u64)>,
}

enum Event {
    ToVerifier(Vec<u8>, u64),
    ToDrafter(Vec<u8>, u64),
    Passed(Vec<Committed>, Option<Ending>, u64),
    /// The work's number, since work may be given up.
    Drafted(u64),
    Tick,
    Back,
}

struct Queued(u64, u64, Event);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

pub struct World {
    models: Models,
    link: Link,
    max_tokens: usize,
    drafter: Drafter,
    verifier: Option<Verifier>,
    now_us: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    count: u64,
    passing: bool,
    work: Option<(Work, u64, u64)>,
    works: u64,
    /// What the draft model's state has seen of the answer.
    fed: Vec<u32>,
    /// Grows when the link breaks.
    line: u64,
    down: bool,
    dice: u64,
    tick_us: Option<u64>,
    /// When each token of the answer reached the reader.
    pub came_us: Vec<u64>,
    pub reader: Vec<u32>,
}

pub struct Run {
    pub text: Vec<u32>,
    pub came_us: Vec<u64>,
    pub over: Option<Over>,
    pub counted: Counted,
    /// As the drafter knows.
    pub passes: u64,
    /// As it measured.
    pub costs: Option<Costs>,
    pub yields: Yields,
}

pub fn request(max_tokens: usize) -> Request {
    let zero = Real::new(0.0);
    let sampling = Sampling {
        temperature: zero,
        top_k: 0,
        top_p: Real::new(1.0),
        min_p: zero,
        typical_p: Real::new(1.0),
        repetition_penalty: Real::new(1.0),
        repetition_window: 64,
        frequency_penalty: zero,
        presence_penalty: zero,
        logit_bias: List::default(),
        seed: 1,
    };
    Request {
        tokeniser: [7; 32],
        prompt: List::new(vec![1, 2, 3]).unwrap(),
        sampling,
        max_tokens: max_tokens as u32,
        ignore_end: false,
        top_logprobs: None,
        drafts: Drafts::Ids,
    }
}

impl World {
    pub fn run(models: Models, link: Link, policy: Policy, sources: Sources, max_tokens: usize) -> Run {
        let patience = Patience { first_us: 4 * link.round_trip_us + 2_000_000, most_us: 8_000_000, tries_max: 40 };
        let (drafter, output) = Drafter::new(9, request(max_tokens), policy, sources, patience, 0);
        let mut world = Self {
            models,
            link,
            max_tokens,
            drafter,
            verifier: None,
            now_us: 0,
            queue: BinaryHeap::new(),
            count: 0,
            passing: false,
            work: None,
            works: 0,
            fed: Vec::new(),
            line: 0,
            down: false,
            dice: 0,
            tick_us: None,
            came_us: Vec::new(),
            reader: Vec::new(),
        };
        world.act(output);
        while world.drafter.over().is_none() {
            world.go_on();
            assert!(world.count < 2_000_000, "no end after {} tokens in {} us", world.reader.len(), world.now_us);
            let Some(Reverse(Queued(at_us, _, event))) = world.queue.pop() else { panic!("nothing will ever happen") };
            world.now_us = at_us;
            world.happen(event);
        }
        let (over, text, counted) = (world.drafter.over().cloned(), world.reader, world.verifier.map(|v| v.counted()));
        let (passes, costs) = (world.drafter.passes(), world.drafter.controller().map(Controller::costs));
        let (yields, counted) = (world.drafter.yields(), counted.unwrap_or_default());
        Run { text, came_us: world.came_us, over, counted, passes, costs, yields }
    }

    fn chance(&mut self, of_thousand: u64) -> bool {
        self.die() * 1_000.0 < of_thousand as f64
    }

    fn die(&mut self) -> f64 {
        self.dice += 1;
        Noise::new(self.models.seed ^ 0xd1ce, self.dice).uniform(0)
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse(Queued(at_us, self.count, event)));
    }

    fn send(&mut self, message: &Speculation, up: bool) {
        if self.down || self.chance(self.link.lost) {
            return;
        }
        let times = if self.chance(self.link.doubled) { 2 } else { 1 };
        for _ in 0..times {
            let jitter_us = (self.die() * self.link.jitter_us as f64) as u64;
            let becomes = self.link.becomes.filter(|(from_us, _)| *from_us <= self.now_us);
            let round_trip_us = becomes.map_or(self.link.round_trip_us, |(_, round_trip_us)| round_trip_us);
            let at_us = self.now_us + round_trip_us / 2 + jitter_us;
            let (bytes, line) = (message.to_bytes(), self.line);
            self.at(at_us, if up { Event::ToVerifier(bytes, line) } else { Event::ToDrafter(bytes, line) });
        }
        if let (Some(breaks_us), true) = (self.link.breaks_us, self.chance(1)) {
            (self.line, self.down) = (self.line + 1, true);
            self.at(self.now_us + breaks_us, Event::Back);
        }
    }

    fn act(&mut self, output: Output) {
        output.send.iter().for_each(|message| self.send(message, true));
        for token in output.tokens {
            self.reader.push(token.id);
            self.came_us.push(self.now_us);
        }
        // One chain: what the reader has, what the drafter has, what the verifier has.
        assert_eq!(self.reader, self.drafter.answer());
        if let Some(verifier) = &self.verifier {
            assert!(verifier.answer().starts_with(&self.reader));
        }
        let deadline_us = self.drafter.deadline_us();
        if let Some(at_us) = deadline_us.filter(|_| deadline_us != self.tick_us) {
            self.tick_us = deadline_us;
            self.at(at_us.max(self.now_us), Event::Tick);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToVerifier(bytes, line) if line == self.line => {
                let message = Speculation::from_bytes(&bytes).expect("our own bytes");
                if let (None, Speculation::Open { session, request }) = (&self.verifier, &message) {
                    self.verifier = Some(Verifier::new(*session, request, VOCABULARY as usize, 64));
                }
                // Rounds that overtake their session's opening are lost.
                let answers = self.verifier.as_mut().map(|verifier| verifier.hear(message));
                answers.unwrap_or_default().iter().for_each(|answer| self.send(answer, false));
            }
            Event::ToDrafter(bytes, line) if line == self.line => {
                let message = Speculation::from_bytes(&bytes).expect("our own bytes");
                let output = self.drafter.hear(self.now_us, message);
                self.act(output);
            }
            Event::ToVerifier(..) | Event::ToDrafter(..) => {}
            Event::Passed(tokens, finished, took_us) => {
                self.passing = false;
                let verifier = self.verifier.as_mut().expect("a pass has a verifier");
                let commits = verifier.committed(tokens, finished, took_us as u32);
                commits.iter().for_each(|commit| self.send(commit, false));
            }
            Event::Drafted(number) => {
                if let Some((work, _, begun_us)) = self.work.take_if(|(_, own, _)| *own == number) {
                    self.drafted(work, begun_us);
                }
            }
            Event::Tick => {
                let output = self.drafter.tick(self.now_us);
                self.act(output);
            }
            Event::Back => {
                self.down = false;
                let output = self.drafter.reconnected(self.now_us);
                self.act(output);
            }
        }
    }

    fn drafted(&mut self, work: Work, begun_us: u64) {
        let took_us = self.now_us - begun_us;
        let count = (took_us / self.models.draft_us) as usize;
        let tokens: Vec<Drafted> = (0..count.min(work.count))
            .map(|_| {
                let id = self.models.draft(&self.fed);
                self.fed.push(id);
                Drafted { id, declared: None }
            })
            .collect();
        let output = self.drafter.drafted(self.now_us, work, tokens, took_us);
        self.act(output);
    }

    /// Whoever is idle begins.
    fn go_on(&mut self) {
        if let Some((mut work, _, begun_us)) = self.work.filter(|(work, ..)| self.drafter.is_void(*work)) {
            // The token that is being drafted is drafted to its end.
            let done = (self.now_us - begun_us).div_ceil(self.models.draft_us) as usize;
            if done < work.count {
                work.count = done;
                self.works += 1;
                self.work = Some((work, self.works, begun_us));
                self.at(begun_us + done as u64 * self.models.draft_us, Event::Drafted(self.works));
            }
        }
        if self.work.is_none()
            && let Some(work) = self.drafter.work()
        {
            self.fed.truncate(work.keep);
            let text = self.drafter.answer_from(0);
            assert_eq!(text.len(), work.start);
            assert_eq!(self.fed, text[..self.fed.len()], "the state was to be cut further back");
            self.fed = text;
            self.works += 1;
            self.work = Some((work, self.works, self.now_us));
            self.at(self.now_us + work.count as u64 * self.models.draft_us, Event::Drafted(self.works));
        }
        if !self.passing
            && let Some(verifier) = &mut self.verifier
        {
            let tokens = match verifier.next_pass() {
                Pass::Hold => return,
                Pass::Plain => Vec::new(),
                Pass::Verify { tokens, .. } => tokens,
            };
            let (mut text, mut chosen, mut finished) = (verifier.answer().to_vec(), Vec::new(), None);
            for at in 0..=tokens.len() {
                if Some(text.len()) == self.models.end_at {
                    finished = Some(Ending::End);
                    break;
                }
                let id = self.models.target(&text);
                text.push(id);
                chosen.push(Committed { id, logprobs: None::<speculation::TokenLogProbs> });
                if text.len() == self.max_tokens {
                    finished = Some(Ending::Length);
                }
                if finished.is_some() || tokens.get(at) != Some(&id) {
                    break;
                }
            }
            self.passing = true;
            let took_us = self.models.pass_us + self.models.pass_token_us * tokens.len() as u64;
            self.at(self.now_us + took_us, Event::Passed(chosen, finished, took_us));
        }
    }
}
