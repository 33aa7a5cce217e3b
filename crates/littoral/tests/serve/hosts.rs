//! Under which names the server is asked.

use super::client::open;
use super::server::{Server, not_started};
use serde_json::Value;

#[test]
fn without_keys_only_names_of_this_machine_are_answered() {
    let status = |server: &Server, host: &str| {
        let reply = open(server.at, "GET", "/v1/models", &[("host", host)], "").whole();
        let code = reply.json()["error"]["code"].clone();
        assert_eq!(code == "host_not_allowed", reply.status == 403, "{code}");
        reply.status
    };
    let server = Server::start(&["--allow-host", "box.lan"]);
    for (host, expected) in [("localhost:8080", 200), ("box.lan", 200), ("evil.example", 403), ("localhost.evil", 403)]
    {
        assert_eq!(status(&server, host), expected, "{host}");
    }
    // The page and the metrics, too.
    for path in ["/", "/metrics", "/healthz"] {
        assert_eq!(open(server.at, "GET", path, &[("host", "evil.example")], "").whole().status, 403);
    }
    assert_eq!(status(&Server::start(&["--open"]), "box.lan"), 200);
}

#[test]
fn an_open_door_is_refused_before_the_model_is_read() {
    // There is no such model; that is not what is complained of.
    let output = super::server::binary()
        .args(["--json", "serve", "/nowhere/model.gguf", "--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["error"]["where"], "0.0.0.0:0");
    assert_eq!(not_started(&["--listen", "0.0.0.0:0"]).status.code(), Some(1));
}
