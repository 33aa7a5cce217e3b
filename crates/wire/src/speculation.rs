//! The conversation of a drafter and its verifier: an edge drafts tokens of an answer, the cloud says which are the answer's.
//!
//! ```text
//!  drafter                      verifier
//!    |<------------------- Model  |   which model it has
//!    |  Open -------------------->|   the prompt, how to choose, what will be declared
//!    |<------------------ Opened  |   (or Refused)
//!    |  Round ------------------->|   drafted tokens, or none: go on by yourself
//!    |<------------------ Commit  |   tokens of the answer: drafted ones that hold, and one more
//!    |  Resume ------------------>|   a link broke, or a commit is missing: what comes after these?
//!    |<------------------ Commit  |   (or Gone)
//!    |  Close ------------------->|
//! ```
//!
//! The verifier alone commits. Positions count the answer's tokens from 0, so a round or a commit says the same whenever and
//! however often it arrives. A [`Digest`] names all tokens before a position: a round whose digest does not fit what was
//! committed was drafted after tokens that are not the answer's, and is dead.
//!
//! Not here: what is done about any of it (`infer::speculate`), and who may ask (the link knows its peer).

use crate::bounded::List;
use crate::codec::{DecodeError, Reader, Wire, wire_messages, wire_names, wire_struct};
use crate::message::Reason;
use std::fmt;

/// Bytes of one message: as many as of any other, and the longest prompt fits.
pub const SPECULATION_BYTES_MAX: usize = crate::message::MESSAGE_BYTES_MAX;
/// Tokens of a prompt: 4.2 MB.
pub const PROMPT_TOKENS_MAX: usize = 1 << 20;
/// Tokens whose logits a request may bias.
pub const BIASES_MAX: usize = 4_096;
/// Drafted tokens in one round.
pub const ROUND_TOKENS_MAX: usize = 64;
/// Tokens in one commit; of more, several tell.
pub const COMMIT_TOKENS_MAX: usize = 1_024;
/// Tokens that a draft distribution may name.
pub const DECLARED_MAX: usize = 32;
/// The most probable tokens that are told beside a chosen one: what OpenAI allows.
pub const TOP_LOGPROBS_MAX: usize = 20;

/// A number, carried as the bits of an `f32`, of which any are taken: whoever uses it checks its range.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Real(u32);

impl Real {
    pub fn new(value: f32) -> Self {
        Self(value.to_bits())
    }

    pub fn get(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

impl Wire for Real {
    const BYTES_MIN: usize = 4;
    const BYTES_MAX: usize = 4;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(u32::take(reader)?))
    }
}

/// Names a sequence of tokens: 16 bytes of BLAKE3 over the digest of all but the last and the last, so that a longer text's
/// digest costs one step more. A mistake would take 2^64 texts of one session; it would cost speed, never a wrong token, since
/// drafted tokens are checked against the answer anyway.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Of no tokens.
    pub const EMPTY: Self = Self([0; 16]);

    /// Of these tokens and one more: the first 16 bytes of BLAKE3 over the digest and the token, little-endian.
    pub fn then(self, token: u32) -> Self {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&self.0);
        bytes[16..].copy_from_slice(&token.to_le_bytes());
        let hash = blake3::hash(&bytes);
        Self(std::array::from_fn(|i| hash.as_bytes()[i]))
    }

    pub fn of(tokens: &[u32]) -> Self {
        tokens.iter().fold(Self::EMPTY, |digest, &token| digest.then(token))
    }
}

/// As hexadecimal digits.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Wire for Digest {
    const BYTES_MIN: usize = 16;
    const BYTES_MAX: usize = 16;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(Wire::take(reader)?))
    }
}

wire_names! {
    /// What rounds carry beside drafted ids.
    pub enum Drafts {
        /// Nothing: drafter and verifier draw with the same noise, and the text is that of plain decoding.
        Ids = 0,
        /// What each token was drawn from: the text has the law of plain decoding. This release refuses it.
        Declared = 1,
    }

    /// What the verifier does when a round is used up, or does not hold.
    pub enum Want {
        /// It waits for the next round.
        Wait = 0,
        /// It goes on by itself, a token a pass.
        Stream = 1,
    }

    /// Why an answer is complete.
    pub enum Ending {
        /// The model said so.
        End = 0,
        /// As many tokens as were asked for.
        Length = 1,
        /// The model's context is full.
        Context = 2,
    }
}

