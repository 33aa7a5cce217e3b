//! `littoral serve`: a model for programs that speak OpenAI's API.

use crate::above::{AboveArgs, Drafts};
use crate::input::{start_log, stop_signal};
use crate::live::Live;
use crate::llm;
use crate::output::{self, Failure};
use crate::serve::end_of_input;
use littoral_infer::engine::{Engine, Limits};
use littoral_infer::model::Model;
use littoral_infer::speculate::drafter::{Mode, Policy};
use littoral_infer::speculate::pair::Pair;
use littoral_infer::split::certify::{DIVERGENCE_MAX, certify};
use littoral_infer::split::encoding::is_exact;
use littoral_infer::split::head::Head;
use littoral_infer::split::plan::{Demand, Objective, Recovery};
use littoral_infer::split::planned::Planner;
use littoral_model::lm::CacheType;
use littoral_node::host::keys;
use littoral_node::serve::{self, Keys, KeysError, Motor, Room, ServeError, Server, Settings};
use littoral_node::speculate::edge::{Edge, Small};
use littoral_node::split::chain::{self, Chain, ChainError, HeadLayers};
use littoral_node::transport::{Address, Identity, NodeId, TcpOptions, TcpTransport, Transport};
use littoral_tensor::pool::Pool;
use littoral_tensor::quant::KERNELS;
use littoral_wire::pipeline::Activations;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// As a draft: no model, but what the text says itself.
const LOOKUP: &str = "lookup";

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a file, a name of `littoral models`, or hf:owner/repo/file.gguf. What is not here is fetched. Without one,
    /// smollm2-135m-instruct.
    model: Option<PathBuf>,
    /// Where to listen, address:port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// What clients call the model; by default its own name, or its file's.
    #[arg(long)]
    name: Option<String>,
    /// A key that clients must show; may be repeated. Others on this machine can see it in the list of processes.
    #[arg(long = "api-key", value_name = "KEY")]
    api_keys: Vec<String>,
    /// Keys that clients must show, one on each line of a file that only its owner can read.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Let other machines ask without a key.
    #[arg(long)]
    open: bool,
    /// A name under which programs may ask where there is no key, beside localhost and loopback addresses; may be repeated.
    #[arg(long = "allow-host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Certificates for TLS, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The secret key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answers that are written at once.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Requests that may wait for a place; more are told to come again.
    #[arg(long, default_value_t = 64)]
    queue: u16,
    /// After a signal to stop: how long answers that have begun may take.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::input::duration_ms)]
    grace: u64,
    /// The type in which keys and values of earlier tokens are kept; q8_0 takes half the memory of f16.
    #[arg(long, value_name = "TYPE", default_value_t = CacheType::F16, value_parser = crate::llm::cache_type())]
    cache_type: CacheType,
    /// Threads; by default one for each processor.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// What drafts, so that one pass over the model writes several tokens: a small model of the same vocabulary (a file or a
    /// name) and the text itself, or `lookup`: the text alone. What is written stays the same.
    #[arg(long, value_name = "MODEL", conflicts_with = "stages")]
    draft: Option<PathBuf>,
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    far: FarArgs,
    #[command(flatten)]
    above: AboveArgs,
    /// Stop when standard input ends, for parents that must leave no process behind.
    #[arg(long, hide = true)]
    tethered: bool,
}

