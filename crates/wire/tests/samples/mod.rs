//! Random values of every message variant.

use littoral_wire::bounded::{Blob, List, Text};
use littoral_wire::given::{Given, GivenModel};
use littoral_wire::message::*;
use littoral_wire::object::CHUNK_BYTES;
use littoral_wire::{Chain, Manifest, NodeId, ObjectId};
use proptest::collection::vec;
use proptest::prelude::*;

/// Short texts of any characters, and sometimes the longest that fits.
pub fn text<const MAX: usize>() -> BoxedStrategy<Text<MAX>> {
    let short = vec(any::<char>(), 0..8).prop_map(|chars| Text::new(String::from_iter(chars)));
    prop_oneof![9 => short, 1 => Just(Text::new("x".repeat(MAX)))].boxed()
}

fn blob<const MAX: usize>() -> BoxedStrategy<Blob<MAX>> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| Blob::new(bytes).unwrap()).boxed()
}

fn list<T: std::fmt::Debug, const MAX: usize>(item: impl Strategy<Value = T> + 'static) -> BoxedStrategy<List<T, MAX>> {
    vec(item, 0..4).prop_map(|items| List::new(items).unwrap()).boxed()
}

fn inline() -> BoxedStrategy<Inline> {
    proptest::option::of(blob()).boxed()
}

fn node() -> BoxedStrategy<NodeId> {
    any::<[u8; 32]>().prop_map(NodeId).boxed()
}

fn sorted() -> BoxedStrategy<List<NodeId, COHORT_MAX>> {
    proptest::collection::btree_set(node(), 0..4).prop_map(|ids| List::new(Vec::from_iter(ids)).unwrap()).boxed()
}

fn object() -> BoxedStrategy<ObjectId> {
    any::<[u8; 32]>().prop_map(ObjectId).boxed()
}

/// Of objects whose hashes are made up, and that end anywhere in their last chunk.
pub fn manifest() -> BoxedStrategy<Manifest> {
    (vec(any::<[u8; 32]>(), 0..4), 1..=CHUNK_BYTES as u64)
        .prop_map(|(hashes, last)| {
            let full = hashes.len().saturating_sub(1) as u64 * CHUNK_BYTES as u64;
            Manifest::from_hashes(if hashes.is_empty() { 0 } else { full + last }, hashes).unwrap()
        })
        .boxed()
}

fn chain() -> BoxedStrategy<Chain> {
    vec(manifest(), 0..4).prop_map(|objects| Chain::new(objects).unwrap()).boxed()
}

fn given() -> BoxedStrategy<Given> {
    let model = (node(), manifest()).prop_map(|(device, model)| GivenModel { device, model });
    vec(model, 0..4).prop_map(|models| Given::new(models).unwrap()).boxed()
}

fn asked() -> BoxedStrategy<Asked> {
    let asked = (node(), any::<u32>(), effort());
    asked.prop_map(|(device, counted, effort)| Asked { device, counted, effort }).boxed()
}

fn effort() -> BoxedStrategy<Effort> {
    let kept = (any::<u64>(), any::<u16>()).prop_map(|(version, times)| Effort::Kept { version, times });
    prop_oneof![Just(Effort::Job), any::<u32>().prop_map(Effort::Steps), kept].boxed()
}

fn collection() -> BoxedStrategy<Collection> {
    let work = prop_oneof![Just(Work::Statistics), Just(Work::Train), Just(Work::Evaluate), Just(Work::Prepare)];
    (any::<u64>(), any::<u64>(), work, any::<u32>())
        .prop_map(|(job, version, work, attempt)| Collection { job: JobId(job), version, work, attempt })
        .boxed()
}

fn incarnation() -> BoxedStrategy<Incarnation> {
    (collection(), any::<u64>()).prop_map(|(collection, number)| Incarnation { collection, number }).boxed()
}

fn data() -> BoxedStrategy<List<DataOffer, OFFERS_MAX>> {
    list((text(), any::<u64>()).prop_map(|(name, rows)| DataOffer { name, rows }))
}

