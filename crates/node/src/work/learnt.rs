//! What a device has learnt and not sealed yet, as it waits on the device's disk: an update in real numbers.
//!
//! Little-endian, in order: examples, loss, the number of wholes and these, the number of sections and of each its length and
//! coordinates; at last the steps that were made. Only this device reads it, and nobody is served it.

use super::version::{put_reals, reals};
use super::{LocalNote, Objects, WorkFault, local};
use littoral_fed::seal::Raw;
use littoral_wire::codec::{Reader, Wire};
use littoral_wire::object::Manifest;

/// Wholes and sections that an update may have: more than any algorithm's.
const PARTS_MAX: usize = 1 << 16;

pub fn write(raw: &Raw, note: &LocalNote, objects: &dyn Objects) -> Result<Manifest, WorkFault> {
    let mut object = objects.create()?;
    let mut bytes = Vec::new();
    raw.examples.put(&mut bytes);
    bytes.extend_from_slice(&raw.loss.to_le_bytes());
    note.steps.put(&mut bytes);
    (raw.wholes.len() as u32).put(&mut bytes);
    raw.wholes.iter().for_each(|whole| bytes.extend_from_slice(&whole.to_le_bytes()));
    (raw.sections.len() as u32).put(&mut bytes);
    for section in &raw.sections {
        (section.len() as u64).put(&mut bytes);
        put_reals(section, &mut bytes);
        object.append(&bytes)?;
        bytes.clear();
    }
    object.append(&bytes)?;
    Ok(object.finish()?)
}

/// The update, and the steps that it took.
pub fn read(learnt: &Manifest, objects: &dyn Objects) -> Result<(Raw, u64), WorkFault> {
    let mut bytes = vec![0; learnt.bytes() as usize];
    objects.read(learnt.id(), 0, &mut bytes)?;
    parse(&bytes).ok_or_else(|| local::declined("what this device has learnt is not what this release keeps"))
}

fn parse(bytes: &[u8]) -> Option<(Raw, u64)> {
    let mut reader = Reader::new(bytes);
    let examples = u64::take(&mut reader).ok()?;
    let loss = f32::from_le_bytes(<[u8; 4]>::take(&mut reader).ok()?);
    let steps = u64::take(&mut reader).ok()?;
    let mut count = |each| reader.count("parts", PARTS_MAX, each).ok();
    let wholes = count(16)?;
    let wholes =
        (0..wholes).map(|_| <[u8; 16]>::take(&mut reader).ok().map(i128::from_le_bytes)).collect::<Option<_>>()?;
    let sections = reader.count("sections", PARTS_MAX, 8).ok()?;
    let mut rest = &bytes[reader.offset()..];
    let mut section = || {
        let (len, behind) = rest.split_first_chunk::<8>()?;
        let len = usize::try_from(u64::from_le_bytes(*len)).ok()?.checked_mul(4)?;
        let (numbers, behind) = behind.split_at_checked(len)?;
        rest = behind;
        Some(reals(numbers).collect())
    };
    let sections = (0..sections).map(|_| section()).collect::<Option<_>>()?;
    rest.is_empty().then_some((Raw { examples, loss, wholes, sections }, steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_update_is_none() {
        let mut bytes = Vec::new();
        7u64.put(&mut bytes);
        bytes.extend_from_slice(&0.5f32.to_le_bytes());
        9u64.put(&mut bytes);
        1u32.put(&mut bytes);
        bytes.extend_from_slice(&(-3i128).to_le_bytes());
        1u32.put(&mut bytes);
        2u64.put(&mut bytes);
        put_reals(&[1.0, -2.0], &mut bytes);
        let raw = Raw { examples: 7, loss: 0.5, wholes: vec![-3], sections: vec![vec![1.0, -2.0]] };
        assert_eq!(parse(&bytes), Some((raw, 9)));
        assert!((0..bytes.len()).all(|len| parse(&bytes[..len]).is_none()));
    }
}
