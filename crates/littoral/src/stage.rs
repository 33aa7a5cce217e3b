//! `littoral stage`: lends this machine's memory and threads to heads that it lets in, for some layers of their models.

use crate::input::{dir_or_environment, start_log, stop_signal};
use crate::llm;
use crate::output::{self, Failure};
use crate::serve::end_of_input;
use littoral_node::host::keys;
use littoral_node::split::Standby;
use littoral_node::split::stage::{self, Settings};
use littoral_node::transport::{Address, Identity, NodeId, TcpOptions, TcpTransport, Transport};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The key of this machine, in its folder.
const KEY_FILE: &str = "key";
const LOG_MB: u64 = 256;
pub const STANDBY_MB: u64 = 16 << 10;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to listen, address:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7500")]
    listen: SocketAddr,
    /// The folder of this machine: its key.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The key of a head that may use this machine, as `littoral serve --stage …` prints it; may be repeated.
    #[arg(long, value_name = "KEY", required = true)]
    allow: Vec<NodeId>,
    /// A model whose layers this machine can load: a file, or a name; may be repeated. Of others it fetches its layers from the
    /// head, and keeps them.
    #[arg(long, value_name = "MODEL")]
    model: Vec<PathBuf>,
    /// What others call it; by default its folder's name.
    #[arg(long)]
    name: Option<String>,
    /// Megabytes of what was sent that are kept, so that it can be sent again when the next machine is lost.
    #[arg(long, default_value_t = LOG_MB)]
    log_mb: u64,
    /// Megabytes of disk for layers, in the folder `tiles` of --dir: those that are fetched, and those that this machine may be
    /// given when another is lost, packed beforehand from its own file and mapped in at once. 0: none.
    #[arg(long, default_value_t = STANDBY_MB)]
    standby_mb: u64,
    /// Megabytes of memory that it lends; by default what is free when it is started.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    memory_mb: Option<u64>,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Give each thread that computes a processor of its own; for a machine that does nothing else.
    #[arg(long)]
    pin: bool,
    /// Stop when standard input ends, for parents that must leave no process behind.
    #[arg(long, hide = true)]
    tethered: bool,
}

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    start_log("info");
    if args.model.is_empty() && args.standby_mb == 0 {
        return Err(Failure::usage(
            "--standby-mb",
            "megabytes for layers that are fetched, or a --model",
            "0 and no model",
        ));
    }
    let dir = dir_or_environment(args.dir.clone()).unwrap_or_else(|| PathBuf::from("stage"));
    let identity = identity(&dir)?;
    let mut models = BTreeMap::new();
    for model in &args.model {
        let path = crate::named::here(model)?.path;
        llm::check(&path)?;
        models.insert(llm::digest(&path)?, path);
    }
    let pool = llm::pool(args.threads.map(usize::from));
    let name = args
        .name
        .unwrap_or_else(|| dir.file_name().map_or_else(|| "stage".into(), |name| name.to_string_lossy().into_owned()));
    let standby = match args.standby_mb {
        0 => None,
        mb => Some(Standby::in_folder(&dir.join("tiles"), mb.saturating_mul(1 << 20)).map_err(|e| {
            Failure::new("no layers are kept", dir.join("tiles").display().to_string(), "a folder of its own", e)
                .hint("with a --model, --standby-mb 0 does without")
        })?),
    };
    let tiles_bytes = standby.as_ref().map_or(0, |standby| standby.bytes());
    let disk_free_bytes =
        (crate::memory::disk_free_bytes(&dir) + tiles_bytes).min(args.standby_mb.saturating_mul(1 << 20));
    let settings = Settings {
        name: name.clone(),
        standby,
        allowed: args.allow,
        models,
        log_bytes_max: usize::try_from(args.log_mb << 20).unwrap_or(usize::MAX),
        pin: args.pin,
        memory_bytes: args.memory_mb.map_or_else(crate::memory::available_bytes, |mb| mb.saturating_mul(1_000_000)),
        disk_free_bytes,
        host: crate::memory::host(),
    };
    crate::input::runtime()?.block_on(async {
        let transport = TcpTransport::listen(&identity, args.listen, TcpOptions::default()).await?;
        let address = transport.local_addresses().first().map(Address::to_string).unwrap_or_default();
        if json {
            output::object(&json!({"role": "stage", "name": name, "address": address}));
        } else {
            output::talk(&format!("{name} lends its layers at {address}"));
        }
        let stopped = async {
            tokio::select! {
                () = stop_signal() => {}
                () = end_of_input(), if args.tethered => {}
            }
        };
        stage::run(Arc::new(transport), settings, pool, stopped)
            .await
            .map_err(|why| Failure::new("the stage ended", "the operating system", "a thread", why))
    })
}

/// Who this machine is: the key of its folder, made when there is none.
pub fn identity(dir: &Path) -> Result<Identity, Failure> {
    let refused =
        |why: std::io::Error| Failure::new("no folder for the key", dir.display().to_string(), "a folder", why);
    std::fs::create_dir_all(dir).map_err(refused)?;
    let key = keys::load_or_create(&dir.join(KEY_FILE))?;
    Ok(Identity::from_secret(&key.to_bytes()))
}