fn upstreams() -> BoxedStrategy<List<Upstream, UPSTREAMS_MAX>> {
    list((node(), text()).prop_map(|(id, address)| Upstream { id, address }))
}

fn open() -> BoxedStrategy<List<OpenState, OFFERS_MAX>> {
    list((incarnation(), list(node())).prop_map(|(incarnation, absorbed)| OpenState { incarnation, absorbed }))
}

fn role() -> BoxedStrategy<Role> {
    prop_oneof![Just(Role::Cloud), Just(Role::Edge), Just(Role::Device), Just(Role::Operator)].boxed()
}

fn step() -> BoxedStrategy<SealingStep> {
    use SealingStep::*;
    let steps = [Keys, Fixed, Nonce, Neighbours, Shares, Shared, Survivors, Agree, Agreed, Reveal];
    proptest::sample::select(steps.to_vec()).boxed()
}

fn commitment() -> BoxedStrategy<Option<[u8; 32]>> {
    proptest::option::of(any::<[u8; 32]>()).boxed()
}

fn note() -> BoxedStrategy<Option<Note>> {
    let note = (any::<u64>(), any::<u32>()).prop_map(|(rows, loss_ppm)| Note { rows, loss_ppm });
    proptest::option::of(note).boxed()
}

fn fate() -> BoxedStrategy<Fate> {
    let fates = [Fate::Absorbed, Fate::Declined, Fate::Released, Fate::Refused, Fate::Detached, Fate::Ready];
    proptest::sample::select(fates.to_vec()).boxed()
}

pub fn announcement() -> BoxedStrategy<Announcement> {
    (collection(), any::<u64>(), text(), object(), any::<[u8; 32]>(), any::<u32>(), any::<[u8; 64]>())
        .prop_map(|(collection, version, channel, model, included_root, included_count, signature)| Announcement {
            collection,
            version,
            channel,
            model,
            included_root,
            included_count,
            signature,
        })
        .boxed()
}

pub fn verdict() -> BoxedStrategy<Verdict> {
    let proof = (any::<u32>(), list(any::<[u8; 32]>())).prop_map(|(index, path)| Proof { index, path });
    (collection(), proptest::option::of(announcement()), proptest::option::of(proof))
        .prop_map(|(collection, announcement, proof)| Verdict { collection, announcement, proof })
        .boxed()
}

macro_rules! variants {
    ($($name:ident { $($field:ident: $value:expr,)* })*) => {
        /// Each variant's name and its random values.
        pub fn variants() -> Vec<(&'static str, BoxedStrategy<Message>)> {
            vec![$((
                stringify!($name),
                ($($value,)*).prop_map(|($($field,)*)| Message::$name { $($field,)* }).boxed(),
            ),)*]
        }
    };
}

