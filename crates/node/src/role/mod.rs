//! Roles decide, hosts do.
//!
//! A [`Role`] — device, edge or cloud — is a state machine: [`Role::step`] takes the time and one [`Event`] and adds
//! [`Effect`]s to a queue. It owns no socket, no file, no clock, no random source and no thread. Two hosts perform
//! effects: [`crate::host`] with real ones, and the simulator with virtual ones. What runs in a simulated fleet is
//! therefore what runs in a real one.
//!
//! # The contract between roles and hosts
//!
//! - A host feeds events one at a time and performs effects **in the order in which they were added**.
//! - [`Effect::Store`] is a barrier: effects behind it are performed only once its writes are durable. So a role that
//!   adds "store, then send" has told the world nothing that a crash could take back. A crash loses every effect that
//!   was not yet performed, and all state of the role but what was stored.
//! - [`Effect::Work`], [`Effect::Load`], [`Effect::Begin`] and [`Effect::Keep`] are answered by events, in any order;
//!   the host may run works in parallel.
//! - What a work makes is here from its [`Event::Worked`] on, and goes again unless the role needs it after that step.
//! - Equal bytes are one object, and two jobs may come to have the same. So a host asks [`Role::needs`] when the turn of
//!   an [`Effect::Drop`] comes, not when it was added, and drops nothing that is needed or that a store behind relies on.
//! - A link delivers messages in order or dies; after [`Event::Disconnected`] nothing arrives on it. Roles do not rely
//!   on more: what is outstanding is sent again on a timer, and every message may come twice.
//! - Bytes of objects go through the host ([`Effect::SendChunk`], [`Effect::Keep`]): a role holds manifests.

pub mod cloud;
pub mod device;
pub mod edge;
mod entropy;
pub mod fetch;
mod links;
pub mod redial;
mod said;
pub mod whole_cloud;

pub use entropy::Entropy;

use crate::job::Conditions;
use crate::work::{Output, Work, WorkFault};
use bytes::Bytes;
use littoral_wire::message::{Collection, JobId};
use littoral_wire::object::Manifest;
use littoral_wire::{Message, NodeId, ObjectId, Text};

/// Milliseconds: since 1970 in a deployment, since the start in a simulation. Never goes back within a run; a host
/// turns a clock that jumps into one that does not.
pub type Millis = u64;

/// A connection, numbered by the host from 1; numbers are not used twice in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A piece of work in hand, numbered by the role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkId(pub u64);

/// Where to dial: who must answer, and at which address (`host:port`; opaque to roles).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    pub id: NodeId,
    pub address: String,
}

/// What may be running out. A role has at most one timer of each kind; setting it again moves it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer {
    /// Liveness of links, and everything outstanding is sent again.
    Tick,
    /// Dial the next upstream.
    Redial,
    /// A job's deadline or waiting time.
    Job(JobId),
}

/// The name of the arithmetic with which a machine runs language models.
pub type Kernels = Text<64>;

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The first event of a run; what was stored has been handed to the role's constructor.
    Start,
    /// A link is up and both sides speak this protocol. `dialled`: we called. `kernels`: the peer's, by its hello.
    Connected {
        link: LinkId,
        peer: NodeId,
        dialled: bool,
        kernels: Kernels,
    },
    DialFailed {
        peer: Peer,
        reason: String,
    },
    Disconnected {
        link: LinkId,
        reason: String,
    },
    Received {
        link: LinkId,
        message: Message,
    },
    Timer(Timer),
    /// Answer to [`Effect::Begin`]: chunks of the object that are not here yet, ascending. None missing: it is whole.
    Begun {
        object: ObjectId,
        missing: Vec<u32>,
    },
    /// Answer to [`Effect::Keep`]: the chunk is kept, or `fault` says why not.
    Kept {
        object: ObjectId,
        index: u32,
        fault: Option<String>,
    },
    /// Answer to [`Effect::Load`]; no bytes: the object is not here or is damaged.
    Loaded {
        object: ObjectId,
        index: u32,
        bytes: Option<Bytes>,
    },
    Worked {
        id: WorkId,
        result: Result<Output, WorkFault>,
    },
    /// To a device: in what state its machine is, at first and whenever it changes.
    Conditions(Conditions),
    /// In a cloud of replicas: this one runs the job from now on; its rows as they are. Job 0: this one may change what is
    /// the fleet's; the fleet's rows.
    Leased {
        job: JobId,
        token: u64,
        rows: Vec<Row>,
    },
    /// In a cloud of replicas: others have changed these rows. Without a value: gone.
    Shared {
        rows: Vec<(RowKey, Option<Vec<u8>>)>,
    },
    /// In a cloud of replicas: the answer to an [`Effect::Pass`].
    Answered {
        link: LinkId,
        message: Message,
    },
}

