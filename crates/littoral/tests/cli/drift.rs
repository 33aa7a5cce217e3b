//! A fleet whose data moves while a job trains: it is seen, also by a cloud that was killed in between, and what has not moved is not.

use super::world::{Folder, Machine, json, littoral, parts, until};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Of `malignant` in ten of a device's rows that is the label.
fn rows(device: u32, malignant: u32) -> String {
    let mut out = "mean_radius,mean_texture,mean_smoothness,diagnosis\n".to_owned();
    for row in 0..40 {
        let value = |column: u32| f64::from((row * 7 + column * 13 + device * 5) % 17) / 4.0;
        let class = if row % 10 < malignant { "malignant" } else { "benign" };
        writeln!(out, "{},{},{},{class}", value(0), value(1), value(2)).unwrap();
    }
    out
}

/// Of the newest version that has one; the newest comes first.
fn last(job: &Value) -> &Value {
    job["versions"]
        .as_array()
        .and_then(|versions| versions.iter().find(|version| version["drift"].is_object()))
        .unwrap_or(&Value::Null)
}

#[test]
fn data_that_moves_is_seen_and_a_killed_cloud_remembers_where_it_was() {
    let folder = Folder::new("drift");
    let cloud_toml = |listen: &str| format!("listen = \"{listen}\"\n{TCP}");
    folder.write("cloud/cloud.toml", &cloud_toml("127.0.0.1:0"));
    let cloud_dir = folder.path("cloud");
    let cloud = Machine::start("cloud", &cloud_dir);
    // Its key, and where it listens: there again after a restart.
    let (_, listen) = cloud.ready["address"].as_str().unwrap().split_once('@').unwrap();
    folder.write("cloud/cloud.toml", &cloud_toml(listen));
    let of_cloud = ["--dir", text(&cloud_dir)];
    let ticket = json(&[&["fleet", "ticket", "--role", "device", "--uses", "3"][..], &of_cloud].concat());
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    let mut devices = Vec::new();
    for device in 0..3u32 {
        folder.write(&format!("devices/{device}/rows.csv"), &rows(device, 4));
        folder.write(
            &format!("devices/{device}/device.toml"),
            &format!("{TCP}[data.hospitals]\nfiles = [\"rows.csv\"]\n"),
        );
        let dir = folder.path(&format!("devices/{device}"));
        json(&["join", &ticket, "--name", &format!("site-{device}"), "--dir", text(&dir)]);
        devices.push(Machine::start("device", &dir));
    }
    let job = parts(&littoral(&["job", "sample"])).1;
    let job =
        job.replace("target = 8", "target = 3").replace("min = 6", "min = 3").replace("count = 10", "count = 100000");
    let job = folder.write("job.toml", &format!("{job}\n[drift]\nbaseline = 8\n"));
    let submitted = json(&[&["job", "submit", text(&job)][..], &of_cloud].concat());
    assert!(submitted.to_string().contains("versions are compared with the first 8"), "{submitted}");
    let show = || json(&[&["job", "show", "1"][..], &of_cloud].concat());

    // All rows stay where they are, and so does the sketch: the same devices are in each version.
    let seen = until("twice the baseline is there", show, |job| last(job)["drift"].is_object());
    assert_eq!(
        (&last(&seen)["drift"]["drifted"], &last(&seen)["drift"]["distance"]),
        (&false.into(), &0.0.into()),
        "{seen}"
    );

    drop(cloud);
    for device in 0..3 {
        // At once: a work may be reading it.
        let new = folder.write(&format!("devices/{device}/new"), &rows(device, 8));
        std::fs::rename(new, folder.path(&format!("devices/{device}/rows.csv"))).unwrap();
    }
    let cloud = Machine::start("cloud", &cloud_dir);
    let moved = until("a drift", show, |job| last(job)["drift"]["drifted"] == true);
    let drift = &last(&moved)["drift"];
    assert_eq!(drift["of"], "labels", "{drift}");
    assert!(moved["notes"].to_string().contains("the fleet's labels have drifted"), "{}", moved["notes"]);
    // 0.4 of a device's training rows become 0.8; which rows train is the same. Some of the last eight versions may be older ones.
    let distance = until("all of the last versions are new", show, |job| {
        last(job)["drift"]["distance"].as_f64().is_some_and(|distance| distance > 0.3)
    });
    let distance = last(&distance)["drift"]["distance"].as_f64().unwrap();
    assert!(distance < 0.5, "{distance}");
    let (_, table, _) = parts(&littoral(&[&["job", "show", "1"][..], &of_cloud].concat()));
    assert!(table.contains("DRIFT") && table.contains(" drifted") && table.contains("drifted: labels are"), "{table}");
    json(&[&["job", "stop", "1"][..], &of_cloud].concat());
    drop(cloud);
}
