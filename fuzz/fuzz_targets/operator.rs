//! What comes from operators. An even first byte: commands, one per line, of an operator who may do everything. An odd one:
//! the record of a run as a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::host::{Host, NOW_MS};
use littoral_node::deploy::replay::RunRecord;
use littoral_node::role::cloud::command::Right;
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::{Entropy, Event, LinkId, Row};
use littoral_wire::message::{COMMAND_DOMAIN, command_bytes};
use littoral_wire::{Blob, Message, SecretKey};
use serde_json::Value;

/// Commands in one input.
const COMMANDS_MAX: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    if choice.is_multiple_of(2) { commands(bytes) } else { record(bytes) }
});

fn commands(bytes: &[u8]) {
    let mut at = Desk::open(Vec::new());
    for body in bytes.split(|byte| *byte == b'\n').take(COMMANDS_MAX) {
        let answer = at.ask(body);
        if let Some(error) = answer.get("error") {
            for part in ["what", "where", "expected", "got"] {
                let said = error[part].as_str().expect("all parts of an error");
                assert!(!said.contains(char::is_control), "not one line: {said:?}");
            }
        }
    }
    // What was answered is durable: a cloud that starts again says the same.
    let mut again = Desk::open(at.host.rows());
    for question in [&b"{\"command\":\"job_list\"}"[..], b"{\"command\":\"fleet_list\"}"] {
        assert_eq!(at.ask(question), again.ask(question));
    }
}

/// A cloud and its first operator.
struct Desk {
    host: Host,
    cloud: Cloud,
    cloud_key: SecretKey,
    operator: SecretKey,
    nonce: u64,
}

const LINK: LinkId = LinkId(1);

impl Desk {
    fn open(rows: Vec<Row>) -> Self {
        let (cloud_key, operator) = (SecretKey::from_bytes([1; 32]), SecretKey::from_bytes([2; 32]));
        let host =
            Host { rows: rows.iter().map(|row| (row.key.clone(), row.value.clone())).collect(), sent: Vec::new() };
        let identity = CloudIdentity {
            key: cloud_key.clone(),
            name: "cloud".into(),
            listen: "cloud:1".into(),
            epoch: 1,
            entropy: Entropy::new([1; 32]),
            replicas: Vec::new(),
        };
        let mut cloud = Cloud::new(identity, rows);
        cloud.install_operator(operator.id(), "first", Right::Administer, &mut Vec::new());
        let mut desk = Self { host, cloud, cloud_key, operator, nonce: 0 };
        desk.host.step(&mut desk.cloud, NOW_MS, Event::Start);
        let connected =
            Event::Connected { link: LINK, peer: desk.operator.id(), dialled: false, kernels: Default::default() };
        desk.host.step(&mut desk.cloud, NOW_MS, connected);
        desk
    }

    /// Every command has one answer of its own, in JSON.
    fn ask(&mut self, body: &[u8]) -> Value {
        self.nonce += 1;
        let nonce = self.nonce;
        let signed = command_bytes(self.cloud_key.id(), body, nonce, NOW_MS);
        let signature = self.operator.sign(COMMAND_DOMAIN, &signed);
        let body = Blob::new(body.to_vec()).expect("a short command");
        let message = Message::Command { body, nonce, issued_at_ms: NOW_MS, signature };
        self.host.sent.clear();
        self.host.step(&mut self.cloud, NOW_MS, Event::Received { link: LINK, message });
        let mut answer = Vec::new();
        for message in &self.host.sent {
            match message {
                Message::Reply { nonce: of, body, more, .. } if *of == nonce => {
                    answer.extend_from_slice(body);
                    if !more {
                        break;
                    }
                }
                _ => {}
            }
        }
        serde_json::from_slice(&answer).expect("an answer in JSON")
    }
}

/// What was read can be written, and is the same then.
fn record(bytes: &[u8]) {
    if let Ok(record) = serde_json::from_slice::<RunRecord>(bytes) {
        let written = serde_json::to_vec(&record).expect("a record as JSON");
        assert_eq!(serde_json::from_slice::<RunRecord>(&written).expect("a record that we wrote"), record);
    }
}
