//! `littoral join TICKET`: enrols this machine.

use crate::input::{dir_or_environment, runtime};
use crate::output::{self, Failure};
use crate::roles::{DEVICE_DIR, EDGE_DIR};
use crate::usage::name;
use littoral_node::config::{Config, DeviceConfig, EdgeConfig, Network};
use littoral_node::deploy;
use littoral_wire::message::Role;
use littoral_wire::ticket::Ticket;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// As `littoral fleet ticket` printed it.
    #[arg(value_parser = ticket)]
    ticket: Ticket,
    /// A name for people; the cloud makes it unique.
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// State folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    let ticket = args.ticket;
    let (role, default_dir, sample, file) = match ticket.role {
        Role::Edge => ("edge", EDGE_DIR, EdgeConfig::SAMPLE_TOML, EdgeConfig::FILE_NAME),
        _ => ("device", DEVICE_DIR, DeviceConfig::SAMPLE_TOML, DeviceConfig::FILE_NAME),
    };
    let dir = dir_or_environment(args.dir).unwrap_or_else(|| default_dir.into());
    let (network, name) = wishes(ticket.role, &dir)?;
    let name = args.name.unwrap_or(name);
    let joined = runtime()?.block_on(deploy::join(&ticket, &name, &dir, &network))?;
    let config = dir.join(file);
    if !config.exists() {
        std::fs::write(&config, sample).map_err(|e| {
            Failure::new("joined, but no configuration was written", config.display().to_string(), "a file", e)
        })?;
    }
    let name = joined.enrolment.name;
    if json {
        output::object(&json!({
            "role": role, "name": name, "id": joined.id.to_string(), "cloud": joined.enrolment.cloud,
            "upstreams": joined.enrolment.upstreams, "dir": dir.display().to_string(),
        }));
    } else {
        output::line(&format!("{role} {name} is enrolled"));
        let data = if role == "device" { "say where its data is in" } else { "look at" };
        output::talk(&format!("next: {data} {}, then `littoral {role} --dir {}`", config.display(), dir.display()));
    }
    Ok(())
}

fn ticket(text: &str) -> Result<Ticket, String> {
    text.parse().map_err(|e| format!("a ticket as `littoral fleet ticket` prints it ({e})"))
}

/// How this machine dials and what it wants to be called, if it is configured already.
fn wishes(role: Role, dir: &Path) -> Result<(Network, String), Failure> {
    Ok(match role {
        Role::Edge => {
            let (config, _) = EdgeConfig::load(None, Some(dir))?;
            (config.network, config.name)
        }
        _ => {
            let (config, _) = DeviceConfig::load(None, Some(dir))?;
            (config.network, config.name)
        }
    })
}
