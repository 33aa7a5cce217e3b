//! How many neighbours a device has, and how many of them open a secret.
//!
//! Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"
//! (CCS), sections 3.2 to 3.4 and 4: the smallest degree k of a random Harary graph, and the threshold t, for which
//!
//! * (a) what is left of the graph without adversaries and dropouts is connected but with probability 2^-(σ+1);
//! * (b) nobody has t or more adversaries among k neighbours but with probability 2^-(σ+1) over all devices (under
//!   [`Threat::Active`]: two sets of survivors never both find t neighbours that confirm them); and everybody keeps t
//!   neighbours when devices drop out but with probability 2^-η over all devices.
//!
//! The probabilities are exact tails of the hypergeometric law, σ = 40 and η = 20. A cohort too small for such a graph gets
//! the complete one, where counting takes the place of probability.
//!
//! What it does not do: notice that more devices are adversaries than was said.

use libm::{exp, floor, lgamma, log};
use std::f64::consts::LN_2;
use std::fmt;
use std::ops::RangeInclusive;
use thiserror::Error;

/// Bits of security: the chance that a graph is bad is at most 2^-40.
pub const SECURITY_BITS: f64 = 40.0;
/// Bits of correctness: the chance that dropouts within the bound cannot be recovered is at most 2^-20.
pub const CORRECTNESS_BITS: f64 = 20.0;
/// The most devices of one session.
pub const CLIENTS_MAX: u32 = 1 << 20;

/// What the server may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Threat {
    /// It follows the protocol, reads everything and colludes with the adversaries among the devices.
    Honest,
    /// It may also lie to devices, each differently; it cannot forge the signature of an identity, nor put one on the roster.
    Active,
}

/// What a session is planned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// Devices that are invited.
    pub clients: u32,
    /// At most this many of them collude with the server.
    pub adversaries: u32,
    /// At most this many of them drop out, at whatever step.
    pub dropouts: u32,
    pub threat: Threat,
    /// Neighbours of each device: even, or `clients - 1`.
    pub degree: u32,
    /// Shares that open a secret.
    pub threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Error)]
pub enum ParametersError {
    #[error("a session has 3 to {CLIENTS_MAX} devices, got {got}")]
    Clients { got: u32 },
    #[error("the share of {what} is at least 0 and below 1, got {got}")]
    Share { what: &'static str, got: f64 },
    #[error(
        "no neighbour graph over {clients} devices withstands {adversaries} adversaries and {dropouts} dropouts \
         (threat {threat}): {would_do}"
    )]
    None { clients: u32, adversaries: u32, dropouts: u32, threat: Threat, would_do: WouldDo },
}

/// What could be asked for instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WouldDo {
    /// As many adversaries, and at most this many dropouts.
    Dropouts(u32),
    /// At most this many adversaries, without any dropout.
    Adversaries(u32),
    /// Other numbers do not help: more devices.
    Clients,
}

impl fmt::Display for Threat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Honest => "honest",
            Self::Active => "active",
        })
    }
}

impl fmt::Display for WouldDo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropouts(most) => write!(f, "with as many adversaries at most {most} may drop out"),
            Self::Adversaries(most) => write!(f, "at most {most} adversaries would do, if nobody drops out"),
            Self::Clients => f.write_str("more devices are needed"),
        }
    }
}

impl Parameters {
    /// The smallest degree, and its threshold, for `clients` devices of which the share `adversary` colludes with the
    /// server and the share `dropout` may drop out; both in [0, 1).
    pub fn find(clients: u32, adversary: f64, dropout: f64, threat: Threat) -> Result<Self, ParametersError> {
        if !(3..=CLIENTS_MAX).contains(&clients) {
            return Err(ParametersError::Clients { got: clients });
        }
        for (what, got) in [("adversaries", adversary), ("dropouts", dropout)] {
            if !(0.0..1.0).contains(&got) {
                return Err(ParametersError::Share { what, got });
            }
        }
        // 0.29 of 100 is 29, though the product of the floats is a hair below.
        let count = |share: f64| floor((share + 1e-14) * f64::from(clients)) as u32;
        Self::of_counts(clients, count(adversary), count(dropout), threat)
    }

