//! Objects in a bucket that many machines share: S3 and what speaks like it, or a folder that all of them mount.
//!
//! ```text
//! PREFIX/objects/ID            a whole body
//! PREFIX/objects/ID.manifest   its manifest, which hashes to ID; written after the body
//! ```
//!
//! Names say the content, so nothing is ever overwritten by something else and nobody has to agree on who writes. Before
//! it, on the machine's own disk, stands a folder ([`FileObjects`]): there objects arrive, are made and are kept as long as
//! this machine needs them. It may be lost at any time. [`ObjectStore::sync`] brings bodies to the bucket, in parts if they
//! are big; what is not here is fetched when somebody asks for it, and each chunk is checked on the way.
//!
//! Nobody deletes from the bucket because it needs an object no more: another job may have made the same bytes. A drop is
//! noted in the database, and [`super::PgStore::sweep`] deletes what stayed dropped and no job needs.

use super::objects::FileObjects;
use super::{ObjectStore, StoreError};
use crate::work::{ObjectFault, ObjectWriter, Objects};
use bytes::Bytes;
use futures_util::StreamExt;
use littoral_wire::object::{CHUNK_BYTES, Manifest};
use littoral_wire::{ObjectId, Wire};
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart};
use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;

/// Bodies above this many bytes travel in parts of as many. S3 has no part below 5 MiB but the last one.
const PART_BYTES: usize = 8 << 20;
/// Parts of one body that travel at a time.
const PARTS_MAX: usize = 4;
/// A manifest of the biggest object has 32 bytes for each of its chunks; this is one of 256 GB.
const MANIFEST_BYTES_MAX: u64 = 64 << 20;
/// Objects that were fetched to be read and stay in the folder.
const FETCHED_MAX: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two pieces of an answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(20);
/// The host asks again by itself.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const RETRIES_MAX: usize = 3;

/// Where the bucket is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BucketOptions {
    /// `s3://bucket/prefix`, or `file:///folder`.
    pub url: String,
    /// `https://host:port` of what speaks S3; empty: Amazon's of the region.
    pub endpoint: String,
    pub region: String,
    /// Empty: the machine's own role, as the cloud's metadata service tells it.
    pub access_key: String,
    pub secret_key: String,
}

impl fmt::Debug for BucketOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, endpoint, region, access_key, secret_key: _ } = self;
        write!(
            f,
            "BucketOptions {{ url: {url:?}, endpoint: {endpoint:?}, region: {region:?}, access_key: {access_key:?} }}"
        )
    }
}

/// An open bucket.
#[derive(Clone)]
pub struct Bucket {
    store: Arc<dyn object_store::ObjectStore>,
    prefix: String,
    at: String,
}

impl Bucket {
    /// Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`StoreError::Database`] with what is wrong with the options.
    pub fn new(options: &BucketOptions) -> Result<Self, StoreError> {
        let at = options.url.clone();
        let wrong = |why: String| StoreError::Database { at: at.clone(), why, passes: false };
        if let Some(folder) = options.url.strip_prefix("file://") {
            std::fs::create_dir_all(folder).map_err(|e| wrong(e.to_string()))?;
            let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| wrong(one_line(&e)))?.with_fsync(true);
            return Ok(Self { store: Arc::new(store), prefix: String::new(), at });
        }
        let Some(rest) = options.url.strip_prefix("s3://") else {
            return Err(wrong("s3://bucket/prefix or file:///folder expected".into()));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(if options.region.is_empty() { "us-east-1" } else { &options.region })
            .with_retry(retry)
            .with_http_connector(Connector)
            .with_disable_bulk_delete(true);
        if !options.endpoint.is_empty() {
            builder = builder.with_endpoint(&options.endpoint).with_allow_http(options.endpoint.starts_with("http://"));
        }
        if !options.access_key.is_empty() {
            builder = builder.with_access_key_id(&options.access_key).with_secret_access_key(&options.secret_key);
        }
        let store = builder.build().map_err(|e| wrong(one_line(&e)))?;
        Ok(Self { store: Arc::new(store), prefix: prefix.trim_matches('/').to_owned(), at })
    }

    fn key(&self, name: &str) -> Key {
        match self.prefix.as_str() {
            "" => Key::from(format!("objects/{name}")),
            prefix => Key::from(format!("{prefix}/objects/{name}")),
        }
    }

