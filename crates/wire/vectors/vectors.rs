//! The published vectors as values. The example `vectors` writes them to `vectors/*.txt`, a test compares: a change of
//! one byte of the protocol shows as a change of these files.

use littoral_wire::bounded::{Blob, List, Text};
use littoral_wire::given::{Given, GivenModel};
use littoral_wire::hello::Hello;
use littoral_wire::message::*;
use littoral_wire::speculation::*;
use littoral_wire::ticket::Ticket;
use littoral_wire::{Chain, DecodeError, Manifest, NodeId, ObjectId, SecretKey, Wire};

/// A file of vectors; `name` is also the fuzz target that takes them as seeds.
pub struct File {
    pub name: &'static str,
    pub about: &'static str,
    pub vectors: Vec<Vector>,
}

pub struct Vector {
    pub says: String,
    pub bytes: Vec<u8>,
    /// A ticket is shown as the text that it is, all else as hexadecimal digits.
    pub is_text: bool,
}

impl File {
    pub fn text(&self) -> String {
        let mut out = format!("# {}\n", self.about);
        for vector in &self.vectors {
            let line = match vector.is_text {
                true => String::from_utf8(vector.bytes.clone()).unwrap(),
                false => hex(&vector.bytes),
            };
            out += &format!("\n# {}\n{line}\n", vector.says);
        }
        out
    }
}

pub fn files() -> Vec<File> {
    vec![hello(), message(), manifest(), announcement(), ticket(), speculation(), refused()]
}

/// The key that signs all vectors: RFC 8032, section 7.1, test 1.
pub fn key() -> SecretKey {
    let digits = b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let nibble = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    SecretKey::from_bytes(std::array::from_fn(|i| nibble(digits[2 * i]) << 4 | nibble(digits[2 * i + 1])))
}

fn hello() -> File {
    let of = |protocol| Hello {
        protocol,
        software: Text::from("littoral 0.1.0"),
        kernels: Text::from("littoral-kernels-1"),
    };
    File {
        name: "hello",
        about: "The first frame in each direction.",
        vectors: vec![
            says("protocol 2", of(2).encode()),
            says("protocol 3: a speaker of protocol 2 reads it, names both versions and hangs up", of(3).encode()),
            says(
                "protocol 3 with four bytes that protocol 2 does not know",
                [of(3).encode(), vec![1, 2, 3, 4]].concat(),
            ),
            says("protocol 4: kernels are named", of(4).encode()),
            says("protocol 4 with four bytes more, which are ignored", [of(4).encode(), vec![1, 2, 3, 4]].concat()),
            says("protocol 5: secure aggregation", of(5).encode()),
            says("protocol 6: chains of models", of(6).encode()),
            says("protocol 7: updates that wait for their collection, or are not summed", of(7).encode()),
            says("protocol 8: layers and large models are told of", of(8).encode()),
        ],
    }
}

fn message() -> File {
    let of = |message: Message| says(&format!("{message:?}"), message.to_bytes());
    File {
        name: "message",
        about: "One message per variant, in the order of tags.",
        vectors: messages().into_iter().map(of).collect(),
    }
}

fn manifest() -> File {
    let pattern: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let of = |what: &str, bytes: &[u8]| {
        let manifest = Manifest::of(bytes).unwrap();
        says(&format!("{what}; object id {}", manifest.id()), manifest.to_bytes())
    };
    File {
        name: "manifest",
        about: "Manifests of known objects.",
        vectors: vec![
            of("the empty object", b""),
            of("the three bytes `abc`", b"abc"),
            of("131,072 zero bytes: one full chunk", &[0; 131_072]),
            of("300,000 bytes, byte i = i mod 251: two full chunks and a short one", &pattern),
        ],
    }
}

fn announcement() -> File {
    let announcement = signed_announcement();
    let domain = [b"littoral/", Announcement::DOMAIN.as_bytes(), b"\0"].concat();
    let signed = [domain, announcement.signed_bytes()].concat();
    let verdict = Verdict { collection: collection(), announcement: Some(announcement.clone()), proof: Some(proof()) };
    File {
        name: "announcement",
        about: "An announcement and its signature (Ed25519).",
        vectors: vec![
            says("the signer's secret key: RFC 8032, section 7.1, test 1", key().to_bytes().to_vec()),
            says("the signer's public key, which is its id", key().id().to_bytes()),
            says("the announcement", announcement.to_bytes()),
            says("what is signed: `littoral/announcement`, a zero byte, the fields before the signature", signed),
            says("the signature", announcement.signature.to_vec()),
            says("a verdict that carries the announcement, for an included device", verdict.to_bytes()),
        ],
    }
}

