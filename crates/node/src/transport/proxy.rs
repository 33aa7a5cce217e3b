//! Through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6) with optional basic credentials (RFC 7617).
//!
//! Only a tunnel is asked for; the proxy sees the place we dial and ciphertext. No proxy auto-configuration, no TLS
//! towards the proxy itself.

use super::{Address, Result, TransportError};
use std::fmt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A proxy's answer is refused beyond this size.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// An HTTP proxy, `host:port`, IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host_port: String,
    pub login: Option<ProxyLogin>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyLogin({}, password hidden)", self.user)
    }
}

impl Proxy {
    /// A socket whose bytes reach `address` from now on.
    pub(super) async fn connect(&self, address: &Address) -> Result<TcpStream> {
        let target = address.host_port()?;
        let failed = |got: String| TransportError::Proxy { proxy: self.host_port.clone(), target: target.clone(), got };
        let mut socket = TcpStream::connect(&self.host_port).await.map_err(|error| failed(error.to_string()))?;
        let request = self.request(&target);
        socket.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        let mut answer = Vec::with_capacity(512);
        let head = loop {
            if let Some(end) = find(&answer, b"\r\n\r\n") {
                break end + 4;
            }
            if answer.len() >= ANSWER_BYTES_MAX {
                return Err(failed(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
            }
            match socket.read_buf(&mut answer).await {
                Ok(0) if answer.is_empty() => {
                    return Err(failed("no answer before it hung up".into()));
                }
                Ok(0) => return Err(failed(status_line(&answer))),
                Ok(_) => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        };
        let status = status_line(&answer);
        let accepted = status.strip_prefix("HTTP/1.").is_some_and(|rest| rest.get(1..5) == Some(" 200"));
        if !accepted {
            return Err(failed(format!("`{status}`")));
        }
        // We speak first inside the tunnel: bytes behind the answer are not our peer's.
        if answer.len() > head {
            return Err(failed(format!("`{status}` and {} stray bytes", answer.len() - head)));
        }
        Ok(socket)
    }

    fn request(&self, target: &str) -> String {
        let login = self.login.as_ref().map_or(String::new(), |login| {
            let credentials = base64(format!("{}:{}", login.user, login.password).as_bytes());
            format!("Proxy-Authorization: Basic {credentials}\r\n")
        });
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n")
    }
}

/// The first line, printable and short enough for an error message.
fn status_line(answer: &[u8]) -> String {
    let line = answer.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect()
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern)
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit > group.len() { '=' } else { char::from(DIGITS[index as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10, and the credentials of RFC 7617, section 2.
    #[test]
    fn base64_vectors() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in vectors {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(b"Aladdin:open sesame"), "QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn a_password_is_not_shown() {
        let login = Some(ProxyLogin { user: "ward".into(), password: "s3cret".into() });
        let shown = format!("{:?}", Proxy { host_port: "proxy:3128".into(), login });
        assert!(shown.contains("ward") && !shown.contains("s3cret"));
    }
}