    fn body_key(&self, object: ObjectId) -> Key {
        self.key(&object.to_string())
    }

    fn manifest_key(&self, object: ObjectId) -> Key {
        self.key(&format!("{object}.manifest"))
    }

    fn fault(&self, error: &object_store::Error) -> ObjectFault {
        ObjectFault::Disk(format!("{}: {}", self.at, one_line(error)))
    }

    // ---- parcels: bytes that one process leaves for another, which are no objects of a store ----

    fn parcel_key(&self, name: &str) -> Key {
        match self.prefix.as_str() {
            "" => Key::from(format!("parcels/{name}")),
            prefix => Key::from(format!("{prefix}/parcels/{name}")),
        }
    }

    /// Whole or not at all, and durable.
    pub async fn leave(&self, name: &str, bytes: Vec<u8>) -> Result<(), ObjectFault> {
        let left = self.store.put(&self.parcel_key(name), PutPayload::from(bytes)).await;
        left.map(drop).map_err(|e| self.fault(&e))
    }

    /// A parcel of at most so many bytes. None: there is none of this name.
    pub async fn pick_up(&self, name: &str, bytes_max: u64) -> Result<Option<Bytes>, ObjectFault> {
        let found = match self.store.get(&self.parcel_key(name)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.fault(&e)),
        };
        if found.meta.size > bytes_max {
            let got = found.meta.size;
            return Err(ObjectFault::Disk(format!("{}: a parcel of {bytes_max} bytes expected, got {got}", self.at)));
        }
        found.bytes().await.map(Some).map_err(|e| self.fault(&e))
    }

    pub async fn throw_away(&self, name: &str) -> Result<(), ObjectFault> {
        match self.store.delete(&self.parcel_key(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.fault(&e)),
        }
    }

    /// The names of all parcels.
    pub async fn parcels(&self) -> Result<Vec<String>, ObjectFault> {
        let prefix = self.parcel_key("");
        let mut found = self.store.list(Some(&prefix));
        let mut names = Vec::new();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|e| self.fault(&e))?;
            names.extend(meta.location.filename().map(str::to_owned));
        }
        Ok(names)
    }

    async fn has(&self, object: ObjectId) -> Result<bool, ObjectFault> {
        match self.store.head(&self.manifest_key(object)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.fault(&e)),
        }
    }

    async fn manifest(&self, object: ObjectId) -> Result<Manifest, ObjectFault> {
        let found = match self.store.get(&self.manifest_key(object)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(ObjectFault::Missing(object)),
            Err(e) => return Err(self.fault(&e)),
        };
        let damaged = |why: String| ObjectFault::Damaged { object, why };
        if found.meta.size > MANIFEST_BYTES_MAX {
            return Err(damaged(format!("its manifest in {} has {} bytes", self.at, found.meta.size)));
        }
        let bytes = found.bytes().await.map_err(|e| self.fault(&e))?;
        let manifest = Manifest::from_bytes(&bytes).ok().filter(|manifest| manifest.id() == object);
        manifest.ok_or_else(|| damaged(format!("its manifest in {} does not hash to its id", self.at)))
    }

    /// The body of `folder`, then its manifest.
    async fn upload(&self, folder: &FileObjects, object: ObjectId) -> Result<(), ObjectFault> {
        let manifest = folder.manifest(object)?;
        let key = self.body_key(object);
        let failed = |e: object_store::Error| self.fault(&e);
        if manifest.bytes() <= PART_BYTES as u64 {
            let mut body = Vec::with_capacity(manifest.bytes() as usize);
            for index in 0..manifest.chunks() {
                body.extend(folder.chunk(object, index)?);
            }
            self.store.put(&key, PutPayload::from(body)).await.map_err(failed)?;
        } else {
            let parts = self.store.put_multipart(&key).await.map_err(failed)?;
            let mut parts = WriteMultipart::new_with_chunk_size(parts, PART_BYTES);
            for index in 0..manifest.chunks() {
                let ready = parts.wait_for_capacity(PARTS_MAX).await.map_err(|e| self.fault(&e));
                match ready.and_then(|()| folder.chunk(object, index)) {
                    Ok(chunk) => parts.put(Bytes::from(chunk)),
                    Err(e) => {
                        // What is left of it costs money until the bucket's own rules take it away.
                        let _ = parts.abort().await;
                        return Err(e);
                    }
                }
            }
            parts.finish().await.map_err(failed)?;
        }
        let manifest = PutPayload::from(manifest.to_bytes());
        self.store.put(&self.manifest_key(object), manifest).await.map(drop).map_err(failed)
    }

    /// Into `folder`, each chunk checked. It holds one chunk and what the network brings at a time.
    async fn download(&self, folder: &FileObjects, object: ObjectId) -> Result<(), ObjectFault> {
        let manifest = self.manifest(object).await?;
        let missing: HashSet<u32> = folder.begin(&manifest)?.into_iter().collect();
        let Some(last) = missing.iter().max().copied() else { return Ok(()) };
        let damaged = |why: String| ObjectFault::Damaged { object, why: format!("in {}: {why}", self.at) };
        let found = match self.store.get(&self.body_key(object)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Err(ObjectFault::Missing(object)),
            Err(e) => return Err(self.fault(&e)),
        };
        if found.meta.size != manifest.bytes() {
            return Err(damaged(format!("{} bytes expected, got {}", manifest.bytes(), found.meta.size)));
        }
        let (mut pieces, mut chunk, mut index) = (found.into_stream(), Vec::with_capacity(CHUNK_BYTES), 0);
        while let Some(piece) = pieces.next().await {
            let mut piece = piece.map_err(|e| self.fault(&e))?;
            while !piece.is_empty() && index < manifest.chunks() {
                let whole = manifest.chunk_bytes(index);
                let taken = piece.split_to(piece.len().min(whole - chunk.len()));
                chunk.extend_from_slice(&taken);
                if chunk.len() == whole {
                    if missing.contains(&index) {
                        folder.keep(object, index, &chunk).map_err(|e| match e {
                            super::KeepFault::Disk(fault) => fault,
                            other => damaged(other.to_string()),
                        })?;
                    }
                    chunk.clear();
                    index += 1;
                }
            }
        }
        if index <= last { Err(damaged("its body ends too early".into())) } else { Ok(()) }
    }

    /// For good. The manifest first: a body without one says nothing.
    pub(super) async fn delete(&self, object: ObjectId) -> Result<(), ObjectFault> {
        for key in [self.manifest_key(object), self.body_key(object)] {
            match self.store.delete(&key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(self.fault(&e)),
            }
        }
        Ok(())
    }

    /// Objects that are wholly there, ascending.
    pub async fn list(&self) -> Result<Vec<ObjectId>, ObjectFault> {
        let prefix = self.key("");
        let mut found = self.store.list(Some(&prefix));
        let mut objects = Vec::new();
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|e| self.fault(&e))?;
            let name = meta.location.filename().and_then(|name| name.strip_suffix(".manifest"));
            objects.extend(name.and_then(|name| name.parse::<ObjectId>().ok()));
        }
        objects.sort_unstable();
        Ok(objects)
    }
}

