//! The conversation of machines that share a model's layers: every message survives, any bytes are a message or an error.

use littoral_wire::bounded::{Blob, List};
use littoral_wire::pipeline::{
    Activations, Assign, ECHO_BYTES_MAX, Fork, Get, Held, Layers, Neighbour, Offer, PIECES_MAX, Pass, Piece, Pipeline,
    Profile, STATES_MAX,
};
use littoral_wire::{Manifest, NodeId, ObjectId, Wire};
use proptest::prelude::*;

/// What a frame takes; transports refuse longer ones.
const FRAME_BYTES_MAX: usize = 5 << 20;

fn held() -> impl Strategy<Value = Held> {
    (any::<u64>(), any::<u32>()).prop_map(|(slot, positions)| Held { slot, positions })
}

fn pass() -> impl Strategy<Value = Pass> {
    let fork =
        (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(from, to, positions)| Fork { from, to, positions });
    let piece = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>())
        .prop_map(|(slot, start, tokens, wanted)| Piece { slot, start, tokens, wanted });
    (
        any::<u32>(),
        any::<u64>(),
        prop::collection::vec(fork, 0..4),
        prop::collection::vec(any::<u64>(), 0..9),
        prop::collection::vec(piece, 0..9),
        prop::collection::vec(any::<u32>(), 0..5),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(epoch, number, forks, freed, pieces, times_us, vectors)| Pass {
            epoch,
            number,
            forks: List::new(forks).unwrap(),
            freed: List::new(freed).unwrap(),
            pieces: List::new(pieces).unwrap(),
            times_us: List::new(times_us).unwrap(),
            vectors: Blob::new(vectors).unwrap(),
        })
}

fn message() -> impl Strategy<Value = Pipeline> {
    let states = || prop::collection::vec(held(), 0..9).prop_map(|states| List::new(states).unwrap());
    let layers = || (any::<u32>(), any::<u32>()).prop_map(|(start, end)| Layers { start, end });
    let several = || prop::collection::vec(layers(), 0..4).prop_map(|layers| List::new(layers).unwrap());
    let neighbour =
        || (any::<[u8; 32]>(), "[a-z0-9.:]{0,40}").prop_map(|(id, at)| Neighbour { id: NodeId(id), at: at.into() });
    let assign = (
        any::<u32>(),
        any::<[u8; 32]>(),
        several(),
        any::<u8>(),
        prop::sample::select(vec![Activations::F32, Activations::F16, Activations::Int8]),
        prop::option::of(any::<[u8; 32]>()),
        prop::option::of(neighbour()),
    )
        .prop_map(|(epoch, model, segments, cache_type, activations, from, to)| Assign {
            epoch,
            model,
            segments,
            cache_type,
            activations,
            from: from.map(NodeId),
            to,
        });
    let offer = (".{0,60}", any::<u64>(), any::<u16>(), prop::collection::vec(any::<[u8; 32]>(), 0..3)).prop_map(
        |(name, memory_bytes, threads, models)| Offer {
            name: name.into(),
            memory_bytes,
            threads,
            at: "10.0.0.1:7500".into(),
            models: List::new(models).unwrap(),
        },
    );
    let get = (any::<[u8; 32]>(), several(), prop::collection::vec(neighbour(), 0..3))
        .prop_map(|(model, layers, sources)| Get { model, layers, sources: List::new(sources).unwrap() });
    let machines = prop::collection::vec(any::<[u8; 32]>().prop_map(NodeId), 0..4);
    let bytes = || prop::collection::vec(any::<u8>(), 0..300);
    prop_oneof![
        Just(Pipeline::Hello {}),
        offer.prop_map(|offer| Pipeline::Offer { offer }),
        Just(Pipeline::Watch {}),
        any::<(u64, u32, u64)>().prop_map(|(count, epoch, done)| Pipeline::Beat { count, epoch, done }),
        assign.prop_map(|assign| Pipeline::Assign { assign }),
        any::<(u32, u64)>().prop_map(|(epoch, load_us)| Pipeline::Ready { epoch, load_us }),
        (any::<u32>(), ".{0,99}").prop_map(|(epoch, reason)| Pipeline::Refused { epoch, reason: reason.into() }),
        any::<u32>().prop_map(|epoch| Pipeline::Join { epoch }),
        pass().prop_map(|pass| Pipeline::Pass { pass }),
        (any::<(u32, u64)>(), held()).prop_map(|((epoch, number), held)| Pipeline::Lacking { epoch, number, held }),
        (any::<u32>(), states()).prop_map(|(epoch, states)| Pipeline::Replay { epoch, states }),
        (any::<bool>(), pass()).prop_map(|(last, pass)| Pipeline::Again { last, pass }),
        (any::<(u32, u64)>(), states()).prop_map(|((epoch, replay_us), states)| Pipeline::Replayed {
            epoch,
            replay_us,
            states
        }),
        Just(Pipeline::Release {}),
        (0..=ECHO_BYTES_MAX as u32, prop::collection::vec(any::<u8>(), 0..99))
            .prop_map(|(back, blob)| Pipeline::Echo { back, blob: Blob::new(blob).unwrap() }),
        any::<[u8; 32]>().prop_map(|model| Pipeline::Profile { model }),
        (".{0,60}", any::<[u8; 16]>(), any::<[u64; 6]>()).prop_map(|(name, host, [a, b, c, d, e, f])| {
            Pipeline::Profiled {
                profile: Profile {
                    name: name.into(),
                    host,
                    memory_bytes: a,
                    disk_free_bytes: b,
                    disk_read_bytes_per_s: f,
                    read_bytes_per_s: c,
                    prefill_flops_per_s: d,
                    timed_bytes: e,
                },
            }
        }),
        get.prop_map(|get| Pipeline::Get { get }),
        (any::<[u8; 32]>(), several(), prop::option::of(".{0,99}")).prop_map(|(model, layers, why)| Pipeline::Has {
            model,
            layers,
            why: why.map(Into::into)
        }),
        machines.prop_map(|machines| Pipeline::Share { machines: List::new(machines).unwrap() }),
        Just(Pipeline::Supply {}),
        Just(Pipeline::Fetch {}),
        any::<([u8; 32], u32)>().prop_map(|(model, layer)| Pipeline::Which { model, layer }),
        (any::<([u8; 32], u32)>(), bytes()).prop_map(|((model, layer), bytes)| Pipeline::Tile {
            model,
            layer,
            manifest: Manifest::of(&bytes).unwrap()
        }),
        any::<([u8; 32], u32)>().prop_map(|(id, chunk)| Pipeline::Want { object: ObjectId(id), chunk }),
        (any::<([u8; 32], u32)>(), bytes()).prop_map(|((id, chunk), bytes)| Pipeline::Chunk {
            object: ObjectId(id),
            chunk,
            bytes: Blob::new(bytes).unwrap()
        }),
        ".{0,99}".prop_map(|reason| Pipeline::Cannot { reason: reason.into() }),
    ]
}

