//! A disk that is full under the log.

use super::world::{Folder, Machine, json, littoral, parts, until};
use std::fs::OpenOptions;

/// `/dev/full` refuses every byte as a full disk does. What a role cannot say must not end it, nor stop what it does.
#[test]
fn a_cloud_whose_log_cannot_be_written_goes_on() {
    let folder = Folder::new("full-log");
    folder.write("cloud/cloud.toml", "listen = \"127.0.0.1:0\"\n");
    let dir = folder.path("cloud");
    let log = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let _cloud = Machine::start_with_log("cloud", &dir, log);
    let of_cloud = ["--dir", dir.to_str().unwrap()];
    let job = folder.write("job.toml", &parts(&littoral(&["job", "sample"])).1);
    for number in ["1", "2"] {
        json(&[&["job", "submit", job.to_str().unwrap()][..], &of_cloud].concat());
        // Its end is a line of the log.
        json(&[&["job", "stop", number][..], &of_cloud].concat());
        let show = || json(&[&["job", "show", number][..], &of_cloud].concat());
        until("the job has ended", show, |job| job["why"].as_str().is_some_and(|why| why.contains("stopped by")));
    }
}
