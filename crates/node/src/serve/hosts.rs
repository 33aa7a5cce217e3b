//! Under which names the server is asked.
//!
//! A page of another site can make its own name point to this machine after it was loaded (DNS rebinding), and its script
//! then speaks with a server here as if it were its own. The browser still says which name it meant. So where nothing else
//! keeps others out, a listener on loopback answers to names of this machine only.

use axum::http::HeaderMap;
use axum::http::header::HOST;
use axum::http::uri::{Authority, Uri};
use std::net::IpAddr;

/// Names that are let in, beside those of this machine.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    pub fn new(names: Vec<String>) -> Self {
        Self(names)
    }

    /// # Errors
    /// The name that was asked for, if it is none of these. A request without one comes from no browser.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let said = headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or("other characters"));
        match said.chain(uri.authority().map(Authority::as_str)).find(|said| !self.known(said)) {
            Some(other) => Err(other.chars().take(128).collect()),
            None => Ok(()),
        }
    }

    fn known(&self, said: &str) -> bool {
        let Ok(authority) = said.parse::<Authority>() else { return false };
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
            || host.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|name| host.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_known() {
        let hosts = Hosts::new(vec!["box.lan".into()]);
        for name in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "127.1.2.3", "[::1]:8080", "box.lan:8080"] {
            assert!(hosts.known(name), "{name}");
        }
        for name in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1", "a b"] {
            assert!(!hosts.known(name), "{name}");
        }
    }
}