/// Layers on other machines.
#[derive(clap::Args, Debug)]
struct ChainArgs {
    /// A machine that runs `littoral stage` and has some of the layers, as it prints itself; may be repeated, in the order of
    /// the layers.
    #[arg(long = "stage", value_name = "KEY@HOST:PORT")]
    stages: Vec<Address>,
    /// The folder with this machine's key, by which stages know it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where layers lie: by the plan that is best for the time of a token of one stream, or for the tokens of --parallel
    /// streams, over the machines as they are measured at the start (machines that it has no use for are spares); or evenly.
    #[arg(long, value_enum, default_value_t = Place::Latency, requires = "stages", conflicts_with = "head_layers")]
    place: Place,
    /// Layers that this machine has itself, the others evenly on the stages.
    #[arg(long, value_name = "N", requires = "stages")]
    head_layers: Option<usize>,
    /// Megabytes of memory that this machine gives; by default what is free.
    #[arg(long, requires = "stages", value_parser = clap::value_parser!(u64).range(1..))]
    memory_mb: Option<u64>,
    /// Megabytes of disk for layers that stages without the model's file fetch from here, in the folder `tiles` of --dir; made
    /// when there is such a stage. 0: they get none.
    #[arg(long, default_value_t = crate::stage::STANDBY_MB, requires = "stages")]
    standby_mb: u64,
    /// How vectors travel between machines: f32 is exact; f16 and int8 are smaller, and the text may be another.
    #[arg(long, value_name = "TYPE", default_value = "f32", requires = "stages", value_parser = llm::activations())]
    activations: Activations,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Place {
    Latency,
    Throughput,
    Even,
}

/// A large model for small ones on other machines.
#[derive(clap::Args, Debug)]
struct FarArgs {
    /// Verify the drafts of other machines: where to listen for them, address:port.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "allow", conflicts_with = "draft")]
    verify: Option<SocketAddr>,
    /// The key of a machine whose drafts are verified, as it prints it; may be repeated.
    #[arg(long, value_name = "KEY", requires = "verify")]
    allow: Vec<NodeId>,
}

impl Args {
    /// What is drafted for itself drafts for nobody.
    fn drafts_for_server(&self) -> bool {
        self.draft.is_none() && self.above.drafts() != Drafts::Off
    }
}

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    start_log("info");
    check(&args)?;
    let keys = api_keys(&args)?;
    let drafts_for_server = args.drafts_for_server();
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(serve::tls(certificate, key).map_err(|why| {
            Failure::new("nothing is served", "--tls-cert and --tls-key", "certificates and their key in PEM", why)
        })?),
        _ => None,
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut settings = Settings {
        listen: args.listen,
        name: String::new(),
        keys,
        open: args.open,
        hosts: args.hosts.clone(),
        tls,
        cache_type: args.cache_type,
        room: Room { running_max: args.parallel.into(), waiting_max: args.queue.into() },
        grace: Duration::from_millis(args.grace),
    };
    // Before anything is fetched or read.
    settings.check()?;
    let named = crate::named::here_or_fetched(args.model.as_deref())?;
    let mut above = args.above.above(&named.path)?;
    let pool = llm::pool(args.threads.map(usize::from));
    let name = args.name.clone().unwrap_or(named.name);
    settings.name = name.clone();
    let machines = args.above.machines();
    let digest = || llm::digest(&named.path);
    let verifies = args.far.verify.map(|at| Ok::<_, Failure>((at, digest()?))).transpose()?;
    if !machines.is_empty() {
        above.routing = above.routing.beside(digest()?);
    }
    crate::input::runtime()?.block_on(async {
        let mut plan = None;
        let alone = machines.is_empty() && !(above.upstream.is_some() && drafts_for_server);
        let motor = match args.chain.stages.is_empty() {
            true if alone => engine(Arc::new(llm::load(&named.path, &pool)?), args.draft.as_deref(), &pool, &settings)?,
            true => {
                let model = Arc::new(llm::load(&named.path, &pool)?);
                let small = Small::Engine(Box::new(small_engine(model, &settings)?));
                edge(small, machines, &args, &mut above)?
            }
            false => {
                let (chain, made) = chain(&args.chain, &named.path, &pool, &settings, alone).await?;
                plan = made;
                match alone {
                    true => Motor::Chain(Box::new(chain)),
                    false => edge(Small::Chain(Box::new(chain)), machines, &args, &mut above)?,
                }
            }
        };
        let server = Server::start_with(motor, above, pool, settings).await?;
        let verifies = match verifies {
            Some((at, model)) => Some(verify(&server, at, model, &args.far.allow, &args.chain).await?),
            None => None,
        };
        let url = format!("{scheme}://{}", server.address());
        if json {
            let cache_type = args.cache_type.name();
            let mut ready =
                json!({"role": "serve", "model": name, "url": url, "kernels": KERNELS, "cache_type": cache_type});
            if !is_exact(args.chain.activations) {
                ready["exact"] = false.into();
            }
            if let Some(plan) = plan {
                ready["plan"] = plan;
            }
            if let Some(address) = verifies {
                ready["verifies"] = address.to_string().into();
            }
            output::object(&ready);
        } else {
            output::talk(&format!("{name} answers at {url} (a page to chat), for programs at {url}/v1"));
        }
        let stopped = async {
            tokio::select! {
                () = stop_signal() => {}
                () = end_of_input(), if args.tethered => {}
            }
        };
        Ok(server.run(stopped).await?)
    })
}

