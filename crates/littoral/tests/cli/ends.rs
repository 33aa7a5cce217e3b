//! How a job ends, as whoever watches it is told, and as a cloud that was stopped and is back says it.

use super::world::{Folder, Machine, json, littoral, parts};
use serde_json::Value;
use std::fmt::Write;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

/// A learning rate at which the first sum makes weights that are no numbers, however often it is applied.
#[test]
fn watching_a_job_that_fails_ends_with_an_error_also_after_a_restart() {
    let folder = Folder::new("ends");
    folder.write("cloud/cloud.toml", &format!("listen = \"127.0.0.1:0\"\n{TCP}"));
    let cloud_dir = folder.path("cloud");
    let dir = cloud_dir.to_str().unwrap();
    let cloud = Machine::start("cloud", &cloud_dir);
    let mut rows = "mean_radius,mean_texture,mean_smoothness,diagnosis\n".to_owned();
    for row in 0..30 {
        let class = if row % 2 == 0 { "malignant" } else { "benign" };
        writeln!(rows, "{row},{},{},{class}", row % 7, row % 11).unwrap();
    }
    folder.write("site/rows.csv", &rows);
    folder.write("site/device.toml", &format!("{TCP}[data.hospitals]\nfiles = [\"rows.csv\"]\n"));
    let ticket = json(&["fleet", "ticket", "--role", "device", "--dir", dir])["ticket"].clone();
    json(&["join", ticket.as_str().unwrap(), "--name", "site", "--dir", folder.path("site").to_str().unwrap()]);
    let _device = Machine::start("device", &folder.path("site"));
    let job = parts(&littoral(&["job", "sample"])).1.replace("target = 8", "target = 1").replace("min = 6", "min = 1");
    let diverging = "name = \"fedadam\"\nlearning_rate = 3e38\nbeta1 = 0.0\ntau = 1e-30";
    let job = folder.write("job.toml", &job.replace("name = \"fedavg\"", diverging));
    json(&["job", "submit", job.to_str().unwrap(), "--dir", dir]);

    let watched = || {
        let (code, stdout, _) = parts(&littoral(&["--json", "job", "watch", "1", "--dir", dir]));
        let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        (code, last["error"]["what"].clone(), last["error"]["got"].clone())
    };
    let (code, what, why) = watched();
    assert_eq!((code, what.as_str()), (1, Some("the job failed")), "{why}");
    assert_eq!(cloud.terminate(), 0);
    let _cloud = Machine::start("cloud", &cloud_dir);
    assert_eq!(watched(), (1, what, why));
}
