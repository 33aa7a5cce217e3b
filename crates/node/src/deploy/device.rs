//! A device: its key, its enrolment, its data, what it sealed. It dials out and listens nowhere.

use super::data::{DeviceData, offers};
use super::edge::peer;
use super::enrol::Enrolment;
use super::listen::dialler;
use super::running::{collect, host_settings};
use super::{DeployError, Running, conditions, folder};
use crate::config::{DeviceConfig, MasksName};
use crate::host::{self, OnReport, World, keys};
use crate::role::device::{Device, DeviceIdentity};
use crate::role::redial::draw;
use crate::role::{Entropy, Peer};
use crate::store::Store;
use crate::transport::Address;
use littoral_fed::masks::ThreatName;
use littoral_wire::NodeId;
use std::path::Path;
use std::sync::Arc;

/// Starts the device of `config.dir`. `base`: where the paths of its data start.
pub async fn start_device(config: &DeviceConfig, base: &Path, on_report: OnReport) -> Result<Running, DeployError> {
    let dir = &config.dir;
    // Before anything is made in the folder of a machine that nobody let in.
    let enrolment = Enrolment::load(dir)?;
    let not_enrolled = || DeployError::NotEnrolled { dir: dir.clone() };
    let cloud: NodeId = match config.cloud.as_str() {
        "" => enrolment.as_ref().and_then(|e| e.cloud.parse().ok()).ok_or_else(not_enrolled)?,
        text => text.parse().map_err(|_| not_enrolled())?,
    };
    if config.upstreams.is_empty() && enrolment.is_none() {
        return Err(not_enrolled());
    }
    let (store, key) = folder::open(dir).await?;
    let id = key.id();
    let upstreams = match &config.upstreams[..] {
        [] => enrolment.as_ref().map(|e| e.upstreams.clone()).unwrap_or_default(),
        given => given.to_vec(),
    };
    let upstreams = upstreams.iter().map(|text| text.parse::<Address>().map(|address| peer(&address)));
    let upstreams = in_our_order(id, cloud, upstreams.collect::<Result<Vec<Peer>, _>>()?);
    let told = enrolment.as_ref().and_then(|e| e.roster.clone()).unwrap_or_default();
    let roster = if config.roster.is_empty() { &told } else { &config.roster };
    let roster = match roster.as_str() {
        "" => None,
        text => Some(text.parse::<NodeId>().map_err(|e| DeployError::Field {
            field: "roster",
            expected: "a key of 64 hexadecimal digits".into(),
            got: e.to_string(),
        })?),
    };
    let name = match enrolment.map(|e| e.name).unwrap_or_else(|| config.name.clone()) {
        name if name.is_empty() => format!("device-{}", id.short()),
        name => name,
    };
    let (sources, limits) = (config.data.clone(), config.limits.of_data());
    let (counted, folder) = (sources.clone(), base.to_owned());
    let offered = tokio::task::spawn_blocking(move || offers(&counted, &folder, &limits)).await.unwrap_or_default();
    let (data, entropy) = (offered, Entropy::new(keys::random()?));
    let identity = DeviceIdentity {
        key: key.clone(),
        name: name.clone(),
        cloud,
        upstreams,
        data,
        roster,
        masks: match config.masks {
            MasksName::Job => None,
            MasksName::Honest => Some(ThreatName::Honest),
            MasksName::Active => Some(ThreatName::Active),
        },
        group_min: config.group_min,
        entropy,
    };
    let role = Device::new(identity, store.load().await?);
    let transport = dialler(&key, &config.network).await?;
    let objects = store.objects();
    collect(&objects, &role, &on_report);
    let (store, data) = (Arc::new(store), Arc::new(DeviceData::new(sources, base, limits)));
    let told = on_report.clone();
    let world = World { transport, store, objects, data, on_report };
    let handle = host::start(Box::new(role), world, host_settings(config.threads, &config.limits.of_links(), None));
    conditions::watch(&handle, &config.conditions, base, told);
    Ok(Running { id, name, address: None, handle, _lock: None })
}

/// Runs the device until `stop`.
pub async fn run_device(
    config: &DeviceConfig,
    base: &Path,
    on_report: OnReport,
    stop: impl Future<Output = ()>,
) -> Result<(), DeployError> {
    start_device(config, base, on_report).await?.until(stop).await
}

/// Each device prefers the edges in an order of its own; the cloud comes last.
fn in_our_order(me: NodeId, cloud: NodeId, mut upstreams: Vec<Peer>) -> Vec<Peer> {
    upstreams.sort_by_key(|peer| (peer.id == cloud, draw(me, peer.id)));
    upstreams
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_spread_over_edges_and_the_cloud_is_last() {
        let peer = |n: u8| Peer { id: NodeId([n; 32]), address: format!("host:{n}") };
        let (cloud, told) = (NodeId([9; 32]), vec![peer(9), peer(1), peer(2)]);
        let orders: Vec<Vec<Peer>> =
            (10..42).map(|device| in_our_order(NodeId([device; 32]), cloud, told.clone())).collect();
        assert!(orders.iter().all(|order| order[2].id == cloud));
        let first = orders.iter().filter(|order| order[0] == peer(1)).count();
        // 32 fair draws: outside 6..=26 once in ten thousand, and these draws are fixed.
        assert!((6..=26).contains(&first), "{first} of 32 devices prefer one of two edges");
    }
}
