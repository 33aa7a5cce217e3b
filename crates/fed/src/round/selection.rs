//! Who is asked: the policies by which a cohort is drawn among the devices that are here.
//!
//! | policy | draws | of |
//! |---|---|---|
//! | `uniform` | everybody alike | |
//! | `weighted` | by rows: a device with twice as many is drawn about twice as often | Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir" |
//! | `power_of_choice` | of some candidates, drawn alike, those with the largest loss | Cho et al. 2020, "Client Selection in Federated Learning" (arXiv:2010.01243), the variant π_rpow-d |
//! | `oort` | those who are of most use for their time, and some who were never tried | Lai et al. 2021, "Oort: Efficient Federated Learning via Guided Participant Selection" (OSDI), equations 1 to 3 |
//!
//! Chance is a hash of the job's seed, the collection and the device's *name*, so it depends neither on the order in which
//! devices came nor on their keys. What is known of a device is what it told with its last update (its loss on its own rows,
//! and how many these are) and how long it took. So `power_of_choice` and `oort` need devices to tell their own loss: in a
//! masked or private job nobody does, and these are refused. A device may lie about its loss to be asked more often.
//!
//! Losses are as old as a device's last update. (The paper's π_pow-d asks candidates for their loss at the newest model, in a
//! step of its own; π_rpow-d, this one, does not.) Oort's pacer is a quantile: who takes longer than most is worth less.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a job says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    pub policy: Policy,
    /// A device is part of at most so many versions; 0: of any number.
    pub uses_max: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    #[default]
    Uniform,
    Weighted,
    /// d: of so many candidates, at least the cohort.
    PowerOfChoice {
        candidates: u32,
    },
    Oort {
        /// ε: this part of a cohort is drawn among devices that were never in a version; 0 to 1. It falls by 2 % with each version,
        /// to a fifth.
        #[serde(default = "nine_tenths")]
        exploration: f64,
        /// α ≥ 0: who takes k times as long as three quarters of the devices is worth k^-α as much.
        #[serde(default = "two")]
        penalty: f64,
    },
}

fn nine_tenths() -> f64 {
    0.9
}

fn two() -> f64 {
    2.0
}

/// Oort's least ε, and by how much it falls.
const EXPLORATION_MIN: f64 = 0.2;
const EXPLORATION_FALL: f64 = 0.98;
/// Utilities above this quantile count as it does: one outlier does not fill every cohort.
const CLIP_QUANTILE: f64 = 0.95;
/// Who is slower than this part of the devices is slow.
const PACE_QUANTILE: f64 = 0.75;

/// A device that may be drawn.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub name: &'a str,
    /// Uniform chance, 256 bits.
    pub lot: [u8; 32],
    /// Rows that it offers.
    pub rows: u64,
}

/// What is known of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Known {
    /// Mean loss on its own rows, and how many; as it told last.
    told: Option<(f64, u64)>,
    took_ms: Option<u64>,
    /// Versions that it is in, and the last of them.
    uses: u64,
    last: u64,
}

/// What is known of all devices, by name.
#[derive(Clone, Debug, Default)]
pub struct Acquaintance {
    of: BTreeMap<String, Known>,
}

impl Selection {
    /// The parameter that is out of range, its value and what is allowed; `target`: updates that make a version.
    pub fn wrong(&self, target: u32) -> Option<(&'static str, String, String)> {
        match self.policy {
            Policy::PowerOfChoice { candidates } if candidates < target => Some((
                "selection.policy.candidates",
                candidates.to_string(),
                format!("at least cohort.target, {target}"),
            )),
            Policy::Oort { exploration, .. } if !(0.0..=1.0).contains(&exploration) => {
                Some(("selection.policy.exploration", exploration.to_string(), "0 to 1".into()))
            }
            Policy::Oort { penalty, .. } if !(penalty >= 0.0 && penalty.is_finite()) => {
                Some(("selection.policy.penalty", penalty.to_string(), "a finite number of at least 0".into()))
            }
            _ => None,
        }
    }

    /// Whether devices must tell their own loss.
    pub fn needs_losses(&self) -> bool {
        matches!(self.policy, Policy::PowerOfChoice { .. } | Policy::Oort { .. })
    }
}

