//! What machines say that run one model's layers one after another (pipeline parallelism).
//!
//! The **head** has the text and both ends of the model; the other **stages** have ranges of layers. The head dials every
//! stage and stays connected; a stage dials the next one; the last one answers the head on the head's own link.
//!
//! ```text
//!  head                        stage 1                      stage 2
//!    |  Assign ----------------->|                             |   (which layers, who comes before and after)
//!    |  Assign ------------------------------------------------>|
//!    |                           |  Join -------------------->|
//!    |<------------------- Ready |                             |
//!    |<--------------------------------------------------Ready |
//!    |  Pass ------------------->|  Pass -------------------->|
//!    |<------------------------------------------------- Pass  |   (vectors of the wanted tokens)
//! ```
//!
//! After a machine was lost the head counts on to the next **epoch**: passes of earlier ones are dropped wherever they are.
//! A stage that has taken layers over hears again what its neighbour sent before ([`Pipeline::Replay`], [`Pipeline::Again`]).
//!
//! Nothing here says what vectors mean. Token ids do not travel.

use crate::bounded::{Blob, List};
use crate::codec::{DecodeError, Reader, Wire, wire_names, wire_struct};
use crate::identity::NodeId;
use crate::message::{Name, Reason, SocketName};

/// Vectors in one pass.
pub const VECTORS_BYTES_MAX: usize = 4 << 20;
/// Sequences in one pass.
pub const PIECES_MAX: usize = 1_024;
/// Ranges of layers that one machine has.
pub const SEGMENTS_MAX: usize = 64;
/// Machines in one chain, and so times in a pass.
pub const STAGES_MAX: usize = 64;
/// States that are told of in one message.
pub const STATES_MAX: usize = 16_384;

wire_names! {
    /// How vectors travel.
    pub enum Activations {
        /// As they are: the same text, bit for bit, as on one machine.
        F32 = 0,
        F16 = 1,
        /// Blocks of 64 with a scale each.
        Int8 = 2,
    }
}

wire_struct! {
    /// Layers `start..end` of a model.
    pub struct Layers {
        pub start: u32,
        pub end: u32,
    }

    pub struct Neighbour {
        pub id: NodeId,
        pub at: SocketName,
    }

    /// What a stage is to be from this epoch on.
    pub struct Assign {
        pub epoch: u32,
        /// BLAKE3 of the model's file.
        pub model: [u8; 32],
        /// Next to each other, in this order.
        pub segments: List<Layers, SEGMENTS_MAX>,
        /// The number of the type in which keys and values are kept, as GGUF counts types.
        pub cache_type: u8,
        pub activations: Activations,
        /// Who sends it vectors; none: the head.
        pub from: Option<NodeId>,
        /// Whom it sends what comes out; none: the head, which gets the wanted tokens only.
        pub to: Option<Neighbour>,
    }

    /// Some tokens of a sequence.
    pub struct Piece {
        pub slot: u64,
        /// Position of the first.
        pub start: u32,
        pub tokens: u32,
        /// Of so many last ones somebody wants what comes out.
        pub wanted: u32,
    }

    /// `to` begins with the first positions of `from`.
    pub struct Fork {
        pub from: u64,
        pub to: u64,
        pub positions: u32,
    }

    pub struct Pass {
        pub epoch: u32,
        pub number: u64,
        pub forks: List<Fork, PIECES_MAX>,
        pub freed: List<u64, STATES_MAX>,
        pub pieces: List<Piece, PIECES_MAX>,
        /// What the machines before took, in their order.
        pub times_us: List<u32, STAGES_MAX>,
        /// Of all tokens, or back to the head of the wanted ones.
        pub vectors: Blob<VECTORS_BYTES_MAX>,
    }

    /// A sequence's state and how far it goes.
    pub struct Held {
        pub slot: u64,
        pub positions: u32,
    }

    /// What a machine can do for others.
    pub struct Offer {
        pub name: Name,
        /// Free for weights and states.
        pub memory_bytes: u64,
        pub disk_bytes: u64,
        /// What its threads read of memory.
        pub read_bytes_per_s: u64,
        /// Multiplications and additions of long prompts.
        pub operations_per_s: u64,
        pub threads: u16,
        /// Where other stages dial it.
        pub at: SocketName,
        /// BLAKE3 of models whose files it has.
        pub models: List<[u8; 32], 256>,
    }
}

