//! The socket below TLS: counts bytes, and reads as much at a time as the peer keeps sending.
//!
//! rustls asks its socket for 4 KiB at a time, one system call each. This reads up to [`READ_AHEAD_BYTES_MAX`] into a
//! buffer instead, twice as much as last time whenever the last read was full, and frees the buffer as soon as the
//! socket has nothing more: an idle connection holds none.

use super::Counters;
use bytes::BufMut;
use std::{
    io,
    pin::Pin,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

const READ_AHEAD_BYTES_MIN: usize = 8 << 10;
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

pub(super) struct ReadAhead {
    socket: TcpStream,
    counters: Arc<Counters>,
    buffer: Vec<u8>,
    used: usize,
    /// How much to ask for next.
    ahead: usize,
}

impl ReadAhead {
    pub(super) fn new(socket: TcpStream, counters: Arc<Counters>) -> Self {
        Self { socket, counters, buffer: Vec::new(), used: 0, ahead: READ_AHEAD_BYTES_MIN }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.clear();
        self.used = 0;
        self.buffer.reserve_exact(self.ahead);
        let count = {
            let mut room = (&mut self.buffer).limit(self.ahead);
            pin!(self.socket.read_buf(&mut room)).poll(cx)
        };
        let Poll::Ready(count) = count else {
            self.buffer = Vec::new();
            self.ahead = (self.ahead / 2).max(READ_AHEAD_BYTES_MIN);
            return Poll::Pending;
        };
        let count = count?;
        self.counters.add_received(count);
        if count == self.ahead {
            self.ahead = (2 * self.ahead).min(READ_AHEAD_BYTES_MAX);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.used == self.buffer.len() {
            ready!(self.poll_fill(cx))?;
        }
        let count = out.remaining().min(self.buffer.len() - self.used);
        out.put_slice(&self.buffer[self.used..self.used + count]);
        self.used += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.socket).poll_write(cx, bytes))?;
        self.counters.add_sent(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.socket).poll_write_vectored(cx, slices))?;
        self.counters.add_sent(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
