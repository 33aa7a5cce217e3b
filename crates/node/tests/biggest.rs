//! The biggest there can be of a model and of a fleet: what is told of them fits the messages that tell it.

use littoral_node::role::cloud::command::{Command, Right};
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::{Effect, Entropy, Event, LinkId, Role};
use littoral_node::work::Output;
use littoral_wire::message::{
    ANSWER_BYTES_MAX, COHORT_MAX, COMMAND_DOMAIN, MESSAGE_BYTES_MAX, Role as Part, command_bytes,
};
use littoral_wire::object::{CHUNK_BYTES, CHUNKS_MAX};
use littoral_wire::{Blob, Chain, JobId, Manifest, Message, NodeId, SecretKey, Wire};

fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

fn said(cloud: &mut Cloud, event: Event) -> Vec<Message> {
    let mut effects = Vec::new();
    cloud.step(0, event, &mut effects);
    let message = |e| if let Effect::Send { message, .. } = e { Some(message) } else { None };
    effects.into_iter().filter_map(message).collect()
}

/// Nonce 5.
fn eve_asks(command: &Command) -> Message {
    let body = serde_json::to_vec(command).unwrap();
    let signature = key("eve").sign(COMMAND_DOMAIN, &command_bytes(key("cloud").id(), &body, 5, 0));
    Message::Command { body: Blob::new(body).unwrap(), nonce: 5, issued_at_ms: 0, signature }
}

#[test]
fn a_job_with_the_biggest_model_is_shown_and_its_manifest_told() {
    let identity = CloudIdentity {
        key: key("cloud"),
        name: "cloud".into(),
        listen: "cloud:1".into(),
        epoch: 1,
        replicas: Vec::new(),
        entropy: Entropy::new([1; 32]),
    };
    let mut cloud = Cloud::new(identity, Vec::new());
    let mut effects = Vec::new();
    cloud.install_operator(key("eve").id(), "eve", Right::Observe, &mut effects);
    cloud.submit(0, littoral_node::job::SAMPLE_TOML, &mut effects).unwrap();
    let ordered = |e: &Effect| if let Effect::Work { id, .. } = e { Some(*id) } else { None };
    let id = effects.iter().find_map(ordered).expect("version 0 is ordered");
    let (eve, stranger) = (LinkId(1), LinkId(2));
    said(
        &mut cloud,
        Event::Connected { link: eve, peer: key("eve").id(), dialled: false, kernels: Default::default() },
    );
    said(
        &mut cloud,
        Event::Connected { link: stranger, peer: key("mallory").id(), dialled: false, kernels: Default::default() },
    );
    let ask = |job| Message::GetModel { job: JobId(job) };
    let early = said(&mut cloud, Event::Received { link: eve, message: ask(1) });
    assert!(matches!(&early[..], [Message::Denied { .. }]), "{early:?}");

    let model = Manifest::from_hashes((CHUNKS_MAX * CHUNK_BYTES) as u64, vec![[7; 32]; CHUNKS_MAX]).unwrap();
    said(&mut cloud, Event::Worked { id, result: Ok(Output::Initial { model: model.clone(), state: None }) });

    let shown = said(&mut cloud, Event::Received { link: eve, message: eve_asks(&Command::JobShow { job: 1 }) });
    let [Message::Reply { nonce: 5, body, more: false, last: true }] = &shown[..] else { panic!("{shown:?}") };
    let shown: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(shown["model"], model.id().to_string(), "{shown}");
    assert_eq!(shown["model_bytes"], model.bytes());

    let told = said(&mut cloud, Event::Received { link: eve, message: ask(1) });
    assert_eq!(told, [Message::Model { job: JobId(1), version: 0, model, before: Chain::default() }]);
    assert!(told[0].to_bytes().len() <= MESSAGE_BYTES_MAX);
    for (link, job) in [(stranger, 1), (eve, 2)] {
        let refused = said(&mut cloud, Event::Received { link, message: ask(job) });
        assert!(matches!(&refused[..], [Message::Denied { .. }]), "{refused:?}");
    }
}

#[test]
fn a_fleet_as_big_as_a_cohort_is_listed_in_parts() {
    let identity = CloudIdentity {
        key: key("cloud"),
        name: "cloud".into(),
        listen: "cloud:1".into(),
        epoch: 1,
        replicas: Vec::new(),
        entropy: Entropy::new([1; 32]),
    };
    let mut cloud = Cloud::new(identity, Vec::new());
    cloud.install_operator(key("eve").id(), "eve", Right::Observe, &mut Vec::new());
    let name = |machine: u32| format!("{:-<60}{machine:04x}", "ward");
    for machine in 0..COHORT_MAX as u32 {
        let mut id = [1; 32];
        id[..4].copy_from_slice(&machine.to_be_bytes());
        cloud.install_machine(NodeId(id), Part::Device, &name(machine));
    }
    let eve = LinkId(1);
    said(
        &mut cloud,
        Event::Connected { link: eve, peer: key("eve").id(), dialled: false, kernels: Default::default() },
    );
    let parts = said(&mut cloud, Event::Received { link: eve, message: eve_asks(&Command::FleetList) });
    let mut answer = Vec::new();
    for (at, part) in (1..).zip(&parts) {
        let Message::Reply { nonce: 5, body, more, last: true } = part else { panic!("{part:?}") };
        assert_eq!(*more, at < parts.len());
        answer.extend_from_slice(body);
    }
    assert!(parts.len() > 1 && answer.len() <= ANSWER_BYTES_MAX, "{} bytes", answer.len());
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let machines = answer["machines"].as_array().unwrap();
    assert_eq!(machines.len(), COHORT_MAX);
    assert_eq!(machines[COHORT_MAX - 1]["name"], name(COHORT_MAX as u32 - 1));
}
