//! Who is who in a session, in which graph, and who completed sharing: what a server keeps over a restart.

use super::Opening;
use super::gathering::hashed;
use crate::secagg::codec::{Bitmap, DecodeError, Reader};
use crate::secagg::harary::Graph;
use crate::secagg::message::{Advertised, Vouched};
use crate::secagg::parameters::{CLIENTS_MAX, Parameters};
use crate::secagg::refused::Refused;
use crate::secagg::session::{Session, graph_seed, vertices};
use std::fmt;

/// It holds what devices told the server and nothing else; keep it from the time [`Sharing`](super::Sharing) is closed until
/// the sum is open. A restarted server asks for shares again: devices answer the same request with the same bytes.
#[derive(Clone, PartialEq)]
pub struct Directory {
    pub(super) session: Session,
    pub(super) bound: [u8; 32],
    /// Of the graph as it came to be.
    pub(super) parameters: Parameters,
    pub(super) secret: [u8; 32],
    seed: [u8; 32],
    pub(super) list: Vec<([u8; 32], Advertised)>,
    pub(super) root: [u8; 32],
    /// Who is in the graph; under the active threat with their nonces, in order.
    pub(super) present: Bitmap,
    pub(super) nonces: Vec<[u8; 16]>,
    graph: Graph,
    /// The place of each vertex of the graph.
    places: Vec<u32>,
    /// Of devices that completed sharing: the commitment to the seed of their self mask.
    pub(super) completed: Vec<Option<[u8; 32]>>,
}

const VERSION: u8 = 1;

impl Directory {
    pub(super) fn new(
        session: Session,
        secret: [u8; 32],
        seed: [u8; 32],
        list: Vec<([u8; 32], Advertised)>,
        root: [u8; 32],
        present: Bitmap,
        nonces: Vec<[u8; 16]>,
    ) -> Result<Self, Refused> {
        let parameters = session.parameters(present.count())?;
        let graph = Graph::new(present.count(), parameters.degree, &seed);
        let (bound, places, completed) = (session.bound(), vertices(&present), vec![None; list.len()]);
        Ok(Self { session, bound, parameters, secret, seed, list, root, present, nonces, graph, places, completed })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Degree and threshold of the graph as it came to be, for a log.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Devices of which a sum is opened at least.
    pub fn minimum(&self) -> u32 {
        self.session.minimum(&self.parameters)
    }

    /// Devices in the list.
    pub fn count(&self) -> u32 {
        self.list.len() as u32
    }

    pub fn index_of(&self, identity: &[u8; 32]) -> Option<u32> {
        self.list.binary_search_by(|(listed, _)| listed.cmp(identity)).ok().map(|at| at as u32)
    }

    pub fn identity(&self, index: u32) -> Option<&[u8; 32]> {
        self.list.get(index as usize).map(|(identity, _)| identity)
    }

    /// Is it in the graph?
    pub fn is_present(&self, index: u32) -> bool {
        self.present.contains(index)
    }

    /// Did it share its secrets?
    pub fn has_completed(&self, index: u32) -> bool {
        self.completed.get(index as usize).is_some_and(Option::is_some)
    }

    /// The neighbours of a device, ascending by place; none of one that is not in the graph.
    pub fn neighbours(&self, index: u32) -> Vec<u32> {
        let Some(vertex) = self.vertex(index) else { return Vec::new() };
        self.graph.neighbours(vertex).into_iter().map(|vertex| self.places[vertex as usize]).collect()
    }

    /// Where `neighbour` stands among the neighbours of the device at `index`.
    pub(super) fn slot(&self, index: u32, neighbour: u32) -> Option<usize> {
        self.graph.slot(self.vertex(index)?, self.vertex(neighbour)?)
    }

    fn vertex(&self, index: u32) -> Option<u32> {
        self.places.binary_search(&index).ok().map(|vertex| vertex as u32)
    }

    pub(super) fn graph_degree(&self) -> u32 {
        self.graph.degree()
    }

    pub(super) fn completed_neighbours(&self, index: u32) -> Vec<u32> {
        let mut neighbours = self.neighbours(index);
        neighbours.retain(|&peer| self.has_completed(peer));
        neighbours
    }

    /// The devices whose masked vectors are in the sum are known: from here on nothing else may be asked.
    ///
    /// The set must be durable before [`Opening::survivors`] is sent: devices answer to one set only.
    pub fn open(self, survivors: impl IntoIterator<Item = u32>) -> Result<Opening, Refused> {
        Opening::new(self, survivors)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        self.session.put(&mut out);
        out.extend_from_slice(&self.secret);
        out.extend_from_slice(&(self.list.len() as u32).to_le_bytes());
        for ((identity, keys), completed) in self.list.iter().zip(&self.completed) {
            out.extend_from_slice(identity);
            out.extend_from_slice(&keys.encryption_key);
            out.extend_from_slice(&keys.masking_key);
            if let Some(vouched) = &keys.vouched {
                out.extend_from_slice(&vouched.nonce_commitment);
                out.extend_from_slice(&vouched.signature);
            }
            out.push(completed.is_some().into());
            out.extend_from_slice(completed.as_ref().map_or(&[], |commitment| &commitment[..]));
        }
        self.present.put(&mut out);
        out.extend_from_slice(self.nonces.as_flattened());
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.u8("version")? {
            VERSION => {}
            got => return Err(reader.unknown("version", got)),
        }
        let session = Session::get(&mut reader)?;
        let (bound, active) = (session.bound(), session.is_active());
        let secret = reader.array("secret")?;
        let count = reader.count("devices", CLIENTS_MAX, 3 * 32 + 1)?;
        let (mut list, mut completed) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            let identity: [u8; 32] = reader.array("identity")?;
            let (encryption_key, masking_key) = (reader.array("encryption key")?, reader.array("masking key")?);
            let vouched = match active {
                true => Some(Vouched {
                    nonce_commitment: reader.array("commitment to a nonce")?,
                    signature: reader.array("signature")?,
                }),
                false => None,
            };
            list.push((identity, Advertised { bound, encryption_key, masking_key, vouched }));
            completed.push(match reader.flag("completed")? {
                true => Some(reader.array("commitment to a self mask")?),
                false => None,
            });
        }
        if !list.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(reader.invalid("devices", "they are not sorted"));
        }
        let present = Bitmap::get(&mut reader, "who is in the graph", count as u32)?;
        let nonces = if active { present.count() as usize } else { 0 };
        let nonces = reader.take("nonces", nonces * 16)?.as_chunks::<16>().0.to_vec();
        if present.len() as usize != count {
            return Err(reader.invalid("who is in the graph", "it is not over the list"));
        }
        let (_, root) = hashed(&session, &bound, &list);
        let seed = match active {
            true => graph_seed(&session, &bound, &secret, &root, &present, &nonces),
            false => secret,
        };
        let invalid = reader.invalid("parameters", "no graph over these devices");
        reader.finish()?;
        let directory = Self::new(session, secret, seed, list, root, present, nonces).map_err(|_| invalid)?;
        Ok(Self { completed, ..directory })
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("parameters", &self.parameters)
            .field("devices", &self.list.len())
            .field("present", &self.present)
            .field("completed", &self.completed.iter().flatten().count())
            .finish_non_exhaustive()
    }
}
