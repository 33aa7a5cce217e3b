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
//! Before that a head may measure a stage, over a link of its own ([`Pipeline::Echo`], [`Pipeline::Profile`]).
//! A stage that has no copy of the model's file **fetches** the layers that the head names: each is a tile, an object in chunks
//! ([`crate::object`]). It asks over a link of its own, so that nothing else waits for long frames. The head dials that one, too
//! (it need not be reachable), and a stage may dial another stage:
//!
//! ```text
//!  head                        stage 1                      stage 2
//!    |  Get -------------------->|                             |   (which layers, who else may be asked)
//!    |  Share ------------------------------------------------>|   (who may ask it)
//!    |<-------------------- Has  |                             |   (what is here; again whenever that is more)
//!    |  Supply =================>|                             |   (a second link)
//!    |<=================== Which |                             |
//!    |  Tile ===================>|                             |
//!    |<==================== Want |  Fetch ===================>|   (a link of its own, where the head's is no good)
//!    |  Chunk ==================>|  Want ====================>|
//! ```
//!
//! Nothing here says what vectors mean. Token ids do not travel.

use crate::bounded::{Blob, List};
use crate::codec::{wire_messages, wire_names, wire_struct};
use crate::identity::NodeId;
use crate::message::{Name, Reason, SocketName};
use crate::object::{CHUNK_BYTES, Manifest, ObjectId};

/// Vectors in one pass.
pub const VECTORS_BYTES_MAX: usize = 4 << 20;
/// Sequences in one pass.
pub const PIECES_MAX: usize = 1_024;
/// Ranges of layers that one machine has.
pub const SEGMENTS_MAX: usize = 64;
/// Machines in one chain, and so times in a pass.
pub const STAGES_MAX: usize = 64;
/// What an echo carries, one way.
pub const ECHO_BYTES_MAX: usize = 1 << 20;
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

    /// What a machine has for others.
    pub struct Offer {
        pub name: Name,
        /// Free for weights and states; 0 where the system does not tell.
        pub memory_bytes: u64,
        pub threads: u16,
        /// Where other stages dial it.
        pub at: SocketName,
        /// BLAKE3 of models whose files it has.
        pub models: List<[u8; 32], 256>,
    }

    /// What a machine measured of itself for a model, and what it gives.
    pub struct Profile {
        pub name: Name,
        /// Machines that say the same are processes of one, and share its cores; zeros: it does not know.
        pub host: [u8; 16],
        /// Free for weights and states before it had any; 0 where the system does not tell.
        pub memory_bytes: u64,
        /// For layers that it keeps for others.
        pub disk_free_bytes: u64,
        /// From the disk with its file of the model, past what the system keeps in memory; 0: it does not know.
        pub disk_read_bytes_per_s: u64,
        /// Of weights, while one token goes through layers; what a layer takes beside reading is in it.
        pub read_bytes_per_s: u64,
        /// While many tokens go through a layer: multiplications and additions, each counted.
        pub prefill_flops_per_s: u64,
        /// Of the model's layers that were timed; 0: it has no file of the model, and timed a matrix of its own.
        pub timed_bytes: u64,
    }

    /// Layers that a stage is to have as tiles, in this order.
    pub struct Get {
        /// BLAKE3 of the model's file.
        pub model: [u8; 32],
        pub layers: List<Layers, SEGMENTS_MAX>,
        /// Stages that have some of them, to be asked where the head's bytes are no good.
        pub sources: List<Neighbour, STAGES_MAX>,
    }
}

wire_messages! {
    /// One message: a tag byte, then the fields in order.
    pub enum Pipeline, bytes_max: 2 + Pass::BYTES_MAX, {
        /// Head to stage, first on its link. Answered with an offer.
        0 Hello {}
        1 Offer { offer: Offer, }
        /// First on a link that is for beats only.
        2 Watch {}
        /// Either way; answered with the same count.
        3 Beat {
            count: u64,
            epoch: u32,
            /// Passes of its epoch that a stage has run.
            done: u64,
        }
        4 Assign { assign: Assign, }
        /// Its layers are loaded, and it has a link to whom it sends.
        5 Ready { epoch: u32, load_us: u64, }
        6 Refused { epoch: u32, reason: Reason, }
        /// First on a stage's link to the next one.
        7 Join { epoch: u32, }
        8 Pass { pass: Pass, }
        /// A pass needs positions that are not here; it was dropped, and what comes back of those behind it is not waited for.
        9 Lacking { epoch: u32, number: u64, held: Held, }
        /// Head to the stage before one that lacks states: send again what you sent.
        10 Replay { epoch: u32, states: List<Held, STATES_MAX>, }
        /// What was sent before.
        11 Again {
            /// Nothing of this replay comes behind it.
            last: bool,
            pass: Pass,
        }
        /// A stage that heard a replay to its end has these states.
        12 Replayed { epoch: u32, replay_us: u64, states: List<Held, STATES_MAX>, }
        /// Head to stage: it has no layers any more. The link stays.
        13 Release {}
        /// Head to a stage that has no copy of the model's file; the last one counts.
        14 Get { get: Get, }
        /// The layers of [`Get`](Self::Get) that are here as tiles: said at once, and whenever it is another number. `why`: the
        /// next one does not come; it is tried again.
        15 Has { model: [u8; 32], layers: List<Layers, SEGMENTS_MAX>, why: Option<Reason>, }
        /// Head to stage: who may fetch tiles from it.
        16 Share { machines: List<NodeId, STAGES_MAX>, }
        /// Head to stage, first on a link over which the stage asks for tiles.
        17 Supply {}
        /// Stage to stage, first on a link over which the one that dials asks for tiles.
        18 Fetch {}
        /// To the head, which alone knows: what tile is this layer?
        19 Which { model: [u8; 32], layer: u32, }
        20 Tile { model: [u8; 32], layer: u32, manifest: Manifest, }
        21 Want { object: ObjectId, chunk: u32, }
        /// In the order in which they were asked for.
        22 Chunk { object: ObjectId, chunk: u32, bytes: Blob<CHUNK_BYTES>, }
        /// Instead of a tile or a chunk; from a stage that was told to get layers: it can have none.
        23 Cannot { reason: Reason, }
        /// First on a link that is for measuring; answered with an echo of `back` bytes.
        30 Echo { back: u32, blob: Blob<ECHO_BYTES_MAX>, }
        /// Head to stage, on such a link: how fast is it at layers of this model? Answered when some were loaded and timed.
        31 Profile { model: [u8; 32], }
        32 Profiled { profile: Profile, }
    }
}

impl Pipeline {
    /// What is promised and not in the fields' types.
    fn broken_promise(&self) -> Option<&'static str> {
        match self {
            Self::Echo { back, .. } if *back as usize > ECHO_BYTES_MAX => {
                Some("more than an echo may carry is asked for")
            }
            _ => None,
        }
    }
}
