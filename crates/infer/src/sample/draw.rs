//! The draw: a race of exponential clocks.

use super::filters::Candidate;
use super::noise::Noise;
use littoral_tensor::ln;

/// The candidate with the least `exponential / weight`; the lower id among equals. None without a candidate.
pub(super) fn among(noise: Noise, candidates: &[Candidate]) -> Option<u32> {
    let mut race = Race::default();
    for c in candidates {
        race.enter(c.id, c.weight, noise.uniform(c.id));
    }
    race.winner
}

/// The same over a whole vocabulary. A weight of 0 does not take part.
pub(super) fn over(noise: Noise, weights: &[f32]) -> Option<u32> {
    let mut race = Race::default();
    for (index, pair) in (0u32..).zip(weights.chunks(2)) {
        let uniforms = noise.pair(index);
        for ((id, &weight), uniform) in (2 * index..).zip(pair).zip(uniforms) {
            race.enter(id, weight, uniform);
        }
    }
    race.winner
}

struct Race {
    winner: Option<u32>,
    time: f64,
}

impl Default for Race {
    fn default() -> Self {
        Self { winner: None, time: f64::INFINITY }
    }
}

impl Race {
    #[inline(always)]
    fn enter(&mut self, id: u32, weight: f32, uniform: f64) {
        // -ln u is at least 1 - u, so most tokens lose before their logarithm is taken. The margin is far above the
        // error of the logarithm and of the division, so nothing that would win is left out.
        const MARGIN: f64 = 1.0 + 1e-9;
        let weight = f64::from(weight);
        if 1.0 - uniform < self.time * weight * MARGIN {
            self.run(id, weight, uniform);
        }
    }

    #[inline(never)]
    fn run(&mut self, id: u32, weight: f64, uniform: f64) {
        let time = -ln(uniform) / weight;
        if time < self.time || (time == self.time && Some(id) < self.winner) {
            (self.winner, self.time) = (Some(id), time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The race with its short cut, against every logarithm taken, in the form of the algorithm's page.
    #[test]
    fn the_race_is_gumbel_max() {
        let weights: Vec<f32> = (0..501).map(|i| ((i * 37 % 101) as f32 / 101.0).powi(6)).collect();
        for position in 0..2000 {
            let noise = Noise::new(11, position);
            let all: Vec<f64> = (0u32..).zip(&weights).map(|(id, &w)| ln(f64::from(w)) + noise.gumbel(id)).collect();
            let expected = (0..501u32).max_by(|&a, &b| all[a as usize].total_cmp(&all[b as usize]));
            assert_eq!(over(noise, &weights), expected, "position {position}");
            // In any order, and without the weights that are 0.
            let candidates: Vec<Candidate> = (0..501u32)
                .rev()
                .filter(|&id| weights[id as usize] > 0.0)
                .map(|id| Candidate { id, log_weight: 0.0, weight: weights[id as usize] })
                .collect();
            assert_eq!(among(noise, &candidates), expected, "position {position}");
        }
    }

    #[test]
    fn the_lower_id_wins_a_dead_heat_in_any_order() {
        for ids in [[3, 5], [5, 3]] {
            let mut race = Race::default();
            ids.iter().for_each(|&id| race.enter(id, 0.25, 0.7));
            assert_eq!(race.winner, Some(3));
        }
    }

    #[test]
    fn without_weight_nobody_wins() {
        assert_eq!(over(Noise::new(0, 0), &[0.0; 5]), None);
        assert_eq!(among(Noise::new(0, 0), &[]), None);
    }
}
