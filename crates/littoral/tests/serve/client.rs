//! The little of HTTP that a client needs, by hand: nothing stands between a test and what goes over the wire.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);

pub struct Reply {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{}: {e}: {}", self.status, self.body))
    }
}

/// A reply whose body is still coming.
pub struct Opened {
    pub status: u16,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

pub fn open(at: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Opened {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n");
    if !body.is_empty() {
        head += &format!("content-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            head += "content-type: application/json\r\n";
        }
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    // A server that refuses by the head alone may not read the body.
    let _ = stream.write_all(body.as_bytes());
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let status = line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    Opened { status, headers, reader }
}

impl Opened {
    fn chunked(&self) -> bool {
        self.headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked")
    }

    /// The next chunk of the body, none at its end.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut size = String::new();
        self.reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The next event, without its `data: `.
    pub fn event(&mut self) -> Option<String> {
        assert_eq!(self.status, 200);
        // The server sends each event as a chunk of its own.
        let text = String::from_utf8(self.chunk()?).unwrap();
        Some(text.strip_prefix("data: ").and_then(|text| text.strip_suffix("\n\n")).expect(&text).to_owned())
    }

    pub fn events(mut self) -> Vec<String> {
        std::iter::from_fn(|| self.event()).collect()
    }

    pub fn whole(mut self) -> Reply {
        let mut body = Vec::new();
        if self.chunked() {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else {
            let _ = self.reader.read_to_end(&mut body);
        }
        Reply { status: self.status, headers: self.headers, body: String::from_utf8(body).unwrap() }
    }
}

pub fn get(at: SocketAddr, path: &str) -> Reply {
    open(at, "GET", path, &[], "").whole()
}

pub fn post(at: SocketAddr, path: &str, body: &Value) -> Reply {
    open(at, "POST", path, &[], &body.to_string()).whole()
}

/// What must be right.
pub fn answer(at: SocketAddr, path: &str, body: &Value) -> Value {
    let reply = post(at, path, body);
    assert_eq!(reply.status, 200, "{body}: {}", reply.body);
    reply.json()
}

pub fn stream(at: SocketAddr, path: &str, body: &Value) -> Opened {
    let mut body = body.clone();
    body["stream"] = json!(true);
    open(at, "POST", path, &[], &body.to_string())
}