/// What cannot be together.
fn check(args: &Args) -> Result<(), Failure> {
    let machine = !args.above.machines().is_empty();
    if machine && args.draft.is_some() {
        return Err(Failure::usage("--upstream KEY@HOST:PORT", "no --draft beside it", "both")
            .hint("this machine's own model drafts for the one above; a URL as --upstream goes with --draft"));
    }
    each_once("--stage", &args.chain.stages)?;
    each_once("--upstream", &args.above.machines())
}

fn engine(model: Arc<Model>, draft: Option<&Path>, pool: &Pool, settings: &Settings) -> Result<Motor, Failure> {
    let limits = Limits { running_max: settings.room.running_max, ..Limits::default() };
    let engine = plain_engine(model, settings)?;
    let Some(draft) = draft else { return Ok(Motor::Engine(Box::new(engine))) };
    let small = match draft.as_os_str() == LOOKUP {
        true => None,
        false => {
            let model = Arc::new(llm::load(&crate::named::here_or_fetched(Some(draft))?.path, pool)?);
            Some(Engine::new(model, settings.cache_type, limits)?)
        }
    };
    let pair = Pair::new(engine, small).map_err(|why| {
        Failure::new("nothing is served", format!("--draft {}", draft.display()), "a model of the same vocabulary", why)
            .hint("models of one family often have one vocabulary; `--draft lookup` needs no model")
    })?;
    Ok(Motor::pair(pair))
}

/// The key of this machine.
fn own_key(args: &ChainArgs) -> Result<Identity, Failure> {
    crate::stage::identity(&own_dir(args)?)
}

fn own_dir(args: &ChainArgs) -> Result<PathBuf, Failure> {
    crate::live::folder(args.dir.as_deref())
}

/// Nobody drafts for itself, or lends itself layers.
fn others(flag: &str, own: NodeId, mut named: impl Iterator<Item = NodeId>) -> Result<(), Failure> {
    match named.any(|id| id == own) {
        true => {
            Err(Failure::new("nothing is served", flag, "another machine's key", format!("{own}, this machine's own"))
                .hint("each machine has a folder of its own (--dir), with its key"))
        }
        false => Ok(()),
    }
}

/// A machine that stands twice would be dialled twice, and each link would end the other.
pub fn each_once(flag: &str, machines: &[Address]) -> Result<(), Failure> {
    let twice = machines.iter().enumerate().find(|(at, one)| machines[..*at].iter().any(|before| before.id == one.id));
    twice.map_or(Ok(()), |(_, one)| {
        Err(Failure::new("nothing was started", flag, "each machine once", format!("{} twice", one.id)))
    })
}

/// Below a machine: what that one answers has places of its own here, from which drafts are made.
fn small_engine(model: Arc<Model>, settings: &Settings) -> Result<Engine, Failure> {
    let limits = Limits { running_max: 2 * settings.room.running_max, ..Limits::default() };
    Ok(Engine::new(model, settings.cache_type, limits)?)
}

fn plain_engine(model: Arc<Model>, settings: &Settings) -> Result<Engine, Failure> {
    let limits = Limits { running_max: settings.room.running_max, ..Limits::default() };
    Ok(Engine::new(model, settings.cache_type, limits)?)
}

/// What drafts for machines, or for a server. Must run inside a runtime.
fn edge(small: Small, machines: Vec<Address>, args: &Args, above: &mut serve::Above) -> Result<Motor, Failure> {
    let first = u64::from_le_bytes(keys::random()?);
    if machines.is_empty() {
        let (mut edge, port) = Edge::below_server(small, first);
        edge.set_sources(args.above.sources());
        if let Drafts::Rounds(tokens) = args.above.drafts() {
            edge.set_policies(Box::new(move |_| Policy::Fixed(Mode::Rounds { tokens })));
        }
        above.port = Some(port);
        return Ok(Motor::Edge(Box::new(edge)));
    }
    let identity = own_key(&args.chain)?;
    others("--upstream", identity.id(), machines.iter().map(|machine| machine.id))?;
    let hosts: Vec<&str> = machines.iter().map(|address| address.host.as_str()).collect();
    output::talk(&format!("for --allow at {}: {}", hosts.join(", "), identity.id()));
    let transport = Arc::new(TcpTransport::dialler(&identity, TcpOptions::default())?);
    let mut edge = Edge::start(small, first, transport, machines);
    edge.set_sources(args.above.sources());
    Ok(Motor::Edge(Box::new(edge)))
}

