//! `littoral up --chat`: both halves at once.

use super::tiny;
use super::trial::{Folder, kill, lives, pids, up};
use serde_json::Value;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn tiny_model(dir: &Path) -> String {
    fs::create_dir_all(dir).unwrap();
    let path = dir.join("tiny.gguf");
    fs::write(&path, tiny::gguf(true)).unwrap();
    path.display().to_string()
}

fn get(at: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// The server is a machine as the others: it comes back where it was, and ends with them.
#[test]
fn a_trained_fleet_answers_until_ctrl_c() {
    let (models, folder) = (Folder::new("chat-models"), Folder::new("chat"));
    let model = tiny_model(&models.0);
    let mut run = up(&folder.0, &["--rounds", "1", "--chat-model", &model]);
    let mut err = run.stderr.take().unwrap();
    let talk = std::thread::spawn(move || {
        let mut said = String::new();
        err.read_to_string(&mut said).unwrap();
        said
    });
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    assert!(line()["federated_accuracy"].is_f64());
    let served = line();
    assert_eq!((served["role"].as_str(), served["model"].as_str()), (Some("serve"), Some("tiny")));
    let at = served["url"].as_str().unwrap().strip_prefix("http://127.0.0.1:").unwrap();
    let at = format!("127.0.0.1:{at}");
    assert!(get(&at, "/v1/models").unwrap().contains("\"id\":\"tiny\""));

    let first = pids(&folder.0)["chat"];
    assert!(kill(first));
    let begin = Instant::now();
    while !get(&at, "/v1/models").is_ok_and(|said| said.contains("tiny")) {
        assert!(begin.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    let machines = pids(&folder.0);
    assert_ne!(machines["chat"], first);
    assert_eq!(machines.len(), 8);
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    assert!(run.wait().unwrap().success());
    assert!(machines.values().all(|pid| !lives(*pid)));
    assert!(lines.next().is_none());
    assert!(talk.join().unwrap().contains("chat was killed by signal 9; it runs again"));
}

/// What the device's server answers, and who wrote it.
fn ask(at: &str) -> (String, Value) {
    let body = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hm?\"}], \"max_tokens\": 40, \"temperature\": 0}";
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let said: Value = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
    let text = said["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    (text, said["usage"]["littoral"]["by"].clone())
}

/// A device, an edge of two processes and a cloud: the edge verifies, the cloud while it is gone, and the text is one.
#[test]
fn three_tiers_serve_one_person() {
    let (models, folder) = (Folder::new("tier-models"), Folder::new("tiers"));
    let large = tiny_model(&models.0);
    let small = models.0.join("small.gguf");
    fs::write(&small, tiny::gguf_of(Some(tiny::TEMPLATE), 8)).unwrap();
    let args = ["--rounds", "1", "--chat-model", &large, "--chat-draft", small.to_str().unwrap()];
    let mut run = up(&folder.0, &args);
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    assert!(line()["federated_accuracy"].is_f64());
    let served = line();
    let place = |url: &Value| url.as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let (device, cloud) = (place(&served["url"]), place(&served["tiers"]["cloud"]));
    let (text, _) = ask(&cloud);
    // With the same model above it answers by itself.
    assert_eq!(ask(&place(&served["tiers"]["edge"])), (text.clone(), "edge".into()));
    let until = |tier: &str| {
        let begin = Instant::now();
        loop {
            let (said, by) = ask(&device);
            if by == tier {
                return assert_eq!(said, text);
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{by} answers, not {tier}");
        }
    };
    until("edge");
    // It comes back by itself, and is asked again.
    let first = pids(&folder.0)["chat-edge"];
    assert!(kill(first));
    until("cloud");
    until("edge");
    assert_ne!(pids(&folder.0)["chat-edge"], first);
    let machines = pids(&folder.0);
    assert_eq!(machines.len(), 11);
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    assert!(run.wait().unwrap().success());
    assert!(machines.values().all(|pid| !lives(*pid)));
}

/// Nobody waits for training to learn that there is nothing to serve.
#[test]
fn a_model_that_cannot_be_served_is_told_before_anything_is_trained() {
    let models = Folder::new("chat-none");
    fs::create_dir_all(&models.0).unwrap();
    let (none, broken) = (models.0.join("none.gguf"), models.0.join("broken.gguf"));
    fs::write(&broken, "GGUF").unwrap();
    let renamed = |file: &str, from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut bytes = tiny::gguf(true);
        while let Some(at) = bytes.windows(from.len()).position(|word| word == from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        let path = models.0.join(file);
        fs::write(&path, bytes).unwrap();
        path
    };
    let unknown = renamed("unknown.gguf", "llama", "mamba");
    let partial = renamed("partial.gguf", "blk.0.ffn_down.weight", "blk.0.ffn_gown.weight");
    let cases = [
        (&none, "none.gguf", "No such file"),
        (&broken, "broken.gguf", "4"),
        (&unknown, "unknown.gguf", "mamba"),
        (&partial, "partial.gguf", "blk.0.ffn_down.weight"),
    ];
    for (model, place, got) in cases {
        let folder = Folder::new(place);
        let output = up(&folder.0, &["--chat-model", model.to_str().unwrap()]);
        let output = output.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{text}");
        assert!(lines[0]["error"]["where"].as_str().unwrap().contains(place), "{text}");
        assert!(text.contains(got), "{text}");
        assert!(!folder.0.exists(), "{place}");
    }
}
