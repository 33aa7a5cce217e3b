//! A run over real processes, its record, and the run again from the record: equal, or the first difference by name.

use super::world::{Folder, Machine, json, littoral, parts, until};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Malignant where the sum is large; each device's rows lie elsewhere, and one writes its columns its own way.
fn rows(device: u32, head: &str) -> String {
    let mut out = format!("{head}\n");
    for row in 0..30 + device {
        let value = |column: u32| f64::from((row * 7 + column * 13 + device * 5) % 17) / 4.0;
        let class = if value(0) + value(1) + value(2) > 6.0 { "malignant" } else { "benign" };
        writeln!(out, "{},{},{},{class}", value(0), value(1), value(2)).unwrap();
    }
    out
}

/// Three sites train a job in real processes to its end. What `job show` says then, and the number of versions in the record, which
/// is in the folder.
fn recorded(folder: &Folder, change: impl Fn(String) -> String) -> (Value, Option<u64>) {
    folder.write("cloud/cloud.toml", &format!("listen = \"127.0.0.1:0\"\n{TCP}"));
    let cloud_dir = folder.path("cloud");
    let cloud = Machine::start("cloud", &cloud_dir);
    let of_cloud = ["--dir", text(&cloud_dir)];
    let ticket = json(&[&["fleet", "ticket", "--role", "device", "--uses", "3"][..], &of_cloud].concat());
    let ticket = ticket["ticket"].as_str().unwrap().to_owned();
    let mut devices = Vec::new();
    for device in 0..3u32 {
        let own_way = device == 2;
        let head = if own_way {
            "Radius,mean_texture,mean_smoothness,diagnosis"
        } else {
            "mean_radius,mean_texture,mean_smoothness,diagnosis"
        };
        folder.write(&format!("devices/{device}/rows.csv"), &rows(device, head));
        let columns = if own_way { "columns = { Radius = \"mean_radius\" }\n" } else { "" };
        let toml = format!("{TCP}[data.hospitals]\nfiles = [\"rows.csv\"]\n{columns}");
        folder.write(&format!("devices/{device}/device.toml"), &toml);
        let dir = folder.path(&format!("devices/{device}"));
        json(&["join", &ticket, "--name", &format!("site-{device}"), "--dir", text(&dir)]);
        devices.push(Machine::start("device", &dir));
    }
    let job = parts(&littoral(&["job", "sample"])).1;
    let job = job.replace("target = 8", "target = 3").replace("min = 6", "min = 3").replace("count = 10", "count = 3");
    let job = folder.write("job.toml", &change(job));
    json(&[&["job", "submit", text(&job)][..], &of_cloud].concat());
    let show = || json(&[&["job", "show", "1"][..], &of_cloud].concat());
    let done = until("the job ends", show, |job| matches!(job["state"].as_str(), Some("finished" | "failed")));
    assert_eq!(done["state"], "finished", "{done}");

    let record = folder.path("record.json");
    let versions = json(&[&["job", "record", "1", "-o", text(&record)][..], &of_cloud].concat())["versions"].as_u64();
    let model = folder.path("model.safetensors");
    json(&[&["job", "model", "1", "-o", text(&model)][..], &of_cloud].concat());
    drop((cloud, devices));
    (done, versions)
}

/// Sums that are rounded by chance, a residual, and models that are told as changes are the same again.
#[test]
fn a_compressed_run_is_repeated_and_its_record_tells_the_bytes() {
    let uplink = "[compression]\nuplink = { name = \"top-k\", kept = 0.5 }\ndownlink = { name = \"delta\" }\n";
    let folder = Folder::new("replay-compressed");
    let (done, versions) = recorded(&folder, |job| format!("{job}\n{uplink}"));
    let (bytes, whole) = (done["update_bytes"].as_u64().unwrap(), done["uncompressed_bytes"].as_u64().unwrap());
    let last = done["versions"].as_array().unwrap().iter().find(|version| version["work"] == "train").unwrap();
    assert_eq!((last["update_bytes"].as_u64(), done["compression"].as_str()), (Some(bytes), Some("top-k")), "{done}");
    assert_eq!(done["compression_ratio"].as_f64(), Some(whole as f64 / bytes as f64));
    // The first version is whole, others are changes; each device had the version before.
    let down = |version: &Value| version["downlink_bytes"].as_u64();
    let trained: Vec<&Value> =
        done["versions"].as_array().unwrap().iter().filter(|version| version["work"] == "train").collect();
    assert!(trained.len() == 3 && trained.iter().all(|version| down(version) < Some(whole)), "{done}");
    assert_eq!(done["downlink"]["name"], "delta");
    let mean = trained.iter().filter_map(|version| down(version)).sum::<u64>() / 3;
    assert_eq!(done["downlink"]["bytes"].as_u64(), Some(mean), "{done}");
    let model = std::fs::read(folder.path("model.safetensors")).unwrap();
    assert!(model.len() as u64 > whole, "{} bytes", model.len());
    let (record, devices) = (folder.path("record.json"), folder.path("devices"));
    let repeated = json(&["job", "replay", text(&record), "--devices", text(&devices)]);
    assert_eq!((repeated["equal"].as_bool(), repeated["versions"].as_u64()), (Some(true), versions), "{repeated}");
}

