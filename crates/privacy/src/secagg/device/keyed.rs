//! First steps: keys out, the list fixed, neighbours in.

use super::{Place, Sharing};
use crate::secagg::codec::Bitmap;
use crate::secagg::harary::neighbours_of;
use crate::secagg::keys::{For, derive, derive_secret, public_key};
use crate::secagg::merkle::{Hash, root_of};
use crate::secagg::message::{Advertised, Fixed, Neighbours, Nonce, Peer, Shares, Source, Terms, Vouched};
use crate::secagg::refused::Refused;
use crate::secagg::secret::Secret;
use crate::secagg::session::{
    OnRoster, Session, Signer, Verifier, advertised_statement, commitment, graph_seed, leaf, list_root,
    nonce_commitment, vertices,
};
use std::fmt;

/// A device with keys for one session.
pub struct Keyed {
    session: Session,
    bound: [u8; 32],
    identity: [u8; 32],
    secrets: Secrets,
    /// Active: what the server fixed.
    list: Option<Fixed>,
}

/// All that a device keeps to itself, from the bytes that its caller drew.
pub(super) struct Secrets {
    random: Secret<32>,
    pub(super) encryption: Secret<32>,
    pub(super) masking: Secret<32>,
    pub(super) encryption_key: [u8; 32],
    pub(super) masking_key: [u8; 32],
}

impl Secrets {
    fn new(bound: &[u8; 32], random: [u8; 32]) -> Self {
        let random = Secret::from(random);
        let encryption = derive_secret(For::EncryptionKey, &[bound, random.bytes()]);
        let masking = derive_secret(For::MaskingKey, &[bound, random.bytes()]);
        let (encryption_key, masking_key) = (public_key(&encryption), public_key(&masking));
        Self { random, encryption, masking, encryption_key, masking_key }
    }

    pub(super) fn of(&self, purpose: For, bound: &[u8; 32]) -> Secret<32> {
        derive_secret(purpose, &[bound, self.random.bytes()])
    }

    fn nonce(&self, bound: &[u8; 32]) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&derive(For::Nonce, &[bound, self.random.bytes()])[..16]);
        nonce
    }
}

impl Keyed {
    /// `random` is fresh: never used before, for this session only. `sign` is asked under the active threat.
    pub fn new(
        session: Session,
        identity: [u8; 32],
        random: [u8; 32],
        sign: Signer<'_>,
    ) -> Result<(Self, Advertised), Refused> {
        session.check()?;
        let bound = session.bound();
        let secrets = Secrets::new(&bound, random);
        let keys = [&secrets.encryption_key, &secrets.masking_key];
        let vouched = session.is_active().then(|| {
            let nonce_commitment = nonce_commitment(&bound, &secrets.nonce(&bound));
            let signature = sign(&advertised_statement(&bound, &identity, keys, &nonce_commitment));
            Vouched { nonce_commitment, signature }
        });
        let (encryption_key, masking_key) = (secrets.encryption_key, secrets.masking_key);
        let advertised = Advertised { bound, encryption_key, masking_key, vouched };
        Ok((Self { session, bound, identity, secrets, list: None }, advertised))
    }

    /// Active: the list of devices is fixed, and this device shows its nonce. The same list again gives the same answer,
    /// another one is refused.
    pub fn fix(mut self, fixed: &Fixed) -> Result<(Self, Nonce), Refused> {
        if fixed.bound != self.bound {
            return Err(Refused::WrongContext { what: "the fixed list" });
        }
        if !self.session.is_active() {
            return Err(Refused::OtherThreat { what: "a fixed list" });
        }
        self.check_group(fixed.count)?;
        if self.list.get_or_insert_with(|| fixed.clone()) != fixed {
            return Err(Refused::NotFixed { why: "another list was fixed before" });
        }
        let nonce = self.secrets.nonce(&self.bound);
        let bound = self.bound;
        Ok((self, Nonce { bound, nonce }))
    }

    /// Checks who the neighbours are and shares this device's secrets among them. `verify` and `on_roster` are asked under
    /// the active threat.
    pub fn neighbours(
        self,
        message: &Neighbours,
        verify: Verifier<'_>,
        on_roster: OnRoster<'_>,
    ) -> Result<(Sharing, Shares), Refused> {
        self.check_terms(&message.terms)?;
        if message.bound != self.bound {
            return Err(Refused::WrongContext { what: "the list of neighbours" });
        }
        self.check_group(message.count)?;
        if message.index >= message.count {
            return Err(Refused::NotFixed { why: "this device's place is behind its end" });
        }
        let graph = self.graph(message)?;
        if !graph.present.contains(message.index) {
            return Err(Refused::NotFixed { why: "this device is not in the graph" });
        }
        self.check_group(graph.present.count())?;
        let parameters = self.session.parameters(graph.present.count())?;
        for (what, expected, got) in [
            ("degree", parameters.degree, message.terms.degree),
            ("threshold", parameters.threshold, message.terms.threshold),
        ] {
            if expected != got {
                return Err(Refused::ParameterChanged { what, expected: expected.into(), got: got.into() });
            }
        }
        let places = vertices(&graph.present);
        let vertex = places.partition_point(|&place| place < message.index) as u32;
        let expected = neighbours_of(vertex, places.len() as u32, parameters.degree, &graph.seed);
        if !expected.iter().map(|&vertex| places[vertex as usize]).eq(message.peers.iter().map(|peer| peer.index)) {
            return Err(Refused::WrongNeighbours);
        }
        if let Some(shown) = &graph.shown {
            self.check_peers(message, shown, verify, on_roster)?;
        }
        let minimum = self.session.minimum(&parameters);
        let place = Place {
            session: self.session,
            bound: self.bound,
            index: message.index,
            present: graph.present,
            threshold: parameters.threshold,
            minimum,
            root: graph.shown.map_or([0; 32], |shown| shown.root),
        };
        Sharing::begin(place, self.secrets, &message.peers)
    }

