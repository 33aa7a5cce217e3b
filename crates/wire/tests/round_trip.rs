//! Decoding undoes encoding, and encoding undoes decoding, for every variant, valid or mangled.

mod samples;

use littoral_wire::message::{Announcement, Verdict};
use littoral_wire::{DecodeError, Manifest, Message, Speculation, Wire};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Any bytes give a value with exactly these bytes as its encoding, or an error that can be told.
fn total_and_canonical<T: Wire + std::fmt::Debug>(bytes: &[u8]) {
    match T::from_bytes(bytes) {
        Ok(value) => assert_eq!(value.to_bytes(), bytes, "{value:?}"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn every_variant_is_generated() {
    let generated: Vec<_> = samples::variants().iter().map(|(name, _)| *name).collect();
    let declared: Vec<_> = Message::VARIANTS.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(generated, declared, "add the new variant to tests/samples");
}

#[test]
fn every_variant_of_speculation_is_generated() {
    let generated: Vec<_> = samples::speculation::variants().iter().map(|(name, _)| *name).collect();
    let declared: Vec<_> = Speculation::VARIANTS.iter().map(|(_, name, _)| *name).collect();
    assert_eq!(generated, declared, "add the new variant to tests/samples");
}

/// What hostile bytes look like: a real tag, then bytes among which small counts are common.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    // The tags of `Speculation`, 0 to 7, among them.
    let tags: Vec<u8> = Message::VARIANTS.iter().map(|(tag, _, _)| *tag).chain([7]).collect();
    let byte = prop_oneof![4 => Just(0u8), 2 => 0..5u8, 1 => any::<u8>()];
    (proptest::sample::select(tags), vec(byte, 0..400)).prop_map(|(tag, rest)| [vec![tag], rest].concat())
}

/// One change to a valid encoding.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Count(Index, u32),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, byte)| Damage::Set(i, byte)),
        (at(), 0..8u8).prop_map(|(i, bit)| Damage::Flip(i, bit)),
        (at(), prop_oneof![0..70u32, 49_150..49_155u32, 65_535..65_538u32, Just(u32::MAX)])
            .prop_map(|(i, count)| Damage::Count(i, count)),
        (at(), any::<u8>()).prop_map(|(i, byte)| Damage::Insert(i, byte)),
        at().prop_map(Damage::Remove),
        at().prop_map(Damage::Cut),
        (at(), at()).prop_map(|(i, j)| Damage::Repeat(i, j)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: Damage) {
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match damage {
        Damage::Set(i, byte) => bytes[i.index(len)] = byte,
        Damage::Flip(i, bit) => bytes[i.index(len)] ^= 1 << bit,
        Damage::Count(i, count) => bytes[i.index(len)..].iter_mut().zip(count.to_le_bytes()).for_each(|(b, c)| *b = c),
        Damage::Insert(i, byte) => bytes.insert(i.index(len), byte),
        Damage::Remove(i) => drop(bytes.remove(i.index(len))),
        Damage::Cut(i) => bytes.truncate(i.index(len)),
        Damage::Repeat(i, j) => {
            let (i, j) = (i.index(len), j.index(len));
            let again = bytes[i.min(j)..i.max(j)].to_vec();
            bytes.extend(again);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_survives_the_journey(message in samples::message()) {
        let bytes = message.to_bytes();
        prop_assert_eq!(Message::from_bytes(&bytes), Ok(message.clone()));
        let (tag, _, bytes_max) = Message::VARIANTS.iter().find(|v| v.1 == message.name()).unwrap();
        prop_assert_eq!(bytes[0], *tag);
        prop_assert!(bytes.len() <= *bytes_max);
    }

    #[test]
    fn a_message_ends_where_it_ends(message in samples::message(), cut in any::<Index>(), more in vec(any::<u8>(), 1..9)) {
        let bytes = message.to_bytes();
        let short = Message::from_bytes(&bytes[..cut.index(bytes.len())]);
        prop_assert!(matches!(short, Err(DecodeError::Truncated { .. })), "{:?}", short);
        let expected = DecodeError::LeftOver { offset: bytes.len(), got: more.len() };
        prop_assert_eq!(Message::from_bytes(&[bytes, more].concat()), Err(expected));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..400), nearly in nearly_a_message()) {
        total_and_canonical::<Message>(&bytes);
        total_and_canonical::<Message>(&nearly);
        total_and_canonical::<Speculation>(&bytes);
        total_and_canonical::<Speculation>(&nearly);
        for bytes in [&bytes[..], &nearly[1..]] {
            total_and_canonical::<Manifest>(bytes);
            total_and_canonical::<Announcement>(bytes);
            total_and_canonical::<Verdict>(bytes);
        }
    }

    #[test]
    fn a_damaged_message_does_no_harm(message in samples::message(), damages in vec(damage(), 1..5)) {
        let mut bytes = message.to_bytes();
        damages.into_iter().for_each(|damage| apply(&mut bytes, damage));
        total_and_canonical::<Message>(&bytes);
    }

    #[test]
    fn parts_survive_the_journey(m in samples::manifest(), a in samples::announcement(), v in samples::verdict()) {
        prop_assert_eq!(Manifest::from_bytes(&m.to_bytes()), Ok(m));
        prop_assert_eq!(Announcement::from_bytes(&a.to_bytes()), Ok(a));
        prop_assert_eq!(Verdict::from_bytes(&v.to_bytes()), Ok(v));
    }

    #[test]
    fn a_speculation_survives_the_journey(
        message in samples::speculation::speculation(), cut in any::<Index>(), more in vec(any::<u8>(), 1..9),
    ) {
        let bytes = message.to_bytes();
        prop_assert_eq!(Speculation::from_bytes(&bytes), Ok(message.clone()));
        let (tag, _, bytes_max) = Speculation::VARIANTS.iter().find(|v| v.1 == message.name()).unwrap();
        prop_assert_eq!(bytes[0], *tag);
        prop_assert!(bytes.len() <= *bytes_max);
        let short = Speculation::from_bytes(&bytes[..cut.index(bytes.len())]);
        prop_assert!(matches!(short, Err(DecodeError::Truncated { .. })), "{:?}", short);
        let expected = DecodeError::LeftOver { offset: bytes.len(), got: more.len() };
        prop_assert_eq!(Speculation::from_bytes(&[bytes, more].concat()), Err(expected));
    }

    #[test]
    fn a_damaged_speculation_does_no_harm(
        message in samples::speculation::speculation(), damages in vec(damage(), 1..5),
    ) {
        let mut bytes = message.to_bytes();
        damages.into_iter().for_each(|damage| apply(&mut bytes, damage));
        total_and_canonical::<Speculation>(&bytes);
    }
}
