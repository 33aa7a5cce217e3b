//! Language models over machines that die: what must hold holds, and each checker finds its own mistake.

use littoral_sim::serving::{Bug, Faults, Link, Outcome, Scenario, run, run_broken};

/// Something breaks every few seconds.
fn rough(seed: u64) -> Scenario {
    let faults = Faults { kill_s: 12, silent_s: 20, stop_s: 20, slow_s: 25, cut_s: 8, lasts_s: 4, ..Faults::default() };
    Scenario { seed, minutes: 1, requests_per_minute: 60, faults, ..Scenario::default() }
}

/// Four edges and a verifier, which every fault hits; messages are lost, doubled and overtaken.
fn drafts(seed: u64) -> Scenario {
    let faults = Faults { kill_s: 15, silent_s: 15, lost: 0.03, doubled: 0.05, late: 0.05, ..rough(seed).faults };
    Scenario { stages: 0, edges: 4, faults, ..rough(seed) }
}

/// Four edges draft for a head with three stages, and the head for a verifier.
fn tiers(seed: u64) -> Scenario {
    let faults = Faults { lasts_s: 8, ..drafts(seed).faults };
    Scenario { tiers: 3, stages: 3, faults, ..drafts(seed) }
}

fn sound(scenario: &Scenario) -> Outcome {
    let outcome = run(scenario).unwrap();
    assert!(outcome.broken.is_empty(), "{scenario:?}: {:#?}", outcome.broken);
    outcome
}

#[test]
fn texts_are_those_of_one_machine_whatever_breaks() {
    let outcomes: Vec<Outcome> = (0..6).map(|seed| sound(&rough(seed))).collect();
    let all = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    // Nothing was easy: chains were lost under way, answers were drafted and marked.
    let (survived, saved) = (all(|o| o.losses_survived), all(|o| o.passes_saved));
    assert!(survived >= 20 && saved > 0 && all(|o| o.local_only) >= 10, "{outcomes:#?}");
    assert!(all(|o| o.kept) >= 10, "{outcomes:#?}");
    assert_eq!(all(|o| o.failed), 0);
}

/// Two of three have no file; without one of them layers have no room. They fetch a layer in a second, and keep what they have when
/// they are killed.
fn fetching(seed: u64) -> Scenario {
    let stage_link = Link { bytes_per_s: 1_000_000, ..Link::default() };
    Scenario { fileless: 2, stage_room: 3, head_room: 1, stage_link, edges: 0, minutes: 3, ..rough(seed) }
}

#[test]
fn machines_that_fetch_their_layers_change_no_text_whatever_breaks() {
    let outcomes: Vec<Outcome> = (0..4).map(|seed| sound(&fetching(seed))).collect();
    let all = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let (asked, failed) = (all(|o| o.requests), all(|o| o.failed));
    assert!(all(|o| o.fetched) >= 16 && all(|o| o.losses_survived) >= 10, "{outcomes:#?}");
    assert!(10 * failed < asked, "{failed} of {asked}");
    assert_eq!(outcomes[1], sound(&fetching(1)));
}

#[test]
fn a_seed_repeats_to_the_last_byte() {
    let first = sound(&rough(3));
    assert_eq!(first, sound(&rough(3)));
    assert_ne!(first.trace, sound(&rough(4)).trace);
}

/// Whatever drafts are lost, doubled and overtaken, and whenever their verifier is: the large model's text, and behind what it
/// wrote the small one's.
#[test]
fn drafts_change_no_text_whatever_is_lost_doubled_and_late() {
    let outcomes: Vec<Outcome> = (0..6).map(|seed| sound(&drafts(seed))).collect();
    let all = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let mishaps = all(|o| o.mishaps);
    assert!(mishaps >= 200 && all(|o| o.taken_over) >= 10 && all(|o| o.kills) >= 10, "{outcomes:#?}");
    assert!(all(|o| o.passes_saved) > 100 && all(|o| o.local_only) >= 10, "{outcomes:#?}");
}

