//! Who may ask.

use super::ask::{CHAT, chat};
use super::client::open;
use super::server::{Folder, Server, not_started};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

#[test]
fn with_keys_only_those_who_have_one_may_ask() {
    let folder = Folder::new();
    let file = folder.write("keys", "# for tests\nsk-from-file\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::start(&["--api-key", "sk-one", "--api-key-file", file.to_str().unwrap()]);
    let status = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        open(server.at, method, path, headers, body).whole().status
    };
    let body = chat("x").to_string();
    for key in ["Bearer sk-one", "bearer sk-from-file"] {
        assert_eq!(status("POST", CHAT, &[("authorization", key)], &body), 200);
        assert_eq!(status("GET", "/metrics", &[("authorization", key)], ""), 200);
    }
    for headers in [&[][..], &[("authorization", "Bearer sk-on")], &[("authorization", "Basic sk-one")]] {
        let reply = open(server.at, "POST", CHAT, headers, &body).whole();
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
        assert_eq!(status("GET", "/v1/models", headers, ""), 401);
        assert_eq!(status("GET", "/metrics", headers, ""), 401);
        // Those who watch over the server have none.
        assert_eq!((status("GET", "/healthz", headers, ""), status("GET", "/", headers, "")), (200, 200));
    }
}

#[test]
fn an_open_door_without_a_key_must_be_meant() {
    let place = |args: &[&str]| {
        let output = not_started(args);
        assert_eq!(output.status.code(), Some(1));
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        value["error"]["where"].as_str().unwrap().to_owned()
    };
    assert_eq!(place(&["--listen", "0.0.0.0:0"]), "0.0.0.0:0");
    let folder = Folder::new();
    let file = folder.write("keys", "sk-one\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(place(&["--listen", "127.0.0.1:0", "--api-key-file", file]), file);
}