    /// [`Parameters::find`] for counts of adversaries and dropouts.
    pub fn of_counts(clients: u32, adversaries: u32, dropouts: u32, threat: Threat) -> Result<Self, ParametersError> {
        if !(3..=CLIENTS_MAX).contains(&clients) {
            return Err(ParametersError::Clients { got: clients });
        }
        let found =
            sparse(clients, adversaries, dropouts, threat).or_else(|| complete(clients, adversaries, dropouts, threat));
        let (degree, threshold) = found.ok_or_else(|| {
            let drops = |adversaries| {
                (0..dropouts.min(clients)).rev().find(|&d| complete(clients, adversaries, d, threat).is_some())
            };
            let would_do = match drops(adversaries) {
                Some(most) => WouldDo::Dropouts(most),
                None => {
                    match (0..adversaries.min(clients)).rev().find(|&a| complete(clients, a, 0, threat).is_some()) {
                        Some(most) => WouldDo::Adversaries(most),
                        None => WouldDo::Clients,
                    }
                }
            };
            ParametersError::None { clients, adversaries, dropouts, threat, would_do }
        })?;
        Ok(Self { clients, adversaries, dropouts, threat, degree, threshold })
    }

    /// A sum over fewer devices is not opened. In a complete graph everybody left must find enough others left; a sparse one
    /// is known to hold together only while no more drop out than was assumed.
    pub fn min_survivors(&self) -> u32 {
        match self.degree + 1 == self.clients {
            true => self.threshold + 1,
            false => self.clients.saturating_sub(self.dropouts).max(2),
        }
    }
}

/// The smallest even degree below n - 1, and its threshold.
fn sparse(n: u32, adversaries: u32, dropouts: u32, threat: Threat) -> Option<(u32, u32)> {
    if adversaries.saturating_add(dropouts) >= n {
        return None;
    }
    let missed = f64::from(n);
    let security = exp(-(SECURITY_BITS + 1.0) * LN_2) / missed;
    let correctness = exp(-CORRECTNESS_BITS * LN_2) / missed;
    let mut k = (2..n - 1).step_by(2).find(|&k| connected(n, adversaries + dropouts, k))?;
    // The quantiles at a smaller degree: at this one they are as large, or larger by at most the difference.
    let (mut k_before, mut worst_before, mut gone_before) = (0, 0, 0);
    while k < n - 1 {
        let more = k - k_before;
        let worst = quantile(n, adversaries, k, security, worst_before..=worst_before + more);
        let gone = quantile(n, dropouts, k, correctness, gone_before..=gone_before + more);
        (k_before, worst_before, gone_before) = (k, worst, gone);
        let worst = match threat {
            Threat::Honest => worst,
            // ceil((worst + k - 1.25) / 2): of two sets of honest confirmers among k - worst at most one has so many.
            Threat::Active => (4 * (worst + k) + 2) / 8,
        };
        let left = k - gone;
        if left > worst {
            return Some((k, (worst + 1).max(2)));
        }
        // With two neighbours more `left` grows by at most two, and `worst` does not shrink: nothing between can do.
        k += (worst - left + 1).next_multiple_of(2).max(2);
    }
    None
}

/// Everybody is everybody's neighbour: thresholds by counting.
fn complete(n: u32, adversaries: u32, dropouts: u32, threat: Threat) -> Option<(u32, u32)> {
    let neighbours = n - 1;
    let threshold = match threat {
        Threat::Honest => adversaries.saturating_add(1),
        // More than half of (neighbours + adversaries): two sets of confirmers share an honest one.
        Threat::Active => neighbours.saturating_add(adversaries) / 2 + 1,
    };
    let threshold = threshold.max(2);
    (threshold <= n.checked_sub(dropouts.saturating_add(1))?).then_some((neighbours, threshold))
}

