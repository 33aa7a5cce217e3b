//! A cloud of several replicas: this machine is one of them. What it needs of its own is its configuration and the cloud's
//! key; everything else is in the database and in the bucket, and the folder may be empty at each start.

use super::data::NoData;
use super::listen::listen;
use super::running::{collect, host_settings};
use super::{DeployError, KEY_FILE, OPERATOR_KEY_FILE, Running};
use crate::config::CloudConfig;
use crate::host::{self, Clock, MailKey, OnReport, Replica, World, keys};
use crate::role::cloud::command::Right;
use crate::role::cloud::{Cloud, CloudIdentity, FLEET};
use crate::role::{Effect, Entropy, Role, Row};
use crate::store::{Bucket, DirectoryLock, ObjectStore, PgPlace, PgStore, Store, StoreError};
use littoral_wire::{ObjectId, SecretKey};
use std::sync::Arc;

/// For the first operator's key, at the very first start.
const FIRST_LEASE_MS: u64 = 10_000;

/// Starts one replica of the cloud.
pub(super) async fn start(config: &CloudConfig, on_report: OnReport) -> Result<Running, DeployError> {
    let (dir, shared) = (&config.dir, &config.shared);
    // Held by the listener's task in the end; one process per folder.
    let lock = DirectoryLock::take(dir)?;
    let store = PgStore::open(&PgPlace::parse(&shared.database)?, Bucket::new(&shared.bucket_options())?, dir).await?;
    let key = key_of(config, &store).await?;
    store.offer_fleet().await?;
    first_operator(config, &key, &store).await?;
    // The number first: what is changed while rows are read is told again.
    let seq = store.last_change().await?;
    let rows = store.load_fleet().await?;
    let listening = listen(dir, &key, &config.listen, &config.advertise, &config.network).await?;
    let (id, entropy, mail) = (key.id(), Entropy::new(keys::random()?), MailKey::of(&key));
    let replicas = match shared.replicas.as_slice() {
        [] => vec![listening.advertised.clone()],
        all => all.to_vec(),
    };
    let identity = CloudIdentity {
        key,
        name: config.name.clone(),
        listen: listening.advertised.clone(),
        // Each job has its lease's token.
        epoch: 0,
        entropy,
        replicas,
    };
    let alone = CloudIdentity { replicas: Vec::new(), ..identity.clone() };
    let needs = move |rows: Vec<Row>| -> Box<dyn Fn(ObjectId) -> bool + Send> {
        let whole = Cloud::new(alone.clone(), rows);
        Box::new(move |object| whole.needs(object))
    };
    let role = Cloud::new(identity, rows);
    let objects = store.objects();
    collect(objects.folder(), &role, &on_report);
    let replica = Replica { store: store.clone(), lease_ms: shared.lease_ms, seq, mail, needs: Arc::new(needs) };
    let settings = host::Settings {
        replica: Some(replica),
        shard_sums: shared.shard_sums,
        ..host_settings(config.threads, &config.limits, None)
    };
    let data = Arc::new(NoData);
    let world = World { transport: listening.transport, store: Arc::new(store), objects, data, on_report };
    let handle = host::start(Box::new(role), world, settings);
    Ok(Running { id, name: config.name.clone(), address: Some(listening.advertised), handle, _lock: Some(lock) })
}

/// The cloud's key, which all replicas have. The first one that ever starts may make it.
async fn key_of(config: &CloudConfig, store: &PgStore) -> Result<SecretKey, DeployError> {
    let path = config.dir.join(KEY_FILE);
    let known = store.cloud().await?;
    let key = match known {
        None => keys::load_or_create(&path)?,
        Some(_) if path.exists() => keys::load(&path)?,
        Some(id) => {
            let expected = format!("the key of cloud {id}, which each of its replicas has: copy it here (mode 600)");
            return Err(DeployError::File { path, expected, got: "no file".into() });
        }
    };
    let id = store.be_cloud(key.id()).await?;
    if id != key.id() {
        let (expected, got) = (format!("the key of cloud {id}, whose database this is"), key.id().to_string());
        return Err(DeployError::File { path, expected, got: format!("that of {got}") });
    }
    Ok(key)
}

/// A cloud without operators gets its first: the replica that comes first has the key in its folder.
async fn first_operator(config: &CloudConfig, key: &SecretKey, store: &PgStore) -> Result<(), DeployError> {
    let has = |rows: Vec<Row>| rows.iter().any(|row| row.key.table == crate::role::Table::Operator);
    if has(store.load_job(FLEET).await?) {
        return Ok(());
    }
    let now = Clock::start().now();
    let lease = match store.acquire(FLEET, store.replica(), now, FIRST_LEASE_MS, false).await {
        Ok(lease) => lease,
        // Whoever has it is here for the same reason.
        Err(StoreError::Held { .. }) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let rows = store.load_fleet().await?;
    let mut effects = Vec::new();
    if !has(rows.clone()) {
        let operator = keys::load_or_create(&config.dir.join(OPERATOR_KEY_FILE))?;
        let identity = CloudIdentity {
            key: key.clone(),
            name: config.name.clone(),
            listen: String::new(),
            epoch: 0,
            entropy: Entropy::new(keys::random()?),
            replicas: vec![String::new()],
        };
        Cloud::new(identity, rows).install_operator(operator.id(), "admin", Right::Administer, &mut effects);
    }
    for effect in effects {
        if let Effect::Store(writes) = effect {
            store.commit(writes, vec![lease.clone()]).await?;
        }
    }
    Ok(store.release(&lease).await?)
}
