//! The cloud's road through a session: keys in, neighbours out, sealed shares passed on; and when the sum is closed, what
//! must be taken from it.
//!
//! One [`Masking`] runs one attempt of one collection. It says who must still answer; when a step is over is the round's
//! decision ([`crate::round`]). With a group per edge there are as many sessions, each over its own neighbours.

use super::{Assumed, DOMAIN, Groups, SealingStep, SecureAggregation, lay_on};
use crate::plan::Format;
use crate::roster::Register;
use crate::round::Phase;
use littoral_privacy::secagg::mask::{Masks, RangeError};
use littoral_privacy::secagg::message::{Advertised, Consent, Nonce, Reveal, Shares};
use littoral_privacy::secagg::parameters::Threat;
use littoral_privacy::secagg::server::{Directory, Gathering, Listing, Opening as Opened, Sharing};
use littoral_privacy::secagg::session::{Session, commitment};
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::{Blob, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A step for some devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    pub devices: Vec<NodeId>,
    pub step: SealingStep,
    pub body: Arc<[u8]>,
}

/// Where secure aggregation of a collection stands.
#[derive(Debug)]
pub struct Masking {
    agreement: SecureAggregation,
    context: [u8; 32],
    format: Format,
    secret: [u8; 32],
    step: Step,
    /// The keys with which each device takes part, by hash.
    keys: BTreeMap<NodeId, [u8; 32]>,
    /// What each device was told last; said again to whoever asks again.
    told: BTreeMap<NodeId, (SealingStep, Arc<[u8]>)>,
    /// Devices that must answer the current step, and those that did.
    expected: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    opening: Option<Opening>,
}

#[derive(Debug)]
enum Step {
    /// Keys of devices, and the group that each is in.
    Keys(BTreeMap<NodeId, (NodeId, Advertised)>),
    Nonces(Vec<Listing>),
    Shares(Vec<Sharing>),
    Upload(Vec<Directory>),
    Agree(Vec<Opened>),
    Reveal(Vec<Opened>),
}

/// What to take from a masked sum, so that the sum is left. Cloning is cheap.
#[derive(Clone)]
pub struct Opening(Arc<Masks>);

impl Opening {
    /// Takes the masks from the sum's words, from byte `offset` on: whole groups of eight.
    pub fn unmask(&self, offset: u64, words: &mut [u8]) -> Result<(), RangeError> {
        lay_on(&self.0, offset, words)
    }
}

impl PartialEq for Opening {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opening with {:?}", self.0)
    }
}

fn verify(identity: &[u8; 32], statement: &[u8], signature: &[u8; 64]) -> bool {
    NodeId(*identity).verify(DOMAIN, statement, signature).is_ok()
}

fn text(error: impl fmt::Display) -> String {
    format!("secure aggregation: {error}")
}

impl Masking {
    /// `secret`: 32 bytes that nobody can guess, for this attempt only.
    pub fn begin(agreement: SecureAggregation, context: [u8; 32], format: Format, secret: [u8; 32]) -> Self {
        Self {
            agreement,
            context,
            format,
            secret,
            step: Step::Keys(BTreeMap::new()),
            keys: BTreeMap::new(),
            told: BTreeMap::new(),
            expected: BTreeSet::new(),
            answered: BTreeSet::new(),
            opening: None,
        }
    }