/// (a): does a random Harary graph of degree k stay connected when `lost` of n vertices go, but with 2^-(σ+1)?
fn connected(n: u32, lost: u32, k: u32) -> bool {
    if k > lost {
        return true;
    }
    let (n, b, k) = (f64::from(n), f64::from(lost), f64::from(k));
    let disconnected = log(n) + log(n - k - 1.0) - LN_2 + lgamma(b + 1.0) + lgamma(n - k + 1.0)
        - lgamma(n + 1.0)
        - lgamma(b - k + 1.0);
    disconnected < -(SECURITY_BITS + 1.0) * LN_2
}

/// The smallest t for which P[X > t] <= `tail`, where X counts the marked among k drawn from n, of which `marked` are.
/// It is in `within`, or at most k or `marked`.
fn quantile(n: u32, marked: u32, k: u32, tail: f64, within: RangeInclusive<u32>) -> u32 {
    // The median is at least the mean rounded down, and no tail asked for is as large as a half.
    let mean = floor(f64::from(k) * f64::from(marked) / f64::from(n)) as u32;
    let mut low = (*within.start()).max(mean.saturating_sub(1));
    let mut high = (*within.end()).min(marked).min(k);
    while low < high {
        let middle = low + (high - low) / 2;
        if above(n, marked, k, middle) <= tail { high = middle } else { low = middle + 1 }
    }
    low
}

