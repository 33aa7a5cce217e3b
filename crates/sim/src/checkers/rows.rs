//! What machines make durable, read by checkers.

use littoral_fed::round::Record;
use littoral_node::role::{Table, Write};
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::object::Manifest;
use littoral_wire::{Collection, JobId};

/// The cloud's round records among these writes.
pub fn records(writes: &[Write]) -> impl Iterator<Item = (JobId, Record)> + '_ {
    writes.iter().filter_map(|write| match write {
        Write::Put { key, value } if key.table == Table::Record => Some((key.job, Record::from_bytes(value).ok()?)),
        _ => None,
    })
}

/// A device's sealed update, and the state that waits with it.
pub struct Sealed {
    pub collection: Collection,
    pub update: Manifest,
    pub pending: Option<Manifest>,
}

pub fn sealed(writes: &[Write]) -> impl Iterator<Item = Sealed> + '_ {
    writes.iter().filter_map(|write| match write {
        Write::Put { key, value } if key.table == Table::Sealed => {
            let mut reader = Reader::new(value);
            let collection = Collection::from_bytes(&key.item).ok()?;
            let update = Manifest::take(&mut reader).ok()?;
            let pending = <Option<Manifest> as Wire>::take(&mut reader).ok()?;
            Some(Sealed { collection, update, pending })
        }
        _ => None,
    })
}

/// Collections whose sealed update a device gives up.
pub fn unsealed(writes: &[Write]) -> impl Iterator<Item = Collection> + '_ {
    writes.iter().filter_map(|write| match write {
        Write::Delete { key } if key.table == Table::Sealed => Collection::from_bytes(&key.item).ok(),
        _ => None,
    })
}

/// What devices have of their own: what waits for the verdict of a collection, or (`None`) what becomes current.
pub fn personal(writes: &[Write]) -> impl Iterator<Item = (JobId, Option<Collection>, Manifest)> + '_ {
    writes.iter().filter_map(|write| match write {
        Write::Put { key, value } if key.table == Table::DeviceState => {
            let collection = match key.item.strip_prefix(b"personal")? {
                [] => None,
                collection => Some(Collection::from_bytes(collection).ok()?),
            };
            Some((key.job, collection, Manifest::from_bytes(value).ok()?))
        }
        _ => None,
    })
}

/// States that become current.
pub fn states(writes: &[Write]) -> impl Iterator<Item = (JobId, Manifest)> + '_ {
    writes.iter().filter_map(|write| match write {
        Write::Put { key, value } if key.table == Table::DeviceState && key.item.is_empty() => {
            Some((key.job, Manifest::from_bytes(value).ok()?))
        }
        _ => None,
    })
}
