//! Where a cloud or an edge listens, and what it tells others about that.

use super::DeployError;
use crate::config::{Network, TransportName, socket_address};
use crate::transport::{Address, AutoTransport, Identity, QuicTransport, TcpTransport, Transport, TransportError};
use littoral_wire::SecretKey;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// `key@host:port` of what listens, in its state folder.
pub const ADDRESS_FILE: &str = "address";

pub(super) struct Listening {
    pub transport: Arc<dyn Transport>,
    /// `host:port` that others dial.
    pub advertised: String,
}

/// Binds, and writes [`ADDRESS_FILE`]. With port 0 the port of the last run is tried first, so that machines find their
/// way back after a restart.
pub(super) async fn listen(
    dir: &Path,
    key: &SecretKey,
    listen: &str,
    advertise: &str,
    network: &Network,
) -> Result<Listening, DeployError> {
    let at = socket_address(listen).ok_or_else(|| DeployError::Field {
        field: "listen",
        expected: "an IP address and a port such as 127.0.0.1:7400".into(),
        got: listen.into(),
    })?;
    let identity = Identity::from_secret(&key.to_bytes());
    let last = read_address(dir).ok().flatten();
    let before = last.filter(|_| at.port() == 0).map(|address| address.port);
    let transport = match before {
        Some(port) => match bind(&identity, SocketAddr::new(at.ip(), port), network).await {
            Err(TransportError::Bind { .. }) => bind(&identity, at, network).await?,
            bound => bound?,
        },
        None => bind(&identity, at, network).await?,
    };
    let port = transport.local_addresses().first().map_or(at.port(), |address| address.port);
    let advertised = match advertise {
        "" => SocketAddr::new(at.ip(), port).to_string(),
        with_port if format!("{}@{with_port}", key.id()).parse::<Address>().is_ok() => with_port.to_owned(),
        host => format!("{host}:{port}"),
    };
    write_atomically(&dir.join(ADDRESS_FILE), &format!("{}@{advertised}\n", key.id()), 0o644)?;
    Ok(Listening { transport, advertised })
}

async fn bind(identity: &Identity, at: SocketAddr, network: &Network) -> Result<Arc<dyn Transport>, TransportError> {
    let options = network.options();
    Ok(match network.transport {
        TransportName::Auto => Arc::new(AutoTransport::listen(identity, at, options).await?),
        TransportName::Quic => Arc::new(QuicTransport::listen(identity, at, options.quic).await?),
        TransportName::Tcp => Arc::new(TcpTransport::listen(identity, at, options.tcp).await?),
    })
}

/// For machines that only dial out.
pub(super) async fn dialler(key: &SecretKey, network: &Network) -> Result<Arc<dyn Transport>, TransportError> {
    let (identity, options) = (Identity::from_secret(&key.to_bytes()), network.options());
    Ok(match network.transport {
        TransportName::Auto => Arc::new(AutoTransport::dialler(&identity, None, options).await?),
        TransportName::Quic => Arc::new(QuicTransport::dialler(&identity, None, options.quic).await?),
        TransportName::Tcp => Arc::new(TcpTransport::dialler(&identity, options.tcp)?),
    })
}

/// The address that the cloud or edge of this folder wrote, if one ever ran here.
pub fn read_address(dir: &Path) -> Result<Option<Address>, DeployError> {
    let path = dir.join(ADDRESS_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(address) => Ok(Some(address)),
            Err(e) => Err(DeployError::File { path, expected: "key@host:port".into(), got: e.to_string() }),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DeployError::File { path, expected: "a readable file".into(), got: e.to_string() }),
    }
}

/// A reader finds the old text or the new one, also after a crash.
pub(super) fn write_atomically(path: &Path, text: &str, mode: u32) -> Result<(), DeployError> {
    use std::os::unix::fs::OpenOptionsExt;
    let fault = |e: io::Error| DeployError::File {
        path: path.to_owned(),
        expected: "a file that can be written".into(),
        got: e.to_string(),
    };
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&unfinished).map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)?;
    fs::rename(&unfinished, path).map_err(fault)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)
}
