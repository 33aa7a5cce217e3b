//! Which endpoint dials: one for all addresses, and one more for each further address of a key.
//!
//! The replicas of a cloud have one key. iroh knows machines by their keys: it takes all addresses at which a key was dialled for paths
//! to one machine, sends the first packets of a connection to all of them, and moves connections to the path that it
//! likes best. So a key's second address is dialled from an endpoint of its own, which knows of no other.

use super::{Address, Identity, NodeId, Result};
use iroh::Endpoint;
use std::collections::HashMap;
use std::net::SocketAddr;
use tokio::sync::Mutex;

/// Further endpoints; beyond them the first serves again. Nobody is told of more replicas than this.
const FURTHER_MAX: usize = 64;
/// Keys whose first address is remembered; beyond them, all are forgotten.
const KEYS_MAX: usize = 4_096;

pub(super) struct Endpoints {
    pub first: Endpoint,
    /// For further ones: whose key they have, and where they are.
    identity: Identity,
    at: Option<SocketAddr>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By key, the address that the first endpoint dials.
    addresses: HashMap<NodeId, Address>,
    further: HashMap<Address, Endpoint>,
}

impl Endpoints {
    pub fn new(first: Endpoint, identity: &Identity, at: Option<SocketAddr>) -> Self {
        Self { first, identity: identity.clone(), at, known: Mutex::default() }
    }

    /// What dials this address. `bind` makes an endpoint at an interface, on any port.
    pub async fn of<F: Future<Output = Result<Endpoint>>>(
        &self,
        address: &Address,
        bind: impl FnOnce(Identity, Option<SocketAddr>) -> F,
    ) -> Result<Endpoint> {
        let mut known = self.known.lock().await;
        if known.addresses.len() >= KEYS_MAX && !known.addresses.contains_key(&address.id) {
            known.addresses.clear();
        }
        if known.addresses.entry(address.id).or_insert_with(|| address.clone()) == address {
            return Ok(self.first.clone());
        }
        if let Some(endpoint) = known.further.get(address) {
            return Ok(endpoint.clone());
        }
        if known.further.len() >= FURTHER_MAX {
            return Ok(self.first.clone());
        }
        let at = self.at.map(|at| SocketAddr::new(at.ip(), 0));
        let endpoint = bind(self.identity.clone(), at).await?;
        known.further.insert(address.clone(), endpoint.clone());
        Ok(endpoint)
    }

    pub async fn close(&self) {
        let further: Vec<Endpoint> = self.known.lock().await.further.drain().map(|(_, endpoint)| endpoint).collect();
        futures_util::future::join_all(further.iter().chain([&self.first]).map(Endpoint::close)).await;
    }
}
