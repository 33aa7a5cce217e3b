//! `littoral fleet roster`: the list of devices, signed by a key that the cloud does not hold.
//!
//! Devices take part in masked sums against a lying cloud only with neighbours on it. The cloud says which machines it has let
//! in; the person who signs answers for that these are real machines, so they are shown.

use super::{ask, say};
use crate::output::{self, Failure};
use crate::reach::Reach;
use littoral_fed::roster;
use littoral_node::host::keys;
use littoral_node::role::cloud::command::Command as Order;
use littoral_wire::codec::Wire;
use littoral_wire::{NodeId, SecretKey};
use serde_json::{Value, json};
use std::path::Path;

/// The public half of a roster key; the key is made if there is none.
pub fn public_key(file: &Path) -> Result<NodeId, Failure> {
    Ok(keys::load_or_create(file)?.id())
}

/// Signs the devices that are enrolled now and hands the list to the cloud.
pub fn sign(file: &Path, reach: &Reach, json: bool) -> Result<(), Failure> {
    let key = keys::load_or_create(file)?;
    let listed = ask(reach, &Order::FleetList)?;
    let devices = devices_of(&listed);
    if devices.is_empty() {
        return Err(Failure::new("no roster signed", "the cloud's devices", "at least one enrolled device", "none"));
    }
    let (order, number) = order(&key, &listed, &devices)?;
    ask(reach, &order)?;
    if json {
        output::object(&json!({"roster": number, "devices": devices.len(), "key": key.id().to_string()}));
        return Ok(());
    }
    let rows: Vec<Vec<String>> = devices.iter().map(|(key, name)| vec![name.clone(), key.to_string()]).collect();
    output::table(&["ON THE ROSTER", "KEY"], &rows);
    say(false, &Value::Null, &format!("roster {number} with {} devices is signed by {}", devices.len(), key.id()));
    Ok(())
}

/// The command that hands over a signed list of devices, and the list's number.
pub fn order(key: &SecretKey, listed: &Value, devices: &[(NodeId, String)]) -> Result<(Order, u64), Failure> {
    let cloud = listed["cloud"].as_str().and_then(|text| text.parse::<NodeId>().ok());
    let cloud = cloud.ok_or_else(|| Failure::new("no roster signed", "the cloud's reply", "its key", "none"))?;
    let number = listed["roster"].as_u64().unwrap_or(0) + 1;
    let keys: Vec<NodeId> = devices.iter().map(|(key, _)| *key).collect();
    let signed = roster::sign(key, cloud, number, &keys);
    let digits = signed.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((Order::FleetRoster { roster: digits, devices: keys.iter().map(NodeId::to_string).collect() }, number))
}

/// Key and name of each device that is let in.
pub fn devices_of(listed: &Value) -> Vec<(NodeId, String)> {
    let machines = listed["machines"].as_array().map_or(&[][..], Vec::as_slice);
    let device = |machine: &Value| {
        let wanted = machine["role"] == "device" && machine["state"] != "revoked";
        let key = machine["id"].as_str().and_then(|text| text.parse().ok()).filter(|_| wanted)?;
        Some((key, machine["name"].as_str().unwrap_or_default().to_owned()))
    };
    machines.iter().filter_map(device).collect()
}