/// The bucket with a folder before it, for one machine. To be made inside a tokio runtime, and asked outside of its tasks.
pub struct BucketObjects {
    folder: FileObjects,
    bucket: Bucket,
    pool: sqlx::PgPool,
    runtime: Handle,
    /// Known to be in the bucket.
    stored: Mutex<HashSet<ObjectId>>,
    /// Fetched because somebody read them. Nobody will say that they are not needed: the oldest go.
    fetched: Mutex<VecDeque<ObjectId>>,
}

impl BucketObjects {
    pub(super) fn new(dir: &Path, bucket: Bucket, pool: sqlx::PgPool) -> Result<Self, ObjectFault> {
        let folder = FileObjects::open(dir)?;
        Ok(Self {
            folder,
            bucket,
            pool,
            runtime: Handle::current(),
            stored: Mutex::default(),
            fetched: Mutex::default(),
        })
    }

    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    fn stored(&self) -> std::sync::MutexGuard<'_, HashSet<ObjectId>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads what the bucket does not have, whatever was known of it.
    pub(super) async fn ensure(&self, object: ObjectId) -> Result<(), ObjectFault> {
        if !self.bucket.has(object).await? {
            self.bucket.upload(&self.folder, object).await?;
        }
        self.stored().insert(object);
        Ok(())
    }