variants! {
    Ping { nonce: any::<u64>(), }
    Pong { nonce: any::<u64>(), }
    Bye { reason: text(), }
    GetChunk { object: object(), index: any::<u32>(), }
    Chunk { object: object(), index: any::<u32>(), bytes: blob(), }
    NoChunk { object: object(), index: any::<u32>(), }
    Denied { what: text(), place: text(), expected: text(), got: text(), }
    Join { secret: any::<[u8; 16]>(), role: role(), name: text(), }
    Joined { name: text(), upstreams: upstreams(), }
    Rotate { to: node(), signature: any::<[u8; 64]>(), }
    Rotated { to: node(), }
    Attach { name: text(), data: data(), held: list(collection()), }
    Offer { collection: collection(), update: manifest(), inline: inline(), note: note(), }
    Declined { collection: collection(), reason: text(), }
    Sealing { collection: collection(), step: step(), body: blob(), }
    Ready { collection: collection(), note: note(), }
    Attached { cloud: node(), upstreams: upstreams(), }
    Task {
        collection: collection(),
        spec: blob(),
        model: manifest(),
        before: chain(),
        inline: inline(),
        counted: any::<u32>(),
        commitment: commitment(),
        effort: effort(),
    }
    Absorbed { collection: collection(), }
    Refused { collection: collection(), reason: text(), }
    Told { verdict: verdict(), }
    Later { after_ms: any::<u64>(), }
    EdgeAttach { name: text(), listen: text(), open: open(), }
    DeviceAttached { device: node(), name: text(), data: data(), held: list(collection()), }
    DeviceDetached { device: node(), }
    Progress { incarnation: incarnation(), device: node(), fate: fate(), reason: text(), note: note(), }
    Partial { incarnation: incarnation(), devices: list(node()), sum: manifest(), inline: inline(), }
    NoPartial { incarnation: incarnation(), }
    SealingFrom { device: node(), collection: collection(), step: step(), body: blob(), }
    EdgeAttached { name: text(), upstreams: upstreams(), }
    Open {
        incarnation: incarnation(),
        spec: blob(),
        model: manifest(),
        before: chain(),
        inline: inline(),
        devices: list(asked()),
        words: any::<u64>(),
        bits: 1..=64u8,
        commitment: commitment(),
        gather: prop_oneof![Just(Gather::Sum), Just(Gather::Each)],
        given: given(),
    }
    Release { incarnation: incarnation(), device: node(), }
    Close { incarnation: incarnation(), }
    Fence { incarnation: incarnation(), }
    PartialKept { incarnation: incarnation(), }
    Announce { announcement: announcement(), included: sorted(), }
    Tell { device: node(), verdict: verdict(), }
    Admit { device: node(), }
    Cut { node: node(), reason: text(), }
    Command { body: blob(), nonce: any::<u64>(), issued_at_ms: any::<u64>(), signature: any::<[u8; 64]>(), }
    Reply { nonce: any::<u64>(), body: blob(), more: any::<bool>(), last: any::<bool>(), }
    GetModel { job: any::<u64>().prop_map(JobId), }
    Model { job: any::<u64>().prop_map(JobId), version: any::<u64>(), model: manifest(), before: chain(), }
    SealingTo { devices: list(node()), collection: collection(), step: step(), body: blob(), }
}

/// Any message; all variants are equally likely.
pub fn message() -> impl Strategy<Value = Message> {
    proptest::strategy::Union::new(variants().into_iter().map(|(_, messages)| messages))
}

/// Random values of every message of a drafter and its verifier.
pub mod speculation {
    use super::list;
    use littoral_wire::bounded::List;
    use littoral_wire::speculation::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn real() -> BoxedStrategy<Real> {
        any::<u32>().prop_map(|bits| Real::new(f32::from_bits(bits))).boxed()
    }

    fn request() -> BoxedStrategy<Request> {
        let biases = proptest::collection::btree_map(any::<u32>(), real(), 0..4)
            .prop_map(|biases| List::new(biases.into_iter().map(|(id, bias)| Bias { id, bias }).collect()).unwrap());
        let numbers = (vec(real(), 7), any::<u32>(), any::<u32>(), biases, any::<u64>());
        let sampling = numbers.prop_map(|(reals, top_k, repetition_window, logit_bias, seed)| Sampling {
            temperature: reals[0],
            top_k,
            top_p: reals[1],
            min_p: reals[2],
            typical_p: reals[3],
            repetition_penalty: reals[4],
            repetition_window,
            frequency_penalty: reals[5],
            presence_penalty: reals[6],
            logit_bias,
            seed,
        });
        let prompt = vec(any::<u32>(), 1..5).prop_map(|ids| List::new(ids).unwrap());
        let logprobs = proptest::option::of(0..=TOP_LOGPROBS_MAX as u8);
        let drafts = prop_oneof![Just(Drafts::Ids), Just(Drafts::Declared)];
        (any::<[u8; 32]>(), prompt, sampling, 1..=u32::MAX, any::<bool>(), logprobs, drafts)
            .prop_map(|(tokeniser, prompt, sampling, max_tokens, ignore_end, top_logprobs, drafts)| Request {
                tokeniser,
                prompt,
                sampling,
                max_tokens,
                ignore_end,
                top_logprobs,
                drafts,
            })
            .boxed()
    }