fn ticket() -> File {
    let of = |what: &str, ticket: Ticket| {
        let text = ticket.to_string().into_bytes();
        [
            says(&format!("{what}: the content, before the check sum"), ticket.to_bytes()),
            Vector { says: format!("{what}: the text"), bytes: text, is_text: true },
        ]
    };
    let addresses = |names: &[&str]| List::new(names.iter().map(|&name| Text::from(name)).collect()).unwrap();
    let secret = std::array::from_fn(|i| i as u8);
    let cloud = key().id();
    let of_role = |role, names: &[&str], roster| Ticket { cloud, secret, role, addresses: addresses(names), roster };
    let device = of_role(Role::Device, &["cloud.example.org:7447"], Some(node(8)));
    let edge = of_role(Role::Edge, &["192.0.2.1:7447", "[2001:db8::1]:443"], None);
    let vectors = [of("a device's ticket, with a roster key", device), of("an edge's ticket, two addresses", edge)]
        .into_iter()
        .flatten();
    File { name: "ticket", about: "Tickets.", vectors: vectors.collect() }
}

fn speculation() -> File {
    let of = |message: Speculation| says(&format!("{message:?}"), message.to_bytes());
    let answer = [11, 12, 300_000];
    let digests = (0..=3).map(|len| {
        says(&format!("the digest of the first {len} of the tokens {answer:?}"), Digest::of(&answer[..len]).to_bytes())
    });
    File {
        name: "speculation",
        about: "One message of a drafter and its verifier per variant, in the order of tags; then digests of tokens.",
        vectors: speculations().into_iter().map(of).chain(digests).collect(),
    }
}

/// One message per variant.
pub fn speculations() -> Vec<Speculation> {
    let (session, real) = (7, Real::new);
    let sampling = Sampling {
        temperature: real(0.5),
        top_k: 40,
        top_p: real(0.75),
        min_p: real(0.0),
        typical_p: real(1.0),
        repetition_penalty: real(1.0),
        repetition_window: 64,
        frequency_penalty: real(-0.25),
        presence_penalty: real(0.0),
        logit_bias: List::new(vec![Bias { id: 5, bias: real(f32::NEG_INFINITY) }]).unwrap(),
        seed: 42,
    };
    let request = Request {
        tokeniser: [3; 32],
        prompt: List::new(vec![1, 2, 300_000]).unwrap(),
        sampling,
        max_tokens: 256,
        ignore_end: false,
        top_logprobs: Some(1),
        drafts: Drafts::Declared,
    };
    let shares = [(12, 1), (13, 65_535)].map(|(id, mass): (u32, u32)| Share { id, less_one: (mass - 1) as u16 });
    let declared = Declared::new(shares.to_vec()).unwrap();
    let certain = Declared::new(vec![Share { id: 300_000, less_one: u16::MAX }]).unwrap();
    let top = List::new(vec![TopToken { id: 12, logprob: real(-0.5) }]).unwrap();
    let logprobs = Some(TokenLogProbs { logprob: real(-0.5), top });
    let tokens = vec![Committed { id: 12, logprobs }, Committed { id: 14, logprobs: None }];
    vec![
        Speculation::Open { session, request },
        Speculation::Opened { session },
        Speculation::Refused { session, reason: Text::from("tokenisers differ") },
        Speculation::Round {
            session,
            number: 2,
            epoch: 1,
            commit: 1,
            start: 1,
            digest: Digest::of(&[11]),
            tokens: List::new(vec![12, 300_000]).unwrap(),
            distributions: Some(List::new(vec![declared, certain]).unwrap()),
            want: Want::Stream,
        },
        Speculation::Commit {
            session,
            epoch: 2,
            start: 1,
            tokens: List::new(tokens).unwrap(),
            finished: Some(Ending::Length),
            passes: 2,
            pass_us: 31_000,
            tried: 2,
        },
        Speculation::Resume { session, commit: 2, digest: Digest::of(&[11, 12]) },
        Speculation::Close { session },
        Speculation::Gone { session, reason: Text::from("restarted") },
        Speculation::Model { blake3: [9; 32] },
    ]
}

