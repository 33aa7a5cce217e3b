//! What a role finds on its disk when it starts again: rows, which a fault of the disk may have changed. The first byte
//! chooses: one record, a cloud with a job, a device.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fed::round::Record;
use littoral_fuzz::canonical;
use littoral_fuzz::host::{Host, NOW_MS};
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::device::{Device, DeviceIdentity};
use littoral_node::role::{Entropy, Event, LinkId, Row, RowKey, Table, Timer};
use littoral_wire::message::{OFFERS_MAX, Role};
use littoral_wire::{JobId, List, Message, NodeId, SecretKey};

const LINK: LinkId = LinkId(1);
const EDGE: NodeId = NodeId([3; 32]);
const MINUTE_MS: u64 = 60_000;
const JOB: &str = r#"
    name = "job"
    model = { kind = "softmax" }
    algorithm = { name = "fedavg" }
    local = { optimiser = { name = "sgd", learning_rate = 0.1 } }
    cohort = { target = 2, min = 1 }
    rounds = { count = 2 }
    [data]
    set = "set"
    schema = { label = { name = "y", classes = ["no", "yes"] }, fields = [{ name = "x" }] }
"#;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 3 {
        0 => drop(canonical::<Record>(bytes)),
        1 => cloud(rows(bytes)),
        _ => device(rows(bytes)),
    }
});

/// Rows of: table, job, length of the item, item, length of the value (two bytes), value. A record's item is its number,
/// as the cloud writes it.
fn rows(mut bytes: &[u8]) -> Vec<Row> {
    let mut found = Vec::new();
    while let Some(row) = row(&mut bytes, found.len()) {
        found.push(row);
    }
    found
}

fn row(bytes: &mut &[u8], number: usize) -> Option<Row> {
    let mut cut = |len: usize| {
        let (head, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        Some(head)
    };
    let [table, job, item_len] = *cut(3)?.first_chunk()?;
    let table = Table::ALL[usize::from(table) % Table::ALL.len()];
    let mut item = cut(usize::from(item_len))?.to_vec();
    if table == Table::Record {
        item = (number as u64).to_be_bytes().to_vec();
    }
    let value_len = u16::from_le_bytes(*cut(2)?.first_chunk()?);
    let value = cut(usize::from(value_len))?.to_vec();
    Some(Row { key: RowKey { table, job: JobId(u64::from(job)), version: 0, item }, value })
}

fn cloud(mut rows: Vec<Row>) {
    let job = serde_json::json!({"toml": JOB, "submitted_by": "first", "at_ms": 1});
    let key = RowKey { table: Table::Job, job: JobId(1), version: 0, item: Vec::new() };
    rows.push(Row { key, value: job.to_string().into_bytes() });
    let identity = CloudIdentity {
        key: SecretKey::from_bytes([1; 32]),
        name: "cloud".into(),
        listen: "cloud:1".into(),
        epoch: 2,
        entropy: Entropy::new([2; 32]),
        replicas: Vec::new(),
    };
    let mut host = Host::default();
    let mut cloud = Cloud::new(identity, rows);
    cloud.install_machine(EDGE, Role::Edge, "edge");
    cloud.install_machine(NodeId([4; 32]), Role::Device, "device");
    host.step(&mut cloud, NOW_MS, Event::Start);
    host.step(
        &mut cloud,
        NOW_MS,
        Event::Connected { link: LINK, peer: EDGE, dialled: false, kernels: Default::default() },
    );
    let attached = Message::EdgeAttach { name: "edge".into(), listen: "edge:1".into(), open: List::default() };
    host.step(&mut cloud, NOW_MS, Event::Received { link: LINK, message: attached });
    for minute in 1..=4 {
        let now = NOW_MS + minute * MINUTE_MS;
        host.step(&mut cloud, now, Event::Timer(Timer::Tick));
        host.step(&mut cloud, now, Event::Timer(Timer::Job(JobId(1))));
    }
}

/// A device tells its edge what it still holds, and offers it.
fn device(rows: Vec<Row>) {
    let identity = DeviceIdentity {
        key: SecretKey::from_bytes([4; 32]),
        name: "device".into(),
        cloud: NodeId([1; 32]),
        upstreams: Vec::new(),
        data: Vec::new(),
        roster: None,
        masks: None,
        group_min: 3,
        entropy: Entropy::new([4; 32]),
    };
    let mut host = Host::default();
    let mut device = Device::new(identity, rows);
    host.step(&mut device, NOW_MS, Event::Start);
    host.step(
        &mut device,
        NOW_MS,
        Event::Connected { link: LINK, peer: EDGE, dialled: true, kernels: Default::default() },
    );
    let Some(Message::Attach { held, .. }) = host.sent.pop() else { panic!("a device that does not attach") };
    let attached = Message::Attached { cloud: NodeId([1; 32]), upstreams: List::default() };
    host.step(&mut device, NOW_MS, Event::Received { link: LINK, message: attached });
    let offers = host.sent.iter().filter(|message| matches!(message, Message::Offer { .. })).count();
    assert!(offers >= held.len() && held.len() <= OFFERS_MAX);
    host.step(&mut device, NOW_MS + MINUTE_MS, Event::Timer(Timer::Tick));
}
