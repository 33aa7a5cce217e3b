//! Jobs over other data than tables, from the printed samples, over real processes: images by class and a convolutional
//! network; text and a recurrent one; arrays in IDX and NumPy's format side by side.

use super::world::{Folder, Machine, json, littoral, parts, until};
use image::{GrayImage, Luma};
use serde_json::Value;
use std::fs;
use std::path::Path;

const TCP: &str = "[network]\ntransport = \"tcp\"\n";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The job over two devices, each with its name, its part of `device.toml`, and its files in the folder of its name. What
/// `job show` says in the end.
pub fn trained(folder: &Folder, job: &str, sites: [(&str, &str); 2]) -> Value {
    folder.write("cloud/cloud.toml", &format!("listen = \"127.0.0.1:0\"\n{TCP}"));
    let cloud_dir = folder.path("cloud");
    let _cloud = Machine::start("cloud", &cloud_dir);
    let of_cloud = ["--dir", text(&cloud_dir)];
    let ticket = json(&[&["fleet", "ticket", "--role", "device", "--uses", "2"][..], &of_cloud].concat());
    let ticket = ticket["ticket"].as_str().unwrap();
    let devices = sites.map(|(name, source)| {
        folder.write(&format!("{name}/device.toml"), &format!("{TCP}{source}\n"));
        json(&["join", ticket, "--name", name, "--dir", text(&folder.path(name))]);
        Machine::start("device", &folder.path(name))
    });
    let job = folder.write("job.toml", job);
    json(&[&["job", "submit", text(&job)][..], &of_cloud].concat());
    let show = || json(&[&["job", "show", "1"][..], &of_cloud].concat());
    let done = until("the job ends", show, |job| matches!(job["state"].as_str(), Some("finished" | "failed")));
    assert_eq!(done["state"], "finished", "{done}");
    let model = folder.path("model.safetensors");
    json(&[&["job", "model", "1", "-o", text(&model)][..], &of_cloud].concat());
    assert!(fs::metadata(&model).unwrap().len() > 1_000);
    drop(devices);
    done
}

fn sample(kind: &str) -> String {
    parts(&littoral(&["job", "sample", "--kind", kind])).1
}

fn accuracy(job: &Value) -> f64 {
    job["last"]["accuracy"].as_f64().unwrap()
}

#[test]
fn folders_of_images_train_a_convolutional_network() {
    let folder = Folder::new("images");
    // What is ill has a bright patch; one site calls its folders otherwise.
    for (site, folders) in [("north", ["normal", "ill"]), ("south", ["00_ok", "01_bad"])] {
        for (class, name) in folders.iter().enumerate() {
            let dir = folder.path(&format!("{site}/scans/{name}"));
            fs::create_dir_all(&dir).unwrap();
            for n in 0..20 {
                let patch = |x: u32, y: u32| class == 1 && x / 5 == n % 3 && y / 5 == n / 3 % 3;
                let grey = |x, y| Luma([if patch(x, y) { 250 } else { (x * 7 + y * 13 + n * 29) as u8 % 90 }]);
                GrayImage::from_fn(16, 16, grey).save(dir.join(format!("{n}.png"))).unwrap();
            }
        }
    }
    let south = "[data.scans]\nfiles = [\"scans\"]\nformat = \"images\"\n\
        classes = { \"00_ok\" = \"normal\", \"01_bad\" = \"ill\" }";
    let north = "[data.scans]\nfiles = [\"scans\"]\nformat = \"images\"";
    let job = trained(&folder, &sample("images"), [("north", north), ("south", south)]);
    assert_eq!(job["last"]["test_rows"], 16);
    assert!(accuracy(&job) > 0.8, "{job}");
}

#[test]
fn texts_train_a_recurrent_network() {
    let folder = Folder::new("text");
    folder.write("anna/typed.txt", &"The tide comes in. The tide goes out.\n".repeat(30));
    folder.write("ben/typed.txt", &"The tide is high; the boats are in.\r\n".repeat(30));
    let typed = "[data.keyboard]\nfiles = [\"typed.txt\"]";
    let job = sample("text").replace("count = 10", "count = 6").replace("0.003", "0.02");
    let job = trained(&folder, &job, [("anna", typed), ("ben", typed)]);
    // One of 65 characters by chance; a blank, the most frequent one, is every fifth.
    assert!(accuracy(&job) > 0.3, "{job}");
}

#[test]
fn idx_and_npy_arrays_train_together() {
    let folder = Folder::new("arrays");
    // Ten classes: a bright row of pixels at the class's height.
    let rows = 100u32;
    let pixels: Vec<u8> = (0..rows)
        .flat_map(|row| {
            (0..784u32).map(move |at| if at / 28 / 2 == row % 10 + 1 { 255 } else { (at * row % 50) as u8 })
        })
        .collect();
    let labels: Vec<u8> = (0..rows).map(|row| (row % 10) as u8).collect();
    let of_idx = |head: &[u32], bytes: &[u8]| {
        let mut file = vec![0, 0, 8, head.len() as u8];
        head.iter().for_each(|length| file.extend(length.to_be_bytes()));
        [&file, bytes].concat()
    };
    let of_npy = |shape: &str, bytes: &[u8]| {
        let head = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
        let head = format!("{head:<117}\n");
        [b"\x93NUMPY\x01\x00", &(head.len() as u16).to_le_bytes()[..], head.as_bytes(), bytes].concat()
    };
    for name in ["old", "new"] {
        fs::create_dir_all(folder.path(name)).unwrap();
    }
    fs::write(folder.path("old/images-idx3-ubyte"), of_idx(&[rows, 28, 28], &pixels)).unwrap();
    fs::write(folder.path("old/labels-idx1-ubyte"), of_idx(&[rows], &labels)).unwrap();
    fs::write(folder.path("new/images.npy"), of_npy("(100, 28, 28)", &pixels)).unwrap();
    fs::write(folder.path("new/labels.npy"), of_npy("(100,)", &labels)).unwrap();
    let old = "[data.handwriting]\nfiles = [\"images-idx3-ubyte\"]\nlabels = [\"labels-idx1-ubyte\"]";
    let new = "[data.handwriting]\nfiles = [\"images.npy\"]\nlabels = [\"labels.npy\"]";
    let job = trained(&folder, &sample("arrays"), [("old", old), ("new", new)]);
    assert_eq!(job["last"]["test_rows"], 40);
    assert!(accuracy(&job) > 0.8, "{job}");
}