    /// What devices are told before they send keys: binds the cloud to its part in the choice of neighbours.
    pub fn commitment(&self) -> [u8; 32] {
        match self.agreement.threat() {
            Threat::Active => commitment(&self.context, &self.secret),
            Threat::Honest => [0; 32],
        }
    }

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
            min_group: self.agreement.group_min,
            commitment: self.commitment(),
        }
    }

    pub fn phase(&self) -> Phase {
        match &self.step {
            Step::Keys(_) => Phase::Keys,
            Step::Nonces(_) => Phase::Nonces,
            Step::Shares(_) => Phase::Shares,
            Step::Upload(_) => Phase::Upload,
            Step::Agree(_) => Phase::Agree,
            Step::Reveal(_) => Phase::Reveal,
        }
    }

    /// Devices that have answered the current step.
    pub fn answered(&self) -> usize {
        self.answered.len()
    }

    /// Devices that may answer it. Before keys are fixed nobody is expected by name.
    pub fn expected(&self) -> usize {
        self.expected.len()
    }

    /// Nothing more will come of this device.
    pub fn forget(&mut self, device: NodeId) {
        self.expected.remove(&device);
        self.answered.remove(&device);
        self.told.remove(&device);
        if let Step::Keys(keys) = &mut self.step {
            keys.remove(&device);
        }
    }

    /// What this device was told last, if it has not answered it.
    pub fn again(&self, device: NodeId) -> Option<Say> {
        let (step, body) = self.told.get(&device).filter(|_| !self.answered.contains(&device))?;
        Some(Say { devices: vec![device], step: *step, body: Arc::clone(body) })
    }

    /// A device's step. Of an older step it has missed the answer, which comes back to be said again. An error: the device
    /// does not keep to the protocol and is out.
    pub fn hear(
        &mut self,
        device: NodeId,
        group: NodeId,
        step: SealingStep,
        body: &[u8],
    ) -> Result<Option<Say>, String> {
        let id = device.0;
        if step == SealingStep::Keys {
            let sent = *blake3::hash(body).as_bytes();
            let known = match self.step {
                Step::Keys(_) => None,
                _ => self.keys.get(&device),
            };
            // Its neighbours know it by others.
            if known.is_some_and(|known| *known != sent) {
                return Err(
                    "secure aggregation: it was restarted, and its keys are others than those that were fixed".into()
                );
            }
            self.keys.insert(device, sent);
        }
        match (&mut self.step, step) {
            (Step::Keys(keys), SealingStep::Keys) => {
                let advertised = Advertised::decode(body).map_err(text)?;
                let group = match self.agreement.groups {
                    Groups::Whole => NodeId([0; 32]),
                    Groups::PerEdge => group,
                };
                // A device that was restarted has other keys: the newest count. Whether they are good shows alone.
                keys.insert(device, (group, advertised.clone()));
                let mut alone = Gathering::new(self.session(), self.secret).map_err(text)?;
                alone.add(id, &advertised, &verify).map_err(text)?;
            }
            (Step::Nonces(lists), SealingStep::Nonce) => {
                let nonce = Nonce::decode(body).map_err(text)?;
                let Some((list, index)) = find(lists, |list| list.index_of(&id)) else { return Ok(None) };
                list.nonce(index, &nonce).map_err(text)?;
            }
            (Step::Shares(sharings), SealingStep::Shares) => {
                let shares = Shares::decode(body).map_err(text)?;
                let Some((sharing, index)) = find(sharings, |sharing| sharing.directory().index_of(&id)) else {
                    return Ok(None);
                };
                sharing.add(index, shares).map_err(text)?;
            }
            (Step::Agree(openings), SealingStep::Agree) => {
                let consent = Consent::decode(body).map_err(text)?;
                let Some((opening, index)) = find(openings, |opening| opening.directory().index_of(&id)) else {
                    return Ok(None);
                };
                opening.consent(index, &consent, &verify).map_err(text)?;
            }
            (Step::Reveal(openings), SealingStep::Reveal) => {
                let reveal = Reveal::decode(body).map_err(text)?;
                let Some((opening, index)) = find(openings, |opening| opening.directory().index_of(&id)) else {
                    return Ok(None);
                };
                opening.reveal(index, &reveal).map_err(text)?;
            }
            // It speaks of an older step, or of a later one that it cannot know.
            _ => return Ok(self.again(device)),
        }
        self.answered.insert(device);
        Ok(None)
    }

    /// Ends the current step with those who answered it. Returns what to say, and who goes on.
    pub fn next(&mut self, register: Option<&Register>) -> Result<(Vec<Say>, BTreeSet<NodeId>), String> {
        self.told.clear();
        let step = std::mem::replace(&mut self.step, Step::Keys(BTreeMap::new()));
        let (step, says) = match step {
            Step::Keys(keys) => self.fix(keys, register)?,
            Step::Nonces(lists) => self.neighbours(lists, register)?,
            Step::Shares(sharings) => close(sharings)?,
            Step::Agree(openings) => consents(openings, &self.answered),
            step @ (Step::Upload(_) | Step::Reveal(_)) => (step, Vec::new()),
        };
        self.step = step;
        self.say(says.clone());
        Ok((says, self.expected.clone()))
    }

    fn say(&mut self, says: Vec<Say>) {
        self.answered.clear();
        self.expected = says.iter().flat_map(|say| say.devices.iter().copied()).collect();
        for Say { devices, step, body } in says {
            self.told.extend(devices.into_iter().map(|device| (device, (step, Arc::clone(&body)))));
        }
    }

    /// Keys are fixed, a session for each group.
    fn fix(
        &self,
        keys: BTreeMap<NodeId, (NodeId, Advertised)>,
        register: Option<&Register>,
    ) -> Result<(Step, Vec<Say>), String> {
        let session = self.session();
        let mut groups: BTreeMap<NodeId, Vec<(NodeId, Advertised)>> = BTreeMap::new();
        for (device, (group, advertised)) in keys {
            groups.entry(group).or_default().push((device, advertised));
        }
        let (mut lists, mut why) = (Vec::new(), None);
        for devices in groups.into_values() {
            let mut gathering = Gathering::new(session.clone(), self.secret).map_err(text)?;
            for (device, advertised) in devices {
                gathering.add(device.0, &advertised, &verify).map_err(text)?;
            }
            match gathering.fix() {
                Ok(list) => lists.push(list),
                // A group that is too small is left out; the others go on.
                Err(refused) => why = Some(text(refused)),
            }
        }
        if let (true, Some(why)) = (lists.is_empty(), why) {
            return Err(why);
        }
        if session.threat == Threat::Honest {
            return self.neighbours(lists, register);
        }
        let says = lists.iter().map(|list| {
            let devices = (0..list.count()).filter_map(|index| list.identity(index).map(|id| NodeId(*id))).collect();
            Say { devices, step: SealingStep::Fixed, body: list.fixed().encode().into() }
        });
        let says = says.collect();
        Ok((Step::Nonces(lists), says))
    }

    fn neighbours(&self, lists: Vec<Listing>, register: Option<&Register>) -> Result<(Step, Vec<Say>), String> {
        let (mut sharings, mut says, mut why) = (Vec::new(), Vec::new(), None);
        for list in lists {
            match list.graph() {
                Ok(sharing) => sharings.push(sharing),
                Err(refused) => why = Some(text(refused)),
            }
        }
        if let (true, Some(why)) = (sharings.is_empty(), why) {
            return Err(why);
        }
        let listed = |id: &[u8; 32]| {
            register.and_then(|register| register.listed(NodeId(*id))).map_or_else(Vec::new, |listed| listed.to_bytes())
        };
        for sharing in &sharings {
            let directory = sharing.directory();
            for (index, device) in present(directory) {
                let body = sharing.neighbours(index, &listed).map_err(text)?.encode().into();
                says.push(Say { devices: vec![device], step: SealingStep::Neighbours, body });
            }
        }
        Ok((Step::Shares(sharings), says))
    }

    /// Devices that may send masked words.
    pub fn sharing(&self) -> BTreeSet<NodeId> {
        let Step::Upload(directories) = &self.step else { return BTreeSet::new() };
        directories.iter().flat_map(completed).map(|(_, device)| device).collect()
    }

    /// The sum is closed over these devices. Returns what to say to them.
    pub fn survivors(&mut self, devices: &[NodeId]) -> Result<Vec<Say>, String> {
        let step = std::mem::replace(&mut self.step, Step::Keys(BTreeMap::new()));
        let Step::Upload(directories) = step else { return Err("the sum was closed before keys were known".into()) };
        let (mut openings, mut says) = (Vec::new(), Vec::new());
        for directory in directories {
            let ours: Vec<(u32, NodeId)> =
                devices.iter().filter_map(|device| Some((directory.index_of(&device.0)?, *device))).collect();
            // Of a group from which nothing came there is nothing to open.
            if ours.is_empty() {
                continue;
            }
            let opening = directory.open(ours.iter().map(|(index, _)| *index)).map_err(text)?;
            let devices = ours.into_iter().map(|(_, device)| device).collect();
            says.push(Say { devices, step: SealingStep::Survivors, body: opening.survivors().encode().into() });
            openings.push(opening);
        }
        self.step = match self.agreement.threat() {
            Threat::Active => Step::Agree(openings),
            Threat::Honest => Step::Reveal(openings),
        };
        self.say(says.clone());
        Ok(says)
    }

    /// Opens the sum if enough was revealed; the error says what is missing.
    pub fn open(&mut self) -> Result<(), String> {
        if self.opening.is_some() {
            return Ok(());
        }
        let Step::Reveal(openings) = &self.step else { return Err("nothing was revealed yet".into()) };
        let mut all: Option<Masks> = None;
        for opening in openings {
            let missing = opening.missing();
            if let Some(first) = missing.first() {
                let (count, shares) = (missing.len(), first.shares);
                return Err(format!(
                    "secure aggregation: the sum cannot be opened: {count} devices' secrets lack shares, the first {shares}"
                ));
            }
            let unmask = opening.unmask().map_err(text)?;
            match &mut all {
                Some(all) => all.append(unmask.masks),
                None => all = Some(unmask.masks),
            }
        }
        self.opening = all.map(|masks| Opening(Arc::new(masks)));
        match self.opening {
            Some(_) => Ok(()),
            None => Err("there is no sum to open".into()),
        }
    }

    pub fn opening(&self) -> Option<Opening> {
        self.opening.clone()
    }

    /// What a cloud needs to go on from when devices may be sending: durable before any of them is told.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Step::Upload(directories) = &self.step else { return Vec::new() };
        let mut out = Vec::new();
        self.context.put(&mut out);
        self.secret.put(&mut out);
        (self.format.words(), self.format.bits() as u8).0.put(&mut out);
        (self.format.bits() as u8).put(&mut out);
        (directories.len() as u32).put(&mut out);
        for directory in directories {
            let bytes = directory.to_bytes();
            (bytes.len() as u32).put(&mut out);
            out.extend_from_slice(&bytes);
        }
        out
    }

    /// The cloud is back.
    pub fn restored(agreement: SecureAggregation, bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::new(bytes);
        let mut read = || -> Result<_, littoral_wire::DecodeError> {
            let (context, secret) = (Wire::take(&mut reader)?, Wire::take(&mut reader)?);
            let (words, bits) = (u64::take(&mut reader)?, u8::take(&mut reader)?);
            let count = reader.count("groups", littoral_wire::message::COHORT_MAX, 5)?;
            let mut directories = Vec::with_capacity(count);
            for _ in 0..count {
                directories.push(Blob::<{ 64 << 20 }>::take(&mut reader)?);
            }
            Ok((context, secret, words, bits, directories))
        };
        let (context, secret, words, bits, directories) = read().map_err(text)?;
        let format = Format::new(words, bits.into()).map_err(text)?;
        let directories: Result<Vec<_>, _> = directories.iter().map(|bytes| Directory::from_bytes(bytes)).collect();
        let step = Step::Upload(directories.map_err(text)?);
        Ok(Self { step, ..Self::begin(agreement, context, format, secret) })
    }
}

