//! Middle steps: neighbours out, sealed shares in, and on to those they are for.

use super::Directory;
use crate::secagg::codec::Bitmap;
use crate::secagg::keys::Sealed;
use crate::secagg::merkle::Tree;
use crate::secagg::message::{Inbox, Neighbours, Peer, PeerIdentity, Shares, Source, Terms};
use crate::secagg::refused::Refused;
use std::fmt;

/// Devices share their secrets.
pub struct Sharing {
    directory: Directory,
    tree: Tree,
    /// What each device sealed, in the order of its neighbours.
    sealed: Vec<Vec<Sealed>>,
}

/// What was sealed, for the devices it is for. It may be dropped when they have it.
pub struct Inboxes {
    sealed: Vec<Vec<Sealed>>,
}

impl Sharing {
    pub(super) fn new(directory: Directory, tree: Tree) -> Self {
        let sealed = vec![Vec::new(); directory.list.len()];
        Self { directory, tree, sealed }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Devices that completed sharing.
    pub fn completed(&self) -> u32 {
        self.directory.completed.iter().flatten().count() as u32
    }

    /// For the device at `index`. `roster` gives the proof that an identity is on the roster, under the active threat.
    pub fn neighbours(&self, index: u32, roster: &dyn Fn(&[u8; 32]) -> Vec<u8>) -> Result<Neighbours, Refused> {
        let directory = &self.directory;
        if !directory.is_present(index) {
            return Err(Refused::UnknownDevice { index });
        }
        let indices = directory.neighbours(index);
        let peers = indices.iter().map(|&peer| {
            let (identity, keys) = &directory.list[peer as usize];
            let vouched = keys.vouched.as_ref().map(|vouched| PeerIdentity {
                identity: *identity,
                signature: vouched.signature,
                roster: roster(identity),
            });
            Peer { index: peer, encryption_key: keys.encryption_key, masking_key: keys.masking_key, identity: vouched }
        });
        let peers = peers.collect();
        let (source, proof) = if directory.session.is_active() {
            let mut listed = indices;
            listed.insert(listed.partition_point(|&peer| peer < index), index);
            (self.nonces(), self.tree.prove(&listed))
        } else {
            (Source::Seed(directory.secret), Vec::new())
        };
        let parameters = &directory.parameters;
        let terms = Terms::of(&directory.session, parameters.degree, parameters.threshold);
        Ok(Neighbours { bound: directory.bound, terms, count: directory.count(), index, source, peers, proof })
    }

    fn nonces(&self) -> Source {
        let Directory { secret, present, nonces, list, .. } = &self.directory;
        let absent = list.iter().enumerate().filter(|(index, _)| !present.contains(*index as u32));
        let withheld = absent.filter_map(|(_, (_, keys))| Some(keys.vouched.as_ref()?.nonce_commitment)).collect();
        Source::Nonces { secret: *secret, revealed: present.clone(), nonces: nonces.clone(), withheld }
    }

    /// The device at `index` sealed its shares.
    pub fn add(&mut self, index: u32, shares: Shares) -> Result<(), Refused> {
        let what = "sealed shares";
        if shares.bound != self.directory.bound {
            return Err(Refused::WrongContext { what });
        }
        if !self.directory.is_present(index) {
            return Err(Refused::UnknownDevice { index });
        }
        let (expected, got) = (self.directory.graph_degree(), shares.sealed.len() as u32);
        if expected != got {
            return Err(Refused::WrongLength { what, expected, got });
        }
        let completed = &mut self.directory.completed[index as usize];
        let sealed = &mut self.sealed[index as usize];
        if completed.is_none() {
            *completed = Some(shares.self_mask_commitment);
            *sealed = shares.sealed;
        } else if *completed != Some(shares.self_mask_commitment) || *sealed != shares.sealed {
            return Err(Refused::Again { what });
        }
        Ok(())
    }

    /// Sharing ends: who has not completed it is out.
    pub fn close(self) -> Result<(Directory, Inboxes), Refused> {
        let (minimum, got) = (self.directory.minimum(), self.completed());
        if got < minimum {
            return Err(Refused::GroupTooSmall { minimum, got });
        }
        Ok((self.directory, Inboxes { sealed: self.sealed }))
    }
}

impl Inboxes {
    /// For the device at `index`, which completed sharing.
    pub fn inbox(&self, directory: &Directory, index: u32) -> Result<Inbox, Refused> {
        if !directory.has_completed(index) {
            return Err(Refused::UnknownDevice { index });
        }
        let neighbours = directory.neighbours(index);
        let completed = Bitmap::of(neighbours.iter().map(|&peer| directory.has_completed(peer)));
        let theirs = neighbours.iter().filter(|&&peer| directory.has_completed(peer)).map(|&peer| {
            let sealed = directory.slot(peer, index).and_then(|slot| self.sealed[peer as usize].get(slot));
            sealed.copied().ok_or(Refused::UnknownDevice { index: peer })
        });
        Ok(Inbox { bound: directory.bound, sealed: theirs.collect::<Result<_, _>>()?, completed })
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl fmt::Debug for Inboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inboxes of {} devices", self.sealed.iter().filter(|sealed| !sealed.is_empty()).count())
    }
}
