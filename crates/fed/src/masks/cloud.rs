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
    /// Who signed the survivors.
    agreed: BTreeSet<NodeId>,
    /// The edge of each device's group, where there is a group per edge.
    homes: BTreeMap<NodeId, NodeId>,
    /// Devices whose group cannot be summed, and why, until somebody asks.
    left_out: BTreeMap<NodeId, String>,
    sessions: Vec<Known>,
    /// Who sealed what for whom is not known any more: the cloud was restarted.
    inboxes_lost: bool,
    /// Begun by an earlier run of the cloud, which may have fixed keys.
    resumed: bool,
    /// It had: devices are bound to a list that is not known any more.
    stale: bool,
    opening: Option<Opening>,
}

/// What a session was fixed to, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// The edge whose devices it is over; `None`: the whole cohort, or an edge that is not known since a restart.
    pub group: Option<NodeId>,
    pub threat: Threat,
    pub devices: u32,
    /// Neighbours of each device.
    pub degree: u32,
    /// Of which so many can open a secret.
    pub threshold: u32,
    /// Fewest devices in a sum that is opened.
    pub minimum: u32,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, degree, threshold, minimum, .. } = self;
        let threat = match self.threat {
            Threat::Active => "a cloud that may lie",
            Threat::Honest => "a cloud that reads what it sees",
        };
        write!(
            f,
            "{devices} devices with {degree} neighbours each, {threshold} of them open a secret, {minimum} updates or more \
             are opened together, against {threat}"
        )
    }
}