/// One message. The number before each variant is its first byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// Head to stage, first on its link. Stage to head: what it can do.
    Hello,
    Offer(Offer),
    /// First on a link that is for beats only.
    Watch,
    /// Either way; answered with the same count. `done`: passes of its epoch that a stage has run.
    Beat {
        count: u64,
        epoch: u32,
        done: u64,
    },
    Assign(Assign),
    /// Its layers are loaded, and it has a link to whom it sends.
    Ready {
        epoch: u32,
        load_us: u64,
    },
    Refused {
        epoch: u32,
        reason: Reason,
    },
    /// First on a stage's link to the next one.
    Join {
        epoch: u32,
    },
    Pass(Pass),
    /// A pass needs positions that are not here; it and those behind it were dropped.
    Lacking {
        epoch: u32,
        number: u64,
        held: Held,
    },
    /// Head to the stage before one that lacks states: send again what you sent.
    Replay {
        epoch: u32,
        states: List<Held, STATES_MAX>,
    },
    /// What was sent before. `last`: nothing of this replay comes behind it.
    Again {
        last: bool,
        pass: Pass,
    },
    /// A stage that heard a replay to its end has these states.
    Replayed {
        epoch: u32,
        replay_us: u64,
        states: List<Held, STATES_MAX>,
    },
    /// Head to stage: nothing more is wanted of it.
    Release,
}

impl Pipeline {
    /// For logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello => "Hello",
            Self::Offer(_) => "Offer",
            Self::Watch => "Watch",
            Self::Beat { .. } => "Beat",
            Self::Assign(_) => "Assign",
            Self::Ready { .. } => "Ready",
            Self::Refused { .. } => "Refused",
            Self::Join { .. } => "Join",
            Self::Pass(_) => "Pass",
            Self::Lacking { .. } => "Lacking",
            Self::Replay { .. } => "Replay",
            Self::Again { .. } => "Again",
            Self::Replayed { .. } => "Replayed",
            Self::Release => "Release",
        }
    }
}

impl Wire for Pipeline {
    const BYTES_MIN: usize = 1;
    const BYTES_MAX: usize = 2 + Pass::BYTES_MAX;

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello => 0u8.put(out),
            Self::Offer(offer) => {
                1u8.put(out);
                offer.put(out);
            }
            Self::Watch => 2u8.put(out),
            Self::Beat { count, epoch, done } => {
                3u8.put(out);
                count.put(out);
                epoch.put(out);
                done.put(out);
            }
            Self::Assign(assign) => {
                4u8.put(out);
                assign.put(out);
            }
            Self::Ready { epoch, load_us } => {
                5u8.put(out);
                epoch.put(out);
                load_us.put(out);
            }
            Self::Refused { epoch, reason } => {
                6u8.put(out);
                epoch.put(out);
                reason.put(out);
            }
            Self::Join { epoch } => {
                7u8.put(out);
                epoch.put(out);
            }
            Self::Pass(pass) => {
                8u8.put(out);
                pass.put(out);
            }
            Self::Lacking { epoch, number, held } => {
                9u8.put(out);
                epoch.put(out);
                number.put(out);
                held.put(out);
            }
            Self::Replay { epoch, states } => {
                10u8.put(out);
                epoch.put(out);
                states.put(out);
            }
            Self::Again { last, pass } => {
                11u8.put(out);
                last.put(out);
                pass.put(out);
            }
            Self::Replayed { epoch, replay_us, states } => {
                12u8.put(out);
                epoch.put(out);
                replay_us.put(out);
                states.put(out);
            }
            Self::Release => 13u8.put(out),
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        Ok(match u8::take(reader)? {
            0 => Self::Hello,
            1 => Self::Offer(Offer::take(reader)?),
            2 => Self::Watch,
            3 => Self::Beat { count: u64::take(reader)?, epoch: u32::take(reader)?, done: u64::take(reader)? },
            4 => Self::Assign(Assign::take(reader)?),
            5 => Self::Ready { epoch: u32::take(reader)?, load_us: u64::take(reader)? },
            6 => Self::Refused { epoch: u32::take(reader)?, reason: Reason::take(reader)? },
            7 => Self::Join { epoch: u32::take(reader)? },
            8 => Self::Pass(Pass::take(reader)?),
            9 => Self::Lacking { epoch: u32::take(reader)?, number: u64::take(reader)?, held: Held::take(reader)? },
            10 => Self::Replay { epoch: u32::take(reader)?, states: List::take(reader)? },
            11 => Self::Again { last: bool::take(reader)?, pass: Pass::take(reader)? },
            12 => {
                Self::Replayed { epoch: u32::take(reader)?, replay_us: u64::take(reader)?, states: List::take(reader)? }
            }
            13 => Self::Release,
            got => return Err(DecodeError::UnknownTag { what: "pipeline message", offset, got }),
        })
    }
}