/// Devices train first, and some updates are older than the version that they go into: which, the record says.
#[test]
fn a_run_without_rounds_is_repeated() {
    for (algorithm, target) in [("fedbuff", 2), ("fedasync", 1)] {
        let folder = Folder::new(&format!("replay-{algorithm}"));
        let (done, versions) = recorded(&folder, |job| {
            let job = job.replace("\"fedavg\"", &format!("{algorithm:?}")).replace("count = 3", "count = 12");
            let job =
                job.replace("target = 3", &format!("target = {target}")).replace("min = 3", &format!("min = {target}"));
            format!("{job}\n[pace]\npool = 3\ndispatch = 1\nstaleness_max = 8\n")
        });
        let trained: Vec<&Value> =
            done["versions"].as_array().unwrap().iter().filter(|version| version["work"] == "train").collect();
        assert_eq!(trained.len(), 12, "{done}");
        // Three in flight and a version of fewer: somebody is left over from the first one on.
        assert!(trained.iter().any(|version| version["staleness_max"].as_u64() > Some(0)), "{done}");
        let (record, devices) = (folder.path("record.json"), folder.path("devices"));
        let repeated = json(&["job", "replay", text(&record), "--devices", text(&devices)]);
        assert_eq!((repeated["equal"].as_bool(), repeated["versions"].as_u64()), (Some(true), versions), "{repeated}");
    }
}

/// From the second version on each site begins at a model of its own.
#[test]
fn a_run_whose_devices_are_given_models_is_repeated() {
    let folder = Folder::new("replay-fedamp");
    let (done, versions) = recorded(&folder, |job| job.replace("\"fedavg\"", "\"fedamp\""));
    let plan = done["plan"].to_string();
    assert!(plan.contains("updates go unmerged") && plan.contains("given a model of its own"), "{done}");
    let (record, devices) = (folder.path("record.json"), folder.path("devices"));
    let repeated = json(&["job", "replay", text(&record), "--devices", text(&devices)]);
    assert_eq!((repeated["equal"].as_bool(), repeated["versions"].as_u64()), (Some(true), versions), "{repeated}");
}

#[test]
fn a_record_is_repeated_to_the_same_bits_and_a_changed_site_is_found() {
    let folder = Folder::new("replay");
    let (_, versions) = recorded(&folder, |job| job.replace("\"fedavg\"", "\"scaffold\""));
    let record = folder.path("record.json");

    let devices = folder.path("devices");
    let again = ["job", "replay", text(&record), "--devices", text(&devices)];
    let repeated = json(&again);
    assert_eq!((repeated["equal"].as_bool(), repeated["versions"].as_u64()), (Some(true), versions));
    let written: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let last = written["versions"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(repeated["model"], last["model"]);
    // Statistics and three versions; all sites in each.
    assert!(versions >= Some(4) && last["included"].as_array().unwrap().len() == 3, "{last}");

    // One row more at one site: the statistics differ already.
    let changed = rows(1, "mean_radius,mean_texture,mean_smoothness,diagnosis") + "1,1,1,benign\n";
    folder.write("devices/1/rows.csv", &changed);
    let differs = json(&again);
    assert_eq!(differs["error"]["what"], "the replay differs from the record");
    assert!(differs["error"]["where"].as_str().unwrap().starts_with("version 1 (statistics"), "{differs}");
    std::fs::remove_dir_all(folder.path("devices/1")).unwrap();
    assert!(json(&again)["error"]["where"].as_str().unwrap().contains("device site-1"));
}
