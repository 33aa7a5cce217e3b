//! The published vectors are what this code says, and what it reads.

#[path = "../vectors/vectors.rs"]
mod vectors;

use littoral_wire::hello::Hello;
use littoral_wire::message::*;
use littoral_wire::speculation::{Committed, Declared, Digest, Request, Sampling};
use littoral_wire::ticket::Ticket;
use littoral_wire::{Manifest, Message, NodeId, Speculation, Wire};
use std::path::Path;

/// Description and value of each vector in a published file.
fn published(name: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name).with_extension("txt");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].starts_with("# ") && !pair[1].is_empty());
    pairs.map(|pair| (pair[0][2..].to_owned(), pair[1].to_owned())).collect()
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

fn bytes_of(name: &str) -> Vec<Vec<u8>> {
    published(name).iter().map(|(_, digits)| unhex(digits)).collect()
}

/// A failure here means that the protocol changed: grow `PROTOCOL`, then run `cargo run -p littoral-wire --example vectors`.
#[test]
fn the_files_are_up_to_date() {
    for file in vectors::files() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file.name).with_extension("txt");
        assert_eq!(std::fs::read_to_string(path).unwrap(), file.text(), "vectors/{}.txt", file.name);
        assert_eq!(published(file.name).len(), file.vectors.len(), "vectors/{}.txt", file.name);
    }
}

#[test]
fn one_message_per_variant() {
    let read: Vec<_> = bytes_of("message").iter().map(|bytes| Message::from_bytes(bytes).unwrap()).collect();
    assert_eq!(read, vectors::messages());
    let names: Vec<_> = read.iter().map(Message::name).collect();
    assert_eq!(names, Message::VARIANTS.iter().map(|v| v.1).collect::<Vec<_>>(), "add a vector for the new variant");
}

#[test]
fn one_speculation_per_variant_and_digests_of_its_tokens() {
    let vectors = vectors::speculations();
    let published = bytes_of("speculation");
    let (messages, digests) = published.split_at(vectors.len());
    let read: Vec<_> = messages.iter().map(|bytes| Speculation::from_bytes(bytes).unwrap()).collect();
    assert_eq!(read, vectors);
    let names: Vec<_> = read.iter().map(Speculation::name).collect();
    assert_eq!(
        names,
        Speculation::VARIANTS.iter().map(|v| v.1).collect::<Vec<_>>(),
        "add a vector for the new variant"
    );
    // The second is 16 bytes of BLAKE3 over the first and the token 11.
    let hash = blake3::hash(&[&digests[0][..], &11u32.to_le_bytes()].concat());
    assert_eq!(digests[1], hash.as_bytes()[..16]);
}

#[test]
fn hellos_of_seven_protocols() {
    let hellos: Vec<_> = bytes_of("hello").iter().map(|frame| Hello::decode(frame).unwrap()).collect();
    assert_eq!(hellos.iter().map(|hello| hello.protocol).collect::<Vec<_>>(), [2, 3, 3, 4, 4, 5, 6, 7, 8]);
    // Of another protocol than ours only the number and the software are read.
    assert!(hellos[..8].iter().all(|hello| hello.kernels.is_empty()));
    assert_eq!(&*hellos[8].kernels, "littoral-kernels-1");
}

#[test]
fn manifests_have_their_ids() {
    for (says, digits) in published("manifest") {
        let manifest = Manifest::from_bytes(&unhex(&digits)).unwrap();
        assert!(says.ends_with(&format!("object id {}", manifest.id())), "{says}");
    }
}

#[test]
fn the_announcement_is_signed() {
    let [_, key, announcement, signed, signature, verdict] = bytes_of("announcement").try_into().unwrap();
    let key = NodeId(key.try_into().unwrap());
    assert_eq!(key, vectors::key().id());
    let announcement = Announcement::from_bytes(&announcement).unwrap();
    assert_eq!(announcement.signature[..], signature);
    assert!(signed.ends_with(&announcement.signed_bytes()));
    assert_eq!(key.verify(Announcement::DOMAIN, &announcement.signed_bytes(), &announcement.signature), Ok(()));
    assert_eq!(Verdict::from_bytes(&verdict).unwrap().announcement, Some(announcement));
}

#[test]
fn tickets_are_their_content() {
    for pair in published("ticket").chunks(2) {
        let ticket = Ticket::from_bytes(&unhex(&pair[0].1)).unwrap();
        assert_eq!(pair[1].1.parse(), Ok(ticket));
    }
}

#[test]
fn what_must_be_refused_is_refused() {
    for (says, digits) in published("refused") {
        let bytes = unhex(&digits);
        let error = match says.split(':').next() {
            Some("message") => Message::from_bytes(&bytes).unwrap_err(),
            Some("manifest") => Manifest::from_bytes(&bytes).unwrap_err(),
            Some("speculation") => Speculation::from_bytes(&bytes).unwrap_err(),
            other => panic!("{other:?} is no decoder"),
        };
        assert!(says.ends_with(&error.to_string()), "{says}: {error}");
    }
}

/// The tables of messages in README.md: a row per variant, in order, with the most bytes that it can have.
#[test]
fn the_readme_lists_every_message() {
    let readme = include_str!("../vectors/README.md");
    let rows = readme.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [tag, name, _, bytes_max] = cells[..] else { return None };
        Some((tag.parse::<u8>().ok()?, name.trim_matches('`').to_owned(), bytes_max.parse::<usize>().ok()?))
    });
    let declared = Message::VARIANTS.iter().chain(Speculation::VARIANTS);
    let declared = declared.map(|&(tag, name, bytes)| (tag, name.to_owned(), bytes.min(Message::BYTES_MAX)));
    assert_eq!(rows.collect::<Vec<_>>(), declared.collect::<Vec<_>>());
}

/// The sizes of parts that README.md gives.
#[test]
fn the_readme_knows_the_sizes() {
    fn row<T: Wire>(name: &str) {
        let (min, max) = (T::BYTES_MIN, T::BYTES_MAX);
        let size = if min == max { format!("{min}") } else { format!("{min} to {max}") };
        let row = format!("| `{name}` | {size} |");
        assert!(include_str!("../vectors/README.md").contains(&row), "{row}");
    }
    row::<Collection>("Collection");
    row::<Incarnation>("Incarnation");
    row::<DataOffer>("DataOffer");
    row::<Upstream>("Upstream");
    row::<Manifest>("Manifest");
    row::<Announcement>("Announcement");
    row::<Proof>("Proof");
    row::<Verdict>("Verdict");
    row::<Asked>("Asked");
    row::<Effort>("Effort");
    row::<Note>("Note");
    row::<OpenState>("OpenState");
    row::<Inline>("Inline");
    row::<Sampling>("Sampling");
    row::<Request>("Request");
    row::<Declared>("Declared");
    row::<Committed>("Committed");
    row::<Digest>("Digest");
}