wire_struct! {
    /// Added to a token's logit.
    #[derive(Copy)]
    pub struct Bias {
        pub id: u32,
        pub bias: Real,
    }

    /// How tokens are chosen: `infer::sample::SamplingParams` has what each number means and which are allowed.
    pub struct Sampling {
        pub temperature: Real,
        pub top_k: u32,
        pub top_p: Real,
        pub min_p: Real,
        pub typical_p: Real,
        pub repetition_penalty: Real,
        pub repetition_window: u32,
        pub frequency_penalty: Real,
        pub presence_penalty: Real,
        /// Ids ascend.
        pub logit_bias: List<Bias, BIASES_MAX>,
        pub seed: u64,
    }

    /// What is to be answered, and how.
    pub struct Request {
        /// Of the tokeniser: both must mean the same by an id.
        pub tokeniser: [u8; 32],
        /// At least one token.
        pub prompt: List<u32, PROMPT_TOKENS_MAX>,
        pub sampling: Sampling,
        /// At least 1.
        pub max_tokens: u32,
        /// Write on where the model would end.
        pub ignore_end: bool,
        /// Tell log-probabilities, and so many of the best, at most [`TOP_LOGPROBS_MAX`].
        pub top_logprobs: Option<u8>,
        pub drafts: Drafts,
    }

    /// A token and its probability's natural logarithm.
    #[derive(Copy)]
    pub struct TopToken {
        pub id: u32,
        pub logprob: Real,
    }

    /// What is told of a token where log-probabilities are wanted.
    pub struct TokenLogProbs {
        pub logprob: Real,
        /// The most probable first.
        pub top: List<TopToken, TOP_LOGPROBS_MAX>,
    }

    /// A token of the answer.
    pub struct Committed {
        pub id: u32,
        pub logprobs: Option<TokenLogProbs>,
    }

    /// A token and how probable it is, in 65,536ths, less one of them.
    #[derive(Copy)]
    pub struct Share {
        pub id: u32,
        pub less_one: u16,
    }
}

impl Share {
    /// The probability in 65,536ths, 1 or more.
    pub fn mass(&self) -> u32 {
        u32::from(self.less_one) + 1
    }
}

/// What a drafted token was drawn from: 1 to 32 tokens, ids ascending, whose masses add up to 65,536 exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declared(List<Share, DECLARED_MAX>);

impl Declared {
    /// The mass of all tokens together.
    pub const ONE: u32 = 1 << 16;

    /// None if ids do not ascend, are none or more than [`DECLARED_MAX`], or masses do not add up to [`Declared::ONE`].
    pub fn new(shares: Vec<Share>) -> Option<Self> {
        let shares = List::new(shares).ok()?;
        adds_up(&shares).then_some(Self(shares))
    }

    /// How much of [`Declared::ONE`] a token has; 0 if it is not named.
    pub fn mass(&self, id: u32) -> u32 {
        self.0.binary_search_by_key(&id, |share| share.id).map_or(0, |at| self.0[at].mass())
    }
}

fn adds_up(shares: &[Share]) -> bool {
    let total: u64 = shares.iter().map(|share| u64::from(share.mass())).sum();
    total == u64::from(Declared::ONE) && shares.is_sorted_by(|a, b| a.id < b.id)
}

impl std::ops::Deref for Declared {
    type Target = [Share];
    fn deref(&self) -> &[Share] {
        &self.0
    }
}

impl Wire for Declared {
    /// One token that has it all.
    const BYTES_MIN: usize = 4 + Share::BYTES_MIN;
    const BYTES_MAX: usize = List::<Share, DECLARED_MAX>::BYTES_MAX;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let shares = List::take(reader)?;
        match adds_up(&shares) {
            true => Ok(Self(shares)),
            false => Err(DecodeError::Invalid {
                what: "draft distribution",
                offset,
                why: "ascending ids whose masses add up to 65536 expected",
            }),
        }
    }
}

