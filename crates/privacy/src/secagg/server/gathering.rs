//! First steps: who takes part, with which keys, in which graph.

use super::{Directory, Sharing};
use crate::secagg::codec::Bitmap;
use crate::secagg::merkle::Tree;
use crate::secagg::message::{Advertised, Fixed, Nonce};
use crate::secagg::parameters::CLIENTS_MAX;
use crate::secagg::refused::Refused;
use crate::secagg::session::{
    Session, Verifier, advertised_statement, commitment, graph_seed, leaf, list_root, nonce_commitment,
};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Devices advertise their keys.
#[derive(Clone, Debug)]
pub struct Gathering {
    session: Session,
    bound: [u8; 32],
    secret: [u8; 32],
    devices: BTreeMap<[u8; 32], Advertised>,
}

/// The list is fixed: sorted by identity; a device's index is its place in it.
#[derive(Clone, Debug)]
pub struct Listing {
    session: Session,
    bound: [u8; 32],
    secret: [u8; 32],
    list: Vec<([u8; 32], Advertised)>,
    tree: Tree,
    root: [u8; 32],
    nonces: Vec<Option<[u8; 16]>>,
}

impl Gathering {
    /// `secret` is fresh randomness: under the active threat what the session's commitment binds to, under the honest one
    /// the seed of the graph.
    pub fn new(session: Session, secret: [u8; 32]) -> Result<Self, Refused> {
        session.check()?;
        if session.is_active() && commitment(&session.context, &secret) != session.commitment {
            return Err(Refused::NotFixed { why: "the server's secret is not what it was bound to" });
        }
        let bound = session.bound();
        Ok(Self { session, bound, secret, devices: BTreeMap::new() })
    }

    pub fn add(&mut self, identity: [u8; 32], advertised: &Advertised, verify: Verifier<'_>) -> Result<(), Refused> {
        let what = "keys";
        if advertised.bound != self.bound {
            return Err(Refused::WrongContext { what });
        }
        let place = self.devices.len() as u32;
        if let Some(vouched) = &advertised.vouched {
            let keys = [&advertised.encryption_key, &advertised.masking_key];
            let statement = advertised_statement(&self.bound, &identity, keys, &vouched.nonce_commitment);
            if !verify(&identity, &statement, &vouched.signature) {
                return Err(Refused::BadSignature { peer: place });
            }
        }
        if advertised.vouched.is_some() != self.session.is_active() {
            return Err(Refused::OtherThreat { what });
        }
        let full = place == CLIENTS_MAX;
        match self.devices.entry(identity) {
            Entry::Occupied(known) if known.get() == advertised => Ok(()),
            Entry::Occupied(_) => Err(Refused::Again { what }),
            Entry::Vacant(_) if full => Err(Refused::UnknownDevice { index: place }),
            Entry::Vacant(free) => {
                free.insert(advertised.clone());
                Ok(())
            }
        }
    }

    /// How many devices advertised.
    pub fn len(&self) -> u32 {
        self.devices.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Fixes the list.
    pub fn fix(self) -> Result<Listing, Refused> {
        let Self { session, bound, secret, devices } = self;
        let (minimum, got) = (session.min_group, devices.len() as u32);
        if got < minimum {
            return Err(Refused::GroupTooSmall { minimum, got });
        }
        let list: Vec<_> = devices.into_iter().collect();
        let (tree, root) = hashed(&session, &bound, &list);
        let nonces = vec![None; list.len()];
        Ok(Listing { session, bound, secret, list, tree, root, nonces })
    }
}

/// The tree over the keys, and the root of the list; under the honest threat nobody asks for them.
pub(super) fn hashed(session: &Session, bound: &[u8; 32], list: &[([u8; 32], Advertised)]) -> (Tree, [u8; 32]) {
    if !session.is_active() {
        return (Tree::new(vec![[0; 32]]), [0; 32]);
    }
    let leaves = list.iter().enumerate().map(|(index, (identity, keys))| {
        leaf(bound, index as u32, identity, [&keys.encryption_key, &keys.masking_key])
    });
    let tree = Tree::new(leaves.collect());
    let commitments: Vec<[u8; 32]> =
        list.iter().filter_map(|(_, keys)| Some(keys.vouched.as_ref()?.nonce_commitment)).collect();
    let root = list_root(bound, &tree.root(), &commitments);
    (tree, root)
}

impl Listing {
    /// Devices in the list.
    pub fn count(&self) -> u32 {
        self.list.len() as u32
    }

    pub fn index_of(&self, identity: &[u8; 32]) -> Option<u32> {
        self.list.binary_search_by(|(listed, _)| listed.cmp(identity)).ok().map(|at| at as u32)
    }

    pub fn identity(&self, index: u32) -> Option<&[u8; 32]> {
        self.list.get(index as usize).map(|(identity, _)| identity)
    }

    /// Active: for every device.
    pub fn fixed(&self) -> Fixed {
        Fixed { bound: self.bound, count: self.count(), root: self.root }
    }

    /// Active: a device shows its nonce.
    pub fn nonce(&mut self, index: u32, message: &Nonce) -> Result<(), Refused> {
        if message.bound != self.bound {
            return Err(Refused::WrongContext { what: "a nonce" });
        }
        let unknown = Refused::UnknownDevice { index };
        let vouched = self.list.get(index as usize).ok_or(unknown)?.1.vouched.as_ref();
        let vouched = vouched.ok_or(Refused::OtherThreat { what: "a nonce" })?;
        if nonce_commitment(&self.bound, &message.nonce) != vouched.nonce_commitment {
            return Err(Refused::BadNonce { peer: index });
        }
        self.nonces[index as usize] = Some(message.nonce);
        Ok(())
    }

    /// Devices that showed a nonce.
    pub fn nonces(&self) -> u32 {
        self.nonces.iter().flatten().count() as u32
    }

    /// The graph over the devices that came so far: under the active threat those that showed their nonces.
    pub fn graph(self) -> Result<Sharing, Refused> {
        let Self { session, bound, secret, list, tree, root, nonces } = self;
        let active = session.is_active();
        let present = Bitmap::of(nonces.iter().map(|nonce| !active || nonce.is_some()));
        let (minimum, got) = (session.min_group, present.count());
        if got < minimum {
            return Err(Refused::GroupTooSmall { minimum, got });
        }
        let nonces: Vec<[u8; 16]> = nonces.into_iter().flatten().collect();
        let seed = match active {
            true => graph_seed(&session, &bound, &secret, &root, &present, &nonces),
            false => secret,
        };
        Ok(Sharing::new(Directory::new(session, secret, seed, list, root, present, nonces)?, tree))
    }
}
