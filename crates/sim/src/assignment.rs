//! A device's work as bytes, and what came of it as bytes.
//!
//! A device's work is a pure function of the run (job, seed, rows: what [`RunId`] says), of the device, and of what it was ordered
//! with. So whoever knows the run may compute it from an [`Assignment`], and what came of it may be kept under the
//! assignment's [`Key`]: a hash of all that it depends on, models by their ids.
//!
//! Of devices only, and not all they do: training, evaluation, statistics and sealing. Masks and the cloud's works are computed
//! where they are ordered. Nor is anything here that went wrong on its machine (a damaged object, a full disk).

use crate::disk::{Content, Shelf};
use crate::faults::Kind;
use crate::network::NodeIndex;
use crate::queue::Micros;
use crate::world::World;
use littoral_node::role::{Entropy, WorkId};
use littoral_node::work::{LocalNote, Output, Work, WorkFault};
use littoral_wire::codec::{DecodeError, Reader, Wire};
use littoral_wire::object::{Chain, Manifest};
use littoral_wire::{Collection, ObjectId};
use std::sync::Arc;

/// A hash of all that a simulation's works depend on beside what they are ordered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub [u8; 32]);

/// Of a work's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

/// A job's text is far below that.
const TASK_BYTES_MAX: usize = 4 << 20;
/// Objects that a work reads or makes.
const OBJECTS_MAX: usize = 64;
const SENTENCE_BYTES_MAX: usize = 4096;

/// Who was asked, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub node: NodeIndex,
    pub life: u32,
    pub id: WorkId,
    /// Of virtual time, per step, if the device looks at its watch; 0: it does not.
    pub step_us: Micros,
}

/// A work, without the bodies of the objects that it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    pub place: Place,
    order: Order,
}

#[derive(Clone, Debug, PartialEq)]
enum Order {
    Local {
        collection: Collection,
        task: Arc<[u8]>,
        model: Manifest,
        before: Chain,
        state: Option<Manifest>,
        personal: Option<Manifest>,
        /// What was learnt from which version.
        learnt: Option<(u64, Manifest)>,
        steps_max: u32,
    },
    Seal {
        collection: Collection,
        task: Arc<[u8]>,
        learnt: Manifest,
        times: u16,
    },
}

impl Assignment {
    /// None: a work of another kind.
    pub fn of(place: Place, work: &Work) -> Option<Self> {
        let order = match work {
            Work::Local {
                collection,
                task,
                model,
                before,
                state,
                personal,
                learnt,
                steps_max,
                device: _,
                name: _,
                entropy: _,
            } => Order::Local {
                collection: *collection,
                task: task.clone(),
                model: model.clone(),
                before: before.clone(),
                state: state.clone(),
                personal: personal.clone(),
                learnt: learnt.clone(),
                steps_max: *steps_max,
            },
            Work::Seal { collection, task, learnt, times, name: _, entropy: _ } => {
                Order::Seal { collection: *collection, task: task.clone(), learnt: learnt.clone(), times: *times }
            }
            _ => return None,
        };
        Some(Self { place, order })
    }

    /// The work again, on a device of this name in a simulation of this seed, the `number`-th of its kind.
    pub fn work(&self, seed: u64, number: usize, name: &str) -> Work {
        let boot = Entropy::new(World::boot_entropy(seed, self.place.node, self.place.life));
        let name = name.to_owned();
        match self.order.clone() {
            Order::Local { collection, task, model, before, state, personal, learnt, steps_max } => {
                let entropy = boot.of_work(&collection, self.place.id);
                let device = World::key(seed, Kind::Device, number).id();
                Work::Local {
                    collection,
                    task,
                    model,
                    before,
                    state,
                    personal,
                    learnt,
                    device,
                    name,
                    steps_max,
                    entropy,
                }
            }
            Order::Seal { collection, task, learnt, times } => {
                let entropy = boot.of_work(&collection, self.place.id);
                Work::Seal { collection, task, learnt, times, name, entropy }
            }
        }
    }

