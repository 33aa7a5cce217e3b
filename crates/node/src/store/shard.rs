//! A round's sums in shards: rows that say which sums are to be added, who adds them at the moment, and what came out.
//!
//! They are help, not truth: what is in a round stands in its records, and whoever applies it can add everything by
//! itself. So a shard that is lost, damaged or late costs time and nothing else.

use crate::role::Millis;
use littoral_wire::ObjectId;
use littoral_wire::codec::Wire;
use littoral_wire::message::Collection;
use littoral_wire::object::Manifest;

/// Some sums of a round, to be added to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub collection: Collection,
    /// Among the round's, from 0.
    pub number: u32,
    /// Of a word.
    pub bits: u32,
    /// Of each sum.
    pub bytes: u64,
    pub sums: Vec<ObjectId>,
    /// What came out, once somebody has added them.
    pub made: Option<Manifest>,
}

/// The right to say what came out of a shard, until somebody else takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLease {
    pub shard: Shard,
    /// Grows each time that the shard is taken, and fences all before it.
    pub token: u64,
    pub until: Millis,
}

impl Shard {
    /// What is stored of it when it is offered: with a checksum, as other rows.
    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(12 + 32 * self.sums.len());
        self.bits.put(&mut body);
        self.bytes.put(&mut body);
        self.sums.iter().for_each(|sum| sum.put(&mut body));
        stamped(&self.collection, self.number, body)
    }

    /// What is stored once it is done.
    pub(super) fn made_body(collection: &Collection, number: u32, made: &Manifest) -> Vec<u8> {
        stamped(collection, number, made.to_bytes())
    }

    /// `None`: damaged.
    pub(super) fn read(round: &[u8], number: i64, body: &[u8], made: &[u8]) -> Option<Self> {
        let collection = Collection::from_bytes(round).ok()?;
        let number = u32::try_from(number).ok()?;
        let (head, ids) = unstamped(&collection, number, body)?.split_at_checked(12)?;
        let (bits, bytes) = head.split_at(4);
        let made = match made {
            [] => None,
            made => Some(Manifest::from_bytes(unstamped(&collection, number, made)?).ok()?),
        };
        Some(Self {
            collection,
            number,
            bits: u32::from_bytes(bits).ok()?,
            bytes: u64::from_bytes(bytes).ok()?,
            sums: ids.chunks(32).map(|id| Some(ObjectId(id.try_into().ok()?))).collect::<Option<_>>()?,
            made,
        })
    }
}

fn stamp(collection: &Collection, number: u32, body: &[u8]) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    hash.update(b"shard\0").update(&collection.to_bytes()).update(&number.to_le_bytes()).update(body);
    let mut stamp = [0; 16];
    stamp.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    stamp
}

fn stamped(collection: &Collection, number: u32, body: Vec<u8>) -> Vec<u8> {
    [&stamp(collection, number, &body)[..], &body].concat()
}

fn unstamped<'a>(collection: &Collection, number: u32, stamped: &'a [u8]) -> Option<&'a [u8]> {
    let (found, body) = stamped.split_first_chunk::<16>()?;
    (*found == stamp(collection, number, body)).then_some(body)
}
