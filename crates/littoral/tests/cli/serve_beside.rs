//! `[serve]` in the files of a fleet's machines: a cloud and a device that train together also answer together, by the same
//! keys.

use super::tiny;
use super::world::{Folder, Machine, json, until};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The head and the body of a reply.
fn ask(url: &str, said: &str) -> Value {
    let at = url.strip_prefix("http://").unwrap();
    let body = format!(
        "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{said}\"}}], \"max_tokens\": 12, \"temperature\": 0}}"
    );
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\ncontent-type: application/json"
    );
    write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|e| panic!("{e}: {reply}"))
}

#[test]
fn machines_of_a_fleet_serve_by_their_keys() {
    let folder = Folder::new("serve-beside");
    let (cloud_dir, device_dir) = (folder.path("cloud"), folder.path("ward"));
    let cloud_file = format!("listen = \"127.0.0.1:0\"\n{TCP}");
    folder.write("cloud/cloud.toml", &cloud_file);
    folder.write("ward/device.toml", TCP);
    fs::write(cloud_dir.join("large.gguf"), tiny::gguf(true)).unwrap();
    fs::write(device_dir.join("small.gguf"), tiny::gguf_of(Some(tiny::TEMPLATE), 8)).unwrap();
    // A device is let in; then the cloud is told to verify for it, by the key that it has in the fleet.
    let cloud = Machine::start("cloud", &cloud_dir);
    let of_cloud = ["--dir", text(&cloud_dir)];
    let ticket = json(&[&["fleet", "ticket", "--role", "device"][..], &of_cloud].concat());
    let joined = json(&["join", ticket["ticket"].as_str().unwrap(), "--name", "ward", "--dir", text(&device_dir)]);
    let key = joined["id"].as_str().unwrap_or_else(|| panic!("{joined}")).to_owned();
    assert_eq!(cloud.terminate(), 0);
    let serve = format!(
        "[serve]\nmodel = \"large.gguf\"\nlisten = \"127.0.0.1:0\"\nverify = \"127.0.0.1:0\"\nallow = [\"{key}\"]\n"
    );
    folder.write("cloud/cloud.toml", &format!("{cloud_file}{serve}tier = \"cloud\"\n"));
    let mut cloud = Machine::start("cloud", &cloud_dir);
    let large = cloud.next();
    let above = large["verifies"].as_str().unwrap_or_else(|| panic!("{large}"));
    assert!(above.starts_with(cloud.ready["id"].as_str().unwrap()), "the fleet's key: {large}");
    let serve = format!("[serve]\nmodel = \"small.gguf\"\nlisten = \"127.0.0.1:0\"\nupstream = [\"cloud={above}\"]\n");
    folder.write("ward/device.toml", &format!("{TCP}{serve}tier = \"device\"\n"));
    let mut device = Machine::start("device", &device_dir);
    let small = device.next()["url"].as_str().unwrap().to_owned();
    let by = |reply: &Value| reply["usage"]["littoral"]["by"].clone();
    let reply = until("the cloud answers", || ask(&small, "Hm?"), |reply| by(reply) == "cloud");
    let own = ask(large["url"].as_str().unwrap(), "Hm?");
    assert_eq!(reply["choices"][0]["message"], own["choices"][0]["message"]);
    // A fault in the table is told at once, and by its place.
    assert_eq!(device.terminate(), 0);
    folder.write("ward/device.toml", &format!("{TCP}{serve}nonsense = 1\n"));
    let refused = json(&["device", "--dir", text(&device_dir)]);
    assert!(
        refused["error"]["where"] == "[serve]" && refused["error"]["got"].as_str().unwrap().contains("--nonsense"),
        "{refused}"
    );
}
