//! The cloud's part where each device is given a model of its own: from what devices were given and what they sent to their models,
//! from all models to each device's next one ([`littoral_fed::algorithm::fedamp`]).
//!
//! What the cloud remembers is one object, in the order of devices' names:
//!
//! ```text
//! u32, bytes of the head    head: for each device its name, and the version that counted it last (u64)
//!                           for each device its model: f32 per parameter
//! ```
//!
//! Models are read a block of all devices at a time, at most 32 MB: once for the distances, and once for each few devices whose next
//! models are being written. Rows are in the order of names and sums in one order, so that no bit depends on the cut.

use super::apply::{Partials, refused};
use super::version::{put_reals, reals};
use super::{ObjectWriter, Objects, WorkFault};
use crate::job::{BLOCK, JobSpec};
use littoral_fed::algorithm::fedamp::{self, DEVICES_MAX, FedAmp};
use littoral_fed::open::open_section;
use littoral_fed::plan::Plan;
use littoral_fed::robust::{Block, Pairs, block_len};
use littoral_fed::round::Given;
use littoral_wire::ObjectId;
use littoral_wire::codec::Wire;
use littoral_wire::message::Name;
use littoral_wire::object::Manifest;
use littoral_wire::{Blob, List, Text};
use std::collections::BTreeMap;

/// Models that are being written at the same time: each has a file open.
const AT_ONCE: usize = 16;
/// The one section of an update.
const DELTA: usize = 0;

/// The cloud half, and how it is applied to one collection.
pub(super) struct Mixing<'a> {
    pub spec: &'a JobSpec,
    pub mixer: &'a FedAmp,
    pub plan: &'a Plan,
    /// The version, its number, and what lies behind its weights.
    pub model: &'a Manifest,
    pub version: u64,
    pub tail: &'a [u8],
    /// What the cloud remembers; `None` before the first round.
    pub state: Option<&'a Manifest>,
    pub sums: &'a Partials<'a>,
    /// Of the updates, in their order.
    pub names: &'a [String],
    pub given: &'a Given,
    pub objects: &'a dyn Objects,
}

/// Devices' models in an object.
struct Models {
    object: ObjectId,
    /// Where they begin.
    at: usize,
    params: usize,
    /// In order: each device's name, and the version that counted it last.
    devices: Vec<(String, u64)>,
}

impl Mixing<'_> {
    /// The next version, what the cloud remembers then, and what devices are given.
    pub fn step(&self) -> Result<(Manifest, Manifest, Given), WorkFault> {
        let old = self.state.map(|state| Models::read(self.spec, state, self.objects)).transpose()?;
        let (state, models) = self.remember(old.as_ref())?;
        let devices = models.devices.len();
        let len = block_len(devices, BLOCK);
        let mut values = Vec::new();
        let mut pairs = Pairs::new(devices);
        for first in (0..models.params).step_by(len) {
            let len = len.min(models.params - first);
            models.block(first, len, &mut values, self.objects)?;
            pairs.add(&Block::new(&values, len));
        }
        let mixture = self.mixer.mixture(&pairs);

        let mut version = Some(self.objects.create()?);
        let mut made = None;
        let mut given = Given::new();
        let (mut mixed, mut bytes) = (vec![0.0; len.min(models.params)], Vec::new());
        for from in (0..devices).step_by(AT_ONCE) {
            let some = from..devices.min(from + AT_ONCE);
            let mut writers: Vec<Box<dyn ObjectWriter + '_>> =
                some.clone().map(|_| self.objects.create()).collect::<Result<_, _>>()?;
            for first in (0..models.params).step_by(len) {
                let len = len.min(models.params - first);
                models.block(first, len, &mut values, self.objects)?;
                let block = Block::new(&values, len);
                let mut append = |writer: &mut dyn ObjectWriter, mixed: &[f32]| {
                    bytes.clear();
                    put_reals(mixed, &mut bytes);
                    writer.append(&bytes)
                };
                for (device, writer) in some.clone().zip(&mut writers) {
                    mixture.model(device, &block, &mut mixed[..len]);
                    append(&mut **writer, &mixed[..len])?;
                }
                if let Some(version) = &mut version {
                    fedamp::mean(&block, &mut mixed[..len]);
                    append(&mut **version, &mixed[..len])?;
                }
            }
            for (device, mut writer) in some.zip(writers) {
                writer.append(self.tail)?;
                given.insert(models.devices[device].0.clone(), writer.finish()?);
            }
            if let Some(mut version) = version.take() {
                version.append(self.tail)?;
                made = Some(version.finish()?);
            }
        }
        let made = made.ok_or_else(|| refused("updates of one device or more expected, got none"))?;
        Ok((made, state, given))
    }

    /// All devices' models after this collection: new ones of those in it, of others what was there.
    fn remember(&self, old: Option<&Models>) -> Result<(Manifest, Models), WorkFault> {
        let Self { plan, names, objects, .. } = *self;
        let params = plan.sections()[DELTA].len;
        if names.len() != self.sums.rows() {
            let (expected, got) = (self.sums.rows(), names.len());
            return Err(refused(format!("a name for each of {expected} updates expected, got {got}")));
        }
        let row_of: BTreeMap<&str, usize> = names.iter().enumerate().map(|(row, name)| (name.as_str(), row)).collect();
        let old_row: BTreeMap<&str, usize> = old
            .iter()
            .flat_map(|old| old.devices.iter().enumerate())
            .map(|(row, (name, _))| (name.as_str(), row))
            .collect();
        let known = old.iter().flat_map(|old| &old.devices).map(|(name, last)| (name.clone(), *last));
        let mut all: BTreeMap<String, u64> = known.collect();
        all.extend(names.iter().map(|name| (name.clone(), self.version + 1)));
        let devices = newest(all, self.spec.given_max());

        let head = head(&devices)?;
        let mut writer = objects.create()?;
        writer.append(&head)?;
        let (mut bytes, mut packed, mut words, mut w) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (name, _) in &devices {
            let row = row_of.get(name.as_str()).copied();
            for block in self.spec.version().blocks() {
                bytes.resize(4 * block.len(), 0);
                let Some(row) = row else {
                    let (Some(old), Some(row)) = (old, old_row.get(name.as_str())) else { continue };
                    objects.read(old.object, old.place(*row, block.start), &mut bytes)?;
                    writer.append(&bytes)?;
                    continue;
                };
                let began = self.given.get(name).unwrap_or(self.model);
                let at = self.spec.version().at(&block, 0, 1).start as u64;
                objects.read(began.id(), at, &mut bytes)?;
                w.clear();
                w.extend(reals(&bytes));
                self.sums.read_row(row, plan.section_bytes(DELTA, block.clone()), &mut packed)?;
                words.resize(block.len(), 0);
                open_section(plan, DELTA, block.clone(), &packed, &mut words).map_err(refused)?;
                // Weights are 1, so an honest coordinate has 32 bits at most; edges refuse others.
                let sent: Vec<i32> =
                    words.iter().map(|w| (*w).clamp(i32::MIN.into(), i32::MAX.into()) as i32).collect();
                fedamp::learnt(&mut w, block.start, &sent, plan.step(DELTA)).map_err(refused)?;
                bytes.clear();
                put_reals(&w, &mut bytes);
                writer.append(&bytes)?;
            }
        }
        let state = writer.finish()?;
        let object = state.id();
        Ok((state, Models { object, at: head.len(), params, devices }))
    }
}

