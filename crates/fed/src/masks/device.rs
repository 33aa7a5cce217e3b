//! A device's road through a session: from its keys to masks, and from the closed sum to the one share per neighbour that it
//! reveals.
//!
//! [`Joining`] lives in memory: a device that restarts before its masks are on has lost its keys and drops out. [`Masked`]
//! is what must be durable with the masked words before the first of them leaves, and again before each later answer; its
//! bytes hold shares of others' secrets and are kept where the device keeps its keys.
//!
//! Every step may come again, and is answered in the same words.

use super::{Assumed, DOMAIN, SealingStep, SecureAggregation};
use crate::plan::Format;
use crate::roster;
use littoral_privacy::secagg::device;
use littoral_privacy::secagg::message::{Consents, Fixed, Inbox, Neighbours, Survivors};
use littoral_privacy::secagg::refused::Refused;
use littoral_privacy::secagg::session::Session;
use littoral_wire::codec::Wire;
use littoral_wire::message::{Listed, Roster};
use littoral_wire::{NodeId, SecretKey};
use std::cell::{Cell, RefCell};

pub use littoral_privacy::secagg::mask::Masks;

/// Who this device is, and whom it believes.
pub struct Who<'a> {
    pub key: &'a SecretKey,
    pub cloud: NodeId,
    /// Whose rosters count.
    pub roster: Option<NodeId>,
    /// The number of the newest roster seen: an older one does not count any more.
    pub newest_roster: u64,
}

/// What a device takes part in, by its own reading of the job.
#[derive(Clone, Debug)]
pub struct Terms {
    pub agreement: SecureAggregation,
    /// [`super::context`] of the collection.
    pub context: [u8; 32],
    pub format: Format,
    /// Fewest updates in a sum that this device lets open.
    pub group_min: u32,
    pub commitment: [u8; 32],
}

/// A step and its body.
pub type Said = (SealingStep, Vec<u8>);

/// A device whose masks are not on yet.
#[derive(Debug)]
pub struct Joining {
    state: State,
    /// What was answered, and to what, so that it can be said again.
    answered: Option<(Vec<u8>, Said)>,
}

#[derive(Debug)]
enum State {
    Keyed(device::Keyed),
    Sharing(device::Sharing),
}

/// What comes of a step.
#[derive(Debug)]
pub enum Next {
    /// Nothing: it was for another time.
    Same(Joining),
    /// An answer. `roster`: the number of the roster that was believed.
    Say { joining: Joining, said: Said, roster: Option<u64> },
    /// Masks, and what is left of the session when they are on.
    Mask { masks: Masks, left: Masked },
}

/// A device whose update is masked.
#[derive(Clone, Debug)]
pub struct Masked(device::Masked);

impl Terms {
    fn session(&self) -> Session {
        let Assumed { threat, adversary, dropout } = self.agreement.assumed();
        Session {
            context: self.context,
            threat,
            adversary,
            dropout,
            prg: self.agreement.prg(),
            bytes: self.format.bytes() as u64,
            bits: self.format.bits() as u8,
            min_group: self.group_min,
            commitment: self.commitment,
        }
    }
}

impl Who<'_> {
    fn sign(&self) -> impl Fn(&[u8]) -> [u8; 64] + '_ {
        |statement| self.key.sign(DOMAIN, statement)
    }
}

fn verify(identity: &[u8; 32], statement: &[u8], signature: &[u8; 64]) -> bool {
    NodeId(*identity).verify(DOMAIN, statement, signature).is_ok()
}

impl Joining {
    /// `entropy`: 32 bytes that nobody can guess, for this session only.
    pub fn begin(terms: &Terms, who: &Who<'_>, entropy: [u8; 32]) -> Result<(Self, Said), String> {
        let (keyed, keys) = device::Keyed::new(terms.session(), who.key.id().0, entropy, &who.sign()).map_err(text)?;
        Ok((Self { state: State::Keyed(keyed), answered: None }, (SealingStep::Keys, keys.encode())))
    }

