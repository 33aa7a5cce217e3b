//! The biggest model there can be: what is told of it fits the messages that tell it.

use littoral_node::role::cloud::command::{Command, Right};
use littoral_node::role::cloud::{Cloud, CloudIdentity};
use littoral_node::role::{Effect, Event, LinkId, Role};
use littoral_node::work::Output;
use littoral_wire::message::{COMMAND_DOMAIN, MESSAGE_BYTES_MAX, command_bytes};
use littoral_wire::object::{CHUNK_BYTES, CHUNKS_MAX};
use littoral_wire::{Blob, JobId, Manifest, Message, SecretKey, Wire};

fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(*blake3::hash(name.as_bytes()).as_bytes())
}

fn said(cloud: &mut Cloud, event: Event) -> Vec<Message> {
    let mut effects = Vec::new();
    cloud.step(0, event, &mut effects);
    let message = |e| if let Effect::Send { message, .. } = e { Some(message) } else { None };
    effects.into_iter().filter_map(message).collect()
}

#[test]
fn a_job_with_the_biggest_model_is_shown_and_its_manifest_told() {
    let identity = CloudIdentity { key: key("cloud"), name: "cloud".into(), listen: "cloud:1".into(), epoch: 1 };
    let mut cloud = Cloud::new(identity, Vec::new());
    let mut effects = Vec::new();
    cloud.install_operator(key("eve").id(), "eve", Right::Observe, &mut effects);
    cloud.submit(0, littoral_node::job::SAMPLE_TOML, &mut effects).unwrap();
    let ordered = |e: &Effect| if let Effect::Work { id, .. } = e { Some(*id) } else { None };
    let id = effects.iter().find_map(ordered).expect("version 0 is ordered");
    let (eve, stranger) = (LinkId(1), LinkId(2));
    said(&mut cloud, Event::Connected { link: eve, peer: key("eve").id(), dialled: false });
    said(&mut cloud, Event::Connected { link: stranger, peer: key("mallory").id(), dialled: false });
    let ask = |job| Message::GetModel { job: JobId(job) };
    let early = said(&mut cloud, Event::Received { link: eve, message: ask(1) });
    assert!(matches!(&early[..], [Message::Denied { .. }]), "{early:?}");

    let model = Manifest::from_hashes((CHUNKS_MAX * CHUNK_BYTES) as u64, vec![[7; 32]; CHUNKS_MAX]).unwrap();
    said(&mut cloud, Event::Worked { id, result: Ok(Output::Initial { model: model.clone(), state: None }) });

    let body = serde_json::to_vec(&Command::JobShow { job: 1 }).unwrap();
    let signature = key("eve").sign(COMMAND_DOMAIN, &command_bytes(key("cloud").id(), &body, 5, 0));
    let message = Message::Command { body: Blob::new(body).unwrap(), nonce: 5, issued_at_ms: 0, signature };
    let shown = said(&mut cloud, Event::Received { link: eve, message });
    let [Message::Reply { nonce: 5, body, last: true }] = &shown[..] else { panic!("{shown:?}") };
    let shown: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!(shown["model"], model.id().to_string(), "{shown}");
    assert_eq!(shown["model_bytes"], model.bytes());

    let told = said(&mut cloud, Event::Received { link: eve, message: ask(1) });
    assert_eq!(told, [Message::Model { job: JobId(1), version: 0, model }]);
    assert!(told[0].to_bytes().len() <= MESSAGE_BYTES_MAX);
    for (link, job) in [(stranger, 1), (eve, 2)] {
        let refused = said(&mut cloud, Event::Received { link, message: ask(job) });
        assert!(matches!(&refused[..], [Message::Denied { .. }]), "{refused:?}");
    }
}
