//! The board on which a simulation offers works and helpers answer: rows in a [`Store`], under its leases, and parcels beside it.
//!
//! | job | version | item | value |
//! |---|---|---|---|
//! | [`ABOUT`] | 0 | `simulation` | which one, as JSON |
//! | [`ABOUT`] | 0 | `here/NAME` | a helper's beats, counted |
//! | a desk, from 1 | number of the offer | `offer`, `answer` | a [`Parcel`] |
//!
//! All in one table of the store. A desk's lease says who works on its offer; an answer is written under it.

use crate::input::runtime;
use crate::output::Failure;
use littoral_node::config::CloudConfig;
use littoral_node::role::{Row, RowKey, Table, Write};
use littoral_node::store::{
    Bucket, BucketOptions, DirectoryLock, Lease, PgPlace, PgStore, SqliteStore, Store, StoreError,
};
use littoral_wire::JobId;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

/// Offers at a time.
pub const DESKS: u64 = 64;
/// Rows about the board itself.
const ABOUT: JobId = JobId(1 << 20);
const TABLE: Table = Table::Record;
/// A helper that says nothing for so long has lost its desk.
pub const LEASE_MS: u64 = 4_000;
/// A batch of works, or what came of it.
const PARCEL_BYTES_MAX: u64 = 2 << 30;

pub struct Board {
    store: Arc<dyn Store>,
    bucket: Bucket,
    runtime: Runtime,
    /// This process.
    name: String,
    /// The folder is ours, where the store is elsewhere.
    _lock: Option<DirectoryLock>,
}

/// Bytes beside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    hash: [u8; 32],
    len: u64,
}

/// What is on the board.
#[derive(Debug, Default)]
pub struct Notices {
    /// As JSON.
    pub simulation: Option<String>,
    /// Helpers' beats.
    pub here: BTreeMap<String, u64>,
    /// By desk: the offer's number.
    pub offers: BTreeMap<u64, (u64, Parcel)>,
    pub answers: BTreeMap<u64, (u64, Parcel)>,
    keys: Vec<RowKey>,
    /// A row that is not ours.
    pub foreign: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Offer,
    Answer,
}

impl Parcel {
    fn name(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_string()
    }

    fn value(&self) -> Vec<u8> {
        [&self.hash[..], &self.len.to_le_bytes()].concat()
    }

    fn read(value: &[u8]) -> Option<Self> {
        let (hash, len) = value.split_first_chunk::<32>()?;
        let len = u64::from_le_bytes(len.try_into().ok()?);
        (len <= PARCEL_BYTES_MAX).then_some(Self { hash: *hash, len })
    }
}

fn about(item: &str) -> RowKey {
    RowKey { table: TABLE, job: ABOUT, version: 0, item: item.as_bytes().to_vec() }
}

