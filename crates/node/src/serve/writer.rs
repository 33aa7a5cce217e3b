//! How others reach the one thread that owns the engine, or what else writes (`motor`): orders come in over a channel, pieces of text
//! go out over others. What the thread does with them is `desk`'s.

use super::desk::Desk;
use super::line::Client;
use super::metrics::Metrics;
use super::motor::{Motor, Waker};
use super::routed::{Asking, Routed};
use super::words::Piece;
use crate::speculate::verify::FromDrafter;
use littoral_infer::engine::{PromptToken, Refused, Request};
use littoral_infer::sample::stop::StopStrings;
use littoral_infer::speculate::drafter::Yields;
use littoral_tensor::pool::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// One answer that is wanted; each takes one place.
#[derive(Clone)]
pub enum Asked {
    Text {
        request: Box<Request>,
        stop: StopStrings,
        /// Tell each token of the prompt, and so many of the best ones.
        prompt_logprobs: Option<usize>,
    },
    /// The vectors of these texts.
    Vectors { texts: Vec<Vec<u32>> },
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The model that this server has itself, on one machine or on several.
    Here,
    /// The large model of a machine above, by its place among them; drafted here, where that is faster.
    Upstream(usize),
}

/// Who wrote the tokens of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// One after the other.
    pub parts: Vec<(By, u64)>,
    /// Of the large model, for its part.
    pub passes: u64,
    /// What was drafted for that here.
    pub yields: Yields,
}

/// What its reader hears; `choice` counts the answers of one order.
#[derive(Debug)]
pub enum Said {
    /// It is decided who answers, before anything else is said.
    Placed {
        by: By,
        why: String,
        /// Both models are to be asked, to see whether this one's answer is worse.
        audit: bool,
    },
    /// Somebody else is to be asked for the whole order; nothing follows.
    Away {
        why: String,
    },
    /// `reused`: tokens of the prompt that were not read again.
    Started {
        choice: usize,
        reused: usize,
    },
    /// A token of the prompt, where they are to be told: one after the other.
    Prompt {
        choice: usize,
        token: PromptToken,
    },
    Text {
        choice: usize,
        piece: Piece,
        by: By,
    },
    Vector {
        text: usize,
        vector: Vec<f32>,
    },
    /// `written`: tokens of the answer.
    Ended {
        choice: usize,
        why: End,
        written: usize,
        share: Share,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Stop,
    Length,
    /// The form that the request asks for cannot be had.
    Unfit(String),
    Failed(String),
    /// The server stops, and would not wait for the rest.
    Closing,
}

/// Why an order was not taken.
#[derive(Debug)]
pub enum NotTaken {
    Refused(Refused),
    /// The thread is no more.
    Gone,
}

/// Answers to be written for one client: all are taken, or none.
pub(super) struct Order {
    pub client: Client,
    pub asked: Vec<Asked>,
    pub asking: Asking,
    pub reader: UnboundedSender<Said>,
    pub taken: oneshot::Sender<Result<(), Refused>>,
    pub at: Instant,
}

/// What the thread hears.
pub(super) enum Input {
    Order(Order),
    /// From machines whose drafts are verified here.
    Drafter(FromDrafter),
    /// How the model here did.
    Audited {
        worse: bool,
    },
    /// What is to outlive the server is to be written down.
    Keep(oneshot::Sender<()>),
}

/// How others reach the thread.
#[derive(Clone)]
pub struct Writer {
    inputs: mpsc::Sender<Input>,
    waker: Option<Waker>,
    cut: Arc<AtomicBool>,
}

/// Bounds of what is taken in.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Answers that are written at once.
    pub running_max: usize,
    /// Answers that wait for a place.
    pub waiting_max: usize,
}

impl Writer {
    /// Starts the thread. What is returned last is ready when the thread ends, which it does when all writers are gone.
    pub fn start(
        motor: Motor,
        routed: Option<Routed>,
        pool: Pool,
        room: Room,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (inputs, incoming) = mpsc::channel();
        let (alive, ended) = oneshot::channel();
        let cut = Arc::new(AtomicBool::new(false));
        let cutting = cut.clone();
        let waker = motor.waker();
        std::thread::Builder::new().name("writer".into()).spawn(move || {
            let model = motor.engine().model().clone();
            Desk::new(motor, routed, &model.tokeniser, room, metrics, cutting).work(&incoming, &pool);
            drop::<oneshot::Sender<()>>(alive);
        })?;
        Ok((Self { inputs, waker, cut }, ended))
    }

    /// # Errors
    /// If one of them cannot be answered, or too many wait.
    pub async fn ask(
        &self,
        client: Client,
        asked: Vec<Asked>,
        asking: Asking,
    ) -> Result<UnboundedReceiver<Said>, NotTaken> {
        let (reader, said) = unbounded_channel();
        let (taken, told) = oneshot::channel();
        let order = Order { client, asked, asking, reader, taken, at: Instant::now() };
        self.inputs.send(Input::Order(order)).map_err(|_| NotTaken::Gone)?;
        self.waker.iter().for_each(Waker::wake);
        match told.await {
            Ok(Ok(())) => Ok(said),
            Ok(Err(refused)) => Err(NotTaken::Refused(refused)),
            Err(_) => Err(NotTaken::Gone),
        }
    }

    /// Something came from a machine whose drafts are verified here.
    pub fn hear(&self, said: FromDrafter) {
        let _ = self.inputs.send(Input::Drafter(said));
        self.waker.iter().for_each(Waker::wake);
    }

    /// Both models were asked: was the answer of the one here worse?
    pub fn audited(&self, worse: bool) {
        let _ = self.inputs.send(Input::Audited { worse });
    }

    /// Writes down what is to outlive the server.
    pub async fn keep(&self) {
        let (kept, told) = oneshot::channel();
        if self.inputs.send(Input::Keep(kept)).is_ok() {
            self.waker.iter().for_each(Waker::wake);
            let _ = told.await;
        }
    }

    /// Ends all answers where they are.
    pub fn cut(&self) {
        self.cut.store(true, SeqCst);
        self.waker.iter().for_each(Waker::wake);
    }
}
