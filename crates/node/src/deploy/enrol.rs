//! Getting in: a ticket becomes an enrolment; and changing a machine's key later.

use super::edge::peer;
use super::listen::write_atomically;
use super::{DeployError, KEY_FILE, Session, folder};
use crate::config::Network;
use crate::host::keys;
use crate::role::Peer;
use crate::store::DirectoryLock;
use crate::transport::Address;
use littoral_wire::bounded::printable;
use littoral_wire::message::{Name, ROTATE_DOMAIN, Role};
use littoral_wire::ticket::Ticket;
use littoral_wire::{Message, NodeId, SecretKey};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::Path;

/// What `join` learnt, in the machine's state folder.
pub const ENROLMENT_FILE: &str = "enrolment.toml";
/// A key that is to replace the machine's own.
const NEXT_KEY_FILE: &str = "key.next";
/// The reply to a key change; the cloud's own answers are short.
const ENROLMENT_BYTES_MAX: u64 = 1 << 20;

/// Which cloud let this machine in, under which name, and whom to dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    pub name: String,
    /// The cloud's key.
    pub cloud: String,
    /// `key@host:port`: edges, then the cloud.
    pub upstreams: Vec<String>,
    /// The key that signs rosters, if the ticket had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<String>,
}

/// A machine that was let in.
#[derive(Clone, Debug)]
pub struct Joining {
    pub id: NodeId,
    pub role: Role,
    pub enrolment: Enrolment,
}

impl Enrolment {
    /// `None`: this machine never joined.
    pub fn load(dir: &Path) -> Result<Option<Self>, DeployError> {
        let path = dir.join(ENROLMENT_FILE);
        let wrong = |got: String| DeployError::File {
            path: path.clone(),
            expected: "an enrolment as `littoral join` writes it".into(),
            got: printable(&got).into_owned(),
        };
        match fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(wrong(e.to_string())),
            Ok(file) if file.len() > ENROLMENT_BYTES_MAX => return Err(wrong(format!("{} bytes", file.len()))),
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        toml::from_str(&text).map(Some).map_err(|e| wrong(e.message().to_owned()))
    }

    fn save(&self, dir: &Path) -> Result<(), DeployError> {
        let body = toml::to_string(self).unwrap_or_default();
        let text = format!("# Written by `littoral join`: who let this machine in, and whom it dials.\n{body}");
        write_atomically(&dir.join(ENROLMENT_FILE), &text, 0o600)
    }

    /// The cloud itself, as edges dial it.
    pub(super) fn cloud_peer(&self) -> Option<Peer> {
        let addresses = self.upstreams.iter().filter_map(|text| text.parse::<Address>().ok());
        addresses.map(|address| peer(&address)).find(|peer| peer.id.to_string() == self.cloud)
    }
}

/// Spends a ticket for the machine of `dir`; a key is made if it has none. The same key spends a ticket once, however
/// often it asks.
pub async fn join(ticket: &Ticket, name: &str, dir: &Path, network: &Network) -> Result<Joining, DeployError> {
    // What a device keeps of a job belongs to one cloud's job of that number.
    if let Some(before) = Enrolment::load(dir)?
        && before.cloud != ticket.cloud.to_string()
    {
        return Err(DeployError::Denied {
            what: "join refused".into(),
            place: dir.join(ENROLMENT_FILE).display().to_string(),
            expected: "a machine of the ticket's cloud, or a state folder of its own (`--dir`)".into(),
            got: format!("one that cloud {} let in", before.cloud.get(..8).unwrap_or(&before.cloud)),
        });
    }
    let (store, key) = folder::open(dir).await?;
    let joined = spend(ticket, name, dir, &key, network).await;
    // The folder is free for whoever runs the machine next.
    store.close().await;
    joined
}

