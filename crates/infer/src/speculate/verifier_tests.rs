//! What rounds are worth, one rule at a time. Ids below 100 are tokens.

use super::super::asked_in_tests::{committed, request};
use super::*;
use littoral_wire::speculation::Share;

fn verifier(drafts: Drafts) -> Verifier {
    Verifier::new(1, &request(drafts, 100), 100, 8)
}

/// A round of `tokens` after `before`, which are the answer's as far as the drafter knows.
fn round(number: u32, epoch: u32, before: &[u32], tokens: &[u32], want: Want) -> Speculation {
    Speculation::Round {
        session: 1,
        number,
        epoch,
        commit: 0,
        start: before.len() as u32,
        digest: Digest::of(before),
        tokens: List::new(tokens.to_vec()).expect("short"),
        distributions: None,
        want,
    }
}

fn chose(verifier: &mut Verifier, tokens: &[u32]) -> Vec<Speculation> {
    verifier.committed(committed(tokens), None, 9)
}

fn verify(tokens: &[u32]) -> Pass {
    Pass::Verify { tokens: tokens.to_vec(), declared: None }
}

/// Start, tokens and epoch of the one commit that was told.
fn told(told: Vec<Speculation>) -> (u32, Vec<u32>, u32) {
    match &told[..] {
        [Speculation::Commit { start, tokens, epoch, .. }] => {
            (*start, tokens.iter().map(|token| token.id).collect(), *epoch)
        }
        other => panic!("one commit expected, got {other:?}"),
    }
}

#[test]
fn blocks_follow_one_another_in_any_order_and_count_once() {
    let mut verifier = verifier(Drafts::Ids);
    assert_eq!(verifier.next_pass(), Pass::Hold);
    for (number, before, tokens) in [(2, &[5, 6][..], &[7, 8][..]), (1, &[], &[5, 6]), (2, &[5, 6], &[7, 8])] {
        assert_eq!(verifier.hear(round(number, 0, before, tokens, Want::Wait)), []);
    }
    assert_eq!(verifier.next_pass(), verify(&[5, 6, 7, 8]));
    assert_eq!(told(chose(&mut verifier, &[5, 6, 7, 8, 9])), (0, vec![5, 6, 7, 8, 9], 0));
    // What overlaps committed tokens and agrees with them counts from there on.
    assert_eq!(verifier.hear(round(3, 0, &[5, 6, 7, 8], &[9, 10, 11], Want::Wait)), []);
    assert_eq!(verifier.next_pass(), verify(&[10, 11]));
    assert_eq!(verifier.counted(), Counted { tokens: 5, passes: 1, drafted: 4, accepted: 4 });
    assert_eq!(verifier.counted().passes_saved(), 4);
}

#[test]
fn after_a_refuted_token_all_that_was_drafted_is_dead() {
    let mut verifier = verifier(Drafts::Ids);
    verifier.hear(round(1, 0, &[], &[5, 6], Want::Wait));
    verifier.hear(round(2, 0, &[5, 6, 7], &[8], Want::Wait));
    assert_eq!(verifier.next_pass(), verify(&[5, 6]));
    assert_eq!(told(chose(&mut verifier, &[5, 9])), (0, vec![5, 9], 1));
    assert_eq!(verifier.next_pass(), Pass::Hold);
    // Late: of an epoch that is over; of this epoch, but after other tokens; after the right ones, but others.
    for late in [
        round(3, 0, &[5, 6, 7, 8], &[1], Want::Wait),
        round(4, 1, &[5, 6], &[1], Want::Wait),
        round(5, 1, &[5], &[6], Want::Wait),
    ] {
        assert_eq!(told(verifier.hear(late)), (0, vec![5, 9], 1));
        assert_eq!(verifier.next_pass(), Pass::Hold);
    }
    verifier.hear(round(6, 1, &[5, 9], &[1], Want::Wait));
    assert_eq!(verifier.next_pass(), verify(&[1]));
}

