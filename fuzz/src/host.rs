//! A host in miniature for a role: it keeps rows, makes first models, and looks at all that is sent.

use crate::canonical;
use littoral_fed::round::Record;
use littoral_node::role::{Effect, Event, Role, Row, RowKey, Table, Write};
use littoral_node::work::{Output, Work};
use littoral_wire::message::MESSAGE_BYTES_MAX;
use littoral_wire::object::Manifest;
use littoral_wire::{Message, Wire};
use std::collections::{BTreeMap, VecDeque};

/// The time of every event but those that a target gives another.
pub const NOW_MS: u64 = 1_700_000_000_000;
/// The bytes of every object.
const OBJECT: &[u8] = b"an object";

#[derive(Default)]
pub struct Host {
    pub rows: BTreeMap<RowKey, Vec<u8>>,
    pub sent: Vec<Message>,
}

impl Host {
    pub fn rows(&self) -> Vec<Row> {
        self.rows.iter().map(|(key, value)| Row { key: key.clone(), value: value.clone() }).collect()
    }

    /// One step, and what follows from it without anybody else.
    pub fn step(&mut self, role: &mut impl Role, now: u64, event: Event) {
        let mut queue = VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let mut effects = Vec::new();
            role.step(now, event, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Send { message, .. } => {
                        let bytes = message.to_bytes();
                        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{}", message.name());
                        assert_eq!(canonical::<Message>(&bytes).as_ref(), Some(&message));
                        self.sent.push(message);
                    }
                    Effect::Store(writes) => writes.into_iter().for_each(|write| self.write(write)),
                    Effect::Work { id, work } if matches!(*work, Work::Initial { .. }) => {
                        let model = Manifest::of(OBJECT).expect("a small object");
                        queue.push_back(Event::Worked { id, result: Ok(Output::Initial { model, state: None }) });
                    }
                    Effect::Load { object, index } => {
                        queue.push_back(Event::Loaded { object, index, bytes: Some(OBJECT.to_vec().into()) });
                    }
                    _ => {}
                }
            }
        }
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Put { key, value } => {
                assert!(key.item.len() <= 128, "an item longer than its column");
                if key.table == Table::Record {
                    canonical::<Record>(&value).expect("a record that can be read again");
                }
                self.rows.insert(key, value);
            }
            Write::Delete { key } => drop(self.rows.remove(&key)),
            Write::Object(_) => {}
        }
    }
}
