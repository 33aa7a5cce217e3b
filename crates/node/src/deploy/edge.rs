//! An edge: its key, its enrolment, its listener. It keeps nothing else over a restart.

use super::data::NoData;
use super::enrol::Enrolment;
use super::listen::listen;
use super::running::{collect, host_settings};
use super::{DeployError, Running, folder};
use crate::config::EdgeConfig;
use crate::host::{self, OnReport, World};
use crate::role::Peer;
use crate::role::edge::{Edge, EdgeIdentity};
use crate::transport::Address;
use littoral_wire::NodeId;
use littoral_wire::message::UPSTREAMS_MAX;
use std::sync::Arc;

/// Starts the edge of `config.dir`.
pub async fn start_edge(config: &EdgeConfig, on_report: OnReport) -> Result<Running, DeployError> {
    let dir = &config.dir;
    // Before anything is made in the folder of a machine that nobody let in.
    let enrolment = Enrolment::load(dir)?;
    let not_enrolled = || DeployError::NotEnrolled { dir: dir.clone() };
    let cloud = match config.cloud.as_str() {
        "" => enrolment.as_ref().and_then(Enrolment::cloud_peer).ok_or_else(not_enrolled)?,
        text => peer(&text.parse::<Address>()?),
    };
    let (store, key) = folder::open(dir).await?;
    let name = match enrolment.map(|e| e.name).unwrap_or_else(|| config.name.clone()) {
        name if name.is_empty() => format!("edge-{}", key.id().short()),
        name => name,
    };
    let listening = listen(dir, &key, &config.listen, &config.advertise, &config.network).await?;
    let id = key.id();
    let replica = |address: &String| Peer { id: cloud.id, address: address.clone() };
    let replicas = config.replicas.iter().map(replica).collect();
    let identity = EdgeIdentity { id, name: name.clone(), cloud, replicas, listen: listening.advertised.clone() };
    let role = Edge::new(identity).checking_in(config.check_in.clone());
    let objects = store.objects();
    collect(&objects, &role, &on_report);
    let (store, data) = (Arc::new(store), Arc::new(NoData));
    let world = World { transport: listening.transport, store, objects, data, on_report };
    let mut settings = host_settings(config.threads, &config.limits, None);
    if !config.replicas.is_empty() {
        // All of them have one key.
        settings.links_per_peer_max = settings.links_per_peer_max.max(UPSTREAMS_MAX);
    }
    let handle = host::start(Box::new(role), world, settings);
    Ok(Running { id, name, address: Some(listening.advertised), handle, _lock: None })
}

/// Runs the edge until `stop`.
pub async fn run_edge(
    config: &EdgeConfig,
    on_report: OnReport,
    stop: impl Future<Output = ()>,
) -> Result<(), DeployError> {
    start_edge(config, on_report).await?.until(stop).await
}

/// A transport's address as roles know it.
pub(super) fn peer(address: &Address) -> Peer {
    let text = address.to_string();
    let place = text.split_once('@').map_or("", |(_, place)| place);
    Peer { id: NodeId(address.id.0), address: place.to_owned() }
}
