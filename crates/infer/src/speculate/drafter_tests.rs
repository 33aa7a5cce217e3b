//! What a drafter does about a verifier that refuses, lies or is silent; `tests/speculate` has the conversations.

use super::super::asked_in_tests::{committed, request};
use super::*;
use littoral_wire::bounded::Text;
use littoral_wire::speculation::{Drafts, Share};

fn drafter(drafts: Drafts) -> Drafter {
    with(Sources::Model, drafts, 6)
}

fn with(sources: Sources, drafts: Drafts, max_tokens: u32) -> Drafter {
    let policy = Policy::Fixed(Mode::Rounds { tokens: 2 });
    let patience = Patience { first_us: 10, most_us: 40, tries_max: 3 };
    Drafter::new(1, request(drafts, max_tokens), policy, sources, patience, 0).0
}

fn commit(start: u32, ids: &[u32]) -> Speculation {
    let tokens = List::new(committed(ids)).expect("short");
    Speculation::Commit { session: 1, epoch: 0, start, tokens, finished: None, passes: 1, pass_us: 1, tried: 0 }
}

fn drafted(ids: &[u32]) -> Vec<Drafted> {
    let declared = |id| Declared::new(vec![Share { id, less_one: u16::MAX }]);
    ids.iter().map(|&id| Drafted { id, declared: declared(id) }).collect()
}

#[test]
fn rounds_carry_what_drafts_were_drawn_from_where_that_was_agreed() {
    for (drafts, expected) in [(Drafts::Ids, false), (Drafts::Declared, true)] {
        let mut drafter = drafter(drafts);
        let work = drafter.work().expect("two tokens");
        assert_eq!((work.keep, work.start, work.count), (0, 0, 2));
        let output = drafter.drafted(1, work, drafted(&[7, 8]), 5);
        let [Speculation::Round { tokens, distributions, want: Want::Wait, .. }] = &output.send[..] else {
            panic!("{output:?}")
        };
        assert_eq!((tokens.to_vec(), distributions.is_some()), (vec![7, 8], expected));
    }
}

/// 7 holds, 8 does not: the state is cut back to the 7, and what was being drafted meanwhile counts no more.
#[test]
fn a_refuted_draft_is_taken_back() {
    let mut drafter = drafter(Drafts::Ids);
    let work = drafter.work().expect("two tokens");
    drafter.drafted(1, work, drafted(&[7, 8]), 5);
    assert_eq!(drafter.work(), None);
    drafter.hear(2, commit(0, &[7, 9]));
    let again = drafter.work().expect("two more");
    assert_eq!((again.keep, again.start), (1, 2));
    assert!(drafter.is_void(work) && !drafter.is_void(again));
    assert_eq!(drafter.answer_from(0), [7, 9]);
}

/// The text drafts by itself where it repeats itself; what the model was at is void then, whatever it would have been.
#[test]
fn the_text_drafts_without_being_asked_by_the_host() {
    for (sources, declares) in [(Sources::Lookup, true), (Sources::Both, false)] {
        let mut drafter = with(sources, if declares { Drafts::Declared } else { Drafts::Ids }, 40);
        let work = drafter.work();
        assert_eq!(work.is_some(), sources == Sources::Both);
        for (start, ids) in [(0, &[7, 8, 9, 7, 8, 9, 7, 8, 9, 7][..]), (10, &[8, 9, 7])] {
            let output = drafter.hear(1, commit(start, ids));
            let [Speculation::Round { tokens, distributions, want: Want::Wait, .. }] = &output.send[..] else {
                panic!("{output:?}")
            };
            assert_eq!((tokens.to_vec(), distributions.is_some()), (vec![8, 9], declares));
            assert_eq!(drafter.work(), None);
        }
        if let Some(work) = work {
            assert!(drafter.is_void(work));
            drafter.drafted(2, work, drafted(&[1, 1]), 5);
        }
        assert_eq!(drafter.answer_from(13), [8, 9]);
        assert_eq!(drafter.yields().text, Yield { drafted: 4, held: 2 });
        // Another token than any that followed: there is nothing to go by.
        drafter.hear(3, commit(13, &[5]));
        assert_eq!(drafter.answer_from(13), [5]);
        assert_eq!(drafter.work().map(|work| (work.keep, work.start)), work.map(|_| (0, 14)));
    }
}

#[test]
fn a_gap_is_asked_about_once() {
    let mut drafter = drafter(Drafts::Ids);
    let output = drafter.hear(1, commit(2, &[7]));
    assert!(matches!(&output.send[..], [Speculation::Resume { commit: 0, .. }]), "{output:?}");
    assert_eq!(drafter.hear(2, commit(3, &[7])).send, []);
    assert_eq!(drafter.hear(3, commit(0, &[5, 6, 7])).tokens.len(), 3);
}

#[test]
fn a_verifier_that_contradicts_itself_or_goes_on_for_ever_is_found_out() {
    let mut one = drafter(Drafts::Ids);
    one.hear(1, commit(0, &[5, 6]));
    assert_eq!(one.hear(2, commit(1, &[7])).over, Some(Over::Contradicted(1)));
    // Over is over.
    assert_eq!(one.hear(3, commit(2, &[8])), Output::default());
    let mut other = drafter(Drafts::Ids);
    assert_eq!(other.hear(1, commit(0, &[5; 7])).over, Some(Over::Contradicted(6)));
    let mut third = drafter(Drafts::Ids);
    let reason = Reason::from("busy");
    let refused = Speculation::Refused { session: 1, reason: Text::clone(&reason) };
    assert_eq!(third.hear(1, refused).over, Some(Over::Refused(reason)));
}

#[test]
fn silence_is_answered_less_and_less_often_and_then_not_at_all() {
    let mut drafter = drafter(Drafts::Ids);
    let mut asked_us = Vec::new();
    let mut now_us = 0;
    while drafter.over().is_none() {
        now_us = drafter.deadline_us().expect("an answer is awaited");
        assert_eq!(drafter.tick(now_us - 1), Output::default());
        drafter.tick(now_us);
        asked_us.push(now_us);
    }
    assert_eq!((asked_us, drafter.over()), (vec![10, 30, 70, 110], Some(&Over::Lost)));
    assert_eq!(drafter.tick(now_us + 1_000), Output::default());
}
