//! Error feedback: what compression left out this time is sent next time. Seide et al. 2014, "1-bit stochastic gradient
//! descent" (Interspeech); Karimireddy et al. 2019 (ICML), algorithm 2; Stich et al. 2018 (NeurIPS), algorithm 1.
//!
//! ```text
//! p  = update + e          sent = C(p)          e' = p − sent
//! ```
//!
//! **In integers.** The residual is kept in the plan's steps, and `sent` is the integer words that the edge really added
//! (the device decodes its own bytes), so Σ sent + e_T = Σ updates holds exactly, with whatever rounding is in between.
//!
//! **Only if it was included.** e' is pending like any device state: stored with the sealed bytes, current once a signed
//! announcement counts the device, else forgotten and the old e stays. So an update that was lost is not made up for:
//! federated averaging trains afresh from the next model and never owes a lost update.
//!
//! **Seen k rounds ago.** A device of a cohort that is drawn from many comes back after k rounds with a residual of an older
//! model. It is kept as it is, whatever k: scaled by nothing. A decay would break the identity above, and with it the reason
//! why a biased compressor converges; nothing here knows how fast a model forgets. Where devices return rarely, an unbiased
//! compressor needs no residual and is the better choice (`Codec::needs_residual` tells which need one).
//!
//! A residual is private data of the device: it never travels, and it holds what clipping has not yet bounded.

use super::{CompressError, expect, finite};

/// p = round(update / step) + e in steps, and its values in `update`'s place, for the compressor. `step` is finite and
/// above 0; `residual` is empty for a device that has none yet.
pub fn add(update: &mut [f32], residual: &[i32], step: f64) -> Result<Vec<i32>, CompressError> {
    if !residual.is_empty() {
        expect("coordinates of the residual", update.len(), residual.len())?;
    }
    finite(update)?;
    let mut p = Vec::with_capacity(update.len());
    for (i, v) in update.iter_mut().enumerate() {
        // The cast saturates; adding in i128 cannot.
        let steps = (f64::from(*v) / step).round() as i64;
        let sum = i128::from(steps) + i128::from(residual.get(i).copied().unwrap_or(0));
        let steps = i32::try_from(sum).map_err(|_| CompressError::Value {
            what: "an update and its residual of",
            allowed: "less than 2^31 steps together",
            got: sum.to_string(),
        })?;
        *v = (f64::from(steps) * step) as f32;
        p.push(steps);
    }
    Ok(p)
}

/// e' = p − sent, in p's place: what the device keeps if it is included.
pub fn left(mut p: Vec<i32>, sent: &[i32]) -> Result<Vec<i32>, CompressError> {
    expect("coordinates that were sent", p.len(), sent.len())?;
    for (p, &sent) in p.iter_mut().zip(sent) {
        *p = p.checked_sub(sent).ok_or_else(|| CompressError::Value {
            what: "a residual of",
            allowed: "less than 2^31 steps",
            got: format!("{p} - {sent}"),
        })?;
    }
    Ok(p)
}