    /// Gets an object that is not in the folder, or is damaged there.
    fn fetch(&self, object: ObjectId) -> Result<(), ObjectFault> {
        self.runtime.block_on(self.bucket.download(&self.folder, object))?;
        self.stored().insert(object);
        Ok(())
    }

    /// As [`Self::fetch`], for somebody who will not drop it.
    fn fetch_to_read(&self, object: ObjectId) -> Result<(), ObjectFault> {
        self.fetch(object)?;
        let oldest = {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            fetched.push_back(object);
            if fetched.len() > FETCHED_MAX { fetched.pop_front() } else { None }
        };
        oldest.map_or(Ok(()), |oldest| self.folder.remove(oldest))
    }

    fn or_fetch<T>(
        &self,
        object: ObjectId,
        mut read: impl FnMut(&FileObjects) -> Result<T, ObjectFault>,
    ) -> Result<T, ObjectFault> {
        match read(&self.folder) {
            Err(ObjectFault::Missing(_) | ObjectFault::Damaged { .. }) => {
                self.fetch_to_read(object)?;
                read(&self.folder)
            }
            done => done,
        }
    }
}

impl ObjectStore for BucketObjects {
    fn folder(&self) -> &FileObjects {
        &self.folder
    }

    fn begin(&self, manifest: &Manifest) -> Result<Vec<u32>, ObjectFault> {
        let missing = self.folder.begin(manifest)?;
        if missing.is_empty() {
            return Ok(missing);
        }
        match self.fetch(manifest.id()) {
            Ok(()) => self.folder.begin(manifest),
            // Nobody made it durable, or not well: whoever asked gets it from elsewhere.
            Err(ObjectFault::Missing(_) | ObjectFault::Damaged { .. }) => self.folder.begin(manifest),
            Err(e) => Err(e),
        }
    }

    fn chunk(&self, object: ObjectId, index: u32) -> Result<Vec<u8>, ObjectFault> {
        self.or_fetch(object, |folder| folder.chunk(object, index))
    }

    fn sync(&self, objects: &[ObjectId]) -> Result<(), ObjectFault> {
        let new = |object: &&ObjectId| !self.stored().contains(*object);
        for object in objects.iter().filter(new) {
            self.runtime.block_on(self.ensure(*object))?;
        }
        Ok(())
    }

    fn remove(&self, object: ObjectId) -> Result<(), ObjectFault> {
        self.folder.remove(object)?;
        if !self.stored().remove(&object) {
            return Ok(());
        }
        let note = sqlx::query("UPDATE littoral.object SET dropped = TRUE, since = clock_timestamp() WHERE id = $1");
        let noted = self.runtime.block_on(note.bind(object.0.as_slice()).execute(&self.pool));
        noted.map(drop).map_err(|e| ObjectFault::Disk(format!("object {object}: its drop was not noted: {e}")))
    }
}

impl Objects for BucketObjects {
    fn read(&self, object: ObjectId, offset: u64, out: &mut [u8]) -> Result<(), ObjectFault> {
        match self.folder.read(object, offset, out) {
            Err(ObjectFault::Missing(_) | ObjectFault::Damaged { .. }) => {
                self.fetch_to_read(object)?;
                self.folder.read(object, offset, out)
            }
            done => done,
        }
    }

    fn create(&self) -> Result<Box<dyn ObjectWriter + '_>, ObjectFault> {
        self.folder.create()
    }
}

/// Connects with the program's own TLS, and through no proxy.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let generic = |source: Box<dyn Error + Send + Sync>| object_store::Error::Generic { store: "S3", source };
        let tls = crate::models::tls().map_err(|e| generic(e.to_string().into()))?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT)
            .build()
            .map_err(|e| generic(e.into()))?;
        Ok(HttpClient::new(client))
    }
}

/// An error and its causes, without line feeds.
fn one_line(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(at) = cause {
        let more = at.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = at.source();
    }
    text.replace('\n', " ")
}

/// For messages: where the folder is.
impl fmt::Debug for BucketObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BucketObjects {{ at: {:?} }}", self.bucket.at)
    }
}
