//! What a transformer does to vectors between its matrices: norms, rotations, gates. f32, in place or into `out`.
//!
//! Sums go over sixteen lanes, element i into lane i mod 16, and the lanes are added in pairs at the end: a fixed order,
//! whatever the vector width. Square roots and quotients are IEEE's; the exponential is ours. So are all bits.

use crate::elementary::{sigmoid, tanh};
use crate::processor::for_this_processor;

/// The sum of sixteen lanes, in pairs.
#[inline(always)]
pub(crate) fn sum_lanes(mut lanes: [f32; 16]) -> f32 {
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum_of_squares(x: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    for chunk in x.chunks(16) {
        for (sum, v) in lanes.iter_mut().zip(chunk) {
            *sum += v * v;
        }
    }
    sum_lanes(lanes)
}

for_this_processor! {
    /// `out = x / rms(x) * weight`, rms(x) = sqrt(mean of squares + epsilon) (Zhang and Sennrich 2019). All of one length.
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

for_this_processor! {
    /// [`rms_norm`] in place.
    pub fn rms_norm_in_place(x: &mut [f32], weight: &[f32], epsilon: f32) {
        let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + epsilon).sqrt();
        for (x, weight) in x.iter_mut().zip(weight) {
            *x = *x * scale * weight;
        }
    }
}

for_this_processor! {
    pub fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

for_this_processor! {
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

for_this_processor! {
    /// `out = gate sigmoid(gate) up` (SwiGLU, Shazeer 2020).
    pub fn silu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

for_this_processor! {
    /// `out = gelu(gate) up`, gelu by its tanh approximation (Hendrycks and Gimpel 2016).
    pub fn gelu_gate(gate: &[f32], up: &[f32], out: &mut [f32]) {
        // sqrt(2 / pi)
        const FACTOR: f32 = 0.797_884_6;
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            let inner = FACTOR * gate * (1.0 + 0.044_715 * gate * gate);
            *out = 0.5 * gate * (1.0 + tanh(inner)) * up;
        }
    }
}

for_this_processor! {
    /// `x = cap tanh(x / cap)`: keeps logits within bounds (Gemma 2).
    pub fn soft_cap(x: &mut [f32], cap: f32) {
        for x in x {
            *x = cap * tanh(*x / cap);
        }
    }
}

/// Which elements of a head are rotated together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pairs {
    /// 2i and 2i + 1.
    Neighbours,
    /// i and i + half of the rotated width.
    Halves,
}

/// Rotates the first `2 cos.len()` elements of a head by the angles of its position (RoPE, Su et al. 2021).
pub fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32], pairs: Pairs) {
    let half = cos.len();
    for i in 0..half {
        let (a, b) = match pairs {
            Pairs::Neighbours => (2 * i, 2 * i + 1),
            Pairs::Halves => (i, i + half),
        };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos[i] - y * sin[i];
        head[b] = x * sin[i] + y * cos[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norm_and_gates_by_hand() {
        let mut out = [0.0; 2];
        // rms of 3 and 4 is sqrt(12.5).
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        assert_eq!(out.map(|x| (x * 1e5).round()), [84_853.0, 226_274.0]);
        silu_gate(&[0.0, 2.0], &[5.0, 3.0], &mut out);
        assert_eq!(out.map(|x| (x * 1e5).round()), [0.0, 528_478.0]);
        // gelu(1) = 0.841192 by the approximation.
        gelu_gate(&[1.0, -30.0], &[1.0, 1.0], &mut out);
        assert_eq!(out.map(|x| (x * 1e5).round().abs()), [84_119.0, 0.0]);
    }

    #[test]
    fn a_rotation_keeps_lengths_and_turns_by_the_difference_of_positions() {
        let angles = [0.3f64, 0.02];
        let at = |position: f64, pairs| {
            let mut head = [1.0, 2.0, -0.5, 0.7, 9.0];
            let cos = angles.map(|a| (a * position).cos() as f32);
            let sin = angles.map(|a| (a * position).sin() as f32);
            rotate(&mut head, &cos, &sin, pairs);
            head
        };
        let dot = |a: [f32; 5], b: [f32; 5]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        for pairs in [Pairs::Neighbours, Pairs::Halves] {
            // What attention sees of two positions depends on their distance only.
            assert!((dot(at(3.0, pairs), at(8.0, pairs)) - dot(at(10.0, pairs), at(15.0, pairs))).abs() < 1e-4);
            assert!((dot(at(3.0, pairs), at(3.0, pairs)) - dot(at(0.0, pairs), at(0.0, pairs))).abs() < 1e-4);
            assert_eq!(at(5.0, pairs)[4], 9.0, "beyond the rotated width");
        }
    }
}
