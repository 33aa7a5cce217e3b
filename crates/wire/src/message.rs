//! Every message between machines.
//!
//! Three parties: a **device** trains on its own data, an **edge** sums what devices send, the **cloud** selects,
//! applies and announces. Devices and edges dial; the cloud answers. A device talks to one edge at a time (the cloud
//! has an edge of its own inside), an edge to the cloud. An operator's command line talks to the cloud.
//!
//! One training round, read downwards:
//!
//! ```text
//!  cloud                      edge                         device
//!    |  Open ------------------>|  Task --------------------->|   (model by GetChunk / Chunk, edge caches it)
//!    |                          |<--------------- Offer       |   (sealed update, pulled by GetChunk / Chunk)
//!    |<------------ Progress    |  Absorbed ---------------->|
//!    |<---- SealingFrom         |<------------------ Sealing |   (where sums are masked: the steps of secure aggregation,
//!    |  SealingTo ------------->|  Sealing ----------------->|    which the edge passes on unread)
//!    |  Close ----------------->|                             |
//!    |<------------ Partial     |                             |   (pulled by GetChunk / Chunk)
//!    |  PartialKept ----------->|                             |
//!    |  Announce -------------->|  Verdict ----------------->|   (included or not, with a proof)
//! ```
//!
//! Where updates may be old, devices train first, for a collection of [`Work::Prepare`], which gathers nothing: they answer
//! `Ready` and keep what they learnt until another collection asks for it.
//!
//! Nothing here says what the words of an update mean; that is `fed`'s business.

use crate::bounded::{Blob, List, Text};
use crate::codec::{DecodeError, Reader, Wire, wire_messages, wire_names, wire_struct};
use crate::given::Given;
use crate::identity::NodeId;
use crate::object::{CHUNK_BYTES, Chain, INLINE_BYTES_MAX, Manifest, ObjectId};

/// Bytes of one message, and so of a frame that carries one.
pub const MESSAGE_BYTES_MAX: usize = 5 << 20;
/// Devices in one cohort, and so in one message: they fit in [`MESSAGE_BYTES_MAX`] beside the manifest of the biggest
/// object (2.1 MB), a chain, a job's description and an inline object.
pub const COHORT_MAX: usize = 49_152;
/// Data sets that one device may offer, and collections that it may hold sealed updates for.
pub const OFFERS_MAX: usize = 64;
/// Edges that a device is told of.
pub const UPSTREAMS_MAX: usize = 64;
/// A job's encoded description.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// A command, or one part of an answer to it.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// One step of secure aggregation, of one device: a thousand neighbours with keys, signatures and proofs, and the nonces
/// of a whole cohort.
pub const SEALING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// An answer in all its parts: a fleet of 49,152 machines, each told in a thousand bytes.
pub const ANSWER_BYTES_MAX: usize = 48 * BODY_BYTES_MAX;

/// A sentence for people.
pub type Reason = Text<512>;
/// A name that people chose.
pub type Name = Text<64>;
/// `host:port`.
pub type SocketName = Text<264>;
/// Object bytes that ride along with the message that offers them.
pub type Inline = Option<Blob<INLINE_BYTES_MAX>>;

wire_names! {
    /// What a machine is.
    pub enum Role {
        Cloud = 0,
        Edge = 1,
        Device = 2,
        Operator = 3,
    }

    /// What a collection gathers.
    pub enum Work {
        /// Sums for standardisation, before the first version.
        Statistics = 0,
        /// Updates of a model version.
        Train = 1,
        /// Counts of right answers on held-out rows.
        Evaluate = 2,
        /// Updates of a model version that devices make and keep, until a collection of [`Work::Train`] asks for them: no
        /// sum is made of these.
        Prepare = 3,
    }

    /// A step of secure aggregation (`privacy::secagg` has the protocol and the bytes), in order. What is said of `up` comes
    /// from a device, the rest goes to it.
    pub enum SealingStep {
        /// Up: public keys, before anybody knows who will be whose neighbour.
        Keys = 0,
        /// The list of keys is fixed.
        Fixed = 1,
        /// Up: what the device committed to beside its keys.
        Nonce = 2,
        Neighbours = 3,
        /// Up: an encrypted share of each secret for each neighbour.
        Shares = 4,
        /// The neighbours' shares: masks can be laid on.
        Shared = 5,
        /// Whose updates are in the sum.
        Survivors = 6,
        /// Up: a signature over the survivors.
        Agree = 7,
        /// The neighbours' signatures.
        Agreed = 8,
        /// Up: one share per neighbour.
        Reveal = 9,
    }

    /// What an edge makes of the updates of a collection.
    pub enum Gather {
        /// One sum.
        Sum = 0,
        /// A list: each update as it came, one after another in the order of the partial's devices.
        Each = 1,
    }

    /// What an edge says about one device of a collection.
    pub enum Fate {
        /// Its update is in this edge's partial.
        Absorbed = 0,
        /// The device will not or cannot take part.
        Declined = 1,
        /// Asked to release the device, the edge had nothing of it and will absorb nothing.
        Released = 2,
        /// Its update was malformed and refused.
        Refused = 3,
        /// It left before its update was complete.
        Detached = 4,
        /// It has trained, and keeps its update.
        Ready = 5,
    }
}