fn at_desk(desk: u64, number: u64, says: Says) -> RowKey {
    let item = if says == Says::Offer { "offer" } else { "answer" };
    RowKey { table: TABLE, job: JobId(desk), version: number, item: item.as_bytes().to_vec() }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Board {
    /// In a folder. `lock`: of who runs the simulation; helpers come without.
    pub fn of_folder(dir: &Path, lock: Option<DirectoryLock>) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let store = runtime.block_on(async {
            match lock {
                Some(lock) => SqliteStore::open_locked(dir, lock).await,
                None => SqliteStore::open_beside(dir).await,
            }
        })?;
        let whole = dir
            .canonicalize()
            .map_err(|e| Failure::new("the folder cannot be used", dir.display().to_string(), "a folder", e))?;
        let bucket =
            Bucket::new(&BucketOptions { url: format!("file://{}", whole.display()), ..BucketOptions::default() })?;
        Ok(Self { store: Arc::new(store), bucket, runtime, name: my_name(), _lock: None })
    }

    /// In a database and a bucket. `dir`: for what the store keeps on this machine.
    pub fn shared(config: &CloudConfig, dir: &Path, lock: Option<DirectoryLock>) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let bucket = Bucket::new(&config.shared.bucket_options())?;
        let place = PgPlace::parse(&config.shared.database)?;
        let store = runtime.block_on(PgStore::open(&place, bucket.clone(), dir))?;
        Ok(Self { store: Arc::new(store), bucket, runtime, name: my_name(), _lock: lock })
    }

    /// This process's.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn notices(&self) -> Result<Notices, StoreError> {
        let rows = self.runtime.block_on(self.store.load())?;
        let mut notices = Notices::default();
        rows.into_iter().for_each(|row| notices.add(row));
        Ok(notices)
    }

    fn commit(&self, writes: Vec<Write>, leases: Vec<Lease>) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.commit(writes, leases))
    }

    /// Takes the board for a simulation: what an earlier run of it left is gone.
    ///
    /// # Errors
    /// Something else is there.
    pub fn claim(&self, simulation: &str) -> Result<Option<String>, StoreError> {
        let notices = self.notices()?;
        if notices.foreign {
            return Ok(Some("rows that are no simulation's".into()));
        }
        if notices.simulation.as_deref().is_some_and(|there| there != simulation) {
            return Ok(notices.simulation);
        }
        let gone = notices.keys.into_iter().filter(|key| key.job != ABOUT).map(|key| Write::Delete { key });
        let about = Write::Put { key: about("simulation"), value: simulation.as_bytes().to_vec() };
        self.commit(gone.chain([about]).collect(), Vec::new())?;
        self.runtime.block_on(async {
            for name in self.bucket.parcels().await? {
                self.bucket.throw_away(&name).await?;
            }
            Ok(None)
        })
    }

    /// The simulation is over.
    pub fn clear(&self) -> Result<(), StoreError> {
        let keys = self.notices()?.keys.into_iter();
        self.commit(keys.map(|key| Write::Delete { key }).collect(), Vec::new())
    }

    pub fn beat(&self, count: u64) -> Result<(), StoreError> {
        let key = about(&format!("here/{}", self.name));
        self.commit(vec![Write::Put { key, value: count.to_le_bytes().to_vec() }], Vec::new())
    }

    /// This process helps no more.
    pub fn leave(&self) -> Result<(), StoreError> {
        self.commit(vec![Write::Delete { key: about(&format!("here/{}", self.name)) }], Vec::new())
    }

    /// A desk that nobody works at; none if somebody does. It is held for [`LEASE_MS`].
    pub fn sit_down(&self, desk: u64) -> Result<Option<Lease>, StoreError> {
        self.acquire(desk, LEASE_MS)
    }

    fn acquire(&self, desk: u64, ttl_ms: u64) -> Result<Option<Lease>, StoreError> {
        match self.runtime.block_on(self.store.acquire(JobId(desk), &self.name, now_ms(), ttl_ms, false)) {
            Ok(lease) => Ok(Some(lease)),
            Err(StoreError::Held { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn stay(&self, lease: &Lease) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.renew(lease, now_ms(), LEASE_MS)).map(drop)
    }

    /// The desk is anybody's from now on.
    pub fn stand_up(&self, lease: &Lease) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.renew(lease, now_ms(), 0)).map(drop)
    }

    /// Puts bytes on a desk. Under a lease: refused if the desk is another's by now.
    pub fn put(
        &self,
        desk: u64,
        number: u64,
        says: Says,
        bytes: Vec<u8>,
        lease: Option<&Lease>,
    ) -> Result<Parcel, StoreError> {
        let parcel = Parcel { hash: *blake3::hash(&bytes).as_bytes(), len: bytes.len() as u64 };
        self.runtime.block_on(self.bucket.leave(&parcel.name(), bytes))?;
        let put = Write::Put { key: at_desk(desk, number, says), value: parcel.value() };
        self.commit(vec![put], lease.into_iter().cloned().collect())?;
        Ok(parcel)
    }

    /// What a parcel says; none if it is not there, or not what was left.
    pub fn open(&self, parcel: &Parcel) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.runtime.block_on(self.bucket.pick_up(&parcel.name(), parcel.len))?;
        Ok(found.filter(|bytes| *blake3::hash(bytes).as_bytes() == parcel.hash).map(Vec::from))
    }

    /// Takes an offer that nobody works at off its desk. False: somebody does.
    pub fn withdraw(&self, desk: u64, number: u64) -> Result<bool, StoreError> {
        match self.acquire(desk, 0)? {
            Some(lease) => {
                let key = at_desk(desk, number, Says::Offer);
                self.commit(vec![Write::Delete { key }], vec![lease])?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// A desk is empty again, whoever wrote what is there.
    pub fn wipe(&self, desk: u64, numbers: &[u64], parcels: &[Parcel]) -> Result<(), StoreError> {
        let keys = numbers.iter().flat_map(|n| [Says::Offer, Says::Answer].map(|says| at_desk(desk, *n, says)));
        self.commit(keys.map(|key| Write::Delete { key }).collect(), Vec::new())?;
        self.throw_away(parcels)
    }

    pub fn throw_away(&self, parcels: &[Parcel]) -> Result<(), StoreError> {
        self.runtime.block_on(async {
            for parcel in parcels {
                self.bucket.throw_away(&parcel.name()).await?;
            }
            Ok(())
        })
    }
}

/// A machine may have several processes, and a number of a process comes again.
fn my_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}-{:x}", host.trim(), std::process::id(), now_ms())
}

impl Notices {
    fn add(&mut self, Row { key, value }: Row) {
        let known = key.table == TABLE && (key.job == ABOUT || (1..=DESKS).contains(&key.job.0));
        let parcel = || Parcel::read(&value);
        match (known, key.job, key.item.as_slice()) {
            (true, ABOUT, b"simulation") => self.simulation = Some(String::from_utf8_lossy(&value).into_owned()),
            (true, ABOUT, item) => {
                let name = item.strip_prefix(b"here/").map(|name| String::from_utf8_lossy(name).into_owned());
                let beats = value.as_slice().try_into().ok().map(u64::from_le_bytes);
                self.here.extend(name.zip(beats));
            }
            (true, desk, b"offer") => self.offers.extend(parcel().map(|parcel| (desk.0, (key.version, parcel)))),
            (true, desk, b"answer") => self.answers.extend(parcel().map(|parcel| (desk.0, (key.version, parcel)))),
            _ => {
                self.foreign = true;
                return;
            }
        }
        self.keys.push(key);
    }
}