/// Opens the door for drafters; where they find it.
async fn verify(
    server: &Server,
    at: SocketAddr,
    model: [u8; 32],
    allow: &[NodeId],
    args: &ChainArgs,
) -> Result<Address, Failure> {
    let identity = own_key(args)?;
    others("--allow", identity.id(), allow.iter().copied())?;
    let transport = TcpTransport::listen(&identity, at, TcpOptions::default()).await?;
    let address = transport.local_addresses().first().cloned();
    let address = address.ok_or_else(|| Failure::new("nothing listens", at.to_string(), "an address", "none"))?;
    output::talk(&format!("drafts are verified at {address}"));
    server.verify(Arc::new(transport), allow.to_vec(), model);
    Ok(address)
}

/// What places layers by plans over the live fleet, and what it makes of that now, said.
async fn planner(
    args: &ChainArgs,
    path: &Path,
    digest: [u8; 32],
    identity: &Identity,
    pool: &Pool,
    settings: &Settings,
) -> Result<(Planner, Option<Value>), Failure> {
    let (objective, streams) = match args.place {
        Place::Throughput => (Objective::Throughput, settings.room.running_max as u64),
        _ => (Objective::Latency, 1),
    };
    let (cost, trained) = crate::plan::cost(path, settings.cache_type)?;
    let context = trained.min(crate::plan::CONTEXT);
    let demand = Demand {
        objective,
        streams,
        context,
        prompt: context.min(crate::plan::PROMPT),
        activations: args.activations,
        recovery: Recovery::default(),
    };
    let mut live = Live::measure(path, digest, identity, &args.stages, pool).await?;
    live.head.memory_bytes = args.memory_mb.map_or(live.head.memory_bytes, |mb| mb.saturating_mul(1_000_000));
    let mut planner = Planner::new(cost, demand, live.head);
    let mut measured = Vec::new();
    for (address, found) in live.machines {
        match found {
            Ok(found) => {
                if let Some(why) = found.out() {
                    output::talk(&format!("{address}: {why}"));
                }
                planner.know(address.id, found);
                measured.push(address.id);
            }
            Err(why) => output::talk(&format!("{address}: out: it is measured when it is here: {why}")),
        }
    }
    let said = match planner.plan(&measured) {
        Ok((plan, fleet)) => {
            output::talk(&plan.summary);
            for verdict in &plan.verdicts {
                output::talk(&format!("{}: {}", fleet.devices()[verdict.device].name, verdict.why));
            }
            let stages = || plan.stages.iter().map(|stage| &stage.stage);
            Some(json!({
                "order": stages().map(|stage| fleet.devices()[stage.device].name.as_str()).collect::<Vec<_>>(),
                "layers": stages().map(|stage| stage.layers.len()).collect::<Vec<_>>(),
                "summary": plan.summary,
            }))
        }
        Err(why) => {
            output::talk(&format!("there is no plan, and layers are spread evenly: {why}"));
            None
        }
    };
    Ok((planner, said))
}

