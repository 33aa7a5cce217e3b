//! From the tokens of one answer to the text that its reader sees.
//!
//! Text lags behind tokens: half a character waits for its other half, and what may become a stop string waits until it
//! is one or not. A token's log-probability comes out with the first text that the token has a part in, so that a reader
//! who stops at a stop string hears of no token behind it.

use littoral_infer::sample::TokenLogProb;
use littoral_infer::sample::stop::StopStrings;
use littoral_model::text::{Detokeniser, Tokeniser};
use std::collections::VecDeque;

/// A token as `logprobs` tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    pub id: u32,
    pub logprob: f32,
    /// The best ones at this place.
    pub top: Vec<TokenLogProb>,
}

/// What a reader sees next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    pub text: String,
    pub tokens: Vec<Token>,
}

impl Piece {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty()
    }
}

pub struct Words<'m> {
    detokeniser: Detokeniser<'m>,
    stop: StopStrings,
    /// Bytes of text so far, and of those that went out.
    made: usize,
    shown: usize,
    /// Tokens that wait for their text, each with where it begins.
    held: VecDeque<(usize, Token)>,
}

impl<'m> Words<'m> {
    pub fn new(tokeniser: &'m Tokeniser, stop: StopStrings) -> Self {
        Self { detokeniser: Detokeniser::new(tokeniser), stop, made: 0, shown: 0, held: VecDeque::new() }
    }

    pub fn push(&mut self, id: u32, told: Option<Token>) -> Piece {
        if let Some(token) = told {
            self.held.push_back((self.made, token));
        }
        let text = self.detokeniser.push(id);
        self.made += text.len();
        let text = self.stop.push(text);
        self.shown += text.len();
        let count = self.held.iter().take_while(|(start, _)| *start < self.shown).count();
        Piece { text, tokens: self.held.drain(..count).map(|(_, token)| token).collect() }
    }

    /// The rest, when the model writes no more.
    pub fn finish(&mut self) -> Piece {
        let mut text = self.stop.push(self.detokeniser.finish());
        if self.stopped() {
            return Piece { text, tokens: Vec::new() };
        }
        text.push_str(&self.stop.finish());
        Piece { text, tokens: self.held.drain(..).map(|(_, token)| token).collect() }
    }

    /// A stop string was written: nothing more is shown.
    pub fn stopped(&self) -> bool {
        self.stop.stopped_by().is_some()
    }
}