/// A job's number in its fleet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct JobId(pub u64);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Wire for JobId {
    const BYTES_MIN: usize = 8;
    const BYTES_MAX: usize = 8;
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(u64::take(reader)?))
    }
}

wire_struct! {
    /// What is being gathered: everything about a round is keyed by this. A version's next attempt is another
    /// collection; sums of two attempts never meet.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct Collection {
        pub job: JobId,
        /// The model version that the work starts from.
        pub version: u64,
        pub work: Work,
        pub attempt: u32,
    }

    /// An edge's one try at a collection: what the cloud fences. A restarted edge tries under a new number.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct Incarnation {
        pub collection: Collection,
        pub number: u64,
    }

    /// A data set that a device offers, and how many rows of it.
    pub struct DataOffer {
        pub name: Name,
        pub rows: u64,
    }

    /// A machine that devices may dial.
    pub struct Upstream {
        pub id: NodeId,
        pub address: SocketName,
    }

    /// A new model version, signed by the cloud.
    pub struct Announcement {
        /// The collection that made it.
        pub collection: Collection,
        /// The version now current.
        pub version: u64,
        /// Which line of versions this is; a device may hold versions of two channels.
        pub channel: Name,
        pub model: ObjectId,
        /// Root of the hash tree over the included devices' keys, sorted.
        pub included_root: [u8; 32],
        pub included_count: u32,
        /// By the cloud, over all fields above.
        pub signature: [u8; 64],
    }

    /// Where a device's key stands in the tree of included devices.
    pub struct Proof {
        pub index: u32,
        pub path: List<[u8; 32], 32>,
    }

    /// The end of a collection, told to one device: included if the proof holds, else not.
    pub struct Verdict {
        pub collection: Collection,
        pub announcement: Option<Announcement>,
        pub proof: Option<Proof>,
    }

    /// Which devices there are, by somebody whom devices trust more than the cloud: a cloud that could make devices up
    /// would be most of a cohort, and see through the masks of the rest.
    pub struct Roster {
        pub cloud: NodeId,
        /// Grows with every roster; a device that has seen a newer one does not go back.
        pub number: u64,
        /// Root of the hash tree over the devices' keys, sorted.
        pub root: [u8; 32],
        pub count: u32,
        /// By the roster key, over all fields above.
        pub signature: [u8; 64],
    }

    /// A device is on a roster.
    pub struct Listed {
        pub roster: Roster,
        pub proof: Proof,
    }

    /// A device whose work is wanted, and what it must have kept for it.
    pub struct Asked {
        pub device: NodeId,
        /// The number of the last version that training made and that counts this device; 0: none does. (Versions are
        /// fewer than 2^32: a job has at most a million rounds.)
        pub counted: u32,
        pub effort: Effort,
    }

    /// What a device tells of itself with its update, where its job chooses devices by it: in the open, and nobody can check it.
    #[derive(Copy)]
    pub struct Note {
        /// Rows that it trained on.
        pub rows: u64,
        /// Its mean loss on them while it trained, in millionths; a larger one than this holds is this.
        pub loss_ppm: u32,
    }

    /// An edge's open collection, told when it (re)connects.
    pub struct OpenState {
        pub incarnation: Incarnation,
        pub absorbed: List<NodeId, COHORT_MAX>,
    }
}

/// How a device comes to the update that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Effort {
    /// It trains, as long as the job says.
    #[default]
    Job,
    /// It trains so many steps, 1 or more.
    Steps(u32),
    /// It has trained for [`Work::Prepare`] of this version, and kept what it learnt; which counts this many 256ths, since
    /// it may be old by now.
    Kept { version: u64, times: u16 },
}

