//! `littoral plan`: which devices would have which layers of a model, how fast that would be, and why.
//!
//! What devices can do stands in `fleet.toml`; then only the head of the model's file is read, and nobody is asked anything. Or
//! they are running stages and this machine, and are measured.

use crate::live::{self, Live};
use crate::llm;
use crate::output::{self, Failure};
use clap::ValueEnum;
use littoral_infer::split::plan::{
    self, Cover, Demand, Fleet, ModelCost, Objective, Plan, PlanError, Proof, Recovery, StagePlan,
};
use littoral_model::lm::{self, CacheType};
use littoral_node::split::{FLEET_SAMPLE_TOML, FleetFile};
use littoral_node::transport::Address;
use littoral_wire::pipeline::Activations;
use littoral_wire::pipeline::Profile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Bytes of a fleet's file: all devices and all links between them fit.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Positions and tokens of a prompt, where nobody says and the model takes as many.
pub const CONTEXT: u64 = 4_096;
pub const PROMPT: u64 = 512;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The model: a GGUF file, or the name of one that is here.
    #[arg(required_unless_present = "sample")]
    model: Option<PathBuf>,
    /// Devices and links, as `littoral plan --sample` shows.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["sample", "stages"])]
    fleet: Option<PathBuf>,
    /// Instead of a file: a machine that runs `littoral stage`, as it prints itself, to be measured; may be repeated. This
    /// machine is measured too, and is the head.
    #[arg(long = "stage", value_name = "KEY@HOST:PORT", conflicts_with = "fleet")]
    stages: Vec<Address>,
    /// The folder with this machine's key, by which stages know it; by default that of `littoral serve`.
    #[arg(long, value_name = "DIR", requires = "stages")]
    dir: Option<PathBuf>,
    /// Write what was measured to a file that --fleet takes.
    #[arg(long, value_name = "FILE", requires = "stages")]
    save: Option<PathBuf>,
    /// Threads of this machine; by default one for each processor.
    #[arg(long, requires = "stages", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print a commented fleet.toml.
    #[arg(long)]
    sample: bool,
    /// What is to be best: the time of a token of one stream, or the tokens of all streams.
    #[arg(long, value_enum, default_value_t = Goal::Latency)]
    objective: Goal,
    /// Texts that are written at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=plan::STREAMS_MAX))]
    streams: u64,
    /// Positions of each stream that memory is kept for; by default 4096, or what the model was trained for if that is less.
    #[arg(long, value_name = "POSITIONS", value_parser = clap::value_parser!(u64).range(1..=plan::POSITIONS_MAX))]
    context: Option<u64>,
    /// Tokens of a prompt; speeds are those behind it. By default 512, or the context if that is less.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u64).range(1..=plan::POSITIONS_MAX))]
    prompt: Option<u64>,
    /// How vectors travel between stages: f32 is exact, f16 and int8 are not.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = llm::activations())]
    activations: Activations,
    /// The type in which keys and values of earlier tokens are kept.
    #[arg(long, value_name = "TYPE", default_value_t = CacheType::F16, value_parser = llm::cache_type())]
    cache_type: CacheType,
    /// Standbys have their layers mapped and in the page cache; else a standby reads them from its disk first.
    #[arg(long)]
    warm: bool,
    /// How long it takes until a lost stage is noticed.
    #[arg(long, value_name = "DURATION", default_value = "600ms", value_parser = crate::input::duration_ms)]
    detect: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Goal {
    Latency,
    Throughput,
}

pub fn run(args: &Args, json: bool) -> Result<(), Failure> {
    let (Some(model), false) = (&args.model, args.sample) else {
        output::sample(FLEET_SAMPLE_TOML, json);
        return Ok(());
    };
    let written = args.fleet.as_deref().map(read_fleet).transpose()?;
    let named = crate::named::here(model)?;
    let (cost, trained) = cost(&named.path, args.cache_type)?;
    let demand = demand(args, trained)?;
    let mut out = Vec::new();
    let (fleet, measured) = match written {
        Some(fleet) => (fleet, None),
        None => {
            let mut live = measure(args, &named.path)?;
            out = live.take_out();
            let fleet = live.fleet()?;
            save(args, &fleet)?;
            (fleet, Some(live))
        }
    };
    let plan = plan::plan(&cost, &fleet, &demand).map_err(refused)?;
    let measured = measured.as_ref();
    let shown =
        Shown { name: &named.name, cost: &cost, fleet: &fleet, demand: &demand, plan: &plan, measured, out: &out };
    if json {
        output::object(&shown.json());
    } else {
        shown.print();
    }
    Ok(())
}