    fn declared() -> BoxedStrategy<Declared> {
        let shares = proptest::collection::btree_map(any::<u32>(), 1..2_000u32, 1..=DECLARED_MAX);
        shares
            .prop_map(|mut masses| {
                let rest = Declared::ONE - masses.values().sum::<u32>();
                *masses.values_mut().next().unwrap() += rest;
                let shares = masses.into_iter().map(|(id, mass)| Share { id, less_one: (mass - 1) as u16 });
                Declared::new(shares.collect()).unwrap()
            })
            .boxed()
    }

    /// Tokens with or without what they were drawn from.
    fn drafts() -> BoxedStrategy<(List<u32, ROUND_TOKENS_MAX>, Option<List<Declared, ROUND_TOKENS_MAX>>)> {
        let ids = vec(any::<u32>(), 0..5).prop_map(|ids| (List::new(ids).unwrap(), None));
        let both = vec((any::<u32>(), declared()), 0..5).prop_map(|drafts| {
            let (ids, declared) = drafts.into_iter().unzip();
            (List::new(ids).unwrap(), Some(List::new(declared).unwrap()))
        });
        prop_oneof![ids, both].boxed()
    }

    fn committed() -> BoxedStrategy<List<Committed, COMMIT_TOKENS_MAX>> {
        let top = list((any::<u32>(), real()).prop_map(|(id, logprob)| TopToken { id, logprob }));
        let logprobs = (real(), top).prop_map(|(logprob, top)| TokenLogProbs { logprob, top });
        list((any::<u32>(), proptest::option::of(logprobs)).prop_map(|(id, logprobs)| Committed { id, logprobs }))
    }

    fn digest() -> BoxedStrategy<Digest> {
        any::<[u8; 16]>().prop_map(Digest).boxed()
    }

    /// Each variant's name and its random values.
    pub fn variants() -> Vec<(&'static str, BoxedStrategy<Speculation>)> {
        let id = any::<u64>;
        let number = || any::<u32>().prop_map(|number| number / 2);
        let rounds = (id(), any::<u32>(), any::<u32>(), number(), 0..1_000u32, digest(), drafts(), any::<bool>());
        let ending = prop_oneof![Just(Ending::End), Just(Ending::Length), Just(Ending::Context)];
        let commits =
            (id(), any::<u32>(), number(), committed(), proptest::option::of(ending), any::<[u32; 2]>(), any::<u8>());
        vec![
            ("Open", (id(), request()).prop_map(|(session, request)| Speculation::Open { session, request }).boxed()),
            ("Opened", id().prop_map(|session| Speculation::Opened { session }).boxed()),
            (
                "Refused",
                (id(), super::text()).prop_map(|(session, reason)| Speculation::Refused { session, reason }).boxed(),
            ),
            (
                "Round",
                rounds
                    .prop_map(|(session, number, epoch, commit, more, digest, (tokens, distributions), stream)| {
                        let (start, want) = (commit + more, if stream { Want::Stream } else { Want::Wait });
                        Speculation::Round {
                            session,
                            number,
                            epoch,
                            commit,
                            start,
                            digest,
                            tokens,
                            distributions,
                            want,
                        }
                    })
                    .boxed(),
            ),
            (
                "Commit",
                commits
                    .prop_map(|(session, epoch, start, tokens, finished, [passes, pass_us], tried)| {
                        Speculation::Commit { session, epoch, start, tokens, finished, passes, pass_us, tried }
                    })
                    .boxed(),
            ),
            (
                "Resume",
                (id(), any::<u32>(), digest())
                    .prop_map(|(session, commit, digest)| Speculation::Resume { session, commit, digest })
                    .boxed(),
            ),
            ("Close", id().prop_map(|session| Speculation::Close { session }).boxed()),
            ("Gone", (id(), super::text()).prop_map(|(session, reason)| Speculation::Gone { session, reason }).boxed()),
            ("Model", any::<[u8; 32]>().prop_map(|blake3| Speculation::Model { blake3 }).boxed()),
        ]
    }

    /// Any message; all variants are equally likely.
    pub fn speculation() -> impl Strategy<Value = Speculation> {
        proptest::strategy::Union::new(variants().into_iter().map(|(_, messages)| messages))
    }
}