impl Wire for Effort {
    const BYTES_MIN: usize = 1;
    const BYTES_MAX: usize = 11;

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Job => out.push(0),
            Self::Steps(steps) => {
                out.push(1);
                steps.put(out);
            }
            Self::Kept { version, times } => {
                out.push(2);
                version.put(out);
                times.put(out);
            }
        }
    }

    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        match u8::take(reader)? {
            0 => Ok(Self::Job),
            1 => Ok(Self::Steps(Wire::take(reader)?)),
            2 => Ok(Self::Kept { version: Wire::take(reader)?, times: Wire::take(reader)? }),
            got => Err(DecodeError::UnknownTag { what: "effort", offset, got }),
        }
    }
}

wire_messages! {
    /// One message: a tag byte, then the fields in order.
    pub enum Message, bytes_max: MESSAGE_BYTES_MAX, {
        // ---- any two machines ----
        0 Ping { nonce: u64, }
        1 Pong { nonce: u64, }
        /// The last word before hanging up.
        2 Bye { reason: Reason, }
        /// Please send this chunk.
        3 GetChunk { object: ObjectId, index: u32, }
        4 Chunk { object: ObjectId, index: u32, bytes: Blob<CHUNK_BYTES>, }
        /// I do not have it (any more).
        5 NoChunk { object: ObjectId, index: u32, }
        /// A request was refused: what, where, what was expected, what came.
        6 Denied { what: Reason, place: Reason, expected: Reason, got: Reason, }

        // ---- enrolment (machine to cloud) ----
        10 Join {
            /// From the ticket; proves that somebody let this key in.
            secret: [u8; 16],
            role: Role,
            name: Name,
        }
        11 Joined { name: Name, upstreams: List<Upstream, UPSTREAMS_MAX>, }
        /// Replace the sender's key by another one, which signs the old one's id.
        12 Rotate { to: NodeId, signature: [u8; 64], }
        13 Rotated { to: NodeId, }

        // ---- device to edge ----
        20 Attach {
            name: Name,
            data: List<DataOffer, OFFERS_MAX>,
            /// Collections whose sealed update this device keeps, waiting for a verdict.
            held: List<Collection, OFFERS_MAX>,
        }
        /// The sealed update of a collection, ready to be pulled.
        21 Offer { collection: Collection, update: Manifest, inline: Inline, note: Option<Note>, }
        22 Declined { collection: Collection, reason: Reason, }
        /// A step of secure aggregation. It goes in both directions.
        23 Sealing { collection: Collection, step: SealingStep, body: Blob<SEALING_BYTES_MAX>, }
        /// What was asked to be prepared is trained, and kept here.
        24 Ready { collection: Collection, note: Option<Note>, }

        // ---- edge to device ----
        30 Attached { cloud: NodeId, upstreams: List<Upstream, UPSTREAMS_MAX>, }
        31 Task {
            collection: Collection,
            spec: Blob<SPEC_BYTES_MAX>,
            model: Manifest,
            before: Chain,
            /// The bytes of `model`.
            inline: Inline,
            /// As in [`Asked`]: what the device keeps of the job must be as of that version.
            counted: u32,
            /// As in [`Message::Open`].
            commitment: Option<[u8; 32]>,
            /// As in [`Asked`].
            effort: Effort,
        }
        32 Absorbed { collection: Collection, }
        33 Refused { collection: Collection, reason: Reason, }
        34 Told { verdict: Verdict, }
        /// There is nothing to do: hang up, and come back after so long. Who has something to do does not go.
        35 Later { after_ms: u64, }

        // ---- edge to cloud ----
        /// States that do not fit in [`MESSAGE_BYTES_MAX`] together are left out: to the cloud they are lost, as after a
        /// restart. (All other messages fit by the bounds of their fields.)
        40 EdgeAttach { name: Name, listen: SocketName, open: List<OpenState, OFFERS_MAX>, }
        41 DeviceAttached {
            device: NodeId,
            name: Name,
            data: List<DataOffer, OFFERS_MAX>,
            held: List<Collection, OFFERS_MAX>,
        }
        42 DeviceDetached { device: NodeId, }
        43 Progress { incarnation: Incarnation, device: NodeId, fate: Fate, reason: Reason, note: Option<Note>, }
        /// A closed partial, ready to be pulled: a sum, or a list, as [`Message::Open`] says.
        44 Partial {
            incarnation: Incarnation,
            devices: List<NodeId, COHORT_MAX>,
            sum: Manifest,
            inline: Inline,
        }
        /// This edge has no such incarnation (it restarted, or was fenced).
        45 NoPartial { incarnation: Incarnation, }
        /// A device's step of secure aggregation, for the cloud to read.
        46 SealingFrom {
            device: NodeId,
            collection: Collection,
            step: SealingStep,
            body: Blob<SEALING_BYTES_MAX>,
        }

        // ---- cloud to edge ----
        50 EdgeAttached { name: Name, upstreams: List<Upstream, UPSTREAMS_MAX>, }
        51 Open {
            /// Absorb under this number.
            incarnation: Incarnation,
            spec: Blob<SPEC_BYTES_MAX>,
            model: Manifest,
            before: Chain,
            /// The bytes of `model`.
            inline: Inline,
            devices: List<Asked, COHORT_MAX>,
            /// Words in an update of this collection.
            words: u64,
            /// Bits per word, 1 to 64.
            bits: u8,
            /// Where the sum is masked: to what the cloud adds to the choice of neighbours, before it knows any key.
            commitment: Option<[u8; 32]>,
            gather: Gather,
            /// Which of `devices` are given a model of their own instead of `model`. Of more than fit, several messages tell.
            given: Given,
        }
        52 Release { incarnation: Incarnation, device: NodeId, }
        53 Close { incarnation: Incarnation, }
        /// Drop this incarnation; nothing of it will be used.
        54 Fence { incarnation: Incarnation, }
        /// The partial is durable at the cloud.
        55 PartialKept { incarnation: Incarnation, }
        /// A version is current; tell the devices. `included` is sorted, each device once.
        56 Announce { announcement: Announcement, included: List<NodeId, COHORT_MAX>, }
        /// The end of an older collection, for a device that asked.
        57 Tell { device: NodeId, verdict: Verdict, }
        58 Admit { device: NodeId, }
        /// The key is not, or no longer, enrolled: hang up.
        59 Cut { node: NodeId, reason: Reason, }

        // ---- operator to cloud and back ----
        60 Command {
            /// JSON.
            body: Blob<BODY_BYTES_MAX>,
            nonce: u64,
            issued_at_ms: u64,
            /// By the operator's key, over the fields above and the cloud's key.
            signature: [u8; 64],
        }
        61 Reply {
            nonce: u64,
            /// JSON, or a part of it: the parts of an answer come one after another, the last one without `more`.
            body: Blob<BODY_BYTES_MAX>,
            more: bool,
            /// No other answer follows.
            last: bool,
        }
        /// Which object is the job's current version? Answered by `Model` or `Denied`; its chunks by `GetChunk`.
        62 GetModel { job: JobId, }
        63 Model { job: JobId, version: u64, model: Manifest, before: Chain, }

        // ---- cloud to edge, where sums are masked ----
        /// A step of secure aggregation, for these devices to read.
        64 SealingTo {
            devices: List<NodeId, COHORT_MAX>,
            collection: Collection,
            step: SealingStep,
            body: Blob<SEALING_BYTES_MAX>,
        }
    }
}

