//! Where a machine listens and which key it must show: `hex-id@host:port`.

use super::{NodeId, Result, TransportError};
use littoral_wire::bounded::printable;
use std::{fmt, net::Ipv6Addr, net::SocketAddr, str::FromStr};

/// A machine's key and the place where it listens; the same port for UDP (QUIC) and TCP.
///
/// `host` is a DNS name, an IPv4 address or an IPv6 address (without brackets here, in brackets when printed).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub id: NodeId,
    pub host: String,
    pub port: u16,
}

impl Address {
    pub fn new(id: NodeId, at: SocketAddr) -> Self {
        Self { id, host: at.ip().to_string(), port: at.port() }
    }

    /// `host:port` without the key, IPv6 in brackets. Refuses a host that could not have been parsed, so that
    /// nothing but a host ever reaches a proxy's request line.
    pub fn host_port(&self) -> Result<String> {
        if !is_host(&self.host) {
            return Err(refused("a DNS name or an IP address", &self.host));
        }
        Ok(self.to_string().split_off(65))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}@[{}]:{}", self.id, self.host, self.port)
        } else {
            write!(f, "{}@{}:{}", self.id, self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self> {
        let shape = || refused("hex-id@host:port", text);
        let (id, place) = text.split_once('@').ok_or_else(shape)?;
        let (host, port) = place.rsplit_once(':').ok_or_else(shape)?;
        let id = id.parse().map_err(|_| refused("64 lower-case hexadecimal digits before the @", text))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let host =
                    rest.strip_suffix(']').ok_or_else(|| refused("a closing bracket after the IPv6 address", text))?;
                host.parse::<Ipv6Addr>().map_err(|_| refused("an IPv6 address in the brackets", text))?;
                host
            }
            None if host.contains(':') => return Err(refused("an IPv6 address in brackets", text)),
            None => host,
        };
        if !is_host(host) {
            return Err(refused("a DNS name or an IP address before the port", text));
        }
        let digits = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(|| refused("a port from 1 to 65535", text))?;
        Ok(Self { id, host: host.to_owned(), port })
    }
}

fn is_host(host: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    host.parse::<Ipv6Addr>().is_ok()
        || (1..=253).contains(&host.len()) && host.bytes().all(name) && !host.starts_with(['-', '.'])
}

/// What stands there is repeated in part, without control characters: a file or a flag may hold anything.
fn refused(expected: &'static str, got: &str) -> TransportError {
    let start: String = got.chars().take(400).collect();
    TransportError::InvalidAddress { expected, got: printable(&start).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn an_error_is_one_line() {
        let error = "a\nb".parse::<Address>().unwrap_err();
        assert_eq!(error.to_string(), "address `a\\nb`: expected hex-id@host:port");
    }

    #[test]
    fn prints_what_it_parses() {
        for place in ["127.0.0.1:7400", "edge-1.hospital.example:1", "[::1]:65535", "[fe80::1]:80"] {
            let text = format!("{ID}@{place}");
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.host_port().unwrap(), place);
        }
    }

    #[test]
    fn refuses_everything_else() {
        let places = [
            "127.0.0.1",
            "host:",
            "host:0",
            "host:07",
            "host:+7",
            "host:65536",
            ":80",
            "::1:80",
            "[::1:80",
            "[host]:80",
            "a b:80",
            "a\r\nX:80",
            "-a:80",
            "a@b:80",
            "[::1]80",
            "host:80 ",
        ];
        for place in places {
            assert!(format!("{ID}@{place}").parse::<Address>().is_err(), "{place:?}");
        }
        assert!("127.0.0.1:80".parse::<Address>().is_err());
    }

    #[test]
    fn a_hand_made_host_cannot_smuggle_a_header() {
        let address = Address { id: ID.parse().unwrap(), host: "a:1\r\nX: y".into(), port: 1 };
        assert!(address.host_port().is_err());
    }
}
