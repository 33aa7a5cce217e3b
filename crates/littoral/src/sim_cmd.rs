//! `littoral sim JOB.toml`: a fleet in virtual time; many seeds, several algorithms side by side. A file with a `[serving]`
//! table is a scenario of language models instead ([`sim_serving`]).

use crate::memory::peak_rss_mb;
use crate::output::{self, Failure};
use crate::partition::by::{By, one_split};
use crate::partition::source::DataSource;
use crate::pending::Pending;
use crate::sim_data::{Source, Wanted};
use crate::sim_dir::{self, Data, Lies, SimDir, Simulation};
use crate::sim_progress::Progress;
use crate::sim_serving;
use crate::traces::SpeedSource;
use clap::builder::PossibleValuesParser;
use littoral_fed::algorithm::{AlgorithmSpec, NAMES};
use littoral_fed::check_in::CheckIn;
use littoral_node::job::DriftLine;
use littoral_node::job::{JobSpec, JobText};
use littoral_node::work;
use littoral_sim::attack::{Attack, Kind};
use littoral_sim::faults::Faults;
use littoral_sim::field::{Availability, Field, Speeds};
use littoral_sim::fleet::{Fleet, FleetSpec};
use littoral_sim::report::{Outcome, accuracy_by_time_svg, accuracy_svg, csv, replay_command};
use littoral_sim::world::Costs;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A week of virtual time: a job that has not ended by then will not.
pub const LIMIT_MS: u64 = 7 * 86_400_000;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A job, as `littoral job submit` takes it; or a scenario of language models, a file with a [serving] table.
    #[arg(required_unless_present = "join")]
    job: Option<PathBuf>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub devices: u32,
    /// 0: devices come straight to the cloud.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_024))]
    pub edges: u32,
    /// Faults, keys and shares of data follow from it; the job's own seed stays as it is.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// What goes wrong, and how often.
    #[arg(long, default_value = "none", value_parser = PossibleValuesParser::new(Faults::PROFILES))]
    pub faults: String,
    /// Some devices lie, and this is how; which ones follows from --seed
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(Kind::NAMES))]
    pub attack: Option<String>,
    /// The fraction of the devices that lie
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2, requires = "attack")]
    pub attackers: f64,
    /// How far lies go: a factor on updates, or for alie a number of deviations; by default 5, the cohort, or as alie's paper says
    #[arg(long, value_name = "NUMBER", requires = "attack")]
    pub attack_strength: Option<f64>,
    /// Run this many seeds, from --seed on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub seeds: u64,
    /// Real threads; 0: one per core. No result depends on it.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1_024))]
    pub threads: u16,
    /// Run the job with each of these algorithms, with the job's parameters for its own and defaults for others.
    #[arg(long, value_delimiter = ',', value_name = "NAMES", value_parser = PossibleValuesParser::new(NAMES))]
    pub algorithms: Vec<String>,
    /// Rows of each device, where data is made up or a table is too small to be shared out.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rows: u32,
    /// Simulate the devices in the folders of this one (`up --dir`): their names, their files, the bits that they would make
    #[arg(long, value_name = "DIR", conflicts_with_all = ["devices", "rows"])]
    pub fleet: Option<PathBuf>,
    /// A data set of your own, as `littoral partition` takes one, cut in memory
    #[arg(long, value_name = "SOURCE", conflicts_with = "fleet")]
    pub data: Option<PathBuf>,
    /// Of .npy and IDX files of --data: the file of labels
    #[arg(long, value_name = "FILE", requires = "data")]
    pub labels: Option<PathBuf>,
    /// How --data or a shipped table is cut, as in `littoral partition --by`; without, by dirichlet:0.5. A data set with too
    /// few rows for so many devices is taken several times, --rows for each
    #[arg(long = "by", value_name = "SPLIT", conflicts_with = "fleet")]
    pub by: Vec<By>,
    /// When devices are there: a CSV file as `littoral traces` writes it
    #[arg(long, value_name = "FILE")]
    pub traces: Option<PathBuf>,
    /// How fast devices are: lognormal:SIGMA, pareto:SHAPE, or a CSV file with `device,speed,…`
    #[arg(long, value_name = "LAW|FILE")]
    pub speeds: Option<SpeedSource>,
    /// Devices with nothing to do are sent away and come back so often, in milliseconds; without, they stay connected
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=604_800_000))]
    pub check_in_ms: Option<u64>,
    /// An edge that fewer devices come to in a check-in period has them come together; others are spread over it
    #[arg(long, value_name = "N", requires = "check_in_ms")]
    pub gather_below: Option<u32>,
    /// Local work costs this much virtual time for each step of training, instead of 300 ms whatever it is: who has more rows
    /// takes longer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400_000_000))]
    pub step_us: Option<u64>,
    /// Tell when this accuracy was reached, a fraction; without, the job's target_accuracy
    #[arg(long, value_name = "ACCURACY")]
    pub target: Option<f64>,
    #[arg(from_global)]
    pub json: bool,
    /// Tell on stderr how far it is, once a second if that is no terminal
    #[arg(long)]
    pub progress: bool,
    /// Keep what devices compute in this folder: run again after a crash, it is read instead of computed; and processes may
    /// --join
    #[arg(long, value_name = "DIR", conflicts_with_all = ["sweep", "algorithms", "fleet"])]
    pub dir: Option<PathBuf>,
    /// Meet helpers in a database and a bucket instead of the folder: a TOML file with the `[shared]` of a cloud's configuration
    #[arg(long, value_name = "FILE", requires = "dir")]
    pub shared: Option<PathBuf>,
    /// Begin when so many processes have joined
    #[arg(long, value_name = "N", default_value_t = 0, requires = "dir")]
    pub helpers: u32,
    /// Help a simulation that runs elsewhere, until it is over: its --dir, or a copy of its --shared. Other options but --threads,
    /// and --data if it is elsewhere here, are the simulation's
    #[arg(long, value_name = "DIR|FILE", conflicts_with_all = ["job", "dir", "sweep", "fleet"])]
    pub join: Option<PathBuf>,
    /// Write each version's line here.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Draw the accuracy here.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Run a grid of jobs and conditions (docs/simulation.md) and tabulate it; options that the grid has no field for hold for
    /// all of it
    #[arg(long, value_name = "GRID.toml", conflicts_with_all = ["algorithms", "csv", "svg", "fleet"])]
    pub sweep: Option<PathBuf>,
    /// The folder of --sweep, a new one or one to go on with; by default called as the job
    #[arg(long, value_name = "DIR", requires = "sweep")]
    pub into: Option<PathBuf>,
    /// What the report of --sweep says of when
    #[arg(long, value_name = "TEXT", requires = "sweep")]
    pub date: Option<String>,
    /// What the curve of --svg is drawn over
    #[arg(long, value_name = "AXIS", default_value = "version", value_parser = ["version", "time"], requires = "svg")]
    pub over: String,
}

