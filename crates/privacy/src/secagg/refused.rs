//! Why a step was not taken: each variant names the move.
//!
//! After a refusal a device sends nothing more under its keys: whoever asked is broken or hostile, and the session ends.
//! A `peer` is a place in the list of devices.

use super::codec::DecodeError;
use super::parameters::ParametersError;
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refused {
    #[error("not a message: {0}")]
    Malformed(#[from] DecodeError),
    #[error("the session cannot be: {what} is {got}, expected {expected}")]
    Session { what: &'static str, expected: &'static str, got: u64 },
    #[error(transparent)]
    Parameters(#[from] ParametersError),

    // Moves of a server.
    #[error("{what} is of another session: it is replayed or mixed up")]
    WrongContext { what: &'static str },
    #[error("the server changed {what} to {got}; the session has {expected}")]
    ParameterChanged { what: &'static str, expected: u64, got: u64 },
    #[error("the group has {got} devices, at least {minimum} are needed")]
    GroupTooSmall { minimum: u32, got: u32 },
    #[error("the list of devices is not the one that was fixed: {why}")]
    NotFixed { why: &'static str },
    #[error("these are not the neighbours that the graph gives")]
    WrongNeighbours,
    #[error("device {peer} stands in the list out of order, or twice")]
    ListedTwice { peer: u32 },
    #[error("the keys of device {peer} are not signed by it")]
    BadSignature { peer: u32 },
    #[error("device {peer} is not on the roster")]
    NotOnRoster { peer: u32 },
    #[error("a key of device {peer} is of small order")]
    BadKey { peer: u32 },
    #[error("the shares of device {peer} are not what it sealed for this device")]
    BadCiphertext { peer: u32 },
    #[error("{got} neighbours {what}, at least {threshold} are needed")]
    TooFewNeighbours { what: &'static str, threshold: u32, got: u32 },
    #[error("the survivors cannot be: {why}")]
    WrongSurvivors { why: &'static str },
    #[error("{got} devices survive, at least {minimum} are needed")]
    TooFewSurvivors { minimum: u32, got: u32 },
    #[error("this device itself is not among the survivors")]
    NotSurvivor,
    #[error("device {peer} never shared its secrets and cannot have survived")]
    NeverCompleted { peer: u32 },
    #[error("another set of survivors was asked for before")]
    OtherSurvivors,
    #[error("both shares of device {peer} were asked for")]
    BothShares { peer: u32 },
    #[error("{got} neighbours confirm this set of survivors, at least {threshold} are needed")]
    TooFewConsents { threshold: u32, got: u32 },

    // Moves of a device, or steps out of turn.
    #[error("no device {index} takes this step")]
    UnknownDevice { index: u32 },
    #[error("{what} has {got} parts, expected {expected}")]
    WrongLength { what: &'static str, expected: u32, got: u32 },
    #[error("{what} came again, and is another one")]
    Again { what: &'static str },
    #[error("{what} is for another threat model than the session's")]
    OtherThreat { what: &'static str },
    #[error("what device {peer} revealed as its nonce is not what it was bound to")]
    BadNonce { peer: u32 },
    #[error("a secret of device {peer} needs {missing} shares more than the {got} that came")]
    TooFewShares { peer: u32, got: u32, missing: u32 },
    #[error("the shares of a secret of device {peer} do not give it: some of their holders, or it, sent wrong ones")]
    WrongShares { peer: u32 },
}
