//! Server-sent events, cut out of the pieces in which they come.
//!
//! Each byte is looked at once, however small the pieces are. Lines end with `\n` or `\r\n`; an event ends with an empty line.

use std::borrow::Cow;

#[derive(Default)]
pub struct Events {
    held: Vec<u8>,
    /// Where the event that is not whole yet begins.
    begin: usize,
    /// Bytes that were looked at.
    seen: usize,
    /// Bytes of the line that is not whole yet, without `\r`.
    line: usize,
}

impl Events {
    pub fn push(&mut self, piece: &[u8]) {
        // What is moved is at most as much as was taken since the last time.
        if self.begin > self.held.len() / 2 {
            self.held.drain(..self.begin);
            self.seen -= self.begin;
            self.begin = 0;
        }
        self.held.extend_from_slice(piece);
    }

    /// The next whole event, with the empty line that ends it.
    pub fn next(&mut self) -> Option<&[u8]> {
        while let Some(&byte) = self.held.get(self.seen) {
            self.seen += 1;
            match byte {
                b'\r' => {}
                b'\n' if self.line == 0 => {
                    let begin = std::mem::replace(&mut self.begin, self.seen);
                    return Some(&self.held[begin..self.seen]);
                }
                b'\n' => self.line = 0,
                _ => self.line += 1,
            }
        }
        None
    }

    /// What there is of an event that is not whole yet; call it after [`Self::next`] had none.
    pub fn rest(&self) -> &[u8] {
        &self.held[self.begin..]
    }

    /// The same, which is taken as if it were whole: its end will be an event of its own.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.held.split_off(self.begin);
        self.held.clear();
        (self.begin, self.seen) = (0, 0);
        rest
    }
}

/// What an event says: its lines of `data`. `None`: it has none, as a comment that keeps a connection open.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let lines = event.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut said =
        lines.filter_map(|line| line.strip_prefix(b"data:")).map(|data| data.strip_prefix(b" ").unwrap_or(data));
    let first = said.next()?;
    let mut others = said.peekable();
    if others.peek().is_none() {
        return Some(Cow::Borrowed(first));
    }
    let mut all = first.to_vec();
    for line in others {
        all.push(b'\n');
        all.extend_from_slice(line);
    }
    Some(Cow::Owned(all))
}

/// Is it the last, in the words of OpenAI's servers?
pub fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut events, mut got) = (Events::default(), Vec::new());
        for piece in pieces {
            events.push(piece);
            while let Some(event) = events.next() {
                got.push(event.to_vec());
            }
        }
        let rest = events.rest().to_vec();
        (got, rest)
    }

    proptest! {
        #[test]
        fn events_are_the_same_in_whatever_pieces_they_come(
            text in "(d|:|\r?\n|\r?\n\r?\n){0,40}", cuts in proptest::collection::vec(1usize..5, 60),
        ) {
            let (mut rest, mut pieces) = (text.as_bytes(), Vec::new());
            for cut in cuts {
                let (piece, others) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = others;
            }
            pieces.push(rest);
            let got = all(&pieces);
            prop_assert_eq!(&got, &all(&[text.as_bytes()]));
            prop_assert_eq!([got.0.concat(), got.1].concat(), text.as_bytes());
        }
    }

    /// Byte by byte, and all events at once: a parser that looks again at what it has would need days for either.
    #[test]
    fn long_events_and_many_take_time_in_proportion() {
        const BYTES: usize = 8 << 20;
        let mut events = Events::default();
        for _ in 0..BYTES {
            events.push(b"x");
            assert!(events.next().is_none());
        }
        events.push(b"\n\n");
        assert_eq!(events.next().map(<[u8]>::len), Some(BYTES + 2));
        events.push(&b"a\n\n".repeat(BYTES / 4));
        let count = std::iter::from_fn(|| events.next().map(<[u8]>::len)).inspect(|len| assert_eq!(*len, 3)).count();
        assert_eq!((count, events.rest()), (BYTES / 4, &b""[..]));
    }

    #[test]
    fn what_an_event_says() {
        for (event, said) in [
            ("data: {}\n\n", Some("{}")),
            ("data:{}\r\n\r\n", Some("{}")),
            ("event: x\ndata: a\ndata: b\nid: 1\n\n", Some("a\nb")),
            (": ping\n\n", None),
            ("\n", None),
        ] {
            assert_eq!(data(event.as_bytes()).as_deref(), said.map(str::as_bytes), "{event:?}");
        }
        assert!(is_done(b"[DONE]") && is_done(b" [DONE]\r") && !is_done(b"[DONE] not"));
    }
}
