//! A hub's files, and URLs.

use super::server::{Page, Server};
use super::tiny;
use super::world::{World, file, sha256};
use axum::http::Method;
use std::fs;
use std::process::Stdio;

const NAME: &str = "hf:ocean/tiny@v1/q8/tiny.gguf";
const PATH: &str = "/ocean/tiny/resolve/v1/q8/tiny.gguf";

/// What a hub answers first: where the bytes are, and what they are.
fn declared(body: &[u8], to: &str) -> Page {
    let page = Page::status(302).header("location", to).header("x-linked-size", body.len());
    page.header("x-linked-etag", format!("\"{}\"", sha256(body)))
}

/// A hub whose bytes lie on another host, as it is told to clients.
fn hub(body: &[u8]) -> (Server, World) {
    let server = Server::start();
    server.put(PATH, declared(body, &format!("http://localhost:{}/bytes?signed", server.at.port())));
    server.put("/bytes", Page::of(body));
    let world = World::new().with("HF_ENDPOINT", server.url("")).with("HF_TOKEN", "s3cret");
    (server, world)
}

#[test]
fn a_hub_s_file_is_checked_listed_used_and_removed() {
    let body = tiny::gguf(true);
    let (server, world) = hub(&body);
    let pulled = world.json(&["pull", NAME]);
    assert_eq!((&pulled["name"], &pulled["sha256"]), (&NAME.into(), &sha256(&body).into()));
    let path = pulled["path"].as_str().unwrap();
    assert_eq!(fs::read(path).unwrap(), body);
    let asked = server.asked();
    let steps: Vec<_> =
        asked.iter().map(|asked| (&asked.method, asked.path.as_str(), asked.login.as_deref())).collect();
    let bearer = Some("Bearer s3cret");
    // The token is for the hub; where it sends us, it is not shown.
    let (head, get) = (Method::HEAD, Method::GET);
    let hub = (&head, PATH, bearer);
    assert_eq!(steps, [hub, hub, (&get, PATH, bearer), (&get, "/bytes", None)]);

    let listed = world.listed(NAME).unwrap();
    assert_eq!((&listed["here"], &listed["architecture"]), (&true.into(), &"llama".into()));
    let answer = world.json(&["run", NAME, "Hello", "--max-tokens", "3"]);
    assert_eq!(answer["ids"].as_array().map(Vec::len), Some(3));
    assert_eq!(server.asked(), [], "what is here is not asked for");
    assert_eq!(world.json(&["models", "rm", NAME])["freed_bytes"], body.len());
    assert!(world.is_empty() && world.listed(NAME).is_none());
    // `run` fetches it again.
    assert!(world.json(&["run", NAME, "Hello", "--max-tokens", "3"])["ids"].is_array());
}

#[test]
fn a_newer_file_takes_the_place_of_the_older() {
    let (old, new) = (file(1_000), file(2_000));
    let (server, world) = hub(&old);
    let blob = |body: &[u8]| world.models(&format!("blobs/sha256-{}", sha256(body)));
    world.json(&["pull", NAME]);
    server.put(PATH, declared(&new, "/bytes"));
    server.put("/bytes", Page::of(&*new));
    let line = world.refused(&["pull", NAME, "--sha256", &sha256(&old)]);
    assert!(line.contains("another file") && blob(&old).exists(), "{line}");
    assert_eq!(world.json(&["pull", NAME])["size_bytes"], 2_000);
    assert!(!blob(&old).exists() && blob(&new).exists());
}

#[test]
fn a_cut_connection_is_gone_on_with() {
    let body = file(100_000);
    let (server, world) = hub(&body);
    server.put("/bytes", Page { silent_after: Some(40_000), ..Page::of(&*body) });
    let part = world.models(&format!("partial/sha256-{}/file.part", sha256(&body)));
    let mut child = world.command(&["pull", NAME]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    world.until("40,000 bytes", || fs::metadata(&part).is_ok_and(|part| part.len() == 40_000));
    server.put("/bytes", Page::of(&*body));
    server.cut();
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(world.models(&format!("blobs/sha256-{}", sha256(&body)))).unwrap(), body);
    let ranges: Vec<_> = server.asked().into_iter().filter(|a| a.path == "/bytes").map(|a| a.range).collect();
    assert_eq!(ranges, [None, Some("bytes=40000-".to_owned())]);
}

