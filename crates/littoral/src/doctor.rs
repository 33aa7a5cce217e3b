//! `littoral doctor`: what this machine is and what is missing.

use crate::input::{dir_or_environment, runtime};
use crate::output::{self, Failure};
use littoral_node::config::{Network, TransportName};
use littoral_node::transport::{Address, Identity, QuicTransport, TcpTransport, Transport, TransportError};
use littoral_tensor::quant::KERNELS;
use littoral_wire::hello::PROTOCOL;
use serde_json::{Map, Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// A state folder to look at, too.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was looked at: a name, what is there, and what to do if that will not do.
struct Finding {
    name: &'static str,
    found: Value,
    missing: Option<String>,
}

/// 1 January 2024: before it, this program was not there.
const EARLIEST_S: u64 = 1_704_067_200;

pub fn run(args: Args, json: bool) -> Result<(), Failure> {
    let mut findings = vec![cores(), memory(), processor(), kernels(), clock(), temporary_folder()];
    findings.extend(transports()?);
    if let Some(dir) = dir_or_environment(args.dir) {
        findings.push(state_folder(&dir));
    }
    let missing: Vec<String> =
        findings.iter().filter_map(|f| f.missing.as_ref().map(|hint| format!("{}: {hint}", f.name))).collect();
    if json {
        let mut object: Map<String, Value> = findings.iter().map(|f| (f.name.to_owned(), f.found.clone())).collect();
        object.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        object.insert("protocol".into(), PROTOCOL.into());
        object.insert("platform".into(), format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH).into());
        object.insert("missing".into(), missing.into());
        output::object(&Value::Object(object));
        return Ok(());
    }
    output::line(&format!(
        "littoral {} on {}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    ));
    for finding in &findings {
        let mark = if finding.missing.is_some() { "missing" } else { "ok" };
        let found = match &finding.found {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            other => other.to_string(),
        };
        output::line(&format!("  {:<16} {mark:<8} {found}", finding.name));
    }
    missing.iter().for_each(|hint| output::talk(&format!("hint: {hint}")));
    Ok(())
}

fn cores() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    Finding { name: "cores", found: cores.into(), missing: None }
}

fn memory() -> Finding {
    let kib = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_owned();
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let mb = kib.map_or(0, |kib| kib * 1024 / 1_000_000);
    let missing = (kib.is_some() && mb < 200).then(|| "less than 200 MB are free".to_owned());
    Finding { name: "memory_free_mb", found: mb.into(), missing }
}

fn processor() -> Finding {
    #[cfg(target_arch = "x86_64")]
    let sets = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let sets: [(&str, bool); 0] = [];
    let found: Vec<&str> = sets.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    let slow = cfg!(target_arch = "x86_64") && !found.contains(&"avx2");
    let missing = slow.then(|| "without AVX2 training is several times slower".to_owned());
    Finding { name: "processor", found: found.into(), missing }
}

/// How language models are computed: exact work is shared with machines that have the same.
fn kernels() -> Finding {
    Finding { name: "kernels", found: KERNELS.into(), missing: None }
}

fn clock() -> Finding {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let missing = (seconds < EARLIEST_S).then(|| "the clock is wrong: commands and tickets will be refused".to_owned());
    Finding { name: "clock_s", found: seconds.into(), missing }
}

fn temporary_folder() -> Finding {
    let dir = std::env::temp_dir();
    let missing = write_in(&dir).err().map(|e| format!("{} cannot be written: {e}", dir.display()));
    Finding { name: "temporary_folder", found: dir.display().to_string().into(), missing }
}

fn write_in(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!("littoral-doctor-{}", std::process::id()));
    fs::write(&probe, b"probe")?;
    fs::remove_file(&probe)
}

/// Whether machines could talk on this one at all: a connection to ourselves over each transport.
fn transports() -> Result<Vec<Finding>, Failure> {
    let runtime = runtime()?;
    let of = |name, kind| {
        let missing = runtime.block_on(loopback(kind)).err().map(|e| e.to_string());
        let found = if missing.is_some() { "no connection to this machine itself" } else { "loopback works" };
        Finding { name, found: found.into(), missing }
    };
    Ok(vec![of("tcp", TransportName::Tcp), of("quic", TransportName::Quic)])
}

async fn loopback(kind: TransportName) -> Result<(), TransportError> {
    let (here, there) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options = Network::default().options();
    let (listener, dialler): (Box<dyn Transport>, Box<dyn Transport>) = match kind {
        TransportName::Quic => (
            Box::new(QuicTransport::listen(&there, at, options.quic.clone()).await?),
            Box::new(QuicTransport::dialler(&here, None, options.quic).await?),
        ),
        _ => (
            Box::new(TcpTransport::listen(&there, at, options.tcp.clone()).await?),
            Box::new(TcpTransport::dialler(&here, options.tcp)?),
        ),
    };
    let address: Option<Address> = listener.local_addresses().first().cloned();
    let address = address.ok_or(TransportError::InvalidAddress { expected: "an address", got: "none".into() })?;
    // A dial that fails ends the waiting for it.
    tokio::try_join!(dialler.connect(&address), listener.accept())?;
    tokio::join!(dialler.close(), listener.close());
    Ok(())
}

fn state_folder(dir: &Path) -> Finding {
    let roles = ["cloud.toml", "edge.toml", "device.toml", "enrolment.toml", "address", "littoral.sqlite"];
    let there: Vec<&str> = roles.into_iter().filter(|file| dir.join(file).exists()).collect();
    let missing = match (dir.is_dir(), write_in(dir)) {
        (false, _) => Some(format!("{} is not a folder", dir.display())),
        (true, Err(e)) => Some(format!("{} cannot be written: {e}", dir.display())),
        (true, Ok(())) => None,
    };
    Finding { name: "state_folder", found: json!({"dir": dir.display().to_string(), "files": there}), missing }
}