    /// A step from the cloud. An error ends this device's part in the session.
    pub fn hear(self, step: SealingStep, body: &[u8], who: &Who<'_>) -> Result<Next, String> {
        if let Some((heard, said)) = &self.answered
            && heard == body
        {
            let said = said.clone();
            return Ok(Next::Say { joining: self, said, roster: None });
        }
        let answer = |state, step, answer: Vec<u8>, roster| {
            let said = (step, answer);
            let joining = Self { state, answered: Some((body.to_vec(), said.clone())) };
            Ok(Next::Say { joining, said, roster })
        };
        match (self.state, step) {
            (State::Keyed(keyed), SealingStep::Fixed) => {
                let (keyed, nonce) = keyed.fix(&Fixed::decode(body).map_err(unreadable)?).map_err(text)?;
                answer(State::Keyed(keyed), SealingStep::Nonce, nonce.encode(), None)
            }
            (State::Keyed(keyed), SealingStep::Neighbours) => {
                let message = Neighbours::decode(body).map_err(unreadable)?;
                let believed = Believed::new(who);
                let (sharing, shares) =
                    keyed.neighbours(&message, &verify, &|identity, proof| believed.lists(identity, proof)).map_err(
                        |refused| match (&refused, who.roster) {
                            (Refused::NotOnRoster { .. }, None) => {
                                "the cloud may lie in this job, and this device knows no roster key: join with a ticket that has \
                                 one, or set `roster` in its configuration"
                                    .into()
                            }
                            _ => text(refused),
                        },
                    )?;
                answer(State::Sharing(sharing), SealingStep::Shares, shares.encode(), believed.newest.get())
            }
            (State::Sharing(sharing), SealingStep::Shared) => {
                let (left, masks) = sharing.mask(&Inbox::decode(body).map_err(unreadable)?).map_err(text)?;
                Ok(Next::Mask { masks, left: Masked(left) })
            }
            // Late, or early, and told again if it matters.
            (state, _) => Ok(Next::Same(Self { state, answered: self.answered })),
        }
    }
}

impl Masked {
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    /// `None`: not what this release stores.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        device::Masked::from_bytes(bytes).ok().map(Self)
    }

    /// A step of opening the sum, and the answer to it. What is left must be durable before the answer leaves. An error: the
    /// step is refused, nothing is revealed.
    pub fn hear(self, step: SealingStep, body: &[u8], who: &Who<'_>) -> Result<Option<(Self, Said)>, String> {
        let active = self.0.session().threat == littoral_privacy::secagg::parameters::Threat::Active;
        match step {
            SealingStep::Survivors => {
                let survivors = Survivors::decode(body).map_err(unreadable)?;
                if active {
                    let (left, consent) = self.0.consent(&survivors, &who.sign()).map_err(text)?;
                    return Ok(Some((Self(left), (SealingStep::Agree, consent.encode()))));
                }
                let (left, reveal) = self.0.reveal(&survivors).map_err(text)?;
                Ok(Some((Self(left), (SealingStep::Reveal, reveal.encode()))))
            }
            SealingStep::Agreed => {
                let consents = Consents::decode(body).map_err(unreadable)?;
                let (left, reveal) = self.0.reveal_confirmed(&consents, &verify).map_err(text)?;
                Ok(Some((Self(left), (SealingStep::Reveal, reveal.encode()))))
            }
            _ => Ok(None),
        }
    }
}

/// Rosters that this device believes. Neighbours come with the same one, whose signature is checked once.
struct Believed<'a> {
    who: &'a Who<'a>,
    good: RefCell<Option<Roster>>,
    newest: Cell<Option<u64>>,
}

impl<'a> Believed<'a> {
    fn new(who: &'a Who<'a>) -> Self {
        Self { who, good: RefCell::new(None), newest: Cell::new(None) }
    }

    fn lists(&self, identity: &[u8; 32], proof: &[u8]) -> bool {
        let (Some(key), Ok(listed)) = (self.who.roster, Listed::from_bytes(proof)) else { return false };
        let mut good = self.good.borrow_mut();
        if good.as_ref() != Some(&listed.roster) {
            let old = listed.roster.number < self.who.newest_roster;
            if old || roster::check_signature(key, self.who.cloud, &listed.roster).is_err() {
                return false;
            }
            self.newest.set(self.newest.get().max(Some(listed.roster.number)));
            *good = Some(listed.roster.clone());
        }
        roster::check_place(NodeId(*identity), &listed).is_ok()
    }
}

fn text(refused: Refused) -> String {
    format!("secure aggregation: {refused}")
}

fn unreadable(error: impl std::fmt::Display) -> String {
    format!("secure aggregation: {error}")
}