fn measure(args: &Args, model: &Path) -> Result<Live, Failure> {
    crate::serve_cmd::each_once("--stage", &args.stages)?;
    let identity = crate::stage::identity(&live::folder(args.dir.as_deref())?)?;
    output::talk(&format!("stages let this machine in with --allow {}", identity.id()));
    let (digest, pool) = (llm::digest(model)?, llm::pool(args.threads.map(usize::from)));
    crate::input::runtime()?.block_on(Live::measure(model, digest, &identity, &args.stages, &pool))
}

fn save(args: &Args, fleet: &Fleet) -> Result<(), Failure> {
    let Some(file) = &args.save else { return Ok(()) };
    std::fs::write(file, FleetFile::write(fleet)).map_err(|e| {
        Failure::new("the fleet was not saved", file.display().to_string(), "a file that can be written", e)
    })
}

fn read_fleet(path: &Path) -> Result<Fleet, Failure> {
    let text = crate::input::text(path, FILE_BYTES_MAX)?;
    FleetFile::parse(&text, &path.display().to_string()).map_err(|e| {
        Failure::new("the fleet was refused", e.place(), e.expected, e.got)
            .hint("`littoral plan --sample` prints a commented fleet")
    })
}

/// And the context that the model was trained for.
pub fn cost(path: &Path, cache_type: CacheType) -> Result<(ModelCost, u64), Failure> {
    let bytes = llm::map(path)?;
    let gguf = llm::header(path, &bytes)?;
    let refused = |e: lm::LoadError| llm::refused(path, &e.into());
    let config = lm::config(&gguf).map_err(refused)?;
    // Its heads may have no whole blocks of this type.
    lm::State::empty(config.layers, config.kv_heads, config.head_width, cache_type)?;
    Ok((ModelCost::of(&gguf, &config, cache_type).map_err(refused)?, config.context as u64))
}

fn demand(args: &Args, trained: u64) -> Result<Demand, Failure> {
    let context = args.context.unwrap_or(trained.min(CONTEXT));
    if context > trained {
        return Err(Failure::usage("--context", format!("at most the model's {trained} positions"), context));
    }
    let prompt = args.prompt.unwrap_or(context.min(PROMPT));
    if prompt > context {
        return Err(Failure::usage("--prompt", format!("at most the context's {context} positions"), prompt));
    }
    Ok(Demand {
        objective: match args.objective {
            Goal::Latency => Objective::Latency,
            Goal::Throughput => Objective::Throughput,
        },
        streams: args.streams,
        context,
        prompt,
        activations: args.activations,
        recovery: Recovery { detect_s: args.detect as f64 / 1e3, warm: args.warm },
    })
}

fn refused(error: PlanError) -> Failure {
    let (place, expected, got) = error.parts();
    let failure = Failure::new("there is no plan", place, expected, got);
    match error {
        PlanError::Head { .. } | PlanError::NoRoom { .. } => failure.hint(
            "20 % of memory_mb stays free; fewer --streams, a shorter --context or --cache-type q8_0 need less, another device has more",
        ),
        PlanError::Field { .. } | PlanError::NotFound { .. } => failure,
    }
}

struct Shown<'a> {
    name: &'a str,
    cost: &'a ModelCost,
    fleet: &'a Fleet,
    demand: &'a Demand,
    plan: &'a Plan,
    /// If it was.
    measured: Option<&'a Live>,
    /// Machines that were not planned over, and why.
    out: &'a [(String, &'static str)],
}

