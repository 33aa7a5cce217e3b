//! Which devices there are, by somebody whom devices trust more than the cloud.
//!
//! Masks protect a device among others. A cloud that could make up most of the others would see through them, so each
//! device asks of every neighbour that a key which the cloud does not hold says: this machine exists. The list may be
//! long; what is signed is the root of a hash tree over it ([`crate::included::Tree`]), and a neighbour comes with its
//! place in the tree.
//!
//! What this is not: a statement that a listed machine is honest. The share of listed machines that collude with the
//! cloud is what a job's `adversary` assumes.

use crate::included::{Tree, verify};
use littoral_wire::identity::IdentityError;
use littoral_wire::message::{Listed, Roster};
use littoral_wire::{NodeId, SecretKey};
use thiserror::Error;

/// A signed roster and its list, as the cloud keeps it to prove each device's place.
#[derive(Clone, Debug)]
pub struct Register {
    roster: Roster,
    tree: Tree,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RosterError {
    #[error(transparent)]
    Signature(#[from] IdentityError),
    #[error("a roster for cloud {expected} expected, got one for {got}")]
    OtherCloud { expected: NodeId, got: NodeId },
    #[error("roster {number} says that it lists {count} devices; {given} were given, or others")]
    OtherList { number: u64, count: u32, given: usize },
    #[error("device {device} is not on roster {number} of {count} devices")]
    NotListed { device: NodeId, number: u64, count: u32 },
}

/// Signs the list of devices of a cloud. `number` grows with every roster.
pub fn sign(key: &SecretKey, cloud: NodeId, number: u64, devices: &[NodeId]) -> Roster {
    let tree = Tree::new(devices);
    let unsigned = Roster { cloud, number, root: tree.root(), count: tree.count(), signature: [0; 64] };
    Roster { signature: key.sign(Roster::DOMAIN, &unsigned.signed_bytes()), ..unsigned }
}

impl Register {
    /// The list that was signed comes with it.
    pub fn new(roster: Roster, devices: &[NodeId]) -> Result<Self, RosterError> {
        let tree = Tree::new(devices);
        if tree.root() != roster.root || tree.count() != roster.count {
            let (number, count, given) = (roster.number, roster.count, devices.len());
            return Err(RosterError::OtherList { number, count, given });
        }
        Ok(Self { roster, tree })
    }

    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    pub fn devices(&self) -> &[NodeId] {
        self.tree.devices()
    }

    /// What others need to believe in this device.
    pub fn listed(&self, device: NodeId) -> Option<Listed> {
        Some(Listed { roster: self.roster.clone(), proof: self.tree.proof(device)? })
    }
}

/// Did `key` sign this roster, for this cloud?
pub fn check_signature(key: NodeId, cloud: NodeId, roster: &Roster) -> Result<(), RosterError> {
    if roster.cloud != cloud {
        return Err(RosterError::OtherCloud { expected: cloud, got: roster.cloud });
    }
    Ok(key.verify(Roster::DOMAIN, &roster.signed_bytes(), &roster.signature)?)
}

/// Is the device on the roster with which it comes? The roster's signature is looked at apart.
pub fn check_place(device: NodeId, listed: &Listed) -> Result<(), RosterError> {
    let Roster { number, root, count, .. } = &listed.roster;
    match verify(root, *count, device, &listed.proof) {
        true => Ok(()),
        false => Err(RosterError::NotListed { device, number: *number, count: *count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_listed_by_the_right_key_for_the_right_cloud_or_not_at_all() {
        let (key, cloud) = (SecretKey::from_bytes([1; 32]), NodeId([2; 32]));
        let devices: Vec<NodeId> = (10..17).map(|n| NodeId([n; 32])).collect();
        let register = Register::new(sign(&key, cloud, 3, &devices), &devices).unwrap();
        for device in &devices {
            let listed = register.listed(*device).unwrap();
            assert_eq!(check_signature(key.id(), cloud, &listed.roster), Ok(()));
            assert_eq!(check_place(*device, &listed), Ok(()));
            assert!(matches!(check_place(NodeId([99; 32]), &listed), Err(RosterError::NotListed { number: 3, .. })));
        }
        assert_eq!(register.listed(NodeId([99; 32])), None);
        let roster = register.roster();
        let other = NodeId([3; 32]);
        assert_eq!(
            check_signature(key.id(), other, roster),
            Err(RosterError::OtherCloud { expected: other, got: cloud })
        );
        assert!(matches!(check_signature(other, cloud, roster), Err(RosterError::Signature(_))));
        let newer = Roster { number: 4, ..roster.clone() };
        assert!(matches!(check_signature(key.id(), cloud, &newer), Err(RosterError::Signature(_))));
        assert!(matches!(Register::new(roster.clone(), &devices[1..]), Err(RosterError::OtherList { given: 6, .. })));
    }
}