fn refused() -> File {
    fn of<T: Wire>(decoder: &str, bytes: Vec<u8>) -> Vector {
        let error: DecodeError = T::from_bytes(&bytes).err().unwrap_or_else(|| panic!("{decoder} takes {bytes:?}"));
        says(&format!("{decoder}: {error}"), bytes)
    }
    let message = |bytes: Vec<u8>| of::<Message>("message", bytes);
    let manifest = |bytes: Vec<u8>| of::<Manifest>("manifest", bytes);
    let speculation = |bytes: Vec<u8>| of::<Speculation>("speculation", bytes);
    let round = |rest: &[&[u8]]| [&[3][..], &[0; 8 + 4 + 4], &rest.concat()].concat();
    let bye = |len: u32, text: &[u8]| [&[2][..], &len.to_le_bytes(), text].concat();
    File {
        name: "refused",
        about: "Bytes that a decoder must refuse: which decoder, and what this implementation says.",
        vectors: vec![
            message(vec![255]),
            message(vec![0, 1, 2, 3, 4, 5, 6, 7]),
            message(vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
            message(bye(513, &[b'a'; 513])),
            message(bye(u32::MAX, b"short")),
            message(bye(2, &[0xc3, 0x28])),
            message(bye(3, &[0xed, 0xa0, 0x80])),
            message([&[61][..], &[0; 8], &[0; 4], &[2]].concat()),
            message([&[10][..], &[0; 16], &[4], &[0; 4]].concat()),
            message([&[11][..], &[0; 4], &65u32.to_le_bytes()].concat()),
            message([&[44][..], &[0; 29], &49_153u32.to_le_bytes()].concat()),
            message([&[56][..], &[0; 165], &49_152u32.to_le_bytes()].concat()),
            message([&[51][..], &[0; 29 + 4 + 12 + 4 + 1 + 4 + 8], &[65, 0, 0], &[0; 4]].concat()),
            message([&[56][..], &[0; 165], &2u32.to_le_bytes(), &[1; 64]].concat()),
            manifest([&131_073u64.to_le_bytes()[..], &1u32.to_le_bytes(), &[0; 32]].concat()),
            manifest([&0u64.to_le_bytes()[..], &1u32.to_le_bytes(), &[0; 32]].concat()),
            manifest([&u64::MAX.to_le_bytes()[..], &0u32.to_le_bytes()].concat()),
            manifest([&1u64.to_le_bytes()[..], &65_537u32.to_le_bytes()].concat()),
            manifest([&8_589_934_592u64.to_le_bytes()[..], &65_536u32.to_le_bytes()].concat()),
            speculation(vec![8]),
            speculation([&[0][..], &[0; 8 + 32 + 4 + 44 + 8 + 4 + 1 + 1 + 1]].concat()),
            speculation(round(&[&2u32.to_le_bytes(), &1u32.to_le_bytes(), &[0; 16 + 4 + 1 + 1]])),
            speculation(round(&[&[0; 8 + 16], &65u32.to_le_bytes()])),
            speculation(round(&[&[0; 8 + 16], &1u32.to_le_bytes(), &[0; 4], &[1], &[0; 4], &[0]])),
            speculation(round(&[&[0; 8 + 16 + 4], &[1], &1u32.to_le_bytes(), &1u32.to_le_bytes(), &[0; 6], &[0]])),
        ],
    }
}

fn says(says: &str, bytes: Vec<u8>) -> Vector {
    Vector { says: says.to_owned(), bytes, is_text: false }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn collection() -> Collection {
    Collection { job: JobId(3), version: 17, work: Work::Train, attempt: 2 }
}

fn incarnation() -> Incarnation {
    Incarnation { collection: collection(), number: 5 }
}

fn proof() -> Proof {
    Proof { index: 1, path: List::new(vec![[0xa1; 32], [0xa2; 32]]).unwrap() }
}

fn signed_announcement() -> Announcement {
    let mut announcement = Announcement {
        collection: collection(),
        version: 18,
        channel: "stable".into(),
        model: Manifest::of(b"abc").unwrap().id(),
        included_root: [0xd1; 32],
        included_count: 4,
        signature: [0; 64],
    };
    announcement.signature = key().sign(Announcement::DOMAIN, &announcement.signed_bytes());
    announcement
}

/// One of each, in the order of tags.
pub fn messages() -> Vec<Message> {
    let (collection, incarnation) = (collection(), incarnation());
    let object: ObjectId = Manifest::of(b"abc").unwrap().id();
    let manifest = || Manifest::of(b"abc").unwrap();
    let chain = || Chain::new(vec![Manifest::of(b"whole").unwrap()]).unwrap();
    let inline = || Some(Blob::new(b"abc".to_vec()).unwrap());
    let devices = || List::new(vec![node(1), node(2)]).unwrap();
    let asked = || {
        let asked =
            [(1, 16, Effort::Job), (2, 0, Effort::Steps(300)), (3, 15, Effort::Kept { version: 12, times: 128 })];
        let asked = asked.map(|(n, counted, effort)| Asked { device: node(n), counted, effort });
        List::new(asked.to_vec()).unwrap()
    };
    let data = || List::new(vec![DataOffer { name: "scans".into(), rows: 569 }]).unwrap();
    let held = || List::new(vec![collection]).unwrap();
    let spec = || Blob::new(b"spec".to_vec()).unwrap();
    let body = || Blob::new(b"{}".to_vec()).unwrap();
    let upstreams = || List::new(vec![Upstream { id: node(9), address: "edge.example.org:7447".into() }]).unwrap();
    let (nonce, issued_at_ms) = (0x0807_0605_0403_0201, 1_700_000_000_000);
    let rotated = SecretKey::from_bytes([1; 32]);
    let verdict = |included: bool| Verdict {
        collection,
        announcement: included.then(signed_announcement),
        proof: included.then(proof),
    };
    vec![
        Message::Ping { nonce },
        Message::Pong { nonce },
        Message::Bye { reason: "la mer se retire, à bientôt".into() },
        Message::GetChunk { object, index: 7 },
        Message::Chunk { object, index: 0, bytes: Blob::new(b"abc".to_vec()).unwrap() },
        Message::NoChunk { object, index: 7 },
        Message::Denied { what: "job".into(), place: "rounds".into(), expected: "1 to 10000".into(), got: "0".into() },
        Message::Join { secret: std::array::from_fn(|i| i as u8), role: Role::Device, name: "ward-3".into() },
        Message::Joined { name: "ward-3".into(), upstreams: upstreams() },
        Message::Rotate { to: rotated.id(), signature: rotated.sign(ROTATE_DOMAIN, &key().id().0) },
        Message::Rotated { to: rotated.id() },
        Message::Attach { name: "ward-3".into(), data: data(), held: held() },
        Message::Offer {
            collection,
            update: manifest(),
            inline: inline(),
            note: Some(Note { rows: 455, loss_ppm: 693_147 }),
        },
        Message::Declined { collection, reason: "no data set `scans`".into() },
        Message::Sealing { collection, step: SealingStep::Shares, body: Blob::new(b"shares".to_vec()).unwrap() },
        Message::Ready { collection: Collection { work: Work::Prepare, ..collection }, note: None },
        Message::Attached { cloud: key().id(), upstreams: upstreams() },
        Message::Task {
            collection,
            spec: spec(),
            model: manifest(),
            before: chain(),
            inline: None,
            counted: 16,
            commitment: Some([0xc1; 32]),
            effort: Effort::Kept { version: 12, times: 256 },
        },
        Message::Absorbed { collection },
        Message::Refused { collection, reason: "12 words expected, got 11".into() },
        Message::Told { verdict: verdict(false) },
        Message::Later { after_ms: 3_600_000 },
        Message::EdgeAttach {
            name: "edge-1".into(),
            listen: "edge.example.org:7447".into(),
            open: List::new(vec![OpenState { incarnation, absorbed: devices() }]).unwrap(),
        },
        Message::DeviceAttached { device: node(1), name: "ward-3".into(), data: data(), held: held() },
        Message::DeviceDetached { device: node(1) },
        Message::Progress {
            incarnation,
            device: node(1),
            fate: Fate::Detached,
            reason: "connection lost".into(),
            note: None,
        },
        Message::Partial { incarnation, devices: devices(), sum: manifest(), inline: inline() },
        Message::NoPartial { incarnation },
        Message::SealingFrom {
            device: node(1),
            collection,
            step: SealingStep::Reveal,
            body: Blob::new(b"share".to_vec()).unwrap(),
        },
        Message::EdgeAttached { name: "edge-1".into(), upstreams: upstreams() },
        Message::Open {
            incarnation,
            spec: spec(),
            model: manifest(),
            before: chain(),
            inline: inline(),
            devices: asked(),
            words: 62,
            bits: 27,
            commitment: None,
            gather: Gather::Each,
            given: Given::new(vec![GivenModel { device: node(1), model: Manifest::of(b"its own").unwrap() }]).unwrap(),
        },
        Message::Release { incarnation, device: node(1) },
        Message::Close { incarnation },
        Message::Fence { incarnation },
        Message::PartialKept { incarnation },
        Message::Announce { announcement: signed_announcement(), included: devices() },
        Message::Tell { device: node(1), verdict: verdict(true) },
        Message::Admit { device: node(1) },
        Message::Cut { node: node(1), reason: "revoked".into() },
        Message::Command {
            body: body(),
            nonce,
            issued_at_ms,
            signature: key().sign(COMMAND_DOMAIN, &command_bytes(node(9), &body(), nonce, issued_at_ms)),
        },
        Message::Reply { nonce, body: body(), more: false, last: true },
        Message::GetModel { job: collection.job },
        Message::Model { job: collection.job, version: 18, model: manifest(), before: chain() },
        Message::SealingTo {
            devices: devices(),
            collection,
            step: SealingStep::Survivors,
            body: Blob::new(vec![3]).unwrap(),
        },
    ]
}
