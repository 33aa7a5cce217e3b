//! The cloud of one process: its rows, its first operator, its listener.

use super::data::NoData;
use super::listen::{ADDRESS_FILE, listen, read_address};
use super::running::{collect, host_settings};
use super::{DeployError, KEY_FILE, Running, folder, replica};
use crate::config::CloudConfig;
use crate::host::{self, Clock, OnReport, World, keys};
use crate::role::cloud::command::Right;
use crate::role::cloud::{Cloud, CloudIdentity};
use crate::role::whole_cloud::WholeCloud;
use crate::role::{Effect, Entropy, Role};
use crate::store::Store;
use littoral_wire::JobId;
use std::sync::Arc;

/// The first operator's key in a cloud's folder.
pub const OPERATOR_KEY_FILE: &str = "operator.key";
/// Under which name the cloud leases what it writes.
const HOLDER: &str = "cloud";

/// Starts the cloud of `config.dir`, which is made if it is missing.
pub async fn start_cloud(config: &CloudConfig, on_report: OnReport) -> Result<Running, DeployError> {
    if !config.shared.database.is_empty() {
        return replica::start(config, on_report).await;
    }
    let dir = &config.dir;
    let (store, key) = folder::open(dir).await?;
    // All machines dial the key that they enrolled with: a cloud under another one is another cloud.
    if let Some(last) = read_address(dir)?
        && last.id.0 != key.id().0
    {
        let expected = format!("the key of {}, which the file `{ADDRESS_FILE}` names", last.id);
        let got = format!("that of {}: it is damaged or another cloud's; restore the folder from a copy", key.id());
        return Err(DeployError::File { path: dir.join(KEY_FILE), expected, got });
    }
    let rows = store.load().await?;
    let settings = host_settings(config.threads, &config.limits, Some(HOLDER.into()));
    // Job 0 is the fleet: its token counts the cloud's starts. The folder's lock is ours, so nobody else holds it.
    let fleet = store.acquire(JobId(0), HOLDER, Clock::start().now(), settings.lease_ttl_ms, true).await?;
    let listening = listen(dir, &key, &config.listen, &config.advertise, &config.network).await?;
    let id = key.id();
    let identity = CloudIdentity {
        key,
        name: config.name.clone(),
        listen: listening.advertised.clone(),
        epoch: u32::try_from(fleet.token).unwrap_or(u32::MAX),
        entropy: Entropy::new(keys::random()?),
        replicas: Vec::new(),
    };
    let mut cloud = Cloud::new(identity, rows);
    if !cloud.has_operators() {
        let operator = keys::load_or_create(&dir.join(OPERATOR_KEY_FILE))?;
        let mut effects = Vec::new();
        cloud.install_operator(operator.id(), "admin", Right::Administer, &mut effects);
        for effect in effects {
            if let Effect::Store(writes) = effect {
                store.commit(writes, Vec::new()).await?;
            }
        }
    }
    let whole = WholeCloud::new(id, &listening.advertised, cloud).checking_in(config.check_in.clone());
    let role: Box<dyn Role> = Box::new(whole);
    let objects = store.objects();
    collect(&objects, &*role, &on_report);
    let (store, data) = (Arc::new(store), Arc::new(NoData));
    let world = World { transport: listening.transport, store, objects, data, on_report };
    let handle = host::start(role, world, settings);
    Ok(Running { id, name: config.name.clone(), address: Some(listening.advertised), handle, _lock: None })
}

/// Runs the cloud until `stop`.
pub async fn run_cloud(
    config: &CloudConfig,
    on_report: OnReport,
    stop: impl Future<Output = ()>,
) -> Result<(), DeployError> {
    start_cloud(config, on_report).await?.until(stop).await
}
