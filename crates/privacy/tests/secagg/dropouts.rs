//! Every set of dropouts at every step: the exact sum whenever the threshold allows it, a clean refusal otherwise.

use crate::world::{Misses, Walk, World};
use littoral_privacy::secagg::parameters::{Parameters, Threat};
use littoral_privacy::secagg::refused::Refused;

/// What must come out: the sum over whom, or a refusal. Worked out from the graph and the thresholds alone.
fn expected(walk: &Walk) -> Option<Vec<usize>> {
    let (world, least) = (walk.world, walk.world.session.min_group as usize);
    let all = 0..walk.misses.len();
    let taking = |step: Misses| all.clone().filter(move |&d| walk.misses[d] > step);
    let in_list = taking(Misses::Advertising).count();
    let in_graph: Vec<usize> =
        if world.is_active() { taking(Misses::Nonce).collect() } else { taking(Misses::Advertising).collect() };
    if in_list < least || in_graph.len() < least {
        return None;
    }
    let parameters = world.session.parameters(in_graph.len() as u32).ok()?;
    let (threshold, minimum) = (parameters.threshold as usize, world.session.minimum(&parameters) as usize);
    let (server, _) = walk.graph().ok()?;
    let neighbours: Vec<Vec<usize>> = all
        .clone()
        .map(|device| {
            let place = server.directory().index_of(&world.identities()[device]);
            let peers = place.map_or(Vec::new(), |place| server.directory().neighbours(place));
            let device_at =
                |place: u32| all.clone().find(|&d| server.directory().index_of(&world.identities()[d]) == Some(place));
            peers.into_iter().map(|place| device_at(place).unwrap()).collect()
        })
        .collect();
    let among = |set: &[usize], device: usize| neighbours[device].iter().filter(|peer| set.contains(peer)).count();
    let completed: Vec<usize> = in_graph.iter().copied().filter(|&d| walk.misses[d] > Misses::Sharing).collect();
    let survivors: Vec<usize> = completed
        .iter()
        .copied()
        .filter(|&d| walk.misses[d] > Misses::Upload && among(&completed, d) >= threshold)
        .collect();
    if completed.len() < minimum || survivors.len() < minimum {
        return None;
    }
    // Who still answers, and is allowed to.
    let mut answering: Vec<usize> = survivors.iter().copied().filter(|&d| among(&survivors, d) >= threshold).collect();
    if world.is_active() {
        answering.retain(|&d| walk.misses[d] > Misses::Consent);
        let consenting = answering.clone();
        answering.retain(|&d| walk.misses[d] > Misses::Reveal && among(&consenting, d) >= threshold);
    } else {
        answering.retain(|&d| walk.misses[d] > Misses::Reveal);
    }
    let needed = completed.iter().filter(|&&d| survivors.contains(&d) || among(&survivors, d) > 0);
    let opens = needed.into_iter().all(|&device| among(&answering, device) >= threshold);
    opens.then_some(survivors)
}

/// Returns whether a sum came out.
fn check(walk: &Walk) -> bool {
    let case = format!("{:?} {:?}", walk.world.parameters, walk.misses);
    match (walk.open(), expected(walk)) {
        (Ok((sum, survivors)), Some(expected)) => {
            assert_eq!(survivors, expected, "{case}");
            assert_eq!(sum, walk.world.plain_sum(survivors), "{case}");
            true
        }
        (Err(refused), None) => {
            use Refused::{GroupTooSmall, Parameters, TooFewShares, TooFewSurvivors};
            let clean =
                matches!(refused, GroupTooSmall { .. } | Parameters(_) | TooFewSurvivors { .. } | TooFewShares { .. });
            assert!(clean, "{case}: {refused}");
            // Where counting promises a sum, there is one: of the graph over those who came.
            let last = if walk.world.is_active() { Misses::Nonce } else { Misses::Advertising };
            let came = walk.misses.iter().filter(|&&misses| misses > last);
            let dropped = came.clone().filter(|&&misses| misses != Misses::Nothing).count() as u32;
            if let Ok(p) = walk.world.session.parameters(came.count() as u32) {
                assert!(dropped > p.dropouts || p.degree + 1 < p.clients, "{case}: {refused}");
            }
            false
        }
        (Ok(_), None) => panic!("{case}: opened below the threshold"),
        (Err(refused), Some(_)) => panic!("{case}: {refused}"),
    }
}

fn steps(world: &World) -> Vec<Misses> {
    use Misses::*;
    if world.is_active() {
        vec![Advertising, Nonce, Sharing, Upload, Consent, Reveal]
    } else {
        vec![Advertising, Sharing, Upload, Reveal]
    }
}

/// (clients, adversaries, dropouts): complete graphs and rings of two or four neighbours.
const COHORTS: [(u32, u32, u32); 8] =
    [(4, 1, 1), (4, 0, 1), (5, 1, 2), (5, 0, 1), (5, 1, 1), (6, 0, 2), (6, 2, 1), (6, 1, 1)];

#[test]
fn every_set_at_every_step() {
    let (mut sums, mut refusals) = (0, 0);
    for threat in [Threat::Honest, Threat::Active] {
        for (clients, adversaries, dropouts) in COHORTS {
            let Ok(parameters) = Parameters::of_counts(clients, adversaries, dropouts, threat) else { continue };
            let world = World::new(parameters, 7, 21);
            for set in 0u32..1 << clients {
                for &step in &steps(&world) {
                    let mut walk = Walk::all(&world);
                    (0..clients).filter(|d| set >> d & 1 == 1).for_each(|d| walk.misses[d as usize] = step);
                    if check(&walk) {
                        sums += 1
                    } else {
                        refusals += 1
                    }
                    if set == 0 {
                        break;
                    }
                }
            }
        }
    }
    assert!(sums > 150 && refusals > 1000, "{sums} sums, {refusals} refusals");
}

#[test]
fn four_devices_each_at_any_step() {
    // All ways for four devices to stop at any step, independently.
    let (mut sums, mut refusals) = (0, 0);
    for (adversaries, dropouts, threat) in [(1, 1, Threat::Honest), (0, 1, Threat::Active)] {
        let world = World::new(Parameters::of_counts(4, adversaries, dropouts, threat).unwrap(), 5, 9);
        let mut steps = steps(&world);
        steps.push(Misses::Nothing);
        for code in 0..steps.len().pow(4) {
            let mut walk = Walk::all(&world);
            (0..4).for_each(|d| walk.misses[d] = steps[code / steps.len().pow(d as u32) % steps.len()]);
            if check(&walk) { sums += 1 } else { refusals += 1 }
        }
    }
    assert!(sums > 30 && refusals > 1000, "{sums} sums, {refusals} refusals");
}

#[test]
fn twenty_four_devices_on_a_ring_of_few_neighbours() {
    let parameters = Parameters::of_counts(24, 1, 4, Threat::Active).unwrap();
    assert!(parameters.degree < 23, "{parameters:?}");
    let world = World::new(parameters, 21, 50);
    for (at, step) in steps(&world).into_iter().enumerate() {
        let mut walk = Walk::all(&world);
        (0..4).for_each(|d| walk.misses[(7 * d + at) % 24] = step);
        check(&walk);
    }
    assert!(check(&Walk::all(&world)));
}