/// One engine, whose layers are on machines that die, answers clients, verifies for edges and drafts for a machine above.
#[test]
fn three_tiers_change_no_text_whatever_breaks() {
    let outcomes: Vec<Outcome> = [1, 4, 7, 10].map(|seed| sound(&tiers(seed))).into();
    let all = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    assert!(all(|o| o.losses_verifying) >= 4 && all(|o| o.head_verified) >= 40, "{outcomes:#?}");
    assert!(all(|o| o.mishaps) >= 200 && all(|o| o.passes_saved) > 800 && all(|o| o.kept) >= 15, "{outcomes:#?}");
    assert_eq!(all(|o| o.failed), 0);
    // All of it in one.
    let had = |o: &&Outcome| o.losses_verifying > 0 && o.head_verified > 0 && o.head_taken_over > 0;
    assert!(outcomes.iter().any(|o| had(&o)), "{outcomes:#?}");
    assert_eq!(outcomes[0], sound(&tiers(1)));
}

/// The stages and the head have no room to spare, or there is no stage at all, or everything waits for everything.
#[test]
fn three_tiers_with_too_little_of_everything_change_no_text() {
    let narrow = Scenario { stage_room: 3, head_room: 2, ..tiers(7) };
    let busy = Scenario { requests_per_minute: 150, layer_us: 8_000, ..tiers(8) };
    for scenario in [narrow, busy, Scenario { stages: 0, ..tiers(9) }] {
        sound(&Scenario { pause_max_ms: 120_000, ..scenario });
    }
}

#[test]
fn each_checker_finds_its_mistake() {
    let as_of_one = "expected as of one machine";
    // Nobody who drafts or verifies begins anew.
    let losses = Faults { silent_s: 4, lasts_s: 2, ..Faults::default() };
    let quiet = Scenario { faults: Faults::default(), ..rough(1) };
    for (bug, scenario, findings) in [
        (Bug::SaysTwice, rough(1), vec![as_of_one]),
        (Bug::LosesAToken, rough(1), vec![as_of_one]),
        (Bug::LosesTheLast, rough(1), vec!["tokens expected at its end"]),
        (Bug::LosesTheEnd, rough(1), vec!["has no end"]),
        (Bug::EndsTwice, rough(1), vec!["something was said after its end"]),
        (Bug::Miscomputes, rough(1), vec![as_of_one]),
        (Bug::Shortens, quiet.clone(), vec!["cannot read"]),
        // A machine that is placed anew forgets its states, and nothing is placed anew where nothing breaks.
        (Bug::KeepsStates, quiet.clone(), vec!["states at the end"]),
        (Bug::ClaimsLayers, fetching(1), vec!["does not have all of them"]),
        (Bug::NoticesLate, rough(1), vec!["ms late"]),
        // Answers that take longer, so that some are under way then.
        (Bug::Sleeps, Scenario { layer_us: 50_000, ..quiet.clone() }, vec!["a pause of"]),
        (Bug::Stops, quiet.clone(), vec!["the head has", "has no end"]),
        (Bug::LetsLocalOnlyLeave, rough(1), vec!["must not leave"]),
        (Bug::CommitsAnother, drafts(1), vec![as_of_one]),
        (Bug::TakesBack, drafts(1), vec!["is not what was", "failed: the verifier took back"]),
        (Bug::ClaimsMore, drafts(1), vec!["committed here"]),
        (Bug::KeepsSessions, Scenario { stages: 0, ..quiet.clone() }, vec!["the verifier has"]),
        (Bug::TellsDrafts, tiers(1), vec![as_of_one]),
        (Bug::DropsSessions, Scenario { faults: losses, ..tiers(1) }, vec!["sessions", "has no end"]),
        (Bug::Deafens, drafts(1), vec!["answers at the end", "has no end"]),
    ] {
        let found = run_broken(&scenario, Some(bug)).unwrap().broken;
        for finding in findings {
            assert!(found.iter().any(|broken| broken.contains(finding)), "{bug:?}, {finding}: {found:#?}");
        }
    }
}

/// Three machines have room for two layers each and the head for one: without one of them layers 5 and 6 are nobody's.
#[test]
fn what_nobody_has_room_for_is_said_and_not_waited_for() {
    let faults = Faults { kill_s: 30, lasts_s: 60, ..Faults::default() };
    let scenario =
        Scenario { seed: 5, minutes: 5, stage_room: 2, head_room: 1, edges: 0, faults, ..Scenario::default() };
    let outcome = sound(&Scenario { pause_max_ms: 120_000, ..scenario });
    assert!(outcome.failed > 0 && outcome.requests > outcome.failed, "{outcome:#?}");
}

#[test]
fn a_slow_link_is_no_reason_for_another_text() {
    let link = Link { round_trip_us: 100_000, jitter_us: 20_000, bytes_per_s: 50_000 };
    sound(&Scenario { stage_link: link, edge_link: link, ..rough(2) });
}