    pub fn key(&self, run: RunId) -> Key {
        let mut hash = blake3::Hasher::new_derive_key("littoral sim 1, a work's input");
        hash.update(&run.0);
        hash.update(&self.to_bytes());
        Key(*hash.finalize().as_bytes())
    }

    /// The objects that the work may read.
    pub fn reads(&self) -> Vec<ObjectId> {
        match &self.order {
            Order::Local { model, before, state, personal, learnt, .. } => {
                let learnt = learnt.as_ref().map(|(_, learnt)| learnt);
                before.iter().chain([model]).chain(state).chain(personal).chain(learnt).map(Manifest::id).collect()
            }
            Order::Seal { learnt, .. } => vec![learnt.id()],
        }
    }

    /// Their bodies; none if one of them is not here as it was written, or if the work could write none.
    pub fn bodies(&self, shelf: &Shelf) -> Option<Vec<Arc<Content>>> {
        let read = self.reads();
        let found: Vec<_> = read.into_iter().filter_map(|object| shelf.sound(object)).collect();
        (found.len() == self.reads().len() && !shelf.is_full()).then_some(found)
    }
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).put(out);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(what: &'static str, maximum: usize, reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let offset = reader.offset();
    let got = usize::try_from(u64::take(reader)?).unwrap_or(usize::MAX);
    if got > maximum {
        return Err(DecodeError::TooLong { what, offset, maximum, got });
    }
    reader.take(what, got)
}

impl Wire for Place {
    const BYTES_MIN: usize = 24;
    fn put(&self, out: &mut Vec<u8>) {
        self.node.put(out);
        self.life.put(out);
        self.id.0.put(out);
        self.step_us.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            node: Wire::take(reader)?,
            life: Wire::take(reader)?,
            id: WorkId(Wire::take(reader)?),
            step_us: Wire::take(reader)?,
        })
    }
}

