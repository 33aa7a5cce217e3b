//! From a target (ε, δ) to the noise.

use super::AccountError;

/// Noise multipliers that are tried.
const LEAST: f64 = 1.0 / 1024.0;
const MOST: f64 = 1024.0 * 1024.0;

/// The smallest noise multiplier from 2^-10 to 2^20, to one part in 10^6, for which `epsilon(noise_multiplier)` is at most
/// `target`.
///
/// `epsilon` falls with the noise. What is returned was itself accounted: its ε never exceeds the target. Bisection of ln z,
/// sped up by the secant of ln ε over ln z (the Illinois rule), which is nearly a line: about ten accounts.
pub fn smallest_noise_multiplier(
    target: f64,
    mut epsilon: impl FnMut(f64) -> Result<f64, AccountError>,
) -> Result<f64, AccountError> {
    if !(target > 0.0 && target.is_finite()) {
        return Err(AccountError::Range {
            what: "the target epsilon",
            expected: "a finite number above 0",
            got: target,
        });
    }
    // How far ln ε is above its target; no ε at all is very far.
    let mut limit = None;
    let mut excess = |z: f64| match epsilon(z) {
        Ok(epsilon) => Ok((epsilon.max(1e-12) / target).ln()),
        Err(error @ (AccountError::NoEpsilon { .. } | AccountError::Range { .. })) => {
            limit = Some(error);
            Ok(f64::INFINITY)
        }
        Err(other) => Err(other),
    };
    let unreachable =
        |excess: f64| AccountError::Unreachable { target, least: LEAST, most: MOST, reached: target * excess.exp() };
    let (mut low, mut high) = (1.0f64, 1.0f64);
    let (mut above, mut below);
    let first = excess(1.0)?;
    if first > 0.0 {
        (above, below) = (first, first);
        while below > 0.0 {
            (low, above) = (high, below);
            high *= 2.0;
            if high > MOST {
                // More noise than the accountant can take is its own reason.
                return Err(limit.filter(|_| below.is_infinite()).unwrap_or(unreachable(below)));
            }
            below = excess(high)?;
        }
    } else {
        (above, below) = (first, first);
        while above <= 0.0 {
            (high, below) = (low, above);
            low /= 2.0;
            if low < LEAST {
                return Ok(high);
            }
            above = excess(low)?;
        }
    }
    // ε(low) > target ≥ ε(high); `best` is what was accounted for `high`.
    let mut best = high;
    let (mut low, mut high) = (low.ln(), high.ln());
    let mut side = 0;
    for round in 0..60 {
        if high - low < 1e-6 {
            break;
        }
        let secant = low + (high - low) * above / (above - below);
        let inside = secant.is_finite() && secant > low && secant < high && round % 3 != 2;
        // Short of the crossing by a hair, so that both ends move.
        let middle = if inside { secant.clamp(low + 0.25e-6, high - 0.25e-6) } else { (low + high) / 2.0 };
        let here = excess(middle.exp())?;
        if here > 0.0 {
            (low, above) = (middle, here);
            below *= if side == 1 { 0.5 } else { 1.0 };
            side = 1;
        } else {
            (high, below, best) = (middle, here, middle.exp());
            above *= if side == -1 { 0.5 } else { 1.0 };
            side = -1;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::gaussian;

    #[test]
    fn the_target_is_met_and_never_passed() {
        for target in [0.05, 1.0, 8.0, 200.0] {
            let mut asked = 0;
            let z = smallest_noise_multiplier(target, |z| {
                asked += 1;
                Ok(gaussian::epsilon(z.recip(), 1e-5))
            })
            .unwrap();
            assert!(gaussian::epsilon(z.recip(), 1e-5) <= target);
            assert!(gaussian::epsilon((z * (1.0 - 2e-6)).recip(), 1e-5) > target, "{target}: {z}");
            assert!(asked < 40, "{target}: {asked} accounts");
        }
        assert!(smallest_noise_multiplier(0.0, |_| Ok(1.0)).is_err());
        assert!(matches!(smallest_noise_multiplier(1.0, |_| Ok(2.0)), Err(AccountError::Unreachable { .. })));
    }
}
