//! Masked sums: for each round a session of secure aggregation, from keys to the opened sum.
//!
//! Devices and cloud are the halves that a fleet runs ([`littoral_fed::masks`]), and each hears the other's messages as bytes;
//! only the network between them is left out. Nobody drops out here.

use super::super::{broken, team};
use crate::output::Failure;
use littoral_fed::masks::cloud::{Masking, Say};
use littoral_fed::masks::device::{Joining, Masked, Masks, Next, Said, Terms, Who};
use littoral_fed::masks::{self, SecureAggregation, ThreatName};
use littoral_fed::plan::Format;
use littoral_fed::roster::{self, Register};
use littoral_node::role::Entropy;
use littoral_wire::{Collection, NodeId, ObjectId, SecretKey};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Who may take part: long-lived keys, on a roster that an operator signed.
pub struct Fleet {
    agreement: SecureAggregation,
    keys: Vec<SecretKey>,
    operator: NodeId,
    cloud: NodeId,
    register: Register,
}

/// A session after its keys and shares are exchanged.
pub struct Session<'f> {
    fleet: &'f Fleet,
    masking: Masking,
    clients: &'f [usize],
    places: BTreeMap<NodeId, usize>,
    sides: Vec<Mutex<Side>>,
    threads: usize,
    /// Wall-clock time so far, without the masks themselves: devices lay those on.
    pub spent: Duration,
}

#[derive(Default)]
enum Side {
    #[default]
    Gone,
    Joining(Joining),
    Ready(Masks, Masked),
    Masked(Masked),
}

fn fault(why: &dyn Display) -> Failure {
    broken("secure aggregation of littoral bench dp")(why)
}

impl Fleet {
    pub fn new(clients: usize, threat: ThreatName) -> Result<Self, Failure> {
        let key = |purpose, number: usize| {
            SecretKey::from_bytes(Entropy::new([0; 32]).draw(purpose, &(number as u64).to_le_bytes()))
        };
        let keys: Vec<SecretKey> = (0..clients).map(|client| key("a client", client)).collect();
        let devices: Vec<NodeId> = keys.iter().map(SecretKey::id).collect();
        let (operator, cloud) = (key("an operator", 0), key("a cloud", 0).id());
        let roster = roster::sign(&operator, cloud, 1, &devices);
        let register = Register::new(roster, &devices).map_err(|e| fault(&e))?;
        let agreement = SecureAggregation { threat, ..SecureAggregation::default() };
        Ok(Self { agreement, keys, operator: operator.id(), cloud, register })
    }

    pub fn id(&self, client: usize) -> NodeId {
        self.keys[client].id()
    }

    fn who(&self, client: usize) -> Who<'_> {
        Who { key: &self.keys[client], cloud: self.cloud, roster: Some(self.operator), newest_roster: 0 }
    }

    /// Keys, neighbours and shares of a round. All secrets of the round follow from `entropy`.
    pub fn agree<'f>(
        &'f self,
        clients: &'f [usize],
        collection: Collection,
        format: Format,
        entropy: &Entropy,
        threads: usize,
    ) -> Result<Session<'f>, Failure> {
        let start = Instant::now();
        let context = masks::context(collection, &[0; 32], ObjectId([0; 32]), format);
        let agreement = self.agreement.clone();
        let mut masking = Masking::begin(agreement.clone(), context, format, entropy.draw("the cloud's", &[]));
        let group_min = agreement.group_min;
        let terms = Terms { agreement, context, format, group_min, commitment: masking.commitment() };
        let begun: Vec<Mutex<Option<(Joining, Said)>>> = clients.iter().map(|_| Mutex::new(None)).collect();
        team::share(&mut vec![(); threads], clients.len(), |(), at| {
            let secret = entropy.draw("a device's", &(clients[at] as u64).to_le_bytes());
            let joining = Joining::begin(&terms, &self.who(clients[at]), secret).map_err(|e| fault(&e))?;
            *begun[at].lock().unwrap_or_else(|e| e.into_inner()) = Some(joining);
            Ok::<(), Failure>(())
        })?;
        let mut sides = Vec::with_capacity(clients.len());
        for (begun, &client) in begun.into_iter().zip(clients) {
            let begun = begun.into_inner().unwrap_or_else(|e| e.into_inner());
            let (joining, (step, body)) = begun.ok_or_else(wrong_turn)?;
            let device = self.id(client);
            masking.hear(device, device, step, &body).map_err(|e| fault(&e))?;
            sides.push(Mutex::new(Side::Joining(joining)));
        }
        let places = clients.iter().enumerate().map(|(at, &client)| (self.id(client), at)).collect();
        let mut session = Session { fleet: self, masking, clients, places, sides, threads, spent: Duration::ZERO };
        // Until every device has its masks, and so nothing more to say.
        loop {
            let (says, _) = session.masking.next(Some(&self.register)).map_err(|e| fault(&e))?;
            if session.tell(says)? == 0 {
                break;
            }
        }
        session.spent = start.elapsed();
        Ok(session)
    }
}