impl Wire for Assignment {
    const BYTES_MIN: usize = Place::BYTES_MIN + 1 + Collection::BYTES_MIN + 8 + Manifest::BYTES_MIN;
    fn put(&self, out: &mut Vec<u8>) {
        self.place.put(out);
        match &self.order {
            Order::Local { collection, task, model, before, state, personal, learnt, steps_max } => {
                0u8.put(out);
                collection.put(out);
                put_bytes(task, out);
                model.put(out);
                before.put(out);
                state.put(out);
                personal.put(out);
                let (version, learnt) = learnt.clone().unzip();
                version.put(out);
                learnt.put(out);
                steps_max.put(out);
            }
            Order::Seal { collection, task, learnt, times } => {
                1u8.put(out);
                collection.put(out);
                put_bytes(task, out);
                learnt.put(out);
                times.put(out);
            }
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let place = Place::take(reader)?;
        let offset = reader.offset();
        let kind = u8::take(reader)?;
        let collection = Collection::take(reader)?;
        let task = Arc::from(take_bytes("task", TASK_BYTES_MAX, reader)?);
        let order = match kind {
            0 => Order::Local {
                collection,
                task,
                model: Wire::take(reader)?,
                before: Wire::take(reader)?,
                state: Wire::take(reader)?,
                personal: Wire::take(reader)?,
                learnt: {
                    let version: Option<u64> = Wire::take(reader)?;
                    let learnt: Option<Manifest> = Wire::take(reader)?;
                    version.zip(learnt)
                },
                steps_max: Wire::take(reader)?,
            },
            1 => Order::Seal { collection, task, learnt: Wire::take(reader)?, times: Wire::take(reader)? },
            got => return Err(DecodeError::UnknownTag { what: "kind of work", offset, got }),
        };
        Ok(Self { place, order })
    }
}

/// What came of a device's work: what its role is told, and the objects that it made.
pub type Finished = (Result<Output, WorkFault>, Vec<(Manifest, Vec<u8>)>);

/// That as bytes. None: what went wrong may go well on another machine.
pub fn result_bytes(result: &Result<Output, WorkFault>, made: &[(Manifest, Vec<u8>)]) -> Option<Vec<u8>> {
    let size: usize = made.iter().map(|(_, bytes)| bytes.len() + 256).sum();
    let mut out = Vec::with_capacity(size + 256);
    match result {
        Ok(Output::Local { update, state, personal, learnt, note }) => {
            0u8.put(&mut out);
            update.put(&mut out);
            state.put(&mut out);
            personal.put(&mut out);
            learnt.put(&mut out);
            put_note(note, &mut out);
        }
        Ok(Output::Prepared { learnt, note }) => {
            1u8.put(&mut out);
            learnt.put(&mut out);
            put_note(note, &mut out);
        }
        Err(WorkFault::Declined(why)) if why.len() <= SENTENCE_BYTES_MAX => {
            2u8.put(&mut out);
            put_bytes(why.as_bytes(), &mut out);
        }
        _ => return None,
    }
    (made.len() as u32).put(&mut out);
    for (manifest, bytes) in made {
        manifest.put(&mut out);
        out.extend_from_slice(bytes);
    }
    Some(out)
}

/// Total; it does not look whether an object's bytes have its hashes: who keeps results checks them whole.
pub fn result_of(bytes: &[u8]) -> Result<Finished, DecodeError> {
    let reader = &mut Reader::new(bytes);
    let offset = reader.offset();
    let result = match u8::take(reader)? {
        0 => {
            let (update, state) = (Wire::take(reader)?, Wire::take(reader)?);
            let (personal, learnt) = (Wire::take(reader)?, Wire::take(reader)?);
            Ok(Output::Local { update, state, personal, learnt, note: take_note(reader)? })
        }
        1 => Ok(Output::Prepared { learnt: Wire::take(reader)?, note: take_note(reader)? }),
        2 => {
            let why = take_bytes("reason", SENTENCE_BYTES_MAX, reader)?;
            let why = String::from_utf8(why.to_vec()).map_err(|_| DecodeError::NotUtf8 { what: "reason", offset })?;
            Err(WorkFault::Declined(why))
        }
        got => return Err(DecodeError::UnknownTag { what: "result of a work", offset, got }),
    };
    let count = reader.count("objects", OBJECTS_MAX, Manifest::BYTES_MIN)?;
    let made = (0..count).map(|_| take_object(reader)).collect::<Result<_, _>>()?;
    match reader.remaining() {
        0 => Ok((result, made)),
        got => Err(DecodeError::LeftOver { offset: reader.offset(), got }),
    }
}

fn take_object(reader: &mut Reader<'_>) -> Result<(Manifest, Vec<u8>), DecodeError> {
    let manifest = Manifest::take(reader)?;
    let bytes = reader.take("object", usize::try_from(manifest.bytes()).unwrap_or(usize::MAX))?.to_vec();
    Ok((manifest, bytes))
}

fn put_note(note: &LocalNote, out: &mut Vec<u8>) {
    for number in [note.examples, note.steps, note.mean_loss.to_bits(), note.saturated, note.anew.into()] {
        number.put(out);
    }
}

fn take_note(reader: &mut Reader<'_>) -> Result<LocalNote, DecodeError> {
    Ok(LocalNote {
        examples: Wire::take(reader)?,
        steps: Wire::take(reader)?,
        mean_loss: f64::from_bits(Wire::take(reader)?),
        saturated: Wire::take(reader)?,
        anew: u64::take(reader)? != 0,
    })
}

/// Works to be given away together, and the objects that they read, each once.
#[derive(Clone, Debug)]
pub struct Batch {
    pub objects: Vec<Arc<Content>>,
    pub assignments: Vec<Assignment>,
}

/// Works of a batch at most.
pub const BATCH_MAX: usize = 256;

impl Wire for Batch {
    const BYTES_MIN: usize = 8;
    fn put(&self, out: &mut Vec<u8>) {
        (self.objects.len() as u32).put(out);
        for content in &self.objects {
            content.manifest.put(out);
            out.extend_from_slice(&content.bytes);
        }
        (self.assignments.len() as u32).put(out);
        self.assignments.iter().for_each(|one| one.put(out));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count("objects", BATCH_MAX * OBJECTS_MAX, Manifest::BYTES_MIN)?;
        let object = |_| take_object(reader).map(|(manifest, bytes)| Arc::new(Content::new(manifest, bytes)));
        let objects = (0..count).map(object).collect::<Result<_, _>>()?;
        let count = reader.count("assignments", BATCH_MAX, Assignment::BYTES_MIN)?;
        let assignments = (0..count).map(|_| Wire::take(reader)).collect::<Result<_, _>>()?;
        Ok(Self { objects, assignments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use littoral_wire::JobId;
    use littoral_wire::message::Work as Gathered;

    fn manifest(byte: u8) -> Manifest {
        Manifest::of(&[byte; 9]).unwrap()
    }

    /// A work and where it was ordered; `changed`: which of its parts is another.
    fn assignment(changed: u32) -> Assignment {
        let other = |part: u32| u32::from(changed == part);
        let place = Place {
            node: 7 + other(1),
            life: 1 + other(2),
            id: WorkId(3 + u64::from(other(3))),
            step_us: u64::from(other(4)),
        };
        let version = 5 + u64::from(other(5));
        let work = Work::Local {
            collection: Collection { job: JobId(1), version, work: Gathered::Train, attempt: other(6) },
            task: Arc::from(vec![other(7) as u8; 4]),
            model: manifest(other(8) as u8),
            before: Chain::new(vec![manifest(9); other(9) as usize]).unwrap(),
            state: (changed == 10).then(|| manifest(10)),
            personal: (changed == 12).then(|| manifest(12)),
            learnt: (changed == 13).then(|| (7, manifest(13))),
            device: World::key(2, Kind::Device, 4).id(),
            name: "device-5".into(),
            steps_max: other(11),
            entropy: Entropy::new([0; 32]),
        };
        Assignment::of(place, &work).unwrap()
    }

    #[test]
    fn a_key_depends_on_all_that_a_work_depends_on() {
        let run = RunId([1; 32]);
        let keys: std::collections::BTreeSet<Key> = (0..14).map(|changed| assignment(changed).key(run)).collect();
        assert_eq!(keys.len(), 14);
        assert_eq!(assignment(0).key(run), assignment(99).key(run));
        assert_ne!(assignment(0).key(run), assignment(0).key(RunId([2; 32])));
    }

    #[test]
    fn what_is_sent_arrives_and_what_is_torn_is_refused() {
        let object = Arc::new(Content::new(manifest(0), vec![0; 9]));
        let batch = Batch { objects: vec![object], assignments: vec![assignment(0), assignment(10)] };
        let bytes = batch.to_bytes();
        let read = Batch::from_bytes(&bytes).unwrap();
        assert_eq!((read.assignments, &read.objects[0].bytes[..]), (batch.assignments, &[0; 9][..]));
        assert!((0..bytes.len()).all(|end| Batch::from_bytes(&bytes[..end]).is_err()));

        let note = LocalNote { examples: 3, steps: 4, mean_loss: 0.1, saturated: 5, anew: true };
        let update = manifest(2);
        let (personal, learnt) = (Some(update.clone()), None);
        let result = Ok(Output::Local { update: update.clone(), state: None, personal, learnt, note });
        let bytes = result_bytes(&result, &[(update.clone(), vec![2; 9])]).unwrap();
        let (read, made) = result_of(&bytes).unwrap();
        let Ok(Output::Local { update: u, state: None, personal: Some(own), learnt: None, note: n }) = read else {
            panic!("{read:?}");
        };
        assert_eq!((&u, &own, n), (&update, &update, note));
        assert_eq!(made, [(update, vec![2; 9])]);
        assert!((0..bytes.len()).all(|end| result_of(&bytes[..end]).is_err()));
        assert!(result_bytes(&Err(WorkFault::Failed("a full disk".into())), &[]).is_none());
    }
}
