//! How fast the transports are on this machine, and what an idle connection costs.
//!
//! ```text
//! cargo run --release -p littoral-node --example transport_speed [-- tcp | quic] [MiB] [IDLE]
//! ```
//!
//! Two processes on loopback: this one and a child that echoes, swallows or just holds connections. Per transport:
//! round trip of a 16 KiB frame (p50, p99 of 5,000), MB/s of `MiB` (256) in 1 MiB frames one way, and the growth of the
//! child's resident memory per connection over `IDLE` (500) connections that each echoed 16 KiB once. MB = 10^6 bytes.

use bytes::Bytes;
use littoral_node::transport::{Address, AutoOptions, AutoTransport, Connection, Identity, Mode, Transport};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 5_000;
const WARM_UPS: usize = 500;
const ECHO_BYTES: usize = 16 << 10;
const FRAME_BYTES: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        return serve().await;
    }
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let mebibytes = numbers.first().copied().unwrap_or(256);
    let idle = numbers.get(1).copied().unwrap_or(500);
    for (name, mode) in [("tcp", Mode::Tcp), ("quic", Mode::Quic)] {
        if arguments.iter().any(|argument| matches!(argument.as_str(), "tcp" | "quic") && argument != name) {
            continue;
        }
        let mut server = Server::start()?;
        let dialler = AutoTransport::dialler(&Identity::from_secret(&[2; 32]), None, AutoOptions::default()).await?;
        let (p50_us, p99_us) = echo(dialler.dial(&server.address, mode).await?).await?;
        let mut speeds = Vec::new();
        for _ in 0..5 {
            speeds.push(stream(dialler.dial(&server.address, mode).await?, mebibytes).await?);
        }
        speeds.sort_by(f64::total_cmp);
        let idle_kb = memory(&mut server, mode, idle).await?;
        println!(
            "{name}: 16 KiB echo p50 {p50_us:.0} us, p99 {p99_us:.0} us; {mebibytes} MiB one way {:.0} MB/s (best {:.0}); \
             {idle_kb:.1} KB per idle connection at the listener",
            speeds[2], speeds[4]
        );
        dialler.close().await;
        server.child.kill()?;
        server.child.wait()?;
    }
    Ok(())
}

struct Server {
    child: Child,
    address: Address,
}

impl Server {
    fn start() -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("serve").stdout(Stdio::piped()).stdin(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().ok_or("no output")?).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse()?, child })
    }

    /// Resident kilobytes (10^3), from Linux's /proc.
    fn resident_kb(&self) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
        Ok(kib * 1.024)
    }
}

/// The child: short frames come back, long ones are swallowed.
async fn serve() -> Result<(), Failure> {
    let at = "127.0.0.1:0".parse()?;
    let listener = AutoTransport::listen(&Identity::from_secret(&[1; 32]), at, AutoOptions::default()).await?;
    println!("{}", listener.local_addresses()[0]);
    std::io::stdout().flush()?;
    loop {
        let (mut sender, mut receiver) = listener.accept().await?.split();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = receiver.recv().await {
                if frame.len() <= ECHO_BYTES {
                    sender.send(frame).await?;
                    sender.flush().await?;
                }
            }
            sender.close(0, "").await
        });
    }
}

async fn echo(connection: Connection) -> Result<(f64, f64), Failure> {
    let (mut sender, mut receiver) = connection.split();
    let frame = Bytes::from(vec![3; ECHO_BYTES]);
    let mut times_us = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UPS + ROUNDS {
        let begin = Instant::now();
        sender.send(frame.clone()).await?;
        sender.flush().await?;
        receiver.recv().await?;
        if round >= WARM_UPS {
            times_us.push(begin.elapsed().as_secs_f64() * 1e6);
        }
    }
    times_us.sort_by(f64::total_cmp);
    sender.close(0, "").await?;
    Ok((times_us[ROUNDS / 2], times_us[ROUNDS * 99 / 100]))
}

async fn stream(connection: Connection, mebibytes: usize) -> Result<f64, Failure> {
    let (mut sender, mut receiver) = connection.split();
    let frame = Bytes::from(vec![3; FRAME_BYTES]);
    let begin = Instant::now();
    for _ in 0..mebibytes {
        sender.send(frame.clone()).await?;
    }
    // The clock stops when the last byte has been received over there.
    sender.send(Bytes::from_static(b"all?")).await?;
    sender.flush().await?;
    receiver.recv().await?.ok_or("an answer")?;
    let speed = (mebibytes * FRAME_BYTES) as f64 / begin.elapsed().as_secs_f64() / 1e6;
    sender.close(0, "").await?;
    Ok(speed)
}

async fn memory(server: &mut Server, mode: Mode, connections: usize) -> Result<f64, Failure> {
    let before_kb = server.resident_kb()?;
    let mut held = Vec::new();
    for index in 0..connections {
        // QUIC: one endpoint per device, as in a fleet.
        let identity = Identity::from_secret(&std::array::from_fn(|byte| (index >> (8 * (byte % 2))) as u8 ^ 0xa5));
        let device = AutoTransport::dialler(&identity, None, AutoOptions::default()).await?;
        let (mut sender, mut receiver) = device.dial(&server.address, mode).await?.split();
        sender.send(vec![1; ECHO_BYTES].into()).await?;
        sender.flush().await?;
        receiver.recv().await?;
        held.push((device, sender, receiver));
    }
    Ok((server.resident_kb()? - before_kb) / connections as f64)
}