proptest! {
    #[test]
    fn every_message_survives(said in message()) {
        let bytes = said.to_bytes();
        prop_assert_eq!(Pipeline::from_bytes(&bytes).unwrap(), said);
        // Shorter by a byte it is none, and longer neither.
        prop_assert!(Pipeline::from_bytes(&bytes[..bytes.len() - 1]).is_err());
        prop_assert!(Pipeline::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(said) = Pipeline::from_bytes(&bytes) {
            prop_assert_eq!(said.to_bytes(), bytes);
        }
    }
}

#[test]
fn an_echo_is_bounded_both_ways() {
    let echo = |back: usize| Pipeline::Echo { back: back as u32, blob: Blob::default() }.to_bytes();
    assert!(Pipeline::from_bytes(&echo(ECHO_BYTES_MAX)).is_ok());
    assert!(Pipeline::from_bytes(&echo(ECHO_BYTES_MAX + 1)).is_err());
    assert!(Blob::<ECHO_BYTES_MAX>::new(vec![0; ECHO_BYTES_MAX + 1]).is_err());
}

#[test]
fn the_longest_message_fits_into_a_frame_and_a_longer_one_is_refused_unallocated() {
    const { assert!(Pipeline::BYTES_MAX <= FRAME_BYTES_MAX) };
    let longest = Pipeline::VARIANTS.iter().max_by_key(|(_, _, bytes)| bytes);
    assert_eq!(longest.map(|(_, name, _)| *name), Some("Again"));
    let pass = Pass {
        epoch: 1,
        number: 2,
        forks: List::default(),
        freed: List::default(),
        pieces: List::default(),
        times_us: List::default(),
        vectors: Blob::default(),
    };
    let bytes = Pipeline::Pass { pass }.to_bytes();
    // The tag, epoch and number come first; then the counts of forks, freed slots and pieces.
    for (at, most) in [(13, PIECES_MAX), (17, STATES_MAX), (21, PIECES_MAX)] {
        let mut lie = bytes.clone();
        lie[at..at + 4].copy_from_slice(&(most as u32 + 1).to_le_bytes());
        let refused = Pipeline::from_bytes(&lie).unwrap_err().to_string();
        assert!(refused.contains(&format!("at most {most}")), "{refused}");
    }
}