/// What shall be done.
#[derive(Debug)]
pub enum Effect {
    /// Answered by `Connected { dialled: true }` or `DialFailed`.
    Dial(Peer),
    Hangup {
        link: LinkId,
        reason: String,
    },
    Send {
        link: LinkId,
        message: Message,
    },
    /// Sends `Message::Chunk` with the chunk's bytes, or `Message::NoChunk` if the object is not here.
    SendChunk {
        link: LinkId,
        object: ObjectId,
        index: u32,
    },
    /// All of these become durable together, or none.
    Store(Vec<Write>),
    /// Prepare to receive an object; chunks that an earlier run kept are found again by their hashes.
    Begin(Manifest),
    /// Check a chunk against the manifest given to `Begin` and keep it.
    Keep {
        object: ObjectId,
        index: u32,
        bytes: Bytes,
    },
    /// Keep a whole object that is in memory. Not durable by itself: see [`Write::Object`].
    Put {
        manifest: Manifest,
        bytes: Vec<u8>,
    },
    Load {
        object: ObjectId,
        index: u32,
    },
    /// Forget an object, whole or in part, unless [`Role::needs`] it by then.
    Drop(ObjectId),
    Work {
        id: WorkId,
        work: Box<Work>,
    },
    SetTimer {
        timer: Timer,
        at: Millis,
    },
    /// In a cloud of replicas: the holder of this job shall answer what came over a link of ours. It hears of it as of a
    /// link of its own. No message: the link is down.
    Pass {
        job: JobId,
        link: LinkId,
        peer: NodeId,
        message: Option<Message>,
    },
    /// For people: progress and warnings. No decision depends on it.
    Report(Report),
}

impl Effect {
    /// Must the object be here when this is performed? A drop in front of it would take it away.
    pub fn relies_on(&self, object: ObjectId) -> bool {
        matches!(self, Effect::Store(writes) if writes.contains(&Write::Object(object)))
    }
}

/// A durable change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Insert or replace one row.
    Put {
        key: RowKey,
        value: Vec<u8>,
    },
    Delete {
        key: RowKey,
    },
    /// Make an object that is wholly here durable.
    Object(ObjectId),
}

/// Rows are keyed by model version within a job; fleet-wide rows use job 0, version 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    pub table: Table,
    pub job: JobId,
    pub version: u64,
    /// Distinguishes rows of one version; at most 128 bytes.
    pub item: Vec<u8>,
}

/// Which table a row is in. Each is an SQL table of its own with the columns of [`RowKey`] and a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Cloud: enrolled machines. Item: key.
    Node,
    /// Cloud: unspent tickets. Item: hash of the secret.
    Ticket,
    /// Cloud: operator keys and their rights. Item: key.
    Operator,
    /// Cloud: signed commands that were carried out. Item: operator, nonce.
    Command,
    /// Cloud: a job's description and status.
    Job,
    /// Cloud: a job's round records, in order. Item: big-endian sequence number.
    Record,
    /// Device: sealed updates waiting for a verdict. Item: encoded collection.
    Sealed,
    /// Device: what it keeps of a job between rounds.
    DeviceState,
    /// Device: current version per channel. Item: channel.
    Channel,
    /// Cloud: the roster of devices that it may prove membership of. Device: the newest that it has seen.
    Roster,
    /// What was spent of privacy budgets. Cloud: per data set. Device: its own participations.
    Ledger,
    /// Cloud of replicas: where a job stands, as its holder said last. For people.
    Status,
}

impl Table {
    pub const ALL: [Table; 12] = [
        Table::Node,
        Table::Ticket,
        Table::Operator,
        Table::Command,
        Table::Job,
        Table::Record,
        Table::Sealed,
        Table::DeviceState,
        Table::Channel,
        Table::Roster,
        Table::Ledger,
        Table::Status,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::Node => "node",
            Table::Ticket => "ticket",
            Table::Operator => "operator",
            Table::Command => "command",
            Table::Job => "job",
            Table::Record => "record",
            Table::Sealed => "sealed",
            Table::DeviceState => "device_state",
            Table::Channel => "channel",
            Table::Roster => "roster",
            Table::Ledger => "ledger",
            Table::Status => "status",
        }
    }
}

/// A stored row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: RowKey,
    pub value: Vec<u8>,
}

/// For people and for checkers.
#[derive(Clone, Debug)]
pub enum Report {
    /// Something that a person may want to act on.
    Warning {
        what: String,
    },
    Note {
        what: String,
    },
    /// Cloud: a version became current. `included` is sorted.
    Version {
        collection: Collection,
        version: u64,
        model: ObjectId,
        included: Vec<NodeId>,
        line: Box<crate::job::Line>,
    },
    /// Device: a pending state was settled.
    Settled {
        collection: Collection,
        included: bool,
    },
    /// Cloud: an attempt was given up.
    Aborted {
        collection: Collection,
        why: String,
    },
    /// Cloud: a job came to its end.
    Finished {
        job: JobId,
        why: String,
    },
}

pub trait Role: Send {
    fn step(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>);

    /// Does the role refer to this object, by what it stored or has in hand? What no role needs may be dropped, at a
    /// start too: then all else in the folder is what a crash left.
    fn needs(&self, object: ObjectId) -> bool;
}