impl Message {
    /// What a field's comment promises and its type does not: refused on decoding, so that nobody who reads a message
    /// need ask.
    fn broken_promise(&self) -> Option<&'static str> {
        match self {
            Self::Open { bits, .. } if !(1..=64).contains(bits) => Some("1 to 64 bits per word expected"),
            Self::Announce { included, .. } if !included.is_sorted_by(|a, b| a < b) => {
                Some("each included device once, sorted, expected")
            }
            _ => None,
        }
    }
}

impl Announcement {
    pub const DOMAIN: &'static str = "announcement";

    /// The bytes that the cloud signs: the encoding without the signature.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        bytes.truncate(bytes.len() - self.signature.len());
        bytes
    }
}

impl Roster {
    pub const DOMAIN: &'static str = "roster";

    /// The bytes that the roster key signs: the encoding without the signature.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        bytes.truncate(bytes.len() - self.signature.len());
        bytes
    }
}

/// The bytes that an operator signs: for this cloud, this body, once.
pub fn command_bytes(cloud: NodeId, body: &[u8], nonce: u64, issued_at_ms: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 48);
    cloud.put(&mut out);
    nonce.put(&mut out);
    issued_at_ms.put(&mut out);
    out.extend_from_slice(body);
    out
}

/// A version as [`Asked::counted`] names it.
pub fn version_number(version: u64) -> u32 {
    u32::try_from(version).unwrap_or(u32::MAX)
}

pub const COMMAND_DOMAIN: &str = "command";
pub const ROTATE_DOMAIN: &str = "rotate";
