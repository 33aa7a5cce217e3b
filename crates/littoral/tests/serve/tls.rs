//! Over TLS, with `openssl` for a certificate and `curl` for a client.

use super::server::{Folder, Server};
use std::process::Command;

#[test]
fn with_a_certificate_it_speaks_tls() {
    let folder = Folder::new();
    let (certificate, key) = (folder.write("cert.pem", ""), folder.write("key.pem", ""));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key])
        .output();
    let curl = Command::new("curl").arg("--version").output();
    if !made.is_ok_and(|output| output.status.success()) || curl.is_err() {
        println!("openssl or curl is absent: TLS was not tried");
        return;
    }
    let server = Server::start(&["--tls-cert", certificate, "--tls-key", key]);
    let url = server.ready["url"].as_str().unwrap();
    assert!(url.starts_with("https://"), "{url}");
    let ask = |url: String, trust: &[&str]| {
        let output = Command::new("curl").args(["-s", "--max-time", "20"]).args(trust).arg(url).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(ask(format!("{url}/healthz"), &["--cacert", certificate]), (true, "ok\n".into()));
    assert!(!ask(format!("{url}/healthz"), &[]).0, "nobody vouches for the certificate");
    assert!(!ask(url.replace("https", "http"), &[]).0, "what is no TLS is not answered");
    assert_eq!(ask(format!("{url}/healthz"), &["--cacert", certificate]).1, "ok\n");
}
