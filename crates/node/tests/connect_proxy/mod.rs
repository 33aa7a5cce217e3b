//! A small but real HTTP CONNECT proxy.

use littoral_node::transport::{Proxy, ProxyLogin};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// `ward:s3cret` in base64, written out: a proxy does not share its client's arithmetic.
const LOGIN: &str = "Proxy-Authorization: Basic d2FyZDpzM2NyZXQ=";

/// Answers `CONNECT host:port` for the user `ward`; everything else gets the status that RFC 9110 has for it.
pub struct ConnectProxy {
    at: SocketAddr,
    tunnels: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// `routes`: where a place really is, if the proxy alone can reach it.
    pub async fn start(routes: &[(SocketAddr, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, routes) = (listener.local_addr().unwrap(), routes.to_vec());
        let tunnels = Arc::new(Mutex::default());
        let opened: Arc<Mutex<Vec<String>>> = tunnels.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (routes, opened) = (routes.clone(), opened.clone());
                running.spawn(async move { serve(socket, &routes, &opened).await.unwrap_or_default() });
            }
        });
        Self { at, tunnels, _tasks: tasks }
    }

    pub fn login(&self, password: &str) -> Proxy {
        let login = Some(ProxyLogin { user: "ward".into(), password: password.into() });
        Proxy { host_port: self.at.to_string(), login }
    }

    /// The targets of all tunnels that were opened, as they were asked for.
    pub fn tunnels(&self) -> Vec<String> {
        self.tunnels.lock().unwrap().clone()
    }
}

async fn serve(socket: TcpStream, routes: &[(SocketAddr, SocketAddr)], opened: &Mutex<Vec<String>>) -> Option<()> {
    let mut near = BufReader::new(socket);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        near.read_line(&mut line).await.ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let target = lines.first()?.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1")?.to_owned();
    let asked = target.parse::<SocketAddr>().ok()?;
    let place = routes.iter().find(|(shown, _)| *shown == asked).map_or(asked, |(_, place)| *place);
    let answer = if !lines.iter().any(|line| line == LOGIN) {
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"
    } else if let Ok(mut far) = TcpStream::connect(place).await {
        opened.lock().unwrap().push(target);
        near.write_all(b"HTTP/1.1 200 Connection established\r\nVia: a test\r\n\r\n").await.ok()?;
        tokio::io::copy_bidirectional(&mut near, &mut far).await.ok()?;
        return None;
    } else {
        "HTTP/1.1 502 Bad Gateway\r\n\r\n"
    };
    near.write_all(answer.as_bytes()).await.ok()?;
    None
}
