//! Frames over an ordered byte stream: a `u32` little-endian length, then that many bytes.
//!
//! ```text
//! frame    = length:u32 bytes            length <= FRAME_BYTES_MAX
//! closing  = 0xffff_ffff:u32 frame       the frame holds code:u32 and a UTF-8 reason; nothing follows
//! ```
//!
//! Both directions are **cancel-safe**: dropping the future of `send` or `recv` never tears a frame. The frame of a
//! dropped `send` goes out whole with the next call or not at all; one that `recv` has half read is finished by the
//! next call.
//!
//! Memory: a reader keeps [`READ_BYTES`] and a frame under construction, which grows only with bytes that have
//! arrived; a writer keeps at most [`WRITE_BYTES`] and gives them back when it has flushed.
//!
//! Not here: encryption, retries, a queue. A writer that cannot write makes the caller wait.

use super::error::of_socket;
use super::{Result, TransportError};
use bytes::{Buf, BufMut, Bytes};
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest frame. A length above it is refused before anything is allocated.
pub const FRAME_BYTES_MAX: usize = littoral_wire::message::MESSAGE_BYTES_MAX;

/// A peer's goodbye is cut to this many bytes of UTF-8.
pub const CLOSE_REASON_BYTES_MAX: usize = 1024;

/// Frames are gathered up to this size, so that many small ones leave in one write.
const WRITE_BYTES: usize = 64 << 10;
/// A TLS record's worth.
const RECORD_BYTES: usize = 16 << 10;
/// Kept by a flushed writer.
const WRITE_BYTES_IDLE: usize = 4 << 10;
/// Headers and small frames are read through a buffer of this size, longer payloads straight into the frame.
const READ_BYTES: usize = 4 << 10;
/// First allocation for a frame whose length is claimed but whose bytes have not arrived; doubled as it fills.
const FRAME_BYTES_FIRST: usize = 16 << 10;

const CLOSING: u32 = u32::MAX;

pub(super) struct FrameWriter<W> {
    writer: W,
    at: Arc<str>,
    /// Gathered bytes; the first `written` of them have left.
    buffer: Vec<u8>,
    written: usize,
    /// What follows the buffer: the rest of a long frame, never copied.
    rest: Bytes,
    closed: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(writer: W, at: Arc<str>) -> Self {
        Self { writer, at, buffer: Vec::new(), written: 0, rest: Bytes::new(), closed: false }
    }

    pub(super) async fn send(&mut self, frame: Bytes) -> Result<()> {
        if frame.len() > FRAME_BYTES_MAX {
            let at = self.at.to_string();
            return Err(TransportError::FrameTooLarge { at, expected_max: FRAME_BYTES_MAX, got: frame.len() });
        }
        self.refuse_if_closed()?;
        if !self.rest.is_empty() || self.buffer.len() + 4 + frame.len().min(RECORD_BYTES) > WRITE_BYTES {
            self.write_out().await?;
        }
        self.buffer.put_u32_le(frame.len() as u32);
        // Of a frame that does not fit, only enough for one record: a chunk need not be in memory one and a half times.
        let fits = frame.len() <= WRITE_BYTES - self.buffer.len();
        let gathered = if fits { frame.len() } else { RECORD_BYTES.saturating_sub(self.buffer.len()) };
        self.buffer.extend_from_slice(&frame[..gathered]);
        if gathered < frame.len() {
            self.rest = frame.slice(gathered..);
            self.write_out().await?;
        }
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        self.write_out().await?;
        self.buffer.shrink_to(WRITE_BYTES_IDLE);
        self.writer.flush().await.map_err(|error| self.lost(error))
    }

    /// Says goodbye and ends the sending direction.
    pub(super) async fn close(&mut self, code: u32, reason: &str) -> Result<()> {
        if !self.closed {
            self.write_out().await?;
            let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
            self.buffer.put_u32_le(CLOSING);
            self.buffer.put_u32_le(4 + reason.len() as u32);
            self.buffer.put_u32_le(code);
            self.buffer.extend_from_slice(reason.as_bytes());
            self.closed = true;
        }
        self.flush().await?;
        self.writer.shutdown().await.map_err(|error| self.lost(error))
    }

    pub(super) fn get_ref(&self) -> &W {
        &self.writer
    }

    async fn write_out(&mut self) -> Result<()> {
        while self.written < self.buffer.len() {
            let count = self.writer.write(&self.buffer[self.written..]).await;
            self.written += self.progress(count)?;
        }
        self.buffer.clear();
        self.written = 0;
        while !self.rest.is_empty() {
            let count = self.writer.write(&self.rest).await;
            let count = self.progress(count)?;
            self.rest.advance(count);
        }
        self.rest = Bytes::new();
        Ok(())
    }