impl Shown<'_> {
    fn device(&self, device: usize) -> &str {
        &self.fleet.devices()[device].name
    }

    /// Of the objective.
    fn predicted_tok_s(&self) -> f64 {
        match self.demand.objective {
            Objective::Latency => self.plan.tok_s(),
            Objective::Throughput => self.plan.streams_tok_s,
        }
    }

    fn print(&self) {
        let (plan, demand) = (self.plan, self.demand);
        let layers = self.cost.layers.len();
        output::line(&format!(
            "{}: {layers} layers over {} of {} devices, {} of {} positions",
            self.name,
            plan.stages.len(),
            self.fleet.devices().len(),
            count(demand.streams, "stream"),
            demand.context,
        ));
        output::line(&plan.summary);
        output::line("");
        if let Some(live) = self.measured {
            let rows: Vec<Vec<String>> = self.profiles(live).map(|(device, _)| self.measured_row(device)).collect();
            output::table(&["MEASURED", "READS", "PROMPTS", "ROUND TRIP", "LINK", "MEMORY", "DISK"], &rows);
            output::line("");
        }
        let rows: Vec<Vec<String>> = plan.stages.iter().map(|stage| self.row(stage)).collect();
        output::table(&["DEVICE", "LAYERS", "MEMORY", "COMPUTES", "THEN WAITS"], &rows);
        output::line("");
        output::line(&format!("one stream     {:.1} tok/s ({:.2} ms a token)", plan.tok_s(), plan.token_s * 1e3));
        if demand.streams > 1 {
            let batch = if plan.batch > 1 { format!(", in batches of {}", plan.batch) } else { String::new() };
            let streams = count(demand.streams, "stream");
            output::line(&format!("{streams:<13}  {:.1} tok/s together{batch}", plan.streams_tok_s));
        }
        let pieces = count(plan.prompt.micro_batches, "piece");
        output::line(&format!("prompt         {} tokens in {:.2} s, in {pieces}", demand.prompt, plan.prompt.total_s));
        let fits = if plan.solo.fits { "" } else { ", if it had the memory" };
        output::line(&format!("solo           {:.1} tok/s{fits}", plan.solo.tok_s));
        output::line(&format!("proof          {}", proof(plan.proof)));
        output::line("");
        for verdict in &plan.verdicts {
            output::line(&format!("{}: {}", self.device(verdict.device), verdict.why));
        }
        self.out.iter().for_each(|(name, why)| output::line(&format!("{}: {why}", name.escape_debug())));
        output::line("");
        let head = self.device(self.fleet.head());
        output::line(&format!("if {head} is lost: nobody goes on, it has the requests"));
        plan.covers.iter().for_each(|cover| output::line(&self.sentence(cover)));
    }

    fn row(&self, stage: &StagePlan) -> Vec<String> {
        let layers = &stage.stage.layers;
        let ends = if layers.start == 0 && stage.stage.device == self.fleet.head() { "ends, " } else { "" };
        let layers = match layers.len() {
            0 => "none".to_owned(),
            1 => format!("1 ({})", layers.start),
            len => format!("{len} ({} to {})", layers.start, layers.end - 1),
        };
        let (used, usable) = (stage.memory_bytes as f64 / 1e6, stage.usable_bytes as f64 / 1e6);
        let digits = if usable < 100.0 { 2 } else { 0 };
        vec![
            self.device(stage.stage.device).to_owned(),
            format!("{ends}{layers}"),
            format!("{used:.digits$} of {usable:.digits$} MB"),
            format!("{:.2} ms", stage.compute_s * 1e3),
            format!("{:.2} ms", stage.hop_s * 1e3),
        ]
    }

    /// Each device's number and what it said; the head is the first.
    fn profiles<'b>(&self, live: &'b Live) -> impl Iterator<Item = (usize, &'b Profile)> {
        let machines = live.machines.iter().filter_map(|(_, found)| Some(&found.as_ref().ok()?.profile));
        std::iter::once(&live.head).chain(machines).enumerate()
    }

    fn measured_row(&self, device: usize) -> Vec<String> {
        let (own, head) = (&self.fleet.devices()[device], self.fleet.head());
        let link = (device != head).then(|| self.fleet.link(head, device));
        vec![
            own.name.clone(),
            format!("{:.0} MB/s", own.read_bytes_per_s / 1e6),
            format!("{:.1} GFLOPS", own.prefill_flops_per_s / 1e9),
            link.map_or(String::new(), |link| format!("{:.2} ms", link.rtt_s * 1e3)),
            link.map_or(String::new(), |link| format!("{:.0} Mbit/s", link.bytes_per_s * 8.0 / 1e6)),
            format!("{:.0} MB", own.memory_bytes as f64 / 1e6),
            format!("{:.0} MB", own.disk_free_bytes as f64 / 1e6),
        ]
    }

    fn measured_json(&self, live: &Live) -> Value {
        let each = self.profiles(live).map(|(device, profile)| {
            let (own, head) = (&self.fleet.devices()[device], self.fleet.head());
            let link = (device != head).then(|| self.fleet.link(head, device));
            json!({
                "device": own.name,
                "host": own.host,
                "read_mb_per_s": own.read_bytes_per_s / 1e6,
                "prefill_gflops": own.prefill_flops_per_s / 1e9,
                "timed_mb": profile.timed_bytes as f64 / 1e6,
                "memory_mb": own.memory_bytes as f64 / 1e6,
                "disk_free_mb": own.disk_free_bytes as f64 / 1e6,
                "disk_read_mb_per_s": own.disk_read_bytes_per_s / 1e6,
                "rtt_ms": link.map(|link| link.rtt_s * 1e3),
                "mbit_per_s": link.map(|link| link.bytes_per_s * 8.0 / 1e6),
            })
        });
        each.collect()
    }

    fn sentence(&self, cover: &Cover) -> String {
        let owner = self.device(self.plan.stages[cover.stage].stage.device);
        let Some(standby) = &cover.standby else {
            return format!("if {owner} is lost: nobody goes on, {}", cover.why);
        };
        let why = if cover.why.is_empty() { String::new() } else { format!(" ({})", cover.why) };
        format!(
            "if {owner} is lost: {} goes on after {:.2} s ({:.2} noticed, {:.2} loaded, {:.2} replayed), then {:.1} tok/s{why}",
            self.device(standby.device),
            standby.pause_s,
            self.demand.recovery.detect_s,
            standby.load_s,
            standby.replay_s,
            standby.tok_s,
        )
    }

    fn json(&self) -> Value {
        let (plan, demand) = (self.plan, self.demand);
        let why = plan.verdicts.iter().map(|verdict| {
            json!({
                "device": self.device(verdict.device),
                "in": verdict.included,
                "why": verdict.why,
                "otherwise_tok_s": verdict.otherwise_tok_s,
            })
        });
        let out = self.out.iter().map(|(name, why)| json!({ "device": name, "in": false, "why": why }));
        let each = |of: &dyn Fn(&StagePlan) -> Value| plan.stages.iter().map(of).collect::<Vec<Value>>();
        let mut said = json!({
            "model": self.name,
            "objective": if demand.objective == Objective::Latency { "latency" } else { "throughput" },
            "streams": demand.streams,
            "context": demand.context,
            "order": each(&|stage| json!(self.device(stage.stage.device))),
            "layers": each(&|stage| json!(stage.stage.layers.len())),
            "memory_mb": each(&|stage| json!(stage.memory_bytes as f64 / 1e6)),
            "usable_mb": each(&|stage| json!(stage.usable_bytes as f64 / 1e6)),
            "compute_ms": each(&|stage| json!(stage.compute_s * 1e3)),
            "hop_ms": each(&|stage| json!(stage.hop_s * 1e3)),
            "predicted_tok_s": self.predicted_tok_s(),
            "one_stream_tok_s": plan.tok_s(),
            "streams_tok_s": plan.streams_tok_s,
            "batch": plan.batch,
            "prompt_tokens": demand.prompt,
            "prompt_s": plan.prompt.total_s,
            "micro_batches": plan.prompt.micro_batches,
            "solo_tok_s": plan.solo.tok_s,
            "solo_fits": plan.solo.fits,
            "proof": proof(plan.proof),
            "summary": plan.summary,
            "why": why.chain(out).collect::<Vec<Value>>(),
            "standby": plan.covers.iter().map(|cover| self.standby(cover)).collect::<Vec<Value>>(),
        });
        if let Some(live) = self.measured {
            said["measured"] = self.measured_json(live);
        }
        said
    }

    fn standby(&self, cover: &Cover) -> Value {
        let standby = cover.standby.as_ref();
        json!({
            "lost": self.device(self.plan.stages[cover.stage].stage.device),
            "standby": standby.map(|standby| self.device(standby.device)),
            "pause_s": standby.map(|standby| standby.pause_s),
            "detect_s": standby.map(|_| self.demand.recovery.detect_s),
            "load_s": standby.map(|standby| standby.load_s),
            "replay_s": standby.map(|standby| standby.replay_s),
            "tok_s": standby.map(|standby| standby.tok_s),
            "disk_mb": standby.map(|standby| standby.disk_bytes as f64 / 1e6),
            "memory_mb": standby.map(|standby| standby.memory_bytes as f64 / 1e6),
            "why": Some(&cover.why).filter(|why| !why.is_empty()),
        })
    }
}

fn count(number: u64, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

fn proof(proof: Proof) -> String {
    match proof {
        Proof::Best => "no plan is better".to_owned(),
        Proof::Within(share) => format!("no plan is better by more than {:.1} %", share * 100.0),
        Proof::Searched => "searched: there are too many devices to prove it".to_owned(),
    }
}