#[test]
fn what_is_not_the_file_is_refused_and_leaves_nothing() {
    let body = file(20_000);
    let (server, world) = hub(&body);
    let mut other = body.clone();
    other[10_000] ^= 1;
    server.put("/bytes", Page::of(other));
    let line = world.refused(&["pull", NAME]);
    assert!(line.contains(&format!("SHA-256 {} expected, got", sha256(&body))), "{line}");
    assert!(world.is_empty());
    server.put("/bytes", Page::of(&body[1..]));
    let line = world.refused(&["pull", NAME]);
    assert!(line.contains("20000 bytes expected, got 19999 bytes"), "{line}");
    assert!(world.is_empty());
}

#[test]
fn what_a_hub_refuses_is_one_line() {
    let body = file(1_000);
    let (server, world) = hub(&body);
    for (page, part) in [
        (Page::status(404), "got 404 Not Found"),
        (
            Page::status(401).header("x-error-message", "Invalid username or password."),
            "got 401 Unauthorized: Invalid user",
        ),
        (Page::of(&*body), "a SHA-256 declared by the hub expected, got none"),
        (
            Page::of(&*body).header("x-linked-etag", "\"a94a8fe5ccb19ba61c4c0873d391e987982fbbd3\""),
            "got another kind of hash",
        ),
        (Page::status(302), "a redirect to somewhere expected"),
        (Page::status(302).header("location", PATH), "at most 8 redirects"),
    ] {
        server.put(PATH, page);
        let line = world.refused(&["pull", NAME]);
        assert!(line.contains(&server.url(PATH)) && line.contains(part) && !line.contains("s3cret"), "{line}");
        assert!(world.is_empty());
    }
}

#[test]
fn nobody_there_is_one_line() {
    // A port that was free a moment ago.
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::new().with("HF_ENDPOINT", format!("http://{at}"));
    let line = world.refused(&["pull", NAME]);
    let expected =
        format!("error: the model was not fetched: http://{at}: an answer expected, got none: Connection refused");
    assert!(line.starts_with(&expected), "{line}");
    assert!(world.is_empty());
}

#[test]
fn a_proxy_is_asked_unless_the_host_is_excepted() {
    let body = file(1_000);
    let server = Server::start();
    server.put(PATH, declared(&body, "/bytes"));
    server.put("/bytes", Page::of(&*body));
    // A host of this machine where nobody listens: only the proxy can answer for it.
    let through = |no_proxy: &str| {
        let world = World::new().with("HF_ENDPOINT", "http://127.0.0.2:9").with("HTTP_PROXY", server.url(""));
        world.with("NO_PROXY", no_proxy)
    };
    through("127.0.0.3").json(&["pull", NAME]);
    assert!(server.asked().iter().all(|asked| asked.host == "127.0.0.2"));
    let line = through("127.0.0.2").refused(&["pull", NAME]);
    assert!(line.contains("http://127.0.0.2:9: an answer expected"), "{line}");
    assert_eq!(server.asked(), []);
}

#[test]
fn a_url_needs_its_hash_and_gets_a_name() {
    let body = file(50_000);
    let (server, world) = (Server::start(), World::new());
    server.put("/shelf/Tide-1.gguf", Page::of(&*body));
    let url = server.url("/shelf/Tide-1.gguf").replace("http://", "http://ward:s3cret@");
    let output = world.littoral(&["pull", &url]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = world.refused(&["pull", &url, "--sha256", &sha256(b"other")]);
    assert!(line.contains("expected, got") && !line.contains("s3cret"), "{line}");
    assert_eq!(world.json(&["pull", &url, "--sha256", &sha256(&body)])["name"], "Tide-1");
    assert!(server.asked().iter().all(|asked| asked.login.as_deref() == Some("Basic d2FyZDpzM2NyZXQ=")));
    // Another file does not take the name.
    server.put("/Tide-1.gguf", Page::of("other"));
    let other = server.url("/Tide-1.gguf");
    let line = world.refused(&["pull", &other, "--sha256", &sha256(b"other")]);
    assert!(line.contains("one that is free expected, got Tide-1"), "{line}");
    assert_eq!(world.json(&["pull", &other, "--sha256", &sha256(b"other"), "--name", "tide-2"])["size_bytes"], 5);
}
