//! A drafter's or a verifier's frame. Total, canonical, within declared bounds; and a verifier that hears it chooses what it
//! would have chosen, and asks for passes over tokens of the vocabulary.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littoral_fuzz::canonical;
use littoral_infer::speculate::verifier::{Pass, Verifier};
use littoral_wire::speculation::{Committed, Speculation};

fuzz_target!(|bytes: &[u8]| {
    let Some(message) = canonical::<Speculation>(bytes) else { return };
    let (tag, name, bytes_max) = Speculation::VARIANTS.iter().find(|v| v.1 == message.name()).unwrap();
    assert_eq!(bytes[0], *tag, "{name}");
    assert!(bytes.len() <= *bytes_max, "{name}");
    if let Speculation::Open { session, request } = &message {
        let mut verifier = Verifier::new(*session, request, 100, 64);
        assert_eq!(verifier.next_pass(), Pass::Hold);
        assert_eq!(verifier.hear(message.clone()).len(), 1);
        return;
    }
    let mut verifier = opened().expect("a request of zeros is one");
    let commit = |id| Committed { id, logprobs: None };
    verifier.committed(vec![commit(1), commit(2)], None, 1);
    let told = verifier.hear(message);
    assert!(told.len() <= 1);
    if let Pass::Verify { tokens, declared } = verifier.next_pass() {
        assert!((1..=64).contains(&tokens.len()) && tokens.iter().all(|id| *id < 100));
        assert!(declared.is_none_or(|declared| declared.len() == tokens.len()));
    }
    verifier.committed(vec![commit(3)], None, 1);
    assert_eq!(verifier.answer(), [1, 2, 3]);
});

/// A session of which two tokens will be committed.
fn opened() -> Option<Verifier> {
    use littoral_wire::Wire;
    use littoral_wire::speculation::{Request, Sampling};
    // A request of zeros, but for a prompt of one token and one token to answer.
    let sampling = [0; Sampling::BYTES_MIN];
    let request = [&[0; 32][..], &[1, 0, 0, 0, 9, 0, 0, 0], &sampling, &[255, 0, 0, 0], &[0, 0, 1]].concat();
    Request::from_bytes(&request).ok().map(|request| Verifier::new(0, &request, 100, 64))
}