/// Must run inside a runtime.
async fn chain(
    args: &ChainArgs,
    path: &Path,
    pool: &Pool,
    settings: &Settings,
    alone: bool,
) -> Result<(Chain, Option<Value>), Failure> {
    let identity = own_key(args)?;
    others("--stage", identity.id(), args.stages.iter().map(|stage| stage.id))?;
    output::talk(&format!("stages let this machine in with --allow {}", identity.id()));
    let digest = llm::digest(path)?;
    let (planner, plan) = match (args.place, args.head_layers) {
        (Place::Even, _) | (_, Some(_)) => (None, None),
        _ => {
            let (planner, plan) = planner(args, path, digest, &identity, pool, settings).await?;
            (Some(planner), plan)
        }
    };
    let (ends, bytes) = llm::load_ends(path, pool)?;
    let layers = ends.stage.config().layers;
    if let Some(own) = args.head_layers.filter(|own| *own > layers) {
        return Err(Failure::usage("--head-layers", format!("at most the model's {layers}"), own));
    }
    if !is_exact(args.activations) {
        let mut load = |range| Model::load_layers(&bytes, range, pool);
        let found = certify(&ends, &mut load, args.activations, args.stages.len(), pool);
        let found = found.map_err(|e| Failure::new("the chain was not tried", "--activations", "a probe", e))?;
        if !found.holds() {
            let expected = format!("a mean divergence of at most {DIVERGENCE_MAX} nats");
            return Err(Failure::new("the chain was not made", "--activations", expected, found)
                .hint("--activations f32 is exact, f16 takes half of its bytes"));
        }
        output::talk(&format!("not exact: {found}"));
    }
    // Pieces of prompts, and drafts of others, as they fit into a message.
    let most = Head::tokens_max(ends.stage.config().width, args.activations);
    let with = |running_max| Limits { running_max, ..Limits::default() }.within(most);
    // As in `small_engine`, if so many fit.
    let more = (!alone).then(|| with(2 * settings.room.running_max)).flatten();
    let limits = more.or_else(|| with(settings.room.running_max)).ok_or_else(|| {
        let least = (1..settings.room.running_max).rev().find(|fewer| with(*fewer).is_some()).unwrap_or_default();
        Failure::usage("--parallel", format!("at most {least} for vectors of this width"), settings.room.running_max)
    })?;
    let engine = Engine::new(Arc::new(ends), settings.cache_type, limits)?;
    let settings = chain::Settings {
        machines: args.stages.clone(),
        digest,
        cache_type: settings.cache_type,
        activations: args.activations,
        log_bytes_max: 256 << 20,
        head_layers: args.head_layers.map_or(HeadLayers::Even, HeadLayers::Just),
        planner,
        tiles: match args.standby_mb {
            0 => None,
            mb => Some((own_dir(args)?.join("tiles"), mb.saturating_mul(1 << 20))),
        },
    };
    let mut chain = Chain::start(engine, bytes, &identity, settings)?;
    // 0: the system does not tell.
    if let memory_bytes @ 1.. =
        args.memory_mb.map_or_else(crate::memory::available_bytes, |mb| mb.saturating_mul(1_000_000))
    {
        chain.limit_memory(memory_bytes);
    }
    Ok((chain, plan))
}

impl From<ChainError> for Failure {
    fn from(e: ChainError) -> Self {
        Failure::new("the chain of machines was not made", "--stage", "machines and a model that fit", e)
    }
}

fn api_keys(args: &Args) -> Result<Keys, Failure> {
    let mut keys = Keys::default();
    for key in &args.api_keys {
        keys.add(key).map_err(|e| Failure::usage("--api-key", "printable characters without spaces", e))?;
    }
    if let Some(path) = &args.api_key_file {
        keys.add_file(path)?;
    }
    Ok(keys)
}

impl From<KeysError> for Failure {
    fn from(e: KeysError) -> Self {
        match e {
            KeysError::OpenToOthers { path, got } => {
                let place = path.display().to_string();
                Failure::new("the keys were not used", &place, "mode 600", format!("mode {got:03o}"))
                    .hint(format!("others may have read them; if not: chmod 600 {place}"))
            }
            KeysError::File { path, source } => {
                Failure::new("the keys were not used", path.display().to_string(), "a key on each line", source)
            }
            KeysError::Line { path, line, expected, got } => {
                Failure::new("the keys were not used", format!("{}, line {line}", path.display()), expected, got)
            }
            KeysError::NotAKey { got } => {
                Failure::new("the keys were not used", "a key", "printable characters without spaces", got)
            }
        }
    }
}

impl From<ServeError> for Failure {
    fn from(e: ServeError) -> Self {
        let what = e.to_string();
        match e {
            ServeError::Open { at } => Failure::new(
                "nothing is served",
                at.to_string(),
                "an API key, or an address of this machine only",
                "none",
            )
            .hint("give --api-key or --api-key-file, or --open if everybody may ask"),
            ServeError::Bind { at, source } => {
                Failure::new("nothing listens", at.to_string(), "an address that is free", source)
                    .hint("give another port with --listen, or port 0 for a free one")
            }
            ServeError::State(e) => e.into(),
            ServeError::Thread(source) => Failure::new("nothing is served", "the operating system", "a thread", source),
            ServeError::Writer => {
                Failure::new("the server ended", "the model", "answers until it is asked to stop", what)
            }
        }
    }
}