async fn spend(
    ticket: &Ticket,
    name: &str,
    dir: &Path,
    key: &SecretKey,
    network: &Network,
) -> Result<Joining, DeployError> {
    let mut unreached = None;
    for place in ticket.addresses.iter() {
        let address: Address = format!("{}@{}", ticket.cloud, &**place).parse()?;
        let mut session = match Session::dial(key, &address, network).await {
            Ok(session) => session,
            Err(e) => {
                unreached = Some(e);
                continue;
            }
        };
        session.send(&Message::Join { secret: ticket.secret, role: ticket.role, name: Name::new(name) }).await?;
        let (name, upstreams) = match session.answer().await? {
            Message::Joined { name, upstreams } => (name.to_string(), upstreams),
            Message::Denied { what, place, expected, got } => {
                return Err(DeployError::Denied {
                    what: what.to_string(),
                    place: place.to_string(),
                    expected: expected.to_string(),
                    got: got.to_string(),
                });
            }
            other => return Err(session.unexpected(&other).into()),
        };
        session.close().await;
        let mut upstreams: Vec<String> = upstreams.iter().map(|u| format!("{}@{}", u.id, &*u.address)).collect();
        // The way that worked for us, in case the cloud sees itself under another address.
        let worked = address.to_string();
        if !upstreams.contains(&worked) {
            upstreams.push(worked);
        }
        let roster = ticket.roster.map(|key| key.to_string());
        let enrolment = Enrolment { name, cloud: ticket.cloud.to_string(), upstreams, roster };
        enrolment.save(dir)?;
        return Ok(Joining { id: key.id(), role: ticket.role, enrolment });
    }
    Err(match unreached {
        Some(e) => e.into(),
        None => DeployError::Field {
            field: "ticket",
            expected: "at least one address of the cloud".into(),
            got: "none".into(),
        },
    })
}

/// Gives the machine of `dir` a new key, known to the cloud under the old name; the old key is worthless afterwards.
/// The machine must not be running. A rotation that was interrupted is carried on.
///
/// Returns the new key's public half.
pub async fn rotate(dir: &Path, network: &Network) -> Result<NodeId, DeployError> {
    let not_enrolled = || DeployError::NotEnrolled { dir: dir.to_owned() };
    // The lock would make a folder that is not there.
    if !dir.exists() {
        return Err(not_enrolled());
    }
    let _lock = DirectoryLock::take(dir)?;
    folder::check_whole(dir)?;
    let enrolment = Enrolment::load(dir)?.ok_or_else(not_enrolled)?;
    let cloud = enrolment.cloud_peer().ok_or_else(not_enrolled)?;
    let address: Address = format!("{}@{}", cloud.id, cloud.address).parse()?;
    let (key_path, next_path) = (dir.join(KEY_FILE), dir.join(NEXT_KEY_FILE));
    let interrupted = next_path.exists();
    let old = keys::load(&key_path)?;
    // Durable before the cloud hears of it: a crash in between must not lose the only key that is let in.
    let new = keys::load_or_create(&next_path)?;
    let mut done = ask_rotation(&old, &new, &address, network).await;
    if interrupted && matches!(done, Err(DeployError::Denied { .. })) {
        // The cloud may have changed the key before: then the new key is enrolled, and may replace itself.
        done = ask_rotation(&new, &new, &address, network).await;
    }
    done?;
    fs::rename(&next_path, &key_path).and_then(|()| fs::File::open(dir)?.sync_all()).map_err(|e| {
        DeployError::File { path: key_path.clone(), expected: "a file that can be replaced".into(), got: e.to_string() }
    })?;
    Ok(new.id())
}

async fn ask_rotation(by: &SecretKey, to: &SecretKey, address: &Address, network: &Network) -> Result<(), DeployError> {
    let mut session = Session::dial(by, address, network).await?;
    let signature = to.sign(ROTATE_DOMAIN, &by.id().0);
    session.send(&Message::Rotate { to: to.id(), signature }).await?;
    match session.answer().await? {
        Message::Rotated { to: named } if named == to.id() => {
            session.close().await;
            Ok(())
        }
        Message::Denied { what, place, expected, got } => Err(DeployError::Denied {
            what: what.to_string(),
            place: place.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }),
        other => Err(session.unexpected(&other).into()),
    }
}