    fn progress(&self, count: io::Result<usize>) -> Result<usize> {
        match count {
            Ok(0) => Err(self.lost(io::ErrorKind::WriteZero.into())),
            Ok(count) => Ok(count),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn refuse_if_closed(&self) -> Result<()> {
        let lost = |at: &Arc<str>| TransportError::Lost {
            at: at.to_string(),
            expected: "an open sending direction",
            got: "one that was closed here".into(),
        };
        if self.closed { Err(lost(&self.at)) } else { Ok(()) }
    }

    fn lost(&self, error: io::Error) -> TransportError {
        TransportError::Lost { at: self.at.to_string(), expected: "a peer that takes bytes", got: of_socket(&error) }
    }
}

pub(super) struct FrameReader<R> {
    reader: R,
    at: Arc<str>,
    /// Bytes read and not yet used; the first `used` of them are done with.
    buffer: Vec<u8>,
    used: usize,
    state: Reading,
}

enum Reading {
    Header {
        closing: bool,
    },
    Payload {
        frame: Vec<u8>,
        length: usize,
        closing: bool,
    },
    /// The goodbye with code 0 has come.
    Closed,
    Failed,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(reader: R, at: Arc<str>) -> Self {
        Self { reader, at, buffer: Vec::new(), used: 0, state: Reading::Header { closing: false } }
    }

    /// The next frame; `None` after the peer's goodbye with code 0, for ever.
    pub(super) async fn recv(&mut self) -> Result<Option<Bytes>> {
        loop {
            match &mut self.state {
                Reading::Closed => return Ok(None),
                Reading::Failed => {
                    return Err(self.lost("an earlier failure of this connection".into()));
                }
                Reading::Header { closing } => {
                    let closing = *closing;
                    if self.buffer.len() - self.used < 4 {
                        self.fill().await?;
                        continue;
                    }
                    let length = (&self.buffer[self.used..]).get_u32_le();
                    self.used += 4;
                    self.state = self.begin(length, closing)?;
                }
                Reading::Payload { frame, length, closing } => {
                    let ready = (*length - frame.len()).min(self.buffer.len() - self.used);
                    grow(frame, *length, ready);
                    frame.extend_from_slice(&self.buffer[self.used..self.used + ready]);
                    self.used += ready;
                    let missing = *length - frame.len();
                    if missing == 0 {
                        let (frame, closing) = (std::mem::take(frame), *closing);
                        self.state = Reading::Header { closing: false };
                        if closing {
                            return self.goodbye(&frame);
                        }
                        return Ok(Some(frame.into()));
                    }
                    if missing < READ_BYTES {
                        self.fill().await?;
                        continue;
                    }
                    grow(frame, *length, 1);
                    let room = (frame.capacity() - frame.len()).min(missing);
                    match self.reader.read_buf(&mut (&mut *frame).limit(room)).await {
                        Ok(0) => return Err(self.failed("the end of the stream".into())),
                        Ok(_) => {}
                        Err(error) => return Err(self.failed(of_socket(&error))),
                    }
                }
            }
        }
    }

    fn begin(&mut self, length: u32, closing: bool) -> Result<Reading> {
        if length == CLOSING && !closing {
            return Ok(Reading::Header { closing: true });
        }
        let max = if closing { 4 + CLOSE_REASON_BYTES_MAX } else { FRAME_BYTES_MAX };
        let length = length as usize;
        if length > max {
            self.state = Reading::Failed;
            let at = self.at.to_string();
            return Err(TransportError::FrameTooLarge { at, expected_max: max, got: length });
        }
        Ok(Reading::Payload { frame: Vec::with_capacity(length.min(FRAME_BYTES_FIRST)), length, closing })
    }

    fn goodbye(&mut self, mut frame: &[u8]) -> Result<Option<Bytes>> {
        if frame.len() < 4 {
            self.state = Reading::Failed;
            let (at, got) = (self.at.to_string(), format!("{} bytes", frame.len()));
            return Err(TransportError::BadClosing { at, expected: "at least 4 bytes", got });
        }
        let code = frame.get_u32_le();
        if code == 0 {
            self.state = Reading::Closed;
            return Ok(None);
        }
        self.state = Reading::Failed;
        // A stranger wrote the reason: control characters must not reach a terminal.
        let reason = String::from_utf8_lossy(frame).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Err(TransportError::Closed { at: self.at.to_string(), code, reason })
    }

    /// Reads at least one byte behind the unused ones.
    async fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.reserve_exact(READ_BYTES - self.buffer.len());
        let room = READ_BYTES - self.buffer.len();
        match self.reader.read_buf(&mut (&mut self.buffer).limit(room)).await {
            Ok(0) => Err(self.failed("the end of the stream".into())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(of_socket(&error))),
        }
    }

    fn failed(&mut self, got: String) -> TransportError {
        let error = self.lost(got);
        self.state = Reading::Failed;
        error
    }

    fn lost(&self, got: String) -> TransportError {
        let expected = match &self.state {
            Reading::Payload { .. } => "the rest of a frame",
            _ => "a frame or a goodbye",
        };
        TransportError::Lost { at: self.at.to_string(), expected, got }
    }
}

/// Makes room for `more` bytes. Doubling follows what has arrived, so a claim without bytes costs nothing.
fn grow(frame: &mut Vec<u8>, length: usize, more: usize) {
    if frame.capacity() - frame.len() < more {
        let capacity = (2 * frame.capacity()).clamp(frame.len() + more, length.max(frame.len() + more));
        frame.reserve_exact(capacity - frame.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
        FrameReader::new(bytes, "here".into())
    }

    #[tokio::test]
    async fn an_oversized_length_is_refused_without_allocating() {
        for length in [FRAME_BYTES_MAX as u32 + 1, 0xffff_fffe] {
            let header = length.to_le_bytes();
            let mut reader = reader(&header);
            let error = reader.recv().await.unwrap_err().to_string();
            assert!(error.contains("5242880") && error.contains(&length.to_string()), "{error}");
            assert!(reader.buffer.capacity() <= READ_BYTES);
            assert!(matches!(reader.state, Reading::Failed));
        }
    }

    #[tokio::test]
    async fn a_claimed_length_allocates_only_what_arrives() {
        let mut bytes = (FRAME_BYTES_MAX as u32).to_le_bytes().to_vec();
        bytes.extend([7; 100_000]);
        let (mut far, near) = duplex(1 << 20);
        far.write_all(&bytes).await.unwrap();
        let mut reader = FrameReader::new(near, "here".into());
        let waiting = std::future::poll_fn(|cx| {
            let recv = std::pin::pin!(reader.recv());
            std::task::Poll::Ready(std::future::Future::poll(recv, cx).is_pending())
        });
        assert!(waiting.await);
        let Reading::Payload { frame, .. } = &reader.state else { panic!("a frame under construction") };
        assert_eq!(frame.len(), 100_000);
        assert!(frame.capacity() <= 200_000, "twice what arrived, got {}", frame.capacity());
    }

    #[tokio::test]
    async fn a_half_written_frame_is_an_error_and_stays_one() {
        for cut in [2, 4, 9] {
            let mut bytes = 10u32.to_le_bytes().to_vec();
            bytes.extend([1; 10]);
            let mut reader = reader(&bytes[..cut]);
            assert!(matches!(reader.recv().await, Err(TransportError::Lost { .. })), "cut at {cut}");
            assert!(reader.recv().await.is_err());
        }
    }

    #[tokio::test]
    async fn any_goodbye_is_bounded() {
        let closing = |length: u32, body: &[u8]| [&CLOSING.to_le_bytes(), &length.to_le_bytes(), body].concat();
        assert!(matches!(reader(&closing(4, &[0; 4])).recv().await, Ok(None)));
        assert!(matches!(reader(&closing(3, &[0; 3])).recv().await, Err(TransportError::BadClosing { .. })));
        assert!(matches!(reader(&closing(5000, &[])).recv().await, Err(TransportError::FrameTooLarge { .. })));
        assert!(matches!(reader(&closing(CLOSING, &[])).recv().await, Err(TransportError::FrameTooLarge { .. })));
        let bell = reader(&closing(6, b"\x01\0\0\0a\x07")).recv().await.unwrap_err();
        assert!(matches!(bell, TransportError::Closed { code: 1, reason, .. } if reason == "a "));
    }

    /// Frames around every buffer boundary, through a pipe so narrow that each write and read is cut.
    #[tokio::test]
    async fn frames_of_awkward_sizes_survive_a_narrow_pipe_and_cancelled_calls() {
        let edges = [0, 1, READ_BYTES, WRITE_BYTES, FRAME_BYTES_FIRST, 3 * WRITE_BYTES];
        let sizes: Vec<usize> = edges.iter().flat_map(|&edge| edge.saturating_sub(5)..edge + 5).collect();
        let (far, near) = duplex(777);
        let (mut writer, mut reader) = (FrameWriter::new(far, "w".into()), FrameReader::new(near, "r".into()));
        let send = async {
            let mut done = Vec::new();
            for (index, &size) in sizes.iter().enumerate() {
                let frame = Bytes::from(vec![index as u8; size]);
                // Every third send is dropped after one poll.
                let patience = async {
                    if index % 3 > 0 {
                        std::future::pending().await
                    }
                };
                tokio::select! { biased; sent = writer.send(frame) => { sent.unwrap(); done.push(index) }, _ = patience => {} }
            }
            writer.close(0, "done").await.unwrap();
            done
        };
        let recv = async {
            let mut frames = Vec::new();
            loop {
                tokio::select! { biased;
                    frame = reader.recv() => match frame.unwrap() { Some(frame) => frames.push(frame), None => break },
                    _ = tokio::task::yield_now() => {}
                }
            }
            frames
        };
        let (done, frames) = tokio::join!(send, recv);
        // The sizes of the sends that finished, and of some that were dropped, in order: never a torn frame.
        let mut arrived = sizes.iter().enumerate();
        let mut indices = Vec::new();
        for frame in &frames {
            let byte = frame.first().copied();
            let found =
                arrived.find(|(index, size)| **size == frame.len() && byte.is_none_or(|byte| byte == *index as u8));
            let (index, _) = found.expect("a whole frame, in order");
            assert!(frame.iter().all(|&byte| byte == index as u8));
            indices.push(index);
        }
        assert!(done.len() < sizes.len() && done.iter().all(|index| indices.contains(index)));
        assert!(writer.buffer.capacity() <= WRITE_BYTES_IDLE);
    }
}