impl Acquaintance {
    /// A device told its mean loss on so many rows with an update that took it so long.
    pub fn told(&mut self, name: &str, loss: f64, rows: u64, took_ms: u64) {
        if loss.is_finite() && loss >= 0.0 {
            let known = self.of.entry(name.to_owned()).or_default();
            (known.told, known.took_ms) = (Some((loss, rows)), Some(took_ms));
        }
    }

    /// A version is made, and it is part of it.
    pub fn used(&mut self, name: &str, version: u64) {
        let known = self.of.entry(name.to_owned()).or_default();
        (known.uses, known.last) = (known.uses + 1, version);
    }

    /// Has it been in as many versions as it may?
    pub fn used_up(&self, selection: &Selection, name: &str) -> bool {
        selection.uses_max > 0 && self.of.get(name).is_some_and(|known| known.uses >= selection.uses_max)
    }

    /// The places of at most `wanted` candidates, the ones drawn. `version`: that is to be made.
    pub fn draw(&self, policy: &Policy, candidates: &[Candidate<'_>], wanted: usize, version: u64) -> Vec<usize> {
        let by_lot =
            |places: &mut Vec<usize>| places.sort_unstable_by(|a, b| candidates[*a].lot.cmp(&candidates[*b].lot));
        let mut places: Vec<usize> = (0..candidates.len()).collect();
        by_lot(&mut places);
        match *policy {
            Policy::Uniform => {}
            Policy::Weighted => {
                // The smallest of exponential times with rates as weights.
                let time = |place: &usize| {
                    let Candidate { lot, rows, .. } = &candidates[*place];
                    -libm::log(uniform(lot)) / (*rows).max(1) as f64
                };
                places.sort_by(|a, b| time(a).total_cmp(&time(b)));
            }
            Policy::PowerOfChoice { candidates: d } => {
                places.truncate((d as usize).max(wanted));
                // Who is not known yet comes first.
                let loss =
                    |place: &usize| self.known(candidates[*place].name).told.map_or(f64::INFINITY, |(loss, _)| loss);
                places.sort_by(|a, b| loss(b).total_cmp(&loss(a)));
            }
            Policy::Oort { exploration, penalty } => {
                return self.oort(candidates, places, wanted, version, (exploration, penalty));
            }
        }
        places.truncate(wanted);
        places
    }

    fn known(&self, name: &str) -> Known {
        self.of.get(name).copied().unwrap_or_default()
    }

    fn oort(
        &self,
        candidates: &[Candidate<'_>],
        places: Vec<usize>,
        wanted: usize,
        version: u64,
        (exploration, penalty): (f64, f64),
    ) -> Vec<usize> {
        let known = |place: usize| self.known(candidates[place].name);
        let (tried, untried): (Vec<usize>, Vec<usize>) =
            places.into_iter().partition(|place| known(*place).told.is_some());
        let falls = libm::pow(EXPLORATION_FALL, version as f64);
        let share = (exploration * falls).max(EXPLORATION_MIN.min(exploration));
        let explored = ((wanted as f64 * share).round() as usize).min(untried.len());
        let exploited = wanted.saturating_sub(explored).min(tried.len());
        let slow = quantile(tried.iter().filter_map(|place| known(*place).took_ms.map(|ms| ms as f64)), PACE_QUANTILE);
        let worth = |place: usize| {
            let Known { told, took_ms, last, .. } = known(place);
            let (loss, rows) = told.unwrap_or_default();
            let late = took_ms.zip(slow).map_or(1.0, |(took, slow)| (took as f64 / slow.max(1.0)).max(1.0));
            (loss * rows as f64, libm::pow(late, -penalty), last)
        };
        let most = quantile(tried.iter().map(|place| worth(*place).0), CLIP_QUANTILE).unwrap_or(f64::INFINITY);
        let utility = |place: &usize| {
            let (statistical, system, last) = worth(*place);
            // Who was not asked for long may have changed.
            let age = (0.1 * libm::log(version.max(2) as f64) / last.max(1) as f64).sqrt();
            (statistical.min(most) / most.max(f64::MIN_POSITIVE) + age) * system
        };
        let mut best: Vec<(f64, usize)> = tried.iter().map(|place| (utility(place), *place)).collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut drawn: Vec<usize> = best.into_iter().map(|(_, place)| place).take(exploited).collect();
        // Those never tried take what is left, and more of them where there are not enough others.
        let more = wanted - drawn.len();
        drawn.extend(untried.into_iter().take(more));
        drawn
    }
}

/// The first 53 bits of a lot as a number above 0 and below 1.
fn uniform(lot: &[u8; 32]) -> f64 {
    let mut first = [0; 8];
    first.copy_from_slice(&lot[..8]);
    ((u64::from_le_bytes(first) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn quantile(values: impl Iterator<Item = f64>, at: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(values[(last as f64 * at).ceil() as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lot(seed: u64, i: u64) -> [u8; 32] {
        *blake3::Hasher::new().update(&seed.to_le_bytes()).update(&i.to_le_bytes()).finalize().as_bytes()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("d{i}")).collect()
    }

    fn candidates<'a>(names: &'a [String], seed: u64, rows: impl Fn(usize) -> u64) -> Vec<Candidate<'a>> {
        let one = |(i, name): (usize, &'a String)| Candidate { name, lot: lot(seed, i as u64), rows: rows(i) };
        names.iter().enumerate().map(one).collect()
    }

    /// How often each is drawn in 4,000 cohorts of 1.
    fn counts(policy: &Policy, known: &Acquaintance, count: usize, rows: impl Fn(usize) -> u64 + Copy) -> Vec<u32> {
        let names = names(count);
        let mut counts = vec![0; count];
        for seed in 0..4_000 {
            known.draw(policy, &candidates(&names, seed, rows), 1, 5).into_iter().for_each(|place| counts[place] += 1);
        }
        counts
    }

    #[test]
    fn uniform_draws_alike_and_weighted_by_rows() {
        let nobody = Acquaintance::default();
        // Binomial with p = 1/4: a standard deviation of 27; with p = 1/10 ... 4/10 at most 31. Six of them.
        let near = |counts: Vec<u32>, shares: [f64; 4]| {
            counts.iter().zip(shares).all(|(count, share)| (f64::from(*count) - 4_000.0 * share).abs() < 190.0)
        };
        assert!(near(counts(&Policy::Uniform, &nobody, 4, |_| 1), [0.25; 4]));
        assert!(near(counts(&Policy::Weighted, &nobody, 4, |i| 10 * (i as u64 + 1)), [0.1, 0.2, 0.3, 0.4]));
    }

    #[test]
    fn power_of_choice_takes_the_largest_losses_of_its_candidates() {
        let names = names(6);
        let mut known = Acquaintance::default();
        (0..5).for_each(|i| known.told(&names[i], i as f64, 10, 100));
        let all = candidates(&names, 1, |_| 1);
        let draw = |candidates| known.draw(&Policy::PowerOfChoice { candidates }, &all, 2, 1);
        assert_eq!(draw(6), [5, 4], "who is not known first, then the largest");
        let mut two = draw(2);
        two.sort_unstable();
        let mut alike = known.draw(&Policy::Uniform, &all, 2, 1);
        alike.sort_unstable();
        assert_eq!(two, alike, "as many candidates as are wanted: that is uniform");
    }

    #[test]
    fn oort_prefers_the_useful_and_the_quick_and_tries_others() {
        let names = names(20);
        let mut known = Acquaintance::default();
        for (i, name) in names.iter().enumerate().take(16) {
            // Useful: 0 to 3. Of these 0 is slow. All others are of little use.
            known.told(name, if i < 4 { 10.0 } else { 0.1 }, 100, if i == 0 { 100_000 } else { 1_000 });
            known.used(name, 1);
        }
        let all = candidates(&names, 3, |_| 1);
        let policy = Policy::Oort { exploration: 0.5, penalty: 2.0 };
        let drawn = known.draw(&policy, &all, 6, 0);
        assert_eq!(drawn.iter().filter(|place| **place >= 16).count(), 3, "half were never tried: {drawn:?}");
        let mut useful: Vec<usize> = drawn.into_iter().filter(|place| *place < 16).collect();
        useful.sort_unstable();
        assert_eq!(useful, [1, 2, 3]);
    }

    #[test]
    fn a_device_is_used_up() {
        let mut known = Acquaintance::default();
        let cap = Selection { uses_max: 2, ..Selection::default() };
        (1..=2).for_each(|version| known.used("a", version));
        assert!(known.used_up(&cap, "a") && !known.used_up(&cap, "b"));
        assert!(!known.used_up(&Selection::default(), "a"));
    }
}