/// P[X > t] for X as in [`quantile`].
fn above(n: u32, marked: u32, k: u32, t: u32) -> f64 {
    let least = (marked + k).saturating_sub(n);
    let first = (t + 1).max(least);
    let most = marked.min(k);
    if first > most {
        return 0.0;
    }
    let ln_choose =
        |n: u32, k: u32| lgamma(f64::from(n) + 1.0) - lgamma(f64::from(k) + 1.0) - lgamma(f64::from(n - k) + 1.0);
    let mut term = exp(ln_choose(marked, first) + ln_choose(n - marked, k - first) - ln_choose(n, k));
    let mut sum = term;
    for x in first..most {
        let (x, gap) = (f64::from(x), f64::from(n - marked) - f64::from(k));
        let ratio = (f64::from(marked) - x) * (f64::from(k) - x) / ((x + 1.0) * (gap + x + 1.0));
        term *= ratio;
        sum += term;
        if ratio < 1.0 && term < sum * 1e-17 {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use Threat::{Active, Honest};

    /// (clients, adversary, dropout, threat, degree, threshold).
    type Row = (u32, f64, f64, Threat, u32, u32);

    /// Published by Google's federated compute platform (`graph_parameter_finder_test.cc`), for σ = 40 and η = 20.
    const PUBLISHED: [Row; 38] = [
        (10, 0.05, 0.05, Honest, 2, 2),
        (100, 0.05, 0.05, Honest, 12, 6),
        (1_000, 0.05, 0.05, Honest, 30, 17),
        (1_000_000, 0.05, 0.05, Honest, 38, 22),
        (100, 0.05, 0.33, Honest, 28, 6),
        (1_000, 0.05, 0.33, Honest, 72, 24),
        (10_000, 0.05, 0.33, Honest, 86, 29),
        (1_000_000, 0.05, 0.33, Honest, 102, 34),
        (10, 0.33, 0.05, Honest, 4, 4),
        (100, 0.33, 0.05, Honest, 34, 29),
        (1_000, 0.33, 0.05, Honest, 78, 60),
        (100_000, 0.33, 0.05, Honest, 102, 77),
        (10, 0.33, 0.33, Honest, 8, 4),
        (100, 0.33, 0.33, Honest, 68, 34),
        (1_000, 0.33, 0.33, Honest, 286, 150),
        (10_000, 0.33, 0.33, Honest, 422, 221),
        (100_000, 0.33, 0.33, Honest, 480, 251),
        (1_000_000, 0.33, 0.33, Honest, 518, 270),
        (100, 0.45, 0.45, Honest, 92, 46),
        (1_000, 0.45, 0.45, Honest, 822, 417),
        (100, 0.05, 0.05, Active, 16, 11),
        (10_000, 0.05, 0.05, Active, 62, 44),
        (10, 0.05, 0.33, Active, 8, 5),
        (100, 0.05, 0.33, Active, 72, 39),
        (1_000, 0.05, 0.33, Active, 398, 223),
        (10_000, 0.05, 0.33, Active, 746, 420),
        (1_000_000, 0.05, 0.33, Active, 970, 545),
        (10, 0.33, 0.05, Active, 4, 4),
        (100, 0.33, 0.05, Active, 42, 37),
        (1_000, 0.33, 0.05, Active, 132, 109),
        (10_000, 0.33, 0.05, Active, 178, 146),
        (100, 0.3, 0.3, Active, 92, 62),
        (1_000, 0.3, 0.3, Active, 872, 584),
        (10_000, 0.3, 0.3, Active, 4_822, 3_230),
        (100_000, 0.3, 0.3, Active, 9_388, 6_286),
        // Not published: the complete graph of small cohorts, by counting.
        (3, 0.34, 0.1, Honest, 2, 2),
        (4, 0.25, 0.25, Honest, 3, 2),
        (6, 0.34, 0.17, Active, 5, 4),
    ];

    #[test]
    fn published_rows() {
        for (clients, adversary, dropout, threat, degree, threshold) in PUBLISHED {
            let found = Parameters::find(clients, adversary, dropout, threat).unwrap();
            let row = format!("{clients} {adversary} {dropout} {threat}");
            assert_eq!((found.degree, found.threshold), (degree, threshold), "{row}");
        }
    }

    #[test]
    fn a_smaller_degree_would_not_do() {
        // The jumps of the search skip no degree that would do.
        for (n, a, d, threat) in [(64, 21, 6, Active), (200, 66, 40, Honest), (500, 100, 100, Active)] {
            let one_by_one = (2..n - 1).step_by(2).find(|&k| {
                let tail = |bits: f64| exp(-bits * LN_2) / f64::from(n);
                let worst = quantile(n, a, k, tail(41.0), 0..=k);
                let worst = if threat == Active { (4 * (worst + k) + 2) / 8 } else { worst };
                connected(n, a + d, k) && k - quantile(n, d, k, tail(20.0), 0..=k) > worst
            });
            assert_eq!(sparse(n, a, d, threat).map(|(k, _)| k), one_by_one);
        }
    }

    #[test]
    fn every_answer_for_few_devices_keeps_what_it_says() {
        for n in 3..40 {
            for a in 0..n {
                for d in 0..n {
                    for threat in [Honest, Active] {
                        match Parameters::of_counts(n, a, d, threat) {
                            Ok(p) => {
                                assert!(p.degree < n && (p.degree % 2 == 0 || p.degree == n - 1), "{p:?}");
                                assert!((2..=p.degree).contains(&p.threshold), "{p:?}");
                                assert!(p.threshold > a.min(p.degree) || p.degree < n - 1, "{p:?}");
                            }
                            Err(ParametersError::None { would_do: WouldDo::Dropouts(most), .. }) => {
                                assert!(most < d && Parameters::of_counts(n, a, most, threat).is_ok());
                            }
                            Err(ParametersError::None { would_do: WouldDo::Adversaries(most), .. }) => {
                                assert!(most < a && Parameters::of_counts(n, most, 0, threat).is_ok());
                            }
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_share_or_no_cohort_is_refused() {
        assert!(matches!(Parameters::find(2, 0.0, 0.0, Honest), Err(ParametersError::Clients { got: 2 })));
        for bad in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Parameters::find(10, bad, 0.1, Honest), Err(ParametersError::Share { .. })));
            assert!(matches!(Parameters::find(10, 0.1, bad, Honest), Err(ParametersError::Share { .. })));
        }
    }
}
