//! The official `openai` client, unchanged. LITTORAL_PYTHON names a Python that has it.

use super::server::Server;
use std::process::Command;

#[test]
fn the_official_client_works() {
    let python = std::env::var("LITTORAL_PYTHON").unwrap_or_else(|_| "python3".into());
    let there = Command::new(&python).args(["-c", "import openai"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        println!("{python} has no package `openai`: the official client was not tried");
        return;
    }
    let server = Server::start(&["--api-key", "sk-test", "--parallel", "2", "--queue", "2"]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py");
    let output = Command::new(&python).arg(script).arg(format!("http://{}/v1", server.at)).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    print!("{}", text(&output.stdout));
}