    fn check_group(&self, got: u32) -> Result<(), Refused> {
        let minimum = self.session.min_group;
        if got < minimum { Err(Refused::GroupTooSmall { minimum, got }) } else { Ok(()) }
    }

    fn check_terms(&self, got: &Terms) -> Result<(), Refused> {
        let own = Terms::of(&self.session, got.degree, got.threshold);
        if own.context != got.context {
            return Err(Refused::WrongContext { what: "the list of neighbours" });
        }
        for (what, expected, got) in [
            ("generator", own.prg.id().into(), got.prg.id().into()),
            ("bits", own.bits.into(), got.bits.into()),
            ("bytes", own.bytes, got.bytes),
            ("min_group", own.min_group.into(), got.min_group.into()),
        ] {
            if expected != got {
                return Err(Refused::ParameterChanged { what, expected, got });
            }
        }
        Ok(())
    }

    /// Who is in the graph, and its seed: under the active threat from what nobody could choose.
    fn graph(&self, message: &Neighbours) -> Result<GraphSource, Refused> {
        let (secret, revealed, nonces, withheld) = match (&message.source, self.session.is_active()) {
            (Source::Seed(seed), false) => {
                let present = Bitmap::of((0..message.count).map(|_| true));
                return Ok(GraphSource { seed: *seed, present, shown: None });
            }
            (Source::Nonces { secret, revealed, nonces, withheld }, true) => (secret, revealed, nonces, withheld),
            _ => return Err(Refused::OtherThreat { what: "the source of the graph" }),
        };
        let not_fixed = |why| Err(Refused::NotFixed { why });
        let Some(fixed) = self.list.as_ref() else { return not_fixed("no list was fixed") };
        if fixed.count != message.count || revealed.len() != message.count {
            return not_fixed("its length is another one");
        }
        if commitment(&self.session.context, secret) != self.session.commitment {
            return not_fixed("the server's secret is not what it was bound to");
        }
        let (mut nonces_left, mut withheld_left) = (nonces.iter(), withheld.iter());
        let mut commitments = Vec::with_capacity(message.count as usize);
        for place in 0..message.count {
            let commitment = if revealed.contains(place) {
                nonces_left.next().map(|nonce| nonce_commitment(&self.bound, nonce))
            } else {
                withheld_left.next().copied()
            };
            let Some(commitment) = commitment else { return not_fixed("nonces are missing") };
            commitments.push(commitment);
        }
        if nonces_left.next().is_some() || withheld_left.next().is_some() {
            return not_fixed("there are more nonces than devices");
        }
        let own = nonce_commitment(&self.bound, &self.secrets.nonce(&self.bound));
        if !revealed.contains(message.index) || commitments[message.index as usize] != own {
            return not_fixed("this device's nonce is not in it");
        }
        let seed = graph_seed(&self.session, &self.bound, secret, &fixed.root, revealed, nonces);
        let shown = Shown { root: fixed.root, commitments };
        Ok(GraphSource { seed, present: revealed.clone(), shown: Some(shown) })
    }

    /// Each peer, and this device, stands in the fixed list; its keys are signed by its identity; that is on the roster.
    fn check_peers(
        &self,
        message: &Neighbours,
        shown: &Shown,
        verify: Verifier<'_>,
        on_roster: OnRoster<'_>,
    ) -> Result<(), Refused> {
        let own_keys = [&self.secrets.encryption_key, &self.secrets.masking_key];
        let own = (message.index, leaf(&self.bound, message.index, &self.identity, own_keys), self.identity);
        let mut listed = Vec::with_capacity(message.peers.len() + 1);
        for Peer { index, encryption_key, masking_key, identity } in &message.peers {
            let Some(peer) = identity else { return Err(Refused::OtherThreat { what: "a neighbour" }) };
            let keys = [encryption_key, masking_key];
            listed.push((*index, leaf(&self.bound, *index, &peer.identity, keys), peer.identity));
        }
        listed.insert(listed.partition_point(|(index, ..)| *index < own.0), own);
        // The list is sorted by identity. One that stands in it twice would count twice as a neighbour.
        if let Some(pair) = listed.windows(2).find(|pair| pair[0].2 >= pair[1].2) {
            return Err(Refused::ListedTwice { peer: pair[1].0 });
        }
        let leaves: Vec<(u32, Hash)> = listed.iter().map(|(index, leaf, _)| (*index, *leaf)).collect();
        let tree = root_of(message.count, &leaves, &message.proof);
        if tree.map(|tree| list_root(&self.bound, &tree, &shown.commitments)) != Some(shown.root) {
            return Err(Refused::NotFixed { why: "a neighbour, this device or a nonce is not in it as said" });
        }
        for Peer { index, encryption_key, masking_key, identity } in &message.peers {
            let Some(peer) = identity else { continue };
            let commitment = &shown.commitments[*index as usize];
            let statement =
                advertised_statement(&self.bound, &peer.identity, [encryption_key, masking_key], commitment);
            if !verify(&peer.identity, &statement, &peer.signature) {
                return Err(Refused::BadSignature { peer: *index });
            }
            if !on_roster(&peer.identity, &peer.roster) {
                return Err(Refused::NotOnRoster { peer: *index });
            }
        }
        Ok(())
    }
}

struct GraphSource {
    seed: [u8; 32],
    present: Bitmap,
    shown: Option<Shown>,
}

/// Active: what the list was checked against.
struct Shown {
    root: Hash,
    /// To nonces, by place.
    commitments: Vec<[u8; 32]>,
}

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("session", &self.session).field("list", &self.list).finish_non_exhaustive()
    }
}
