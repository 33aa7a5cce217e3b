//! An operator's side of a cloud: signed commands, their replies, models chunk by chunk.
//!
//! A command is signed for one cloud, once, now; see [`crate::role::cloud::command`] for how it is checked. What is
//! fetched is checked against the manifest that the cloud gave.

use crate::config::Network;
use crate::deploy::{Session, SessionError};
use crate::role::cloud::command::Command;
use crate::transport::Address;
use littoral_wire::bounded::printable;
use littoral_wire::message::{ANSWER_BYTES_MAX, COMMAND_DOMAIN, command_bytes};
use littoral_wire::object::{Chain, ChunkError, Manifest};
use littoral_wire::{Blob, JobId, Message, NodeId, SecretKey};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// Chunks of a model in flight.
const WINDOW: u32 = 16;
/// A cloud that has a chunk still to read is asked again after this long.
const ABSENT_PAUSE: Duration = Duration::from_millis(200);
/// So often at most.
const ABSENT_MAX: u32 = 25;

#[derive(Debug, Error)]
pub enum OperatorError {
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The cloud said no, and why.
    #[error("{what}: {place}: {expected} expected, got {got}")]
    Refused { what: String, place: String, expected: String, got: String },
    #[error("the command: at most {max} bytes expected, got {got}")]
    TooLong { max: usize, got: usize },
    #[error("the cloud's reply: at most {max} bytes expected, got {got}")]
    AnswerTooLong { max: usize, got: usize },
    #[error("the cloud's reply: {expected} expected, got {got}")]
    Malformed { expected: &'static str, got: String },
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    #[error("chunk {index} of the model: the cloud does not have it (any more)")]
    Gone { index: u32 },
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("the model could not be written: {0}")]
    Write(#[from] io::Error),
}

/// A connection of an operator to a cloud.
pub struct Operator {
    key: SecretKey,
    cloud: NodeId,
    session: Session,
}

impl Operator {
    pub async fn dial(key: &SecretKey, cloud: &Address, network: &Network) -> Result<Self, OperatorError> {
        let session = Session::dial(key, cloud, network).await?;
        Ok(Self { key: key.clone(), cloud: NodeId(cloud.id.0), session })
    }

    /// One command, one reply.
    pub async fn ask(&mut self, command: &Command) -> Result<Value, OperatorError> {
        let nonce = self.order(command).await?;
        let mut answer = Answer::to(nonce);
        loop {
            let message = self.session.answer().await?;
            if let Some((value, _)) = answer.part(message, &self.session)? {
                return checked(value);
            }
        }
    }

    /// A command that is answered again and again. The first answer is checked here.
    pub async fn watch(mut self, command: &Command) -> Result<Watch, OperatorError> {
        let nonce = self.order(command).await?;
        Ok(Watch { operator: self, answer: Answer::to(nonce), over: false })
    }

    async fn order(&mut self, command: &Command) -> Result<u64, OperatorError> {
        let body = serde_json::to_vec(command)
            .map_err(|e| OperatorError::Malformed { expected: "a command", got: e.to_string() })?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(OperatorError::Random)?;
        let nonce = u64::from_le_bytes(nonce);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let issued_at_ms = since_1970.as_millis() as u64;
        let signature = self.key.sign(COMMAND_DOMAIN, &command_bytes(self.cloud, &body, nonce, issued_at_ms));
        let body = Blob::new(body).map_err(|e| OperatorError::TooLong { max: e.maximum, got: e.got })?;
        self.session.send(&Message::Command { body, nonce, issued_at_ms, signature }).await?;
        Ok(nonce)
    }

    /// A job's current version: its number, the manifest of its object, and what that builds on.
    pub async fn model(&mut self, job: JobId) -> Result<(u64, Manifest, Chain), OperatorError> {
        self.session.send(&Message::GetModel { job }).await?;
        match self.session.answer().await? {
            Message::Model { job: of, version, model, before } if of == job => Ok((version, model, before)),
            Message::Denied { what, place, expected, got } => Err(OperatorError::Refused {
                what: what.to_string(),
                place: place.to_string(),
                expected: expected.to_string(),
                got: got.to_string(),
            }),
            other => Err(self.session.unexpected(&other).into()),
        }
    }

    /// Fetches an object into `out`, front to back; every chunk is checked.
    pub async fn fetch(&mut self, manifest: &Manifest, out: &mut impl Write) -> Result<(), OperatorError> {
        let object = manifest.id();
        // Chunks that came before their turn: at most a window of them.
        let mut early: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let (mut asked, mut written, mut absent) = (0, 0, 0);
        while written < manifest.chunks() {
            while asked < manifest.chunks() && asked < written + WINDOW {
                self.session.send(&Message::GetChunk { object, index: asked }).await?;
                asked += 1;
            }
            match self.session.answer().await? {
                Message::Chunk { object: of, index, bytes } if of == object && index >= written => {
                    manifest.check(index, &bytes)?;
                    early.insert(index, bytes.into_vec());
                }
                Message::NoChunk { object: of, index } if of == object => {
                    absent += 1;
                    if absent > ABSENT_MAX {
                        return Err(OperatorError::Gone { index });
                    }
                    tokio::time::sleep(ABSENT_PAUSE).await;
                    self.session.send(&Message::GetChunk { object, index }).await?;
                }
                _ => {}
            }
            while let Some(bytes) = early.remove(&written) {
                out.write_all(&bytes)?;
                written += 1;
            }
        }
        Ok(())
    }

    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Answers to a command that is answered again and again.
pub struct Watch {
    operator: Operator,
    answer: Answer,
    over: bool,
}

impl Watch {
    /// The next answer; `None` after the last one. Waits for as long as nothing changes.
    pub async fn next(&mut self) -> Result<Option<Value>, OperatorError> {
        while !self.over {
            let message = self.operator.session.recv().await?;
            if let Some((value, last)) = self.answer.part(message, &self.operator.session)? {
                self.over = last;
                return checked(value).map(Some);
            }
        }
        Ok(None)
    }
}

/// The parts of an answer that have come.
struct Answer {
    nonce: u64,
    bytes: Vec<u8>,
}

impl Answer {
    fn to(nonce: u64) -> Self {
        Self { nonce, bytes: Vec::new() }
    }

    /// With its last part, the answer, and whether no other follows. Parts of other answers are passed over.
    fn part(&mut self, message: Message, session: &Session) -> Result<Option<(Value, bool)>, OperatorError> {
        let Message::Reply { nonce, body, more, last } = message else {
            return Err(session.unexpected(&message).into());
        };
        if nonce != self.nonce {
            return Ok(None);
        }
        let got = self.bytes.len() + body.len();
        if got > ANSWER_BYTES_MAX {
            return Err(OperatorError::AnswerTooLong { max: ANSWER_BYTES_MAX, got });
        }
        self.bytes.extend_from_slice(&body);
        if more {
            return Ok(None);
        }
        let value = serde_json::from_slice(&std::mem::take(&mut self.bytes))
            .map_err(|e| OperatorError::Malformed { expected: "JSON", got: e.to_string() })?;
        Ok(Some((value, last)))
    }
}

/// An error in the reply is an error here.
fn checked(value: Value) -> Result<Value, OperatorError> {
    let Some(error) = value.get("error") else { return Ok(value) };
    let part = |name: &str| error.get(name).and_then(Value::as_str).map(printable).unwrap_or_default().into_owned();
    Err(OperatorError::Refused {
        what: part("what"),
        place: part("where"),
        expected: part("expected"),
        got: part("got"),
    })
}