impl Args {
    /// Empty only where a simulation is joined.
    pub fn job(&self) -> &Path {
        self.job.as_deref().unwrap_or(Path::new(""))
    }
}

pub fn run(args: Args) -> Result<(), Failure> {
    if !(0.0..1.0).contains(&args.attackers) {
        return Err(Failure::usage("--attackers", "a fraction of at least 0 and below 1", args.attackers));
    }
    if let Some(target) = args.target.filter(|target| !(*target > 0.0 && *target <= 1.0)) {
        return Err(Failure::usage("--target", "a fraction above 0, at most 1", target));
    }
    if let Some(grid) = &args.sweep {
        return crate::sweep::run(&args, grid);
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let threads = if args.threads == 0 { cores } else { args.threads.into() };
    // Updates and models come and go by the thousand.
    crate::bench::machine::keep_freed_memory();
    if let Some(place) = &args.join {
        return sim_dir::join(place, args.data.as_deref(), args.labels.as_deref(), threads, args.json);
    }
    if let Some(scenario) = sim_serving::scenario(args.job())? {
        // The seed of the file, if none is asked for.
        let first = if args.seed == 0 { scenario.seed } else { args.seed };
        let seeds = (0..args.seeds).map(|n| first.wrapping_add(n));
        return sim_serving::run(args.job(), &scenario, seeds, args.json);
    }
    let (job, text) = crate::job::read_job(args.job())?;
    let jobs = jobs(&args, &job, text)?;
    let faults = Faults::profile(&args.faults).unwrap_or_default();
    let attack = args.attack.as_deref().and_then(Kind::named);
    let attack = attack.map(|kind| Attack { kind, share: args.attackers, strength: args.attack_strength });
    let (edges, rows) = (args.edges as usize, args.rows as usize);
    // How many devices a cohort may need is the job's to say; a fleet that is too small would wait for ever.
    let min = job.settings().cohort.min as usize;
    let data = args.data.clone().map(|path| DataSource::new(path, args.labels.clone(), None));
    let by = if args.by.is_empty() { None } else { Some(one_split(&args.by)?) };
    let source = Source::new(&job, Wanted { fleet: args.fleet.as_deref(), data, by })?;
    let names = source.names();
    let (place, devices) = match &args.fleet {
        Some(_) => ("--fleet", names.len()),
        None => ("--devices", args.devices as usize),
    };
    if devices < min {
        return Err(Failure::usage(place, format!("at least the job's cohort.min, {min} devices"), devices)
            .hint("lower cohort.target and cohort.min in the job, or simulate more devices"));
    }
    let availability = args.traces.as_deref().map(crate::traces::read_availability).transpose()?.map(Arc::new);
    let costs = Costs { step_us: args.step_us.unwrap_or(0), ..Costs::default() };
    let given_speeds = args.speeds.as_ref().map(SpeedSource::read).transpose()?.flatten().map(Arc::new);
    let table_file = args.csv.as_deref().map(Pending::at).transpose()?;
    let curve_file = args.svg.as_deref().map(Pending::at).transpose()?;
    // The last seed of all is followed by the first.
    let seeds = (0..args.seeds).map(|n| args.seed.wrapping_add(n));
    let runs: Vec<(u64, &str)> = seeds.flat_map(|seed| jobs.iter().map(move |job| (seed, job.as_str()))).collect();
    let dir = args.dir.as_deref().map(|dir| sim_dir_of(&args, dir, &jobs, devices)).transpose()?;
    let one = |(seed, toml): (u64, &str), threads: usize, quiet: bool| -> Result<Outcome, Failure> {
        let started = Instant::now();
        let spec = FleetSpec {
            seed,
            devices,
            names: names.clone(),
            edges,
            job_toml: toml.to_string(),
            data: source.data(&job, devices, rows, seed)?,
            faults: faults.clone(),
            costs,
            runner: work::run,
            threads,
            check: true,
            limit_ms: LIMIT_MS,
        };
        let field = field_of(&args, seed, devices, &names, availability.clone(), given_speeds.clone());
        let mut fleet = Fleet::among(spec, &field, attack.as_ref())?;
        if let Some(dir) = &dir {
            dir.take_part(&mut fleet);
        }
        let lender = fleet.lender();
        let mut progress = (!quiet).then(|| Progress::new(&fleet, job.settings(), args.progress));
        let outcome = fleet.run(&mut |line| progress.iter_mut().for_each(|progress| progress.version(line)));
        drop(progress);
        let outcome = Outcome { target: args.target.or(job.settings().target_accuracy), ..outcome };
        let elapsed_s = started.elapsed().as_secs_f64();
        if args.json {
            let mut object = outcome.json(elapsed_s, peak_rss_mb());
            if dir.is_some() {
                object["works"] = sim_dir::tally(lender.tally());
            }
            if runs.len() > 1
                && let Some(fields) = object.as_object_mut()
            {
                fields.insert("seed".into(), seed.into());
                fields.insert("algorithm".into(), outcome.algorithm.into());
            }
            output::object(&object);
        } else {
            person(&outcome, elapsed_s);
        }
        if !outcome.checks_broken.is_empty() {
            let who = match &args.fleet {
                Some(folder) => format!("--fleet {}", folder.display()),
                None => format!("--devices {devices}"),
            } + &conditions(&args);
            let again = replay_command(&args.job().display().to_string(), &who, edges, seed, &args.faults);
            let lies = attack.map(|Attack { kind, share, strength }| {
                let strength = strength.map(|strength| format!(" --attack-strength {strength}"));
                format!(" --attack {} --attackers {share}{}", kind.name(), strength.unwrap_or_default())
            });
            output::talk(&format!("replay: {again}{}", lies.unwrap_or_default()));
        }
        Ok(outcome)
    };
    let started = Instant::now();
    let outcomes = match runs.as_slice() {
        [run] => vec![one(*run, threads, false)?],
        // Many runs: side by side, one thread each.
        many => side_by_side(many, threads, |run| one(run, 1, true))?,
    };
    if let Some(dir) = dir {
        dir.close();
    }
    if runs.len() > 1 && args.json {
        output::object(&json!({"summary": summary(&outcomes, &job, started.elapsed().as_secs_f64())}));
    }
    if let Some(file) = table_file {
        file.write(csv(&outcomes))?;
    }
    if let Some(file) = curve_file {
        let draw = if args.over == "time" { accuracy_by_time_svg } else { accuracy_svg };
        file.write(draw(job.name(), &outcomes))?;
    }
    let broken = outcomes.iter().filter(|outcome| !outcome.checks_broken.is_empty()).count();
    if broken > 0 {
        output::talk(&format!("{broken} of {} runs broke what must hold", outcomes.len()));
        std::process::exit(1);
    }
    Ok(())
}

/// The folder of this simulation.
fn sim_dir_of(args: &Args, dir: &Path, jobs: &[String], devices: usize) -> Result<SimDir, Failure> {
    let [job] = jobs else { return Err(Failure::usage("--dir", "one job", jobs.len())) };
    if args.seeds != 1 {
        return Err(Failure::usage("--dir", "one seed", args.seeds).hint("give each seed a folder of its own"));
    }
    let lies = |kind: &String| Lies { kind: kind.clone(), share: args.attackers, strength: args.attack_strength };
    let simulation = Simulation {
        build: sim_dir::build()?,
        job: job.clone(),
        seed: args.seed,
        devices,
        edges: args.edges as usize,
        rows: args.rows as usize,
        data: args.data.as_deref().map(|path| Data::at(path, args.labels.as_deref())).transpose()?,
        by: args.by.iter().map(By::to_string).collect(),
        attack: args.attack.as_ref().map(lies),
    };
    SimDir::open(dir, simulation, args.shared.as_deref(), args.helpers)
}

/// When and how fast devices are in this run. Drawn speeds follow from the run's seed.
fn field_of(
    args: &Args,
    seed: u64,
    devices: usize,
    names: &[String],
    availability: Option<Arc<Availability>>,
    given: Option<Arc<Speeds>>,
) -> Field {
    let names = || match names.is_empty() {
        true => (1..=devices).map(|n| format!("device-{n}")).collect(),
        false => names.to_vec(),
    };
    let drawn = || match &args.speeds {
        Some(SpeedSource::Law(law)) => Some(Arc::new(Speeds::drawn(*law, seed, names()))),
        _ => None,
    };
    Field { availability, speeds: given.or_else(drawn), check_in: check_in(args) }
}

/// As `[check_in]` of an edge; a device that did its work stays for an eighth of the period, a minute at most.
fn check_in(args: &Args) -> CheckIn {
    let (every_ms, default) = (args.check_in_ms.unwrap_or(0), CheckIn::default());
    let stay_ms = default.stay_ms.min(every_ms / 8);
    CheckIn { every_ms, stay_ms, gather_below: args.gather_below.unwrap_or(default.gather_below) }
}

/// The options that say what devices have and live through, for the command that does the same again.
fn conditions(args: &Args) -> String {
    let path = |flag: &str, path: &Option<PathBuf>| path.as_ref().map(|path| format!(" --{flag} {}", path.display()));
    let by = args.by.iter().map(|by| format!(" --by {by}"));
    let data = [path("data", &args.data), path("labels", &args.labels), path("traces", &args.traces)];
    let speeds = args.speeds.as_ref().map(|speeds| format!(" --speeds {speeds}"));
    let step = args.step_us.map(|step| format!(" --step-us {step}"));
    let check_in = args.check_in_ms.map(|every| format!(" --check-in-ms {every}"));
    let gather = args.gather_below.map(|below| format!(" --gather-below {below}"));
    data.into_iter().flatten().chain(by).chain(speeds).chain(check_in).chain(gather).chain(step).collect()
}

/// The job's text, once for each algorithm that is asked for.
fn jobs(args: &Args, job: &JobSpec, text: String) -> Result<Vec<String>, Failure> {
    if args.algorithms.is_empty() {
        return Ok(vec![text]);
    }
    let with = |name: &String| {
        if name == job.algorithm_name() {
            return Ok(text.clone());
        }
        let algorithm: AlgorithmSpec = toml::from_str(&format!("name = {name:?}")).map_err(|_| {
            let expected = "one whose parameters have defaults, or the job's own";
            Failure::usage("--algorithms", expected, name).hint("name it with its parameters in a copy of the job")
        })?;
        let job = JobText { algorithm, ..job.text().clone() };
        JobSpec::check(job.clone())?;
        toml::to_string(&job).map_err(|e| Failure::new("sim does not run", "--algorithms", "a job", e))
    };
    args.algorithms.iter().map(with).collect()
}

/// In the order of `all`, whichever ended first.
pub fn side_by_side<T: Send + Sync + Copy, R: Send>(
    all: &[T],
    threads: usize,
    one: impl Fn(T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let next = AtomicU64::new(0);
    let done: Mutex<BTreeMap<usize, Result<R, Failure>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(all.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(item) = all.get(at) else { return };
                    let result = one(*item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
                }
            });
        }
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn summary(outcomes: &[Outcome], job: &JobSpec, elapsed_s: f64) -> serde_json::Value {
    let rounds = job.settings().rounds;
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for outcome in outcomes {
        let counted = serde_json::to_value(&outcome.faults_injected).unwrap_or_default();
        for (kind, count) in counted.as_object().into_iter().flatten() {
            *faults.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    let device_rounds: u64 = outcomes.iter().map(|o| o.device_rounds).sum();
    let broken: Vec<String> =
        outcomes.iter().flat_map(|o| o.checks_broken.iter().map(|b| format!("seed {}: {b}", o.seed))).collect();
    json!({
        "runs": outcomes.len(),
        "runs_that_count": outcomes.iter().filter(|o| o.counts(rounds)).count(),
        "rounds_completed": outcomes.iter().map(|o| o.rounds_completed).sum::<u64>(),
        "aborts": outcomes.iter().map(|o| o.aborts).sum::<u64>(),
        "device_rounds": device_rounds,
        "device_rounds_per_s": device_rounds as f64 / elapsed_s.max(1e-9),
        "faults_injected": faults,
        "checks_broken": broken,
        "peak_rss_mb": peak_rss_mb(),
    })
}

fn person(outcome: &Outcome, elapsed_s: f64) {
    let ended = outcome.ended.as_deref().unwrap_or("the job did not end in its time");
    let accuracy = outcome.accuracy.map(|a| format!("{a:.4}")).unwrap_or_else(|| "-".into());
    output::line(&format!(
        "{} · seed {} · {} rounds, {} attempts given up · {} device-rounds in {elapsed_s:.2} s ({:.0} per s) · accuracy {accuracy} · {ended}",
        outcome.algorithm,
        outcome.seed,
        outcome.rounds_completed,
        outcome.aborts,
        outcome.device_rounds,
        outcome.device_rounds as f64 / elapsed_s.max(1e-9),
    ));
    if let Some(DriftLine { of, distance, usual, drifted }) = &outcome.drift {
        let said = if *drifted { "drifted" } else { "not drifted" };
        output::line(&format!(
            "drift: {said}: {of} are {distance:.3} away from the first versions, {usual:.3} is usual"
        ));
    }
    let faults = serde_json::to_value(&outcome.faults_injected).unwrap_or_default();
    let faults: Vec<String> = faults.as_object().into_iter().flatten().map(|(kind, n)| format!("{kind} {n}")).collect();
    if !faults.is_empty() {
        output::line(&format!("faults: {}", faults.join(", ")));
    }
    for broken in &outcome.checks_broken {
        output::line(&format!("BROKEN {broken}"));
    }
    output::line(&format!("state {}", outcome.state_hash));
}