/// As many devices as are kept, in the order of names: those that were counted last.
pub(super) fn newest(all: BTreeMap<String, u64>, most: usize) -> Vec<(String, u64)> {
    let mut devices: Vec<(String, u64)> = all.into_iter().collect();
    if devices.len() > most {
        devices.sort_by(|(a, a_last), (b, b_last)| b_last.cmp(a_last).then(a.cmp(b)));
        devices.truncate(most);
        devices.sort();
    }
    devices
}

/// What stands before the models.
type Head = List<Known, DEVICES_MAX>;
type HeadBytes = Blob<{ 128 * DEVICES_MAX }>;

#[derive(Clone)]
struct Known {
    name: Name,
    last: u64,
}

impl Wire for Known {
    const BYTES_MIN: usize = Name::BYTES_MIN + 8;
    const BYTES_MAX: usize = Name::BYTES_MAX + 8;
    fn put(&self, out: &mut Vec<u8>) {
        self.name.put(out);
        self.last.put(out);
    }
    fn take(reader: &mut littoral_wire::codec::Reader<'_>) -> Result<Self, littoral_wire::DecodeError> {
        Ok(Self { name: Name::take(reader)?, last: u64::take(reader)? })
    }
}

fn head(devices: &[(String, u64)]) -> Result<Vec<u8>, WorkFault> {
    let known = devices.iter().map(|(name, last)| Known { name: Text::new(name.as_str()), last: *last }).collect();
    let head = Head::new(known).map_err(refused)?.to_bytes();
    Ok(HeadBytes::new(head).map_err(refused)?.to_bytes())
}

impl Models {
    fn read(spec: &JobSpec, state: &Manifest, objects: &dyn Objects) -> Result<Self, WorkFault> {
        let params = spec.version().params;
        let wrong = |got: String| refused(format!("a state with devices' models expected, got {got}"));
        let mut bytes = [0; 4];
        objects.read(state.id(), 0, &mut bytes)?;
        let len = u32::from_le_bytes(bytes) as usize;
        if len > HeadBytes::BYTES_MAX || (len + bytes.len()) as u64 > state.bytes() {
            return Err(wrong(format!("a head of {len} bytes")));
        }
        let mut head = vec![0; len];
        objects.read(state.id(), bytes.len() as u64, &mut head)?;
        let known = Head::from_bytes(&head).map_err(|e| wrong(e.to_string()))?;
        let devices: Vec<(String, u64)> =
            known.into_vec().into_iter().map(|known| (known.name.into(), known.last)).collect();
        let at = bytes.len() + len;
        let expected = (at + 4 * params * devices.len()) as u64;
        match state.bytes() == expected {
            true => Ok(Self { object: state.id(), at, params, devices }),
            false => Err(wrong(format!("{} bytes in place of {expected}", state.bytes()))),
        }
    }

    /// Where a device's parameter stands.
    fn place(&self, row: usize, param: usize) -> u64 {
        (self.at + 4 * (row * self.params + param)) as u64
    }

    /// All devices' values of `len` coordinates, row by row.
    fn block(&self, first: usize, len: usize, values: &mut Vec<f32>, objects: &dyn Objects) -> Result<(), WorkFault> {
        values.clear();
        let mut bytes = vec![0; 4 * len];
        for row in 0..self.devices.len() {
            objects.read(self.object, self.place(row, first), &mut bytes)?;
            values.extend(reals(&bytes));
        }
        Ok(())
    }
}