fn wrong_turn() -> Failure {
    fault(&"somebody is in another state than its turn")
}

impl Session<'_> {
    /// The masks of the device at a place of the cohort: once.
    pub fn masks(&self, at: usize) -> Result<Masks, Failure> {
        let mut side = self.sides[at].lock().unwrap_or_else(|e| e.into_inner());
        let Side::Ready(masks, left) = std::mem::take(&mut *side) else { return Err(wrong_turn()) };
        *side = Side::Masked(left);
        Ok(masks)
    }

    /// Opens the sum of all devices' masked words in place.
    pub fn open(&mut self, sum: &mut [u8], bits: u32) -> Result<(), Failure> {
        let start = Instant::now();
        let devices: Vec<NodeId> = self.places.keys().copied().collect();
        let survivors = self.masking.survivors(&devices).map_err(|e| fault(&e))?;
        self.tell(survivors)?;
        if self.fleet.agreement.threat == ThreatName::Active {
            let (consents, _) = self.masking.next(None).map_err(|e| fault(&e))?;
            self.tell(consents)?;
        }
        self.masking.open().map_err(|e| fault(&e))?;
        let opening = self.masking.opening().ok_or_else(wrong_turn)?;
        // Whole groups of eight words.
        let block = bits as usize * 512;
        let blocks: Vec<Mutex<&mut [u8]>> = sum.chunks_mut(block).map(Mutex::new).collect();
        team::share(&mut vec![(); self.threads], blocks.len(), |(), at| {
            let mut words = blocks[at].lock().unwrap_or_else(|e| e.into_inner());
            opening.unmask((at * block) as u64, &mut words).map_err(|e| fault(&e))
        })?;
        self.spent += start.elapsed();
        Ok(())
    }

    /// Tells devices a step each, and the cloud their answers; returns how many there were.
    fn tell(&mut self, says: Vec<Say>) -> Result<usize, Failure> {
        let mut each = Vec::new();
        for say in &says {
            for device in &say.devices {
                each.push((*self.places.get(device).ok_or_else(wrong_turn)?, say));
            }
        }
        let answers: Vec<Mutex<Option<Said>>> = each.iter().map(|_| Mutex::new(None)).collect();
        team::share(&mut vec![(); self.threads], each.len(), |(), i| {
            let (at, Say { step, body, .. }) = &each[i];
            let who = self.fleet.who(self.clients[*at]);
            let mut side = self.sides[*at].lock().unwrap_or_else(|e| e.into_inner());
            let (now, said) = match std::mem::take(&mut *side) {
                Side::Joining(joining) => match joining.hear(*step, body, &who).map_err(|e| fault(&e))? {
                    Next::Say { joining, said, .. } => (Side::Joining(joining), Some(said)),
                    Next::Mask { masks, left } => (Side::Ready(masks, left), None),
                    Next::Same(_) => return Err(wrong_turn()),
                },
                Side::Masked(left) => match left.hear(*step, body, &who).map_err(|e| fault(&e))? {
                    Some((left, said)) => (Side::Masked(left), Some(said)),
                    None => return Err(wrong_turn()),
                },
                Side::Gone | Side::Ready(..) => return Err(wrong_turn()),
            };
            *side = now;
            *answers[i].lock().unwrap_or_else(|e| e.into_inner()) = said;
            Ok(())
        })?;
        let mut heard = 0;
        for ((at, _), answer) in each.iter().zip(answers) {
            if let Some((step, body)) = answer.into_inner().unwrap_or_else(|e| e.into_inner()) {
                let device = self.fleet.id(self.clients[*at]);
                self.masking.hear(device, device, step, &body).map_err(|e| fault(&e))?;
                heard += 1;
            }
        }
        Ok(heard)
    }
}