/// A round ahead, of this epoch, whose digest turns out to name other tokens: it is not joined to what it does not follow.
#[test]
fn a_round_that_follows_other_tokens_is_not_joined() {
    let mut verifier = verifier(Drafts::Ids);
    verifier.hear(round(1, 0, &[5, 4], &[7], Want::Wait));
    verifier.hear(round(2, 0, &[], &[5, 6], Want::Wait));
    assert_eq!(verifier.next_pass(), verify(&[5, 6]));
}

#[test]
fn the_last_word_on_streaming_counts_however_late_others_come() {
    let mut verifier = verifier(Drafts::Ids);
    verifier.hear(round(2, 0, &[], &[], Want::Stream));
    verifier.hear(round(1, 0, &[], &[], Want::Wait));
    assert_eq!(verifier.next_pass(), Pass::Plain);
    // Also if what came with it is dead.
    chose(&mut verifier, &[5]);
    verifier.hear(round(3, 0, &[], &[6], Want::Wait));
    assert_eq!(verifier.next_pass(), Pass::Hold);
}

#[test]
fn ids_beyond_the_vocabulary_and_rounds_far_ahead_are_not_tried() {
    let mut verifier = verifier(Drafts::Ids);
    verifier.hear(round(1, 0, &[], &[5, 100, 6], Want::Wait));
    assert_eq!(verifier.next_pass(), verify(&[5]));
    let far = vec![7; AHEAD_MAX + 1];
    assert_eq!(verifier.hear(round(2, 0, &far, &[7], Want::Wait)).len(), 1);
    // No more than a pass may look at.
    verifier.hear(round(3, 0, &[], &[9; 64], Want::Wait));
    verifier.hear(round(4, 0, &[9; 64], &[9; 64], Want::Wait));
    chose(&mut verifier, &[9]);
    verifier.hear(round(5, 1, &[], &[9; 64], Want::Wait));
    assert_eq!(verifier.next_pass(), verify(&[9; 8]));
}

#[test]
fn distributions_count_only_where_they_were_agreed() {
    let declared =
        || List::new(vec![Declared::new(vec![Share { id: 5, less_one: u16::MAX }]).expect("one")]).expect("short");
    for (drafts, kept) in [(Drafts::Ids, false), (Drafts::Declared, true)] {
        let mut verifier = verifier(drafts);
        let mut message = round(1, 0, &[], &[5], Want::Wait);
        if let Speculation::Round { distributions, .. } = &mut message {
            *distributions = Some(declared());
        }
        verifier.hear(message);
        let expected = kept.then(|| declared().into_vec());
        assert_eq!(verifier.next_pass(), Pass::Verify { tokens: vec![5], declared: expected });
    }
}

#[test]
fn a_long_silence_is_told_in_several_commits_and_another_text_is_not_resumed() {
    let mut verifier = verifier(Drafts::Ids);
    let answer: Vec<u32> = (0..1_500).map(|i| i % 90).collect();
    answer.iter().for_each(|&id| drop(chose(&mut verifier, &[id])));
    let resume =
        |commit: usize, of: &[u32]| Speculation::Resume { session: 1, commit: commit as u32, digest: Digest::of(of) };
    let all: Vec<u32> =
        verifier.hear(resume(10, &answer[..10])).into_iter().flat_map(|told_one| told(vec![told_one]).1).collect();
    assert_eq!(all, answer[10..]);
    assert_eq!(told(verifier.hear(resume(1_500, &answer))), (1_500, vec![], 0));
    for (commit, of) in [(10, &answer[1..11]), (1_501, &answer[..])] {
        assert!(matches!(&verifier.hear(resume(commit, of))[..], [Speculation::Gone { .. }]));
    }
    verifier.hear(Speculation::Close { session: 1 });
    assert!(verifier.is_closed() && verifier.next_pass() == Pass::Hold);
}
