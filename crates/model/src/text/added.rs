//! Tokens that are matched as they are written, before anything else cuts the text.
//!
//! The longest token wins, wherever it stands; among tokens of one length the leftmost. That is llama.cpp's order, and
//! not that of a scan from the left: with tokens `ab` and `bcd`, the text `abcd` is `a`, `bcd`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A part of a text: not yet looked at, or one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Token(u32),
}

/// The tokens to look for, as a tree over their bytes.
pub(super) struct Added {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    /// Ordered by byte.
    children: Vec<(u8, u32)>,
    token: Option<u32>,
}

impl Added {
    pub(super) fn new<'a>(tokens: impl Iterator<Item = (u32, &'a str)>) -> Self {
        let mut nodes = vec![Node::default()];
        for (id, text) in tokens.filter(|(_, text)| !text.is_empty()) {
            let mut at = 0;
            for byte in text.bytes() {
                at = match nodes[at].children.binary_search_by_key(&byte, |child| child.0) {
                    Ok(found) => nodes[at].children[found].1 as usize,
                    Err(place) => {
                        let new = nodes.len();
                        nodes[at].children.insert(place, (byte, new as u32));
                        nodes.push(Node::default());
                        new
                    }
                };
            }
            nodes[at].token = Some(id);
        }
        Self { nodes }
    }

    /// The longest token that these bytes begin with and that `may` be taken: its length and id.
    fn longest(&self, bytes: &[u8], may: impl Fn(usize, u32) -> bool) -> Option<(usize, u32)> {
        let (mut node, mut found) = (&self.nodes[0], None);
        for (at, byte) in bytes.iter().enumerate() {
            let Ok(child) = node.children.binary_search_by_key(byte, |child| child.0) else { break };
            node = &self.nodes[node.children[child].1 as usize];
            found = node.token.map(|id| (at + 1, id)).filter(|&(len, id)| may(len, id)).or(found);
        }
        found
    }

    /// Whether these bytes begin with a token, or are the beginning of one.
    pub(super) fn begins(&self, bytes: &[u8]) -> bool {
        let mut node = &self.nodes[0];
        for byte in bytes {
            let Ok(child) = node.children.binary_search_by_key(byte, |child| child.0) else { return false };
            node = &self.nodes[node.children[child].1 as usize];
            if node.token.is_some() {
                return true;
            }
        }
        !bytes.is_empty()
    }

    /// Cuts a text at its tokens, those that `may(place, length, id)` be taken. No piece of text is empty.
    ///
    /// The heap holds at most one token per place, the longest that may still be there, so that a run of line feeds
    /// with a token for every length of run costs no more than other text.
    pub(super) fn cut<'t>(&self, text: &'t str, may: impl Fn(usize, usize, u32) -> bool) -> Vec<Piece<'t>> {
        let bytes = text.as_bytes();
        let longest = |at: usize, end: usize| {
            let found = self.longest(&bytes[at..end], |len, id| may(at, len, id));
            found.map(|(len, id)| (len, Reverse(at), id))
        };
        let mut heap: BinaryHeap<(usize, Reverse<usize>, u32)> =
            (0..bytes.len()).filter_map(|at| longest(at, bytes.len())).collect();
        if heap.is_empty() {
            return Some(Piece::Text(text)).filter(|_| !text.is_empty()).into_iter().collect();
        }
        let mut taken = vec![false; bytes.len()];
        let mut matches = Vec::new();
        while let Some((len, Reverse(at), id)) = heap.pop() {
            // What is taken already is at least as long as this, so that it covers an end of it if it touches it at all.
            if taken[at] {
                continue;
            }
            if taken[at + len - 1] {
                let free = taken[at..].iter().take_while(|&&taken| !taken).count();
                heap.extend(longest(at, at + free));
                continue;
            }
            taken[at..at + len].fill(true);
            matches.push((at, len, id));
        }
        matches.sort_unstable();

        let mut pieces = Vec::with_capacity(2 * matches.len() + 1);
        let mut end = 0;
        for (at, len, id) in matches {
            if end < at {
                pieces.push(Piece::Text(&text[end..at]));
            }
            pieces.push(Piece::Token(id));
            end = at + len;
        }
        if end < text.len() {
            pieces.push(Piece::Text(&text[end..]));
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::Piece::{Text, Token};
    use super::*;

    fn cut<'t>(added: &Added, text: &'t str) -> Vec<Piece<'t>> {
        added.cut(text, |_, _, _| true)
    }

    #[test]
    fn the_longest_token_wins_then_the_leftmost() {
        let added = Added::new([(0, "ab"), (1, "bcd"), (2, "\n"), (3, "\n\n"), (4, "\n\n\n")].into_iter());
        assert_eq!(cut(&added, "abcd"), [Text("a"), Token(1)]);
        assert_eq!(cut(&added, "abab"), [Token(0), Token(0)]);
        assert_eq!(cut(&added, &"\n".repeat(8)), [Token(4), Token(4), Token(3)]);
        assert_eq!(cut(&added, "é\nabcdé"), [Text("é"), Token(2), Text("a"), Token(1), Text("é")]);
        assert_eq!(cut(&added, "x"), [Text("x")]);
        assert_eq!(cut(&added, ""), []);
    }

    #[test]
    fn a_token_cut_short_by_a_longer_one_gives_way_to_what_still_fits() {
        let added = Added::new([(0, "abc"), (1, "cdef"), (2, "ab")].into_iter());
        assert_eq!(cut(&added, "abcdef"), [Token(2), Token(1)]);
    }

    #[test]
    fn a_token_that_may_not_be_taken_leaves_its_place_to_shorter_ones() {
        let added = Added::new([(0, "ab"), (1, "abc"), (2, "c")].into_iter());
        assert_eq!(added.cut("abcabc", |at, len, _| at > 0 || len < 3), [Token(0), Token(2), Token(1)]);
        assert!(added.begins(b"abx") && added.begins(b"a"));
        assert!(!added.begins(b"ax") && !added.begins(b"b") && !added.begins(b""));
    }
}
