//! A cloud, an edge and a device as processes: tickets let them in, once; revocation cuts them off.

use super::world::{Folder, Machine, json, until};
use serde_json::Value;
use std::path::Path;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn state_of<'a>(fleet: &'a Value, name: &str) -> &'a str {
    let machines = fleet["machines"].as_array().unwrap();
    machines.iter().find(|machine| machine["name"] == name).map_or("", |machine| machine["state"].as_str().unwrap())
}

#[test]
fn tickets_let_machines_in_once_and_revocation_cuts_them_off() {
    let folder = Folder::new("fleet");
    folder.write("cloud/cloud.toml", &format!("listen = \"127.0.0.1:0\"\n{TCP}"));
    folder.write("edge/edge.toml", &format!("listen = \"127.0.0.1:0\"\n{TCP}"));
    folder.write("device/rows.csv", "a,b\n1,2\n3,4\n5,6\n");
    let sources = "[data.hospitals]\nfiles = [\"rows.csv\"]\n[data.lost]\nfiles = [\"lost.csv\"]\n";
    folder.write("device/device.toml", &format!("{TCP}{sources}"));
    let dirs = ["cloud", "edge", "device", "late"].map(|name| folder.path(name));
    let [cloud_dir, edge_dir, device_dir, late_dir] = dirs.each_ref().map(|dir| text(dir));

    let cloud = Machine::start("cloud", &dirs[0]);
    let ticket = |role: &str, uses: &str| {
        let made = json(&["fleet", "ticket", "--role", role, "--uses", uses, "--valid", "1h", "--dir", cloud_dir]);
        made["ticket"].as_str().unwrap().to_owned()
    };
    let joined = json(&["join", &ticket("edge", "1"), "--name", "ward", "--dir", edge_dir]);
    assert_eq!((joined["role"].as_str(), joined["name"].as_str()), (Some("edge"), Some("ward")));
    let edge = Machine::start("edge", &dirs[1]);
    let fleet = || json(&["fleet", "ls", "--dir", cloud_dir]);
    until("the edge is here", fleet, |fleet| state_of(fleet, "ward") == "here");

    let for_devices = ticket("device", "1");
    json(&["join", &for_devices, "--name", "clinic", "--dir", device_dir]);
    let spent = json(&["join", &for_devices, "--name", "late", "--dir", late_dir]);
    assert_eq!(spent["error"]["what"], "join refused");
    assert_eq!(spent["error"]["got"], "an unknown or spent one");
    let wrong_role = json(&["join", &ticket("edge", "2"), "--dir", late_dir]);
    assert_eq!(wrong_role["role"], "edge");

    let device = Machine::start("device", &dirs[2]);
    let now = until("the device is here", fleet, |fleet| state_of(fleet, "clinic") == "here");
    let clinic = now["machines"].as_array().unwrap().iter().find(|machine| machine["name"] == "clinic").unwrap();
    assert_eq!(clinic["data"], serde_json::json!({"hospitals": 3, "lost": 0}));
    assert_eq!(clinic["edge"], "ward", "edges come before the cloud");
    assert_eq!(clinic["kernels"], "", "an edge heard its hello");
    let ward = now["machines"].as_array().unwrap().iter().find(|machine| machine["name"] == "ward").unwrap();
    assert_eq!(ward["kernels"], littoral_tensor::quant::KERNELS);

    // A folder is one process's.
    let second = json(&["device", "--dir", device_dir]);
    assert_eq!(second["error"]["what"], "the folder is in use");
    let rotation = json(&["fleet", "rotate", "--dir", device_dir]);
    assert_eq!(rotation["error"]["what"], "the folder is in use");

    // A new key under the old name; the old one is worthless.
    assert_eq!(device.terminate(), 0);
    until("the device is away", fleet, |fleet| state_of(fleet, "clinic") == "away");
    let key = json(&["fleet", "rotate", "--dir", device_dir])["key"].as_str().unwrap().to_owned();
    let device = Machine::start("device", &dirs[2]);
    assert_eq!(device.ready["id"], key.as_str());
    let now = until("the device is back", fleet, |fleet| state_of(fleet, "clinic") == "here");
    assert_eq!(state_of(&now, "clinic (replaced)"), "revoked");

    json(&["fleet", "revoke", "clinic", "--dir", cloud_dir]);
    until("the device is cut off", fleet, |fleet| state_of(fleet, "clinic") == "revoked");
    let log = || Value::from(std::fs::read_to_string(dirs[2].join("log")).unwrap());
    until("the device was told", log, |log| log.as_str().unwrap().contains("this key was revoked"));
    let rejoin = json(&["join", &ticket("device", "1"), "--dir", device_dir]);
    assert_eq!(rejoin["error"]["what"], "the folder is in use");
    drop(device);
    let rejoin = json(&["join", &ticket("device", "1"), "--dir", device_dir]);
    assert_eq!(rejoin["error"]["got"], "a revoked key");

    // A key that was lost is not replaced by another one.
    std::fs::remove_file(dirs[2].join("key")).unwrap();
    for command in [&["device"][..], &["fleet", "rotate"], &["join", &ticket("device", "1")]] {
        let refused = json(&[command, &["--dir", device_dir]].concat());
        assert_eq!(refused["error"]["what"], "this state folder is not whole", "{command:?}");
        assert_eq!(refused["error"]["expected"], "key beside littoral.sqlite");
    }
    assert!(!dirs[2].join("key").exists());

    // The cloud comes back on its port with what it knew.
    let address = cloud.ready["address"].clone();
    assert_eq!(cloud.terminate(), 0);
    let cloud = Machine::start("cloud", &dirs[0]);
    assert_eq!(cloud.ready["address"], address);
    let now = until("the edge is back", fleet, |fleet| state_of(fleet, "ward") == "here");
    assert_eq!(state_of(&now, "clinic"), "revoked");
    assert_eq!(edge.terminate(), 0);
}
