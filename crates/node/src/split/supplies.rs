//! The machines without the model's file that a head has: it tells them what to get, answers them, and says how far they are.

use super::supply::{OwnFile, Source, supply};
use crate::transport::{Address, Transport};
use littoral_tensor::Mapped;
use littoral_wire::pipeline::{Get, Layers, Neighbour};
use littoral_wire::{List, NodeId, Pipeline};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Between two lines on how far a machine is.
const SAY: Duration = Duration::from_secs(5);

pub(super) struct Supplies {
    runtime: Handle,
    transport: Arc<dyn Transport>,
    machines: Vec<Address>,
    /// Opened when a machine lacks the file.
    tiles: Option<(PathBuf, u64)>,
    bytes: Arc<Mapped>,
    source: Option<Arc<dyn Source>>,
    /// Machines that are answered.
    answered: BTreeMap<NodeId, JoinSet<()>>,
    said: BTreeMap<NodeId, Said>,
}

/// What was last said of a machine, which may tell more than anybody reads.
struct Said {
    at: Instant,
    has: Option<(usize, usize)>,
    why_at: Option<Instant>,
}

impl Supplies {
    /// Must run inside a runtime.
    pub fn new(
        transport: Arc<dyn Transport>,
        machines: Vec<Address>,
        tiles: Option<(PathBuf, u64)>,
        bytes: Arc<Mapped>,
    ) -> Self {
        let runtime = Handle::current();
        Self {
            runtime,
            transport,
            machines,
            tiles,
            bytes,
            source: None,
            answered: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    /// What is to be sent so that a machine gets these layers; from now on it is answered.
    pub fn get(
        &mut self,
        model: [u8; 32],
        machine: NodeId,
        layers: &[Range<usize>],
        sources: &[NodeId],
    ) -> Vec<(NodeId, Pipeline)> {
        self.open(model);
        let own = self.machines.iter().find(|at| at.id == machine);
        if let (Some(source), Some(address), false) = (&self.source, own, self.answered.contains_key(&machine)) {
            let mut task = JoinSet::new();
            task.spawn_on(supply(self.transport.clone(), address.clone(), source.clone()), &self.runtime);
            self.answered.insert(machine, task);
        }
        self.said.entry(machine).or_insert_with(|| Said { at: Instant::now(), has: None, why_at: None });
        let place = |id: &NodeId| {
            let at = self.machines.iter().find(|at| at.id == *id)?.host_port().ok()?;
            Some(Neighbour { id: *id, at: at.into() })
        };
        let part = |range: &Range<usize>| Layers { start: range.start as u32, end: range.end as u32 };
        // Who is asked must know who may ask, before it is asked.
        let all = List::new(self.machines.iter().map(|at| at.id).collect()).unwrap_or_default();
        let share = |id: &NodeId| (*id, Pipeline::Share { machines: all.clone() });
        let get = Get {
            model,
            layers: List::new(layers.iter().map(part).collect()).unwrap_or_default(),
            sources: List::new(sources.iter().filter_map(place).collect()).unwrap_or_default(),
        };
        sources.iter().map(share).chain([(machine, Pipeline::Get { get })]).collect()
    }

    fn open(&mut self, model: [u8; 32]) {
        let Some((dir, bytes_max)) = self.tiles.take() else { return };
        match OwnFile::open(&dir, bytes_max, self.bytes.clone(), model) {
            Ok(source) => self.source = Some(Arc::new(source)),
            Err(why) => tracing::warn!("machines without the model's file get no layers from here: {why}"),
        }
    }

    /// A machine says what it has.
    pub fn heard(&mut self, machine: NodeId, name: &str, progress: Option<(usize, usize)>, why: Option<&str>) {
        let Some(said) = self.said.get_mut(&machine) else { return };
        if let Some(why) = why.filter(|_| said.why_at.is_none_or(|at| at.elapsed() > SAY)) {
            said.why_at = Some(Instant::now());
            tracing::warn!("{name} does not get its layers: {}", why.escape_debug());
        }
        let Some((has, of)) = progress.filter(|progress| said.has != Some(*progress)) else { return };
        if has == of || said.at.elapsed() > SAY {
            tracing::info!("{} has {has} of its {of} layers", name.escape_debug());
            (said.at, said.has) = (Instant::now(), progress);
        }
    }

    pub fn gone(&mut self, machine: NodeId) {
        self.answered.remove(&machine);
        self.said.remove(&machine);
    }

    /// Can it give layers?
    pub fn can(&self) -> bool {
        self.source.is_some() || self.tiles.is_some()
    }
}