wire_messages! {
    /// One message: a tag byte, then the fields in order.
    pub enum Speculation, bytes_max: SPECULATION_BYTES_MAX, {
        /// Again for a session that is open: answered again, and nothing else.
        0 Open {
            /// The drafter's number for it, new for each answer.
            session: u64,
            request: Request,
        }
        1 Opened { session: u64, }
        2 Refused { session: u64, reason: Reason, }
        3 Round {
            session: u64,
            /// Grows with every round of the session, those that are sent again too.
            number: u32,
            /// The verifier's, as the last commit told it. Rounds of earlier ones are dead.
            epoch: u32,
            /// So many tokens the drafter knows committed.
            commit: u32,
            /// Where in the answer the first of `tokens` stands.
            start: u32,
            /// Of the answer's tokens before `start`, drafted ones too.
            digest: Digest,
            tokens: List<u32, ROUND_TOKENS_MAX>,
            /// What each was drawn from, where that was agreed.
            distributions: Option<List<Declared, ROUND_TOKENS_MAX>>,
            /// That of the greatest number counts, be the round dead or not.
            want: Want,
        }
        4 Commit {
            session: u64,
            /// How often a drafted token was not the answer's.
            epoch: u32,
            /// Where in the answer the first of `tokens` stands.
            start: u32,
            tokens: List<Committed, COMMIT_TOKENS_MAX>,
            /// The answer is complete with the last of `tokens`.
            finished: Option<Ending>,
            /// Passes of the model so far in which tokens of this answer were chosen.
            passes: u32,
            /// Of the pass that chose `tokens`: how long it took, and how many drafted tokens it looked at. Both 0 if they are
            /// told again.
            pass_us: u32,
            tried: u8,
        }
        /// Tell what comes after `commit` tokens with this digest.
        5 Resume { session: u64, commit: u32, digest: Digest, }
        /// Nobody wants the rest.
        6 Close { session: u64, }
        /// The verifier does not have, or gave up, this session.
        7 Gone { session: u64, reason: Reason, }
        /// The verifier's first word on a link: BLAKE3 of its model's file. A calibration is of one large model.
        8 Model { blake3: [u8; 32], }
    }
}

impl Speculation {
    /// `None`: it is of no session.
    pub fn session(&self) -> Option<u64> {
        match self {
            Self::Open { session, .. }
            | Self::Opened { session }
            | Self::Refused { session, .. }
            | Self::Round { session, .. }
            | Self::Commit { session, .. }
            | Self::Resume { session, .. }
            | Self::Close { session }
            | Self::Gone { session, .. } => Some(*session),
            Self::Model { .. } => None,
        }
    }

    /// What a field's comment promises and its type does not.
    fn broken_promise(&self) -> Option<&'static str> {
        match self {
            Self::Open { request, .. } => request.broken_promise(),
            Self::Round { commit, start, .. } if start < commit => Some("a start at or after the commit expected"),
            Self::Round { start, tokens, .. } if start.checked_add(tokens.len() as u32).is_none() => {
                Some("an end below 2^32 expected")
            }
            Self::Round { tokens, distributions: Some(declared), .. } if tokens.len() != declared.len() => {
                Some("one distribution per token expected")
            }
            Self::Commit { start, tokens, .. } if start.checked_add(tokens.len() as u32).is_none() => {
                Some("an end below 2^32 expected")
            }
            _ => None,
        }
    }
}

impl Request {
    fn broken_promise(&self) -> Option<&'static str> {
        match self {
            Self { prompt, .. } if prompt.is_empty() => Some("a prompt of at least one token expected"),
            Self { max_tokens: 0, .. } => Some("max_tokens of at least 1 expected"),
            Self { top_logprobs: Some(count), .. } if usize::from(*count) > TOP_LOGPROBS_MAX => {
                Some("at most 20 log-probabilities expected")
            }
            Self { sampling, .. } if !sampling.logit_bias.is_sorted_by(|a, b| a.id < b.id) => {
                Some("biases of ascending ids expected")
            }
            _ => None,
        }
    }
}
