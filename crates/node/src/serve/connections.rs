//! Requests over each connection, and a bound on how long their heads take.

use super::door::{Connection, Door, Peer};
use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// From a connection's begin, or the last reply, to the end of the next request's head. Whoever says nothing for so long,
/// or says it byte by byte, is cut off.
const HEAD_MAX: Duration = Duration::from_secs(60);

/// Serves whoever comes, until `closed` changes; then until all that has begun is done.
pub async fn serve(mut door: Door, router: Router, mut closed: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            (connection, from) = door.accept() => {
                open.spawn(requests(connection, from, router.clone(), closed.clone()));
            }
            Some(_) = open.join_next() => {}
            _ = closed.changed() => break,
        }
    }
    drop(door);
    while open.join_next().await.is_some() {}
}

async fn requests(connection: Connection, from: SocketAddr, router: Router, mut closed: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(router.layer(Extension(ConnectInfo(Peer(from)))));
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(connection), service));
    // That one fails means that it was cut off, at either end.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = closed.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    /// The clock stands still and jumps to the next alarm when nobody has anything to do.
    #[tokio::test(start_paused = true)]
    async fn who_never_ends_a_head_is_cut_off() {
        let door = Door::open("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let at = door.address();
        let (_close, closed) = watch::channel(false);
        tokio::spawn(serve(door, Router::new(), closed));
        for begun in ["", "GET / HTTP/1.1\r\nhost: loc"] {
            let mut client = TcpStream::connect(at).await.unwrap();
            let from = Instant::now();
            client.write_all(begun.as_bytes()).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            assert!(from.elapsed() >= HEAD_MAX, "{begun:?} was cut off after {:?}", from.elapsed());
        }
    }
}
