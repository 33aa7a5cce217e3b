//! `littoral bench secagg`: what secure aggregation costs devices and the server.
//!
//! Every device and the server walk through the whole protocol on this machine, each message through its bytes; values have
//! 16 bits, words as many as the sum of all devices needs. Devices are shared over the threads, and so is the server's work.
//! Some devices drop out after sharing (`--dropout`), so that their masks must be opened.
//!
//! *total_s* is all of it, wall clock; *server_s* the server's part, adding up the vectors included; *client_s_median* one
//! device's part on one thread. *bytes_per_client* counts all messages of a device that stayed, both ways, and its vector; the
//! proof that an identity is on the roster is not in it, since that is not the protocol's. *formula_bytes_per_client* is
//! ceil(params * bits / 8) + 7 * degree * 32, what such implementations are compared by (it counts no signatures).
//! *prg_gb_per_s* is the generator alone, *mask_gb_per_s* a device's masks generated and added, both on one thread, taken in
//! turn. Figures without a prefix are for `--threat`; those with `active_` for threat `active`, or `active_skipped` says why there
//! are none.

mod session;

use self::session::{Figures, Setting, play};
use super::{Report, machine};
use crate::output::{Failure, talk};
use crate::usage;
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::prg::Prg;
use serde_json::{Map, Value, json};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Devices that are invited.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    devices: u32,
    /// Parameters of the model.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    params: u32,
    /// The share of devices that colludes with the server.
    #[arg(long, default_value_t = 1.0 / 3.0, value_parser = usage::share)]
    adversary: f64,
    /// The share of devices that may drop out.
    #[arg(long, default_value_t = 0.1, value_parser = usage::share)]
    max_dropout: f64,
    /// The share that really drops out, after it shared its secrets.
    #[arg(long, default_value_t = 0.0, value_parser = usage::share)]
    dropout: f64,
    /// What the server may do, in the figures without a prefix.
    #[arg(long, value_enum, default_value_t = ThreatName::Honest)]
    threat: ThreatName,
    /// The generator of masks.
    #[arg(long, value_enum, default_value_t = PrgName::Aes128Ctr)]
    prg: PrgName,
    /// Of keys, values and who drops out.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Threads; all cores by default.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
pub(super) enum ThreatName {
    /// It follows the protocol.
    Honest,
    /// It may lie.
    Active,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum PrgName {
    Aes128Ctr,
    Chacha20,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    if args.dropout > args.max_dropout {
        return Err(Failure::usage("--dropout", "at most --max-dropout", args.dropout));
    }
    machine::keep_freed_memory();
    let threat = if args.threat == ThreatName::Active { Threat::Active } else { Threat::Honest };
    let find = |threat| Parameters::find(args.devices, args.adversary, args.max_dropout, threat);
    let parameters = find(threat).map_err(|e| {
        Failure::new(
            "there is no such secure aggregation",
            "--adversary, --max-dropout",
            "shares that a graph withstands",
            e,
        )
    })?;
    let figures = measure(args, parameters)?;
    let mut numbers = Map::new();
    let mut rows = Vec::new();
    put(&figures, "", &mut numbers, &mut rows);
    match find(Threat::Active) {
        Ok(_) if threat == Threat::Active => put(&figures, "active_", &mut numbers, &mut Vec::new()),
        Ok(parameters) => put(&measure(args, parameters)?, "active_", &mut numbers, &mut rows),
        Err(why) => {
            numbers.insert("active_skipped".into(), why.to_string().into());
            rows.push(["active_skipped".into(), why.to_string()]);
        }
    }
    Ok(Report { numbers: Value::Object(numbers), rows })
}

fn measure(args: &Args, parameters: Parameters) -> Result<Figures, Failure> {
    talk(&format!(
        "threat {}: {} neighbours, {} of them open a secret",
        parameters.threat, parameters.degree, parameters.threshold
    ));
    play(&Setting {
        parameters,
        params: args.params,
        dropped: (args.dropout * f64::from(args.devices)) as u32,
        prg: match args.prg {
            PrgName::Aes128Ctr => Prg::Aes128Ctr,
            PrgName::Chacha20 => Prg::ChaCha20,
        },
        seed: args.seed,
        threads: args.threads.map_or_else(machine::cores, usize::from),
    })
}

fn put(figures: &Figures, prefix: &str, numbers: &mut Map<String, Value>, rows: &mut Vec<[String; 2]>) {
    let all = json!({
        "total_s": figures.total_s,
        "server_s": figures.server_s,
        "client_s_median": figures.client_s_median,
        "bytes_per_client": figures.bytes_per_client,
        "formula_bytes_per_client": figures.formula_bytes_per_client,
        "max_abs_error": figures.max_abs_error,
        "prg_gb_per_s": figures.prg_gb_per_s,
        "mask_gb_per_s": figures.mask_gb_per_s,
        "degree": figures.degree,
        "threshold": figures.threshold,
    });
    for (name, value) in all.as_object().into_iter().flatten() {
        let shown = value.as_f64().filter(|_| value.is_f64()).map_or(value.to_string(), |value| format!("{value:.4}"));
        rows.push([format!("{prefix}{name}"), shown]);
        numbers.insert(format!("{prefix}{name}"), value.clone());
    }
}
