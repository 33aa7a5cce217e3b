//! Processes that die, and processes that want the same.

use super::server::{Page, Server};
use super::world::{World, file, sha256};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

const HALF: usize = 1 << 20;

#[test]
fn kill_9_in_the_middle_and_the_next_one_goes_on() {
    let body = file(2 * HALF);
    let (server, world) = (Server::start(), World::new());
    server.put("/m.gguf", Page { silent_after: Some(HALF), ..Page::of(&*body) });
    let (url, hash) = (server.url("/m.gguf"), sha256(&body));
    let args = ["pull", url.as_str(), "--sha256", hash.as_str()];
    let part = world.models(&format!("partial/sha256-{hash}/file.part"));
    let mut child = world.command(&args).stderr(Stdio::null()).spawn().unwrap();
    world.until("half of the file", || fs::metadata(&part).is_ok_and(|part| part.len() == HALF as u64));
    child.kill().unwrap();
    child.wait().unwrap();
    server.asked();
    server.put("/m.gguf", Page::of(&*body));
    let pulled = world.json(&args);
    assert_eq!(fs::read(pulled["path"].as_str().unwrap()).unwrap(), body);
    let ranges: Vec<_> = server.asked().into_iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [Some(format!("bytes={HALF}-"))]);
}

#[test]
fn what_had_arrived_of_another_file_is_thrown_away() {
    let body = file(9_000);
    let (server, world) = (Server::start(), World::new());
    let (url, hash) = (server.url("/m.gguf"), sha256(&body));
    let args = ["pull", url.as_str(), "--sha256", hash.as_str()];
    // Of the right length so far, but not its beginning; then too long; the last server knows no ranges.
    for (len, no_ranges, requests) in [(4_000, false, 2), (10_000, false, 2), (4_000, true, 1)] {
        let folder = world.models(&format!("partial/sha256-{hash}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("file.part"), vec![7; len]).unwrap();
        server.put("/m.gguf", Page { no_ranges, ..Page::of(&*body) });
        let pulled = world.json(&args);
        assert_eq!(fs::read(pulled["path"].as_str().unwrap()).unwrap(), body);
        assert_eq!(server.asked().len(), requests, "{len}");
        world.json(&["models", "rm", "m"]);
    }
}

#[test]
fn two_at_once_fetch_once() {
    let body = file(2 * HALF);
    let (server, world) = (Server::start(), World::new());
    server.put("/m.gguf", Page { silent_after: Some(HALF), ..Page::of(&*body) });
    let (url, hash) = (server.url("/m.gguf"), sha256(&body));
    let args = ["pull", url.as_str(), "--sha256", hash.as_str()];
    let part = world.models(&format!("partial/sha256-{hash}/file.part"));
    let mut first = world.command(&args).stderr(Stdio::null()).spawn().unwrap();
    world.until("half of the file", || fs::metadata(&part).is_ok_and(|part| part.len() == HALF as u64));
    let mut second = world.command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(second.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("another process fetches m"), "{line}");
    assert_eq!(server.asked().len(), 1);
    // The one that waits takes over what the first leaves.
    server.put("/m.gguf", Page::of(&*body));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert_eq!(fs::read(world.models(&format!("blobs/sha256-{hash}"))).unwrap(), body);
    assert_eq!(server.asked().into_iter().map(|a| a.range).collect::<Vec<_>>(), [Some(format!("bytes={HALF}-"))]);
}

#[test]
fn a_damaged_file_is_found_and_fetched_again() {
    let body = file(9_000);
    let (server, world) = (Server::start(), World::new());
    let (url, hash) = (server.url("/m.gguf"), sha256(&body));
    let args = ["pull", url.as_str(), "--sha256", hash.as_str()];
    server.put("/m.gguf", Page::of(&*body));
    assert_eq!(world.json(&args)["already_here"], false);
    assert_eq!(world.json(&args)["already_here"], true);
    let blob = world.models(&format!("blobs/sha256-{hash}"));
    fs::write(&blob, &body[1..]).unwrap();
    assert_eq!(world.json(&args)["already_here"], false);
    assert_eq!(fs::read(&blob).unwrap(), body);
}