/// The first of some groups that has the device, and its place there.
fn find<T>(groups: &mut [T], index: impl Fn(&T) -> Option<u32>) -> Option<(&mut T, u32)> {
    groups.iter_mut().find_map(|group| index(group).map(|index| (group, index)))
}

fn present(directory: &Directory) -> impl Iterator<Item = (u32, NodeId)> + '_ {
    let places = (0..directory.count()).filter(|index| directory.is_present(*index));
    places.filter_map(|index| directory.identity(index).map(|id| (index, NodeId(*id))))
}

fn completed(directory: &Directory) -> impl Iterator<Item = (u32, NodeId)> + '_ {
    present(directory).filter(|(index, _)| directory.has_completed(*index))
}

/// Sharing ends; what was sealed goes to whom it is for.
fn close(sharings: Vec<Sharing>) -> Result<(Step, Vec<Say>), String> {
    let (mut directories, mut says, mut why) = (Vec::new(), Vec::new(), None);
    for sharing in sharings {
        let (directory, inboxes) = match sharing.close() {
            Ok(closed) => closed,
            Err(refused) => {
                why = Some(text(refused));
                continue;
            }
        };
        for (index, device) in completed(&directory) {
            let body = inboxes.inbox(&directory, index).map_err(text)?.encode().into();
            says.push(Say { devices: vec![device], step: SealingStep::Shared, body });
        }
        directories.push(directory);
    }
    match (directories.is_empty(), why) {
        (true, Some(why)) => Err(why),
        _ => Ok((Step::Upload(directories), says)),
    }
}

/// Everybody who agreed hears that neighbours agreed too. Who has too few is told nothing, and reveals nothing.
fn consents(openings: Vec<Opened>, agreed: &BTreeSet<NodeId>) -> (Step, Vec<Say>) {
    let mut says = Vec::new();
    for opening in &openings {
        for (index, device) in completed(opening.directory()).filter(|(_, device)| agreed.contains(device)) {
            if let Ok(consents) = opening.consents_for(index) {
                says.push(Say { devices: vec![device], step: SealingStep::Agreed, body: consents.encode().into() });
            }
        }
    }
    (Step::Reveal(openings), says)
}
