//! `littoral cloud | edge | device`: one role, from its file, until a signal; and a language model beside it, if the file says so.

use crate::input::{dir_or_environment, start_log};
use crate::output::{self, Failure};
use crate::role_serve::{self, together};
use crate::serve::serve;
use crate::serve_cmd;
use littoral_node::config::{CloudConfig, Config, DeviceConfig, EdgeConfig};
use littoral_node::data::SAMPLE_TOML as DATA_SAMPLE_TOML;
use littoral_node::deploy::{self, Running, log_report};
use littoral_tensor::share_one_heap;
use serde_json::json;
use std::path::{Path, PathBuf};

/// State folders in the current one, if nothing else is said.
pub const CLOUD_DIR: &str = "littoral-cloud";
pub const EDGE_DIR: &str = "littoral-edge";
pub const DEVICE_DIR: &str = "littoral-device";

#[derive(clap::Args, Debug)]
pub struct ListenerArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Where to listen, host:port; over what the file says.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// What others dial, host or host:port; over what the file says.
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
}

#[derive(clap::Args, Debug)]
pub struct DeviceArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Print all forms of data that a device can have, and end.
    #[arg(long)]
    sample_data: bool,
}

#[derive(clap::Args, Debug)]
struct PlaceArgs {
    /// Configuration; by default the role's .toml in --dir, or none.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// State folder; over what the file says.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the commented default configuration, and end.
    #[arg(long)]
    sample: bool,
    /// Stop when standard input ends, for parents that must leave no process behind.
    #[arg(long, hide = true)]
    tethered: bool,
}

impl PlaceArgs {
    /// The configuration, and where its paths start.
    fn load<C: Config>(&self, default_dir: &str) -> Result<(C, PathBuf), Failure> {
        let dir = match (&self.dir, &self.config) {
            (Some(dir), _) => Some(dir.clone()),
            (None, Some(_)) => None,
            (None, None) => Some(dir_or_environment(None).unwrap_or_else(|| default_dir.into())),
        };
        Ok(C::load(self.config.as_deref(), dir.as_deref())?)
    }
}

impl ListenerArgs {
    fn over(&self, listen: &mut String, advertise: &mut String) {
        if let Some(given) = &self.listen {
            listen.clone_from(given);
        }
        if let Some(given) = &self.advertise {
            advertise.clone_from(given);
        }
    }
}

pub fn cloud(args: ListenerArgs, json: bool) -> Result<(), Failure> {
    if args.place.sample {
        return sample(CloudConfig::SAMPLE_TOML, json);
    }
    let (mut config, base) = args.place.load::<CloudConfig>(CLOUD_DIR)?;
    args.over(&mut config.listen, &mut config.advertise);
    recheck(&config)?;
    let served = beside(config.serve.as_ref(), &config.dir, &base, &args.place)?;
    start_log(&config.log);
    share_one_heap();
    run(config.threads, async {
        let running = deploy::start_cloud(&config, log_report()).await?;
        announce("cloud", &running, &config.dir, json);
        let served = served.map(|served| role_serve::start(served, json)).transpose()?;
        together(serve(running, &config.dir, args.place.tethered), served).await
    })
}

pub fn edge(args: ListenerArgs, json: bool) -> Result<(), Failure> {
    if args.place.sample {
        return sample(EdgeConfig::SAMPLE_TOML, json);
    }
    let (mut config, base) = args.place.load::<EdgeConfig>(EDGE_DIR)?;
    args.over(&mut config.listen, &mut config.advertise);
    recheck(&config)?;
    let served = beside(config.serve.as_ref(), &config.dir, &base, &args.place)?;
    start_log(&config.log);
    share_one_heap();
    run(config.threads, async {
        let running = deploy::start_edge(&config, log_report()).await?;
        announce("edge", &running, &config.dir, json);
        let served = served.map(|served| role_serve::start(served, json)).transpose()?;
        together(serve(running, &config.dir, args.place.tethered), served).await
    })
}

pub fn device(args: DeviceArgs, json: bool) -> Result<(), Failure> {
    if args.place.sample {
        return sample(DeviceConfig::SAMPLE_TOML, json);
    }
    if args.sample_data {
        return sample(DATA_SAMPLE_TOML, json);
    }
    let (config, base) = args.place.load::<DeviceConfig>(DEVICE_DIR)?;
    let served = beside(config.serve.as_ref(), &config.dir, &base, &args.place)?;
    start_log(&config.log);
    run(config.threads, async {
        let running = deploy::start_device(&config, &base, log_report()).await?;
        announce("device", &running, &config.dir, json);
        let served = served.map(|served| role_serve::start(served, json)).transpose()?;
        together(serve(running, &config.dir, args.place.tethered), served).await
    })
}

/// The language model that the file asks for beside the role.
fn beside(
    table: Option<&toml::Table>,
    dir: &Path,
    base: &Path,
    place: &PlaceArgs,
) -> Result<Option<serve_cmd::Args>, Failure> {
    table.map(|table| role_serve::args(table, dir, base, place.tethered)).transpose()
}

fn sample(toml: &str, json: bool) -> Result<(), Failure> {
    output::sample(toml, json);
    Ok(())
}

/// What flags changed must be as right as what stands in files.
fn recheck(config: &impl Config) -> Result<(), Failure> {
    config.check().map_err(|(field, expected, got)| Failure::usage(format!("--{field}"), expected, got))
}

fn run(threads: usize, role: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // Works have threads of their own; these move bytes.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    let runtime =
        builder.enable_all().build().map_err(|e| Failure::new("no threads", "the operating system", "threads", e))?;
    runtime.block_on(role)
}

fn announce(role: &str, running: &Running, dir: &Path, json: bool) {
    let address = running.address.as_ref().map(|address| format!("{}@{address}", running.id));
    if json {
        let dir = dir.display().to_string();
        output::object(&json!({
            "role": role, "id": running.id.to_string(), "name": running.name, "address": address, "dir": dir,
        }));
        return;
    }
    output::talk(&format!("{role} {} runs in {}", running.name, dir.display()));
    if let Some(address) = address {
        output::talk(&format!("others reach it at {address}"));
    }
    if role == "cloud" {
        let dir = dir.display();
        output::talk(&format!("let machines in with `littoral fleet ticket --role edge|device --dir {dir}`"));
    }
}
