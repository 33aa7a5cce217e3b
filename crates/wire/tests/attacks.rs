//! What a hostile peer may try. Each test is named after the attack.

use littoral_wire::bounded::{Blob, List, OverBound, Text};
use littoral_wire::codec::Reader;
use littoral_wire::given::{GIVEN_CHUNKS_MAX, GIVEN_MAX, Given, GivenModel};
use littoral_wire::message::*;
use littoral_wire::object::{CHAIN_CHUNKS_MAX, CHAIN_MAX, CHUNK_BYTES, CHUNKS_MAX, ChunkError, INLINE_BYTES_MAX};
use littoral_wire::{Chain, DecodeError, Manifest, Message, NodeId, Wire};

fn decode(parts: &[&[u8]]) -> Result<Message, DecodeError> {
    Message::from_bytes(&parts.concat())
}

/// One of each, as published.
fn messages() -> Vec<Message> {
    let lines =
        include_str!("../vectors/message.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|digits| Message::from_bytes(&unhex(digits)).unwrap()).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn open() -> Message {
    messages().into_iter().find(|message| message.name() == "Open").unwrap()
}

fn announcement() -> Announcement {
    let mut found = messages().into_iter().filter_map(|message| match message {
        Message::Announce { announcement, .. } => Some(announcement),
        _ => None,
    });
    found.next().unwrap()
}

fn count(n: usize) -> [u8; 4] {
    (n as u32).to_le_bytes()
}

#[test]
fn count_of_four_billion() {
    let huge = u32::MAX.to_le_bytes();
    let too_long = |what, offset, maximum| DecodeError::TooLong { what, offset, maximum, got: u32::MAX as usize };
    assert_eq!(decode(&[&[2], &huge]), Err(too_long("text", 1, 512)));
    assert_eq!(decode(&[&[4], &[0; 36], &huge]), Err(too_long("bytes", 37, CHUNK_BYTES)));
    assert_eq!(decode(&[&[44], &[0; 29], &huge]), Err(too_long("list", 30, COHORT_MAX)));
    assert_eq!(decode(&[&[40], &[0; 8], &huge]), Err(too_long("list", 9, OFFERS_MAX)));
    assert_eq!(
        decode(&[&[40], &[0; 8], &count(64), &[0; 29], &huge, &[0; 63 * 33]]),
        Err(too_long("list", 42, COHORT_MAX))
    );
}

/// A count within its bound, but with too few bytes behind it, fails at the count: before anything is allocated.
#[test]
fn count_that_no_bytes_back() {
    let full = count(COHORT_MAX);
    let expected = COHORT_MAX * 32;
    let error = |offset, got| Err(DecodeError::Truncated { what: "list", offset, expected, got });
    assert_eq!(decode(&[&[44], &[0; 29], &full]), error(30, 0));
    assert_eq!(decode(&[&[44], &[0; 29], &full, &vec![0; expected - 1]]), error(30, expected - 1));
    let states = decode(&[&[40], &[0; 8], &count(64), &[0; 64 * 33 - 1]]);
    assert_eq!(states, Err(DecodeError::Truncated { what: "list", offset: 9, expected: 64 * 33, got: 64 * 33 - 1 }));
}

#[test]
fn count_times_size_overflows() {
    let bytes = u32::MAX.to_le_bytes();
    let mut reader = Reader::new(&bytes);
    let refused = reader.count("list", usize::MAX, usize::MAX);
    let got = DecodeError::Truncated { what: "list", offset: 0, expected: usize::MAX, got: 0 };
    assert_eq!(refused, Err(got));
}

#[test]
fn truncated_at_every_byte() {
    for message in messages() {
        let bytes = message.to_bytes();
        for len in 0..bytes.len() {
            let short = Message::from_bytes(&bytes[..len]);
            assert!(matches!(short, Err(DecodeError::Truncated { .. })), "{} cut at {len}: {short:?}", message.name());
        }
    }
}

#[test]
fn bytes_left_over() {
    for message in messages() {
        let bytes = message.to_bytes();
        let error = DecodeError::LeftOver { offset: bytes.len(), got: 1 };
        assert_eq!(decode(&[&bytes, &[0]]), Err(error), "{}", message.name());
    }
}

#[test]
fn unknown_tags() {
    let known: Vec<u8> = Message::VARIANTS.iter().map(|v| v.0).collect();
    assert!(known.is_sorted_by(|a, b| a < b), "one tag per variant, in order");
    for got in (0..=255).filter(|tag| !known.contains(tag)) {
        assert_eq!(decode(&[&[got], &[0; 64]]), Err(DecodeError::UnknownTag { what: "message", offset: 0, got }));
    }
    let unknown = |what, offset, got| Err(DecodeError::UnknownTag { what, offset, got });
    assert_eq!(decode(&[&[10], &[0; 16], &[4], &[0; 4]]), unknown("Role", 17, 4));
    assert_eq!(decode(&[&[32], &[0; 16], &[4], &[0; 4]]), unknown("Work", 17, 4));
    assert_eq!(decode(&[&[43], &[0; 29 + 32], &[6], &[0; 4]]), unknown("Fate", 62, 6));
    assert_eq!(decode(&[&[61], &[0; 12], &[2]]), unknown("bool", 13, 2), "a flag");
    assert_eq!(decode(&[&[34], &[0; 21], &[0xff], &[0]]), unknown("bool", 22, 0xff), "an option");
}

#[test]
fn text_that_is_not_utf8() {
    let bad: [&[u8]; 7] = [
        b"\xff",
        b"\xc3",             // a character cut short
        b"\xc3\x28",         // no continuation
        b"\xc0\xaf",         // overlong `/`
        b"\xed\xa0\x80",     // half a surrogate pair
        b"\xf4\x90\x80\x80", // past the last code point
        b"ok\x80",
    ];
    for text in bad {
        assert_eq!(decode(&[&[2], &count(text.len()), text]), Err(DecodeError::NotUtf8 { what: "text", offset: 5 }));
    }
}

#[test]
fn words_of_no_bits() {
    for bad in [0, 65, 255] {
        let mut bytes = open().to_bytes();
        // The commitment, which is absent, and what is gathered are two bytes; devices' models are last.
        let Message::Open { given, .. } = open() else { unreachable!() };
        *bytes.iter_mut().nth_back(2 + given.to_bytes().len()).unwrap() = bad;
        let why = "1 to 64 bits per word expected";
        assert_eq!(Message::from_bytes(&bytes), Err(DecodeError::Invalid { what: "Open", offset: 0, why }));
    }
}

#[test]
fn device_included_twice() {
    let id = |n| NodeId([n; 32]);
    for included in [vec![id(1), id(1)], vec![id(2), id(1)], vec![id(1), id(2), id(2), id(3)]] {
        let announce = Message::Announce { announcement: announcement(), included: List::new(included).unwrap() };
        let why = "each included device once, sorted, expected";
        let error = DecodeError::Invalid { what: "Announce", offset: 0, why };
        assert_eq!(Message::from_bytes(&announce.to_bytes()), Err(error));
    }
}

/// Nothing but counts, each of which promises more.
#[test]
fn frame_of_only_lengths() {
    for (tag, name, _) in Message::VARIANTS {
        for promised in [1, 4, 8, 32, 64, 512, COHORT_MAX, CHUNKS_MAX, u32::MAX as usize] {
            for shift in 0..4 {
                let frame = [&[*tag][..], &vec![0; shift], &count(promised).repeat(1024)].concat();
                if let Ok(message) = Message::from_bytes(&frame) {
                    panic!("{name} full of {promised}: {message:?}");
                }
            }
        }
    }
}

#[test]
fn frame_above_the_bound() {
    let (maximum, got) = (MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 1);
    let refused = Message::from_bytes(&vec![0; got]);
    assert_eq!(refused, Err(DecodeError::TooLong { what: "message", offset: 0, maximum, got }));
}

/// As many objects, and as many chunks, as a chain may have.
fn longest_chain() -> Chain {
    let chunks = |i| CHAIN_CHUNKS_MAX / CHAIN_MAX + usize::from(i < CHAIN_CHUNKS_MAX % CHAIN_MAX);
    let of = |chunks: usize| Manifest::from_hashes((chunks * CHUNK_BYTES) as u64, vec![[7; 32]; chunks]).unwrap();
    Chain::new((0..CHAIN_MAX).map(|i| of(chunks(i))).collect()).unwrap()
}

fn most_given() -> Given {
    let chunks = |i| GIVEN_CHUNKS_MAX / GIVEN_MAX + usize::from(i < GIVEN_CHUNKS_MAX % GIVEN_MAX);
    let of = |chunks: usize| Manifest::from_hashes((chunks * CHUNK_BYTES) as u64, vec![[8; 32]; chunks]).unwrap();
    let given = |i| GivenModel { device: NodeId([9; 32]), model: of(chunks(i)) };
    Given::new((0..GIVEN_MAX).map(given).collect()).unwrap()
}

#[test]
fn models_of_too_much() {
    let given = most_given();
    assert_eq!(Given::from_bytes(&given.to_bytes()), Ok(given.clone()));
    let mut more = given.into_vec();
    more[0].model = Manifest::from_hashes(4 * CHUNK_BYTES as u64 + 1, vec![[8; 32]; 5]).unwrap();
    let got = GIVEN_CHUNKS_MAX + 1;
    assert_eq!(Given::new(more.clone()), Err(OverBound { maximum: GIVEN_CHUNKS_MAX, got }));
    let why = "at most 4000 chunks expected";
    let bytes = List::<GivenModel, GIVEN_MAX>::new(more).unwrap().to_bytes();
    assert_eq!(Given::from_bytes(&bytes), Err(DecodeError::Invalid { what: "given models", offset: 0, why }));
}

#[test]
fn chain_of_too_much() {
    let chain = longest_chain();
    assert_eq!((Chain::from_bytes(&chain.to_bytes()), chain.to_bytes().len()), (Ok(chain.clone()), Chain::BYTES_MAX));
    let mut more = chain.into_vec();
    more[0] = Manifest::from_hashes(9_000_000, vec![[7; 32]; 69]).unwrap();
    assert_eq!(Chain::new(more.clone()), Err(OverBound { maximum: CHAIN_CHUNKS_MAX, got: CHAIN_CHUNKS_MAX + 5 }));
    let why = "at most 4000 chunks expected";
    let bytes = List::<Manifest, CHAIN_MAX>::new(more.clone()).unwrap().to_bytes();
    assert_eq!(Chain::from_bytes(&bytes), Err(DecodeError::Invalid { what: "chain", offset: 0, why }));
    more.truncate(0);
    more.resize(CHAIN_MAX + 1, Manifest::of(b"").unwrap());
    assert_eq!(Chain::new(more), Err(OverBound { maximum: CHAIN_MAX, got: CHAIN_MAX + 1 }));
}

/// No bound of a field may promise what no frame can carry; only `EdgeAttach`, which says so, has more fields than fit.
#[test]
fn legal_message_that_fits_no_frame() {
    for (_, name, bytes_max) in Message::VARIANTS {
        assert!(*bytes_max <= MESSAGE_BYTES_MAX || *name == "EdgeAttach", "{name} may have {bytes_max} bytes");
    }
    let open = Message::Open {
        incarnation: Incarnation {
            collection: Collection { job: JobId(1), version: 1, work: Work::Train, attempt: 1 },
            number: 1,
        },
        spec: Blob::new(vec![1; SPEC_BYTES_MAX]).unwrap(),
        model: Manifest::from_hashes((CHUNKS_MAX * CHUNK_BYTES) as u64, vec![[2; 32]; CHUNKS_MAX]).unwrap(),
        before: longest_chain(),
        inline: Some(Blob::new(vec![3; INLINE_BYTES_MAX]).unwrap()),
        devices: List::new(vec![
            Asked {
                device: NodeId([4; 32]),
                counted: 5,
                effort: Effort::Kept { version: 6, times: 7 }
            };
            COHORT_MAX
        ])
        .unwrap(),
        words: 1,
        bits: 64,
        commitment: Some([6; 32]),
        gather: Gather::Each,
        given: most_given(),
    };
    let bytes = open.to_bytes();
    assert_eq!(bytes.len(), Message::VARIANTS.iter().find(|v| v.1 == "Open").unwrap().2);
    assert_eq!(Message::from_bytes(&bytes), Ok(open));
}

/// A decoded message has its own size and what its lists own, which the bytes back; its own size must be small, or a
/// flood of nine-byte pings would fill a queue.
#[test]
fn small_frame_big_value() {
    assert!(size_of::<Message>() <= 512, "{} bytes", size_of::<Message>());
}

#[test]
fn manifest_that_lies_about_its_chunks() {
    let lie = |bytes: u64, chunks: usize| {
        Manifest::from_bytes(&[&bytes.to_le_bytes()[..], &count(chunks), &vec![0; 32 * chunks]].concat())
    };
    let chunk = CHUNK_BYTES as u64;
    for (bytes, chunks) in [(0, 1), (1, 0), (chunk, 2), (chunk + 1, 1), (3 * chunk, 2), (u64::MAX, 0), (u64::MAX, 3)] {
        let what = "manifest";
        let why = "as many hashes as chunks expected";
        assert_eq!(lie(bytes, chunks), Err(DecodeError::Invalid { what, offset: 0, why }), "{bytes} bytes, {chunks}");
        let made = Manifest::from_hashes(bytes, vec![[0; 32]; chunks]);
        let expected = bytes.div_ceil(chunk);
        assert_eq!(made, Err(ChunkError::WrongCount { bytes, expected, got: chunks }));
    }
    let too_big = Manifest::from_hashes((CHUNKS_MAX as u64 + 1) * chunk, vec![[0; 32]; CHUNKS_MAX + 1]);
    assert_eq!(too_big, Err(ChunkError::TooBig { got: CHUNKS_MAX + 1 }));
}

#[test]
fn chunk_in_the_wrong_place() {
    let object: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let manifest = Manifest::of(&object).unwrap();
    let chunks: Vec<_> = object.chunks(CHUNK_BYTES).collect();
    assert_eq!(manifest.chunks(), 3);
    for (index, chunk) in (0..).zip(&chunks) {
        assert_eq!(manifest.check(index, chunk), Ok(()));
    }
    let id = manifest.id();
    assert_eq!(manifest.check(0, chunks[1]), Err(ChunkError::WrongHash { object: id, index: 0 }));
    let (expected, got) = (CHUNK_BYTES, 300_000 - 2 * CHUNK_BYTES);
    assert_eq!(manifest.check(1, chunks[2]), Err(ChunkError::WrongLength { object: id, index: 1, expected, got }));
    for index in [3, u32::MAX] {
        assert_eq!(manifest.check(index, b""), Err(ChunkError::NoSuchChunk { object: id, index, chunks: 3 }));
        assert_eq!(manifest.chunk_bytes(index), 0);
    }
    let mut flipped = chunks[2].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(manifest.check(2, &flipped), Err(ChunkError::WrongHash { object: id, index: 2 }));
}

#[test]
fn terminal_escape_in_a_reason() {
    let reason: Reason = "gone\x1b[2J\nlevel=info all is well\u{9b}".into();
    let shown = format!("{reason} {reason:?}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(&reason[..5], "gone\x1b", "the text itself is untouched");
    assert_eq!(format!("{:>4}|", Text::<8>::from("é")), "   é|", "and still lines up in a table");
}

#[test]
fn cohort_in_a_log() {
    let message = Message::Announce {
        announcement: announcement(),
        included: List::new(vec![NodeId([4; 32]); COHORT_MAX]).unwrap(),
    };
    let shown = format!("{message:?}");
    assert!(shown.len() < 2000 && shown.contains("and 49144 more"), "{} bytes: {shown:.300}", shown.len());
}

#[test]
fn secret_in_a_log() {
    let secret = [0xa7; 16];
    let join = Message::Join { secret, role: Role::Device, name: "ward-3".into() };
    let ticket = littoral_wire::ticket::Ticket {
        cloud: NodeId([1; 32]),
        secret,
        role: Role::Device,
        addresses: List::new(vec!["cloud.example.org:7447".into()]).unwrap(),
        roster: None,
    };
    let key = littoral_wire::SecretKey::from_bytes([0xa7; 32]);
    for shown in [format!("{join:?} {join:#?}"), format!("{ticket:?} {ticket:#?}"), format!("{key:?} {key:#?}")] {
        assert!(!["167", "a7", "A7"].iter().any(|digits| shown.contains(digits)), "{shown}");
    }
}

#[test]
fn text_and_lists_above_their_bound() {
    assert_eq!(&*Text::<4>::new("aéé"), "aé", "cut at a character's end");
    assert_eq!(&*Text::<3>::new("aéé"), "aé", "as much as fits");
    assert_eq!(&*Text::<1>::new("é"), "");
    assert_eq!(List::<u8, 2>::new(vec![1, 2, 3]).unwrap_err().to_string(), "at most 2 fit in one message, got 3");
    assert!(Blob::<2>::new(vec![0; 3]).is_err());
}
