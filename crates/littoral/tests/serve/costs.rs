//! What answers cost and how long they wait decides who gives them; and what a router has seen outlives its server.

use super::above::{asked, by, greedy, models, router, said, serve, until};
use super::ask::{CHAT, text, with};
use super::client::{post, stream};
use super::server::{binary, key_in};
use littoral_infer::route::drift::Watch;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;

const LONG: &str =
    "Say it again. Say it again. Say it again. Say it again. Say it again. Say it again. Say it again. Say it again. ";

/// Kept by its score where the edge is free, away where it is dear.
#[test]
fn a_price_decides_who_answers() {
    let (_folder, dir) = models();
    let route = router(&dir);
    let edge_key = key_in(&dir.join("edge"), 41);
    let (cloud_dir, own) = (dir.join("cloud"), dir.join("edge"));
    let verify = ["--verify", "127.0.0.1:0", "--allow", &edge_key, "--dir", cloud_dir.to_str().unwrap()];
    let large = serve(&dir, "large.gguf", &verify);
    let (server, machine) = (format!("http://{}/v1", large.at), large.ready["verifies"].as_str().unwrap().to_owned());
    let edge = |upper: &str, args: &[&str]| {
        let all = ["--upstream", upper, "--dir", own.to_str().unwrap()];
        let edge = serve(&dir, "small.gguf", &[&all[..], args].concat());
        until("the server above is not asked", || by(&post(edge.at, CHAT, &asked(LONG))).0 == "upstream");
        edge
    };
    let routed = ["--router", route.to_str().unwrap(), "--router-when", "before"];
    let short = asked("Hm?");
    for (price, expected) in [("0.5", "here"), ("1.5", "upstream")] {
        let edge = edge(&server, &[&routed[..], &["--price", price]].concat());
        let reply = post(edge.at, CHAT, &short);
        let (who, why) = by(&reply);
        assert_eq!(who, expected, "{why}");
        assert_eq!(why == "the cloud costs less than the edge", expected == "upstream", "{why}");
    }
    // How the large model is asked: its text is the same.
    let body = greedy("What does the sea say?");
    let of_large = said(large.at, &body);
    for (price, how) in [("0.5", "drafted here, verified there"), ("1.5", "drafts cost more")] {
        let edge = edge(&machine, &["--drafted-price", price]);
        let reply = post(edge.at, CHAT, &body);
        assert_eq!(by(&reply), ("upstream", &*format!("no calibration: the edge promises nothing; {how}")));
        let got = reply.json();
        assert_eq!(text(&got, 0), of_large);
        let (tokens, passes) =
            (&got["usage"]["littoral"]["tokens"]["upstream"], &got["usage"]["littoral"]["upstream_passes"]);
        // Alone it makes a pass for each token.
        assert!(how != "drafts cost more" || passes.as_u64() >= tokens.as_u64(), "{got}");
    }
    let edge = edge(&server, &["--drafted-price", "1.5"]);
    let dear = "no calibration: the edge promises nothing; drafts cost more";
    until("drafts are not looked at", || by(&post(edge.at, CHAT, &body)).1 == dear);
    let reply = post(edge.at, CHAT, &body);
    assert_eq!((by(&reply).0, text(&reply.json(), 0)), ("upstream", &*of_large));
    assert!(reply.json()["usage"]["littoral"]["exact"].is_null(), "{}", reply.body);
}

/// One place, and somebody has it for long.
#[test]
fn who_would_wait_too_long_is_answered_above() {
    let (_folder, dir) = models();
    let route = router(&dir);
    let large = serve(&dir, "large.gguf", &[]);
    let server = format!("http://{}/v1", large.at);
    let args = ["--upstream", &server, "--router", route.to_str().unwrap(), "--router-when", "before"];
    let edge = serve(&dir, "small.gguf", &[&args[..], &["--parallel", "1", "--router-wait", "1ms"]].concat());
    let short = asked("Hm?");
    until("the server above is not asked", || by(&post(edge.at, CHAT, &asked(LONG))).0 == "upstream");
    assert_eq!(by(&post(edge.at, CHAT, &short)).0, "here");
    let mut endless = stream(edge.at, CHAT, &with(short.clone(), json!({"max_tokens": 60_000})));
    // So many tokens take longer than a millisecond.
    (0..200).for_each(|_| drop(endless.event().unwrap()));
    let reply = post(edge.at, CHAT, &short);
    let (who, why) = by(&reply);
    assert!(who == "upstream" && why.starts_with("the edge would begin with it in about "), "{who}, {why}");
    assert_eq!(text(&reply.json(), 0), said(large.at, &short));
    drop(endless);
    until("the place is not free", || by(&post(edge.at, CHAT, &short)).0 == "here");
}

/// A few scores are no reason to write; the end of the server is. A file that no server wrote is no watch.
#[test]
fn what_a_watch_has_seen_outlives_its_server() {
    let (_folder, dir) = models();
    let route = router(&dir);
    let large = serve(&dir, "large.gguf", &[]);
    let server = format!("http://{}/v1", large.at);
    let args = ["--upstream", &server, "--router", route.to_str().unwrap(), "--router-when", "before"];
    let path = route.with_extension("watch.json");
    let mut before = 0;
    for _ in 0..2 {
        let edge = serve(&dir, "small.gguf", &args);
        until("the server above is not asked", || by(&post(edge.at, CHAT, &asked(LONG))).0 == "upstream");
        for _ in 0..3 {
            assert_eq!(by(&post(edge.at, CHAT, &asked("Hm?"))).0, "here");
        }
        edge.ask_to_stop();
        assert_eq!(edge.end(), Some(0));
        let watch: Watch = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(watch.seen() >= before + 4, "{} after {before}", watch.seen());
        before = watch.seen();
    }
    // One that would never look again.
    let text = std::fs::read_to_string(&path).unwrap().replace("\"block\":200", "\"block\":1000000");
    std::fs::write(&path, text).unwrap();
    let refused = binary().arg("--json").arg("serve").arg(dir.join("small.gguf")).args(args).output().unwrap();
    let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(refused["error"]["what"], "the router's watch was not read", "{refused}");
    assert_eq!(refused["error"]["got"], "the watch, block: 1 to 1024 scores expected, got 1000000");
}
