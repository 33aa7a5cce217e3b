//! `littoral fleet`: machines, tickets and keys.

pub mod roster;

use crate::input::{dir_or_environment, duration_ms, runtime};
use crate::output::{self, Failure};
use crate::reach::Reach;
use crate::roles::{DEVICE_DIR, EDGE_DIR};
use crate::usage::name;
use clap::builder::NonEmptyStringValueParser;
use clap::{Subcommand, ValueEnum};
use littoral_node::config::{Config, DeviceConfig, EdgeConfig};
use littoral_node::deploy;
use littoral_node::host::keys;
use littoral_node::role::cloud::command::{Command as Order, Right};
use littoral_wire::message::Role;
use littoral_wire::ticket::Ticket;
use littoral_wire::{List, NodeId, Text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Addresses in a ticket.
const ADDRESSES_MAX: usize = 8;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Machines: who is enrolled, who is here, with which data.
    Ls {
        #[command(flatten)]
        reach: Reach,
    },
    /// Cut a machine's key off, now.
    Revoke {
        /// A name, a key, or the beginning of a key.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        node: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give the machine of --dir a new key; it must not be running.
    Rotate {
        /// State folder of the edge or device.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print a ticket that lets machines in.
    Ticket {
        #[arg(long)]
        role: TicketRole,
        /// How many machines may use it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        uses: u32,
        /// For how long: 90s, 15m, 1h, 7d.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration_ms)]
        valid: u64,
        /// File of the key that signs rosters, made if there is none: machines that join will believe its rosters. Keep it
        /// where the cloud cannot read it.
        #[arg(long, value_name = "FILE")]
        roster: Option<PathBuf>,
        #[command(flatten)]
        reach: Reach,
    },
    /// Sign the list of devices, for masked sums that a lying cloud shall not see through.
    Roster {
        /// The key file, made if there is none. Keep it where the cloud cannot read it.
        file: PathBuf,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keys of people and programs that give commands.
    #[command(subcommand)]
    Operator(OperatorCommand),
}

#[derive(Subcommand, Debug)]
pub enum OperatorCommand {
    /// Make a key file, and print the key that an administrator lets in.
    New { file: PathBuf },
    /// Let a key in.
    Add {
        /// 64 hexadecimal digits, as `operator new` printed them.
        #[arg(value_name = "KEY", value_parser = public_key)]
        operator: NodeId,
        #[arg(long)]
        right: RightName,
        /// For people.
        #[arg(long, default_value = "operator", value_parser = name)]
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Keys that were let in, and what each may do.
    Ls {
        #[command(flatten)]
        reach: Reach,
    },
    /// Withdraw a key, now; the last one that may administer stays.
    Revoke {
        /// A name, a key, or the beginning of a key.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        operator: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum TicketRole {
    Edge,
    Device,
}

/// Each includes those before it.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum RightName {
    Observe,
    Submit,
    Administer,
}

pub fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Ls { reach } => {
            let reply = ask(&reach, &Order::FleetList)?;
            if json {
                output::object(&reply);
            } else {
                print_machines(&reply);
            }
        }
        Command::Revoke { node, reach } => {
            let reply = ask(&reach, &Order::FleetRevoke { node: node.clone() })?;
            say(json, &reply, &format!("{node} is cut off"));
        }
        Command::Rotate { dir } => rotate(dir, json)?,
        Command::Ticket { role, uses, valid, roster, reach } => {
            ticket(role, uses, valid, roster.as_deref(), &reach, json)?;
        }
        Command::Roster { file, reach } => roster::sign(&file, &reach, json)?,
        Command::Operator(OperatorCommand::New { file }) => {
            let key = keys::load_or_create(&file)?.id().to_string();
            say(json, &json!({"key": key, "file": file.display().to_string()}), &key);
        }
        Command::Operator(OperatorCommand::Add { operator: key, right, name, reach }) => {
            let right = match right {
                RightName::Observe => Right::Observe,
                RightName::Submit => Right::Submit,
                RightName::Administer => Right::Administer,
            };
            let reply = ask(&reach, &Order::OperatorAdd { key: key.to_string(), name: name.clone(), right })?;
            say(json, &reply, &format!("{name} may {right:?}").to_lowercase());
        }
        Command::Operator(OperatorCommand::Ls { reach }) => {
            let reply = ask(&reach, &Order::OperatorList)?;
            if json {
                output::object(&reply);
            } else {
                print_operators(&reply);
            }
        }
        Command::Operator(OperatorCommand::Revoke { operator, reach }) => {
            let reply = ask(&reach, &Order::OperatorRevoke { operator: operator.clone() })?;
            say(json, &reply, &format!("{operator} is an operator no more"));
        }
    }
    Ok(())
}

fn public_key(text: &str) -> Result<NodeId, String> {
    text.parse().map_err(|_| "64 hexadecimal digits, as `littoral fleet operator new` prints them".into())
}

/// One command, one reply.
pub fn ask(reach: &Reach, order: &Order) -> Result<Value, Failure> {
    runtime()?.block_on(async {
        let mut operator = reach.dial().await?;
        let reply = operator.ask(order).await?;
        operator.close().await;
        Ok(reply)
    })
}

fn say(json: bool, value: &Value, line: &str) {
    if json { output::object(value) } else { output::line(line) }
}

fn print_machines(reply: &Value) {
    let machines = reply["machines"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |machine: &Value, field: &str| machine[field].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Vec<String>> = machines
        .iter()
        .map(|machine| {
            let data = machine["data"].as_object().into_iter().flatten();
            let data: Vec<String> = data.map(|(name, rows)| format!("{name} ({rows} rows)")).collect();
            let key = text(machine, "id").chars().take(8).collect();
            vec![
                text(machine, "name"),
                text(machine, "role"),
                text(machine, "state"),
                text(machine, "edge"),
                key,
                text(machine, "kernels"),
                data.join(", "),
            ]
        })
        .collect();
    output::table(&["NAME", "ROLE", "STATE", "EDGE", "KEY", "KERNELS", "DATA"], &rows);
}

fn print_operators(reply: &Value) {
    let operators = reply["operators"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |operator: &Value, field: &str| operator[field].as_str().unwrap_or_default().to_owned();
    let row = |operator: &Value| vec![text(operator, "name"), text(operator, "right"), text(operator, "key")];
    output::table(&["NAME", "RIGHT", "KEY"], &operators.iter().map(row).collect::<Vec<_>>());
}

fn ticket(
    role: TicketRole,
    uses: u32,
    valid_ms: u64,
    roster: Option<&Path>,
    reach: &Reach,
    json: bool,
) -> Result<(), Failure> {
    let roster = roster.map(roster::public_key).transpose()?;
    let (role, name) = match role {
        TicketRole::Edge => (Role::Edge, "edge"),
        TicketRole::Device => (Role::Device, "device"),
    };
    // Drawn here, and the cloud keeps its hash only.
    let secret = keys::random().map_err(Failure::from)?;
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let reply = ask(reach, &Order::Ticket { role: name.into(), uses, valid_ms, secret: digits })?;
    let part = |field: &str| reply[field].as_str().unwrap_or_default().to_owned();
    let cloud: NodeId =
        part("cloud").parse().map_err(|e| Failure::new("no ticket made", "the cloud's reply", "the cloud's key", e))?;
    // Of a cloud of replicas any will do.
    let replicas = reply["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).take(ADDRESSES_MAX);
    let mut addresses: Vec<_> = replicas.map(Text::new).collect();
    if addresses.is_empty() {
        addresses.push(Text::new(part("address")));
    }
    let addresses =
        List::new(addresses).map_err(|_| Failure::new("no ticket made", "address", "at most 8 addresses", "more"))?;
    let ticket = Ticket { cloud, secret, role, addresses, roster }.to_string();
    say(json, &json!({"ticket": ticket, "role": name, "uses": uses, "valid_ms": valid_ms}), &ticket);
    Ok(())
}

fn rotate(dir: Option<PathBuf>, json: bool) -> Result<(), Failure> {
    let dir = dir_or_environment(dir)
        .or_else(|| [DEVICE_DIR, EDGE_DIR].map(PathBuf::from).into_iter().find(|dir| dir.exists()))
        .unwrap_or_else(|| DEVICE_DIR.into());
    let network = if dir.join(EdgeConfig::FILE_NAME).exists() {
        EdgeConfig::load(None, Some(&dir))?.0.network
    } else {
        DeviceConfig::load(None, Some(&dir))?.0.network
    };
    let id = runtime()?.block_on(deploy::rotate(Path::new(&dir), &network))?;
    say(json, &json!({"key": id.to_string(), "dir": dir.display().to_string()}), &format!("the new key is {id}"));
    Ok(())
}