#[derive(Debug)]
enum Step {
    Keys(BTreeMap<NodeId, Advertised>),
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
            agreed: BTreeSet::new(),
            homes: BTreeMap::new(),
            left_out: BTreeMap::new(),
            sessions: Vec::new(),
            inboxes_lost: false,
            resumed: false,
            stale: false,
            opening: None,
        }
    }

    /// The same after a restart of the cloud.
    pub fn resumed(self) -> Self {
        Self { resumed: true, ..self }
    }

    /// Nothing can come of it any more.
    pub fn is_stale(&self) -> bool {
        self.stale
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
            self.keys.remove(&device);
        }
    }

    /// What this device was told last, if it has not answered it.
    pub fn again(&self, device: NodeId) -> Option<Say> {
        let (step, body) = self.told.get(&device).filter(|_| !self.answered.contains(&device))?;
        Some(Say { devices: vec![device], step: *step, body: Arc::clone(body) })
    }

    /// What the sessions were fixed to; none before shares are asked for.
    pub fn sessions(&self) -> &[Known] {
        &self.sessions
    }

    /// Devices that were left out since the last call, and why.
    pub fn take_left_out(&mut self) -> BTreeMap<NodeId, String> {
        std::mem::take(&mut self.left_out)
    }

    /// A device's step. Returns what to say to it, or to others: of an older step it has missed the answer, which is said
    /// again. An error: the device does not keep to the protocol and is out.
    pub fn hear(&mut self, device: NodeId, group: NodeId, step: SealingStep, body: &[u8]) -> Result<Vec<Say>, String> {
        let id = device.0;
        if step == SealingStep::Keys {
            let sent = *blake3::hash(body).as_bytes();
            match (&self.step, self.keys.get(&device)) {
                // Said again; its signature was checked.
                (Step::Keys(_), Some(known)) if *known == sent => return Ok(Vec::new()),
                // A device that was restarted has other keys: the newest count.
                (Step::Keys(_), _) => {}
                // Its neighbours know it by others.
                (_, Some(known)) if *known != sent => {
                    return Err(
                        "secure aggregation: it was restarted, and its keys are others than those that were fixed"
                            .into(),
                    );
                }
                _ => return self.missed(device, step),
            }
            let advertised = Advertised::decode(body).map_err(text)?;
            // Whether they are good shows alone.
            let mut alone = Gathering::new(self.session(), self.secret).map_err(text)?;
            alone.add(id, &advertised, &verify).map_err(text)?;
            if self.agreement.groups == Groups::PerEdge {
                self.homes.insert(device, group);
            }
            if let Step::Keys(keys) = &mut self.step {
                keys.insert(device, advertised);
            }
            self.keys.insert(device, sent);
            self.answered.insert(device);
            return Ok(Vec::new());
        }
        match (&mut self.step, step) {
            (Step::Keys(_), SealingStep::Nonce | SealingStep::Shares) if self.resumed => {
                self.stale = true;
                return Ok(Vec::new());
            }
            (Step::Nonces(lists), SealingStep::Nonce) => {
                let nonce = Nonce::decode(body).map_err(text)?;
                let Some((list, index)) = find(lists, |list| list.index_of(&id)) else { return Ok(Vec::new()) };
                list.nonce(index, &nonce).map_err(text)?;
            }
            (Step::Shares(sharings), SealingStep::Shares) => {
                let shares = Shares::decode(body).map_err(text)?;
                let Some((sharing, index)) = find(sharings, |sharing| sharing.directory().index_of(&id)) else {
                    return Ok(Vec::new());
                };
                sharing.add(index, shares).map_err(text)?;
            }
            (Step::Agree(openings), SealingStep::Agree) => {
                agree(openings, device, body)?;
                self.agreed.insert(device);
            }
            // Others reveal already. Its signature may be what some lack.
            (Step::Reveal(openings), SealingStep::Agree)
                if self.agreement.threat() == Threat::Active && !self.told.contains_key(&device) =>
            {
                if !self.agreed.contains(&device) {
                    agree(openings, device, body)?;
                    self.agreed.insert(device);
                }
                let untold: BTreeSet<NodeId> =
                    self.agreed.iter().filter(|device| !self.told.contains_key(device)).copied().collect();
                let says = consents(openings, &untold);
                for Say { devices, step, body } in &says {
                    self.told.extend(devices.iter().map(|device| (*device, (*step, Arc::clone(body)))));
                }
                return Ok(says);
            }
            (Step::Reveal(openings), SealingStep::Reveal) => {
                let reveal = Reveal::decode(body).map_err(text)?;
                let Some((opening, index)) = find(openings, |opening| opening.directory().index_of(&id)) else {
                    return Ok(Vec::new());
                };
                opening.reveal(index, &reveal).map_err(text)?;
            }
            // It speaks of an older step, or of a later one that it cannot know.
            _ => return self.missed(device, step),
        }
        self.answered.insert(device);
        Ok(Vec::new())
    }

    /// The device waits for an answer that was given, or that cannot be given any more.
    fn missed(&self, device: NodeId, step: SealingStep) -> Result<Vec<Say>, String> {
        let before_masks = matches!(step, SealingStep::Keys | SealingStep::Nonce | SealingStep::Shares);
        if self.inboxes_lost && before_masks && matches!(self.step, Step::Upload(_)) {
            return Err("secure aggregation: the cloud was restarted before it had passed on the shares for it".into());
        }
        Ok(self.again(device).into_iter().collect())
    }

    /// Ends the current step with those who answered it. Returns what to say, and who goes on.
    pub fn next(&mut self, register: Option<&Register>) -> Result<(Vec<Say>, BTreeSet<NodeId>), String> {
        self.told.clear();
        let step = std::mem::replace(&mut self.step, Step::Keys(BTreeMap::new()));
        let (step, says) = match step {
            Step::Keys(keys) => self.fix(keys, register)?,
            Step::Nonces(lists) => self.neighbours(lists, register)?,
            Step::Shares(sharings) => self.close(sharings)?,
            Step::Agree(openings) => {
                let says = consents(&openings, &self.agreed);
                self.step = Step::Reveal(openings);
                // Whoever has not signed yet may still do so, and reveal.
                let all = self.expected.clone();
                self.say(says.clone());
                self.expected = all.clone();
                return Ok((says, all));
            }
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

    /// These devices take no part: their group cannot be summed. The others go on.
    fn leave_out(&mut self, devices: impl IntoIterator<Item = NodeId>, why: &str) {
        let why = match self.agreement.groups {
            Groups::Whole => why.to_owned(),
            Groups::PerEdge => format!("the group of its edge: {why}"),
        };
        self.left_out.extend(devices.into_iter().map(|device| (device, why.clone())));
    }

    /// Nothing is left of any group: the reason that most devices have.
    fn nobody(&self) -> String {
        self.left_out.values().next().cloned().unwrap_or_else(|| "secure aggregation: nobody is left".into())
    }

    /// Keys are fixed, a session for each group.
    fn fix(
        &mut self,
        keys: BTreeMap<NodeId, Advertised>,
        register: Option<&Register>,
    ) -> Result<(Step, Vec<Say>), String> {
        let session = self.session();
        let mut groups: BTreeMap<Option<NodeId>, Vec<(NodeId, Advertised)>> = BTreeMap::new();
        for (device, advertised) in keys {
            groups.entry(self.homes.get(&device).copied()).or_default().push((device, advertised));
        }
        let mut lists = Vec::new();
        for devices in groups.into_values() {
            let mut gathering = Gathering::new(session.clone(), self.secret).map_err(text)?;
            let mut members = Vec::new();
            for (device, advertised) in devices {
                match gathering.add(device.0, &advertised, &verify) {
                    Ok(()) => members.push(device),
                    Err(refused) => self.leave_out([device], &text(refused)),
                }
            }
            match gathering.fix() {
                Ok(list) => lists.push(list),
                Err(refused) => self.leave_out(members, &text(refused)),
            }
        }
        if lists.is_empty() {
            return Err(self.nobody());
        }
        if session.threat == Threat::Honest {
            return self.neighbours(lists, register);
        }
        let says = lists.iter().map(|list| Say {
            devices: listed(list),
            step: SealingStep::Fixed,
            body: list.fixed().encode().into(),
        });
        let says = says.collect();
        Ok((Step::Nonces(lists), says))
    }

    fn neighbours(&mut self, lists: Vec<Listing>, register: Option<&Register>) -> Result<(Step, Vec<Say>), String> {
        let (mut sharings, mut says) = (Vec::new(), Vec::new());
        for list in lists {
            let devices = listed(&list);
            match list.graph() {
                Ok(sharing) => sharings.push(sharing),
                Err(refused) => self.leave_out(devices, &text(refused)),
            }
        }
        if sharings.is_empty() {
            return Err(self.nobody());
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
        self.sessions = sharings.iter().map(|sharing| self.known(sharing.directory())).collect();
        Ok((Step::Shares(sharings), says))
    }

    fn known(&self, directory: &Directory) -> Known {
        let parameters = directory.parameters();
        Known {
            group: present(directory).next().and_then(|(_, device)| self.homes.get(&device).copied()),
            threat: parameters.threat,
            devices: parameters.clients,
            degree: parameters.degree,
            threshold: parameters.threshold,
            minimum: directory.minimum(),
        }
    }

    /// Sharing ends; what was sealed goes to whom it is for.
    fn close(&mut self, sharings: Vec<Sharing>) -> Result<(Step, Vec<Say>), String> {
        let (mut directories, mut says) = (Vec::new(), Vec::new());
        for sharing in sharings {
            let devices: Vec<NodeId> = present(sharing.directory()).map(|(_, device)| device).collect();
            let (directory, inboxes) = match sharing.close() {
                Ok(closed) => closed,
                Err(refused) => {
                    self.leave_out(devices, &text(refused));
                    continue;
                }
            };
            for (index, device) in completed(&directory) {
                let body = inboxes.inbox(&directory, index).map_err(text)?.encode().into();
                says.push(Say { devices: vec![device], step: SealingStep::Shared, body });
            }
            directories.push(directory);
        }
        if directories.is_empty() {
            return Err(self.nobody());
        }
        Ok((Step::Upload(directories), says))
    }

    /// Could the sum over these devices be opened? The error says what is missing.
    pub fn can_open(&self, is_in: impl Fn(&NodeId) -> bool) -> Result<(), String> {
        let Step::Upload(directories) = &self.step else { return Err("keys are being exchanged".into()) };
        let mut all = 0;
        for directory in directories {
            let count = completed(directory).filter(|(_, device)| is_in(device)).count() as u32;
            // Of a group from which nothing came there is nothing to open.
            if count != 0 && count < directory.minimum() {
                return Err(format!(
                    "secure aggregation: {count} updates of {} devices were there, {} at least can be opened together",
                    directory.count(),
                    directory.minimum()
                ));
            }
            all += count;
        }
        if all == 0 { Err("secure aggregation: no update was there".into()) } else { Ok(()) }
    }

    /// Fewest updates that can be opened, where there is one group: with fewer at hand nobody needs to wait.
    pub fn minimum(&self) -> usize {
        match &self.step {
            Step::Upload(directories) if directories.len() == 1 => directories[0].minimum() as usize,
            _ => 0,
        }
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
        let directories = directories.map_err(text)?;
        let begun = Self::begin(agreement, context, format, secret);
        let sessions = directories.iter().map(|directory| begun.known(directory)).collect();
        Ok(Self { step: Step::Upload(directories), sessions, inboxes_lost: true, ..begun })
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

fn listed(list: &Listing) -> Vec<NodeId> {
    (0..list.count()).filter_map(|index| list.identity(index).map(|id| NodeId(*id))).collect()
}

/// A device's signature over the survivors.
fn agree(openings: &mut [Opened], device: NodeId, body: &[u8]) -> Result<(), String> {
    let consent = Consent::decode(body).map_err(text)?;
    match find(openings, |opening| opening.directory().index_of(&device.0)) {
        Some((opening, index)) => opening.consent(index, &consent, &verify).map_err(text),
        None => Ok(()),
    }
}

/// These hear that neighbours agreed too. Who has too few of them is told nothing yet, and reveals nothing.
fn consents(openings: &[Opened], to: &BTreeSet<NodeId>) -> Vec<Say> {
    let mut says = Vec::new();
    for opening in openings {
        for (index, device) in completed(opening.directory()).filter(|(_, device)| to.contains(device)) {
            if let Ok(consents) = opening.consents_for(index) {
                says.push(Say { devices: vec![device], step: SealingStep::Agreed, body: consents.encode().into() });
            }
        }
    }
    says
}
