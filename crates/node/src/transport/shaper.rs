//! What a bad network does to a message, as a pure decision: when it arrives, or that it is lost.
//!
//! A [`Link`] is one direction of a network path. It has a [`Shape`] and remembers only when its wire is free again
//! and when the last message came out. The clock and the random numbers come in as arguments, so one seed repeats
//! everything; the forwarder for real sockets and a simulator use the same decisions.
//!
//! The model: messages queue for a wire of `bytes_per_s`, then take `delay_us` plus uniform jitter. Unordered links
//! (UDP) may lose and overtake; ordered ones (TCP, a stream) do neither.

use rand_core::Rng;

/// One direction of a network path. The default is a perfect one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Propagation delay.
    pub delay_us: u64,
    /// Added delay, uniform in `0..=jitter_us`.
    pub jitter_us: u64,
    /// Bandwidth; 0 is unlimited.
    pub bytes_per_s: u64,
    /// Messages lost per million on an unordered link, 0 to 1,000,000.
    pub loss_ppm: u32,
    /// An unordered link loses what would wait longer than this for the wire; 0 is unlimited.
    pub queue_us_max: u64,
}

impl Shape {
    /// `delay_ms` each way with a tenth of it as jitter, `mbit_per_s`, 1 % loss: a plain bad line.
    pub fn bad_line(delay_ms: u64, mbit_per_s: u64) -> Self {
        let delay_us = delay_ms * 1000;
        let bytes_per_s = mbit_per_s * 125_000;
        Self { delay_us, jitter_us: delay_us / 10, bytes_per_s, loss_ppm: 10_000, queue_us_max: 200_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Deliver { at_us: u64 },
    Drop,
}

/// One direction of a path with what it remembers. Times are microseconds of any clock that does not go back.
#[derive(Debug, Clone)]
pub struct Link {
    shape: Shape,
    ordered: bool,
    wire_free_at_us: u64,
    last_delivery_us: u64,
}

impl Link {
    /// `ordered`: nothing is lost and nothing overtakes.
    pub fn new(shape: Shape, ordered: bool) -> Self {
        Self { shape, ordered, wire_free_at_us: 0, last_delivery_us: 0 }
    }

    /// The fate of a message of `bytes` that enters at `now_us`. Draws the same number of random words whatever the
    /// outcome, so that one changed parameter does not shift all later decisions.
    pub fn schedule(&mut self, now_us: u64, bytes: usize, rng: &mut impl Rng) -> Verdict {
        let (luck, jitter) = (rng.next_u64(), rng.next_u64());
        let shape = &self.shape;
        let starts_us = now_us.max(self.wire_free_at_us);
        if !self.ordered {
            let lost = below(luck, 1_000_000) < u64::from(shape.loss_ppm);
            let full = shape.queue_us_max > 0 && starts_us - now_us > shape.queue_us_max;
            if lost || full {
                return Verdict::Drop;
            }
        }
        let wire_us = (bytes as u64).saturating_mul(1_000_000).checked_div(shape.bytes_per_s).unwrap_or(0);
        self.wire_free_at_us = starts_us.saturating_add(wire_us);
        let jitter_us = below(jitter, shape.jitter_us.saturating_add(1));
        let mut at_us = self.wire_free_at_us.saturating_add(shape.delay_us).saturating_add(jitter_us);
        if self.ordered {
            at_us = at_us.max(self.last_delivery_us);
        }
        self.last_delivery_us = at_us;
        Verdict::Deliver { at_us }
    }
}

/// Maps a random word to `0..n` by multiplication (Lemire 2019, without the rejection: the bias is below 2^-40 here).
fn below(word: u64, n: u64) -> u64 {
    ((u128::from(word) * u128::from(n)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng;

    fn run(shape: Shape, ordered: bool, messages: u64) -> Vec<Verdict> {
        let (mut link, mut rng) = (Link::new(shape, ordered), ChaCha8Rng::seed_from_u64(7));
        (0..messages).map(|index| link.schedule(10 * index, 1000, &mut rng)).collect()
    }

    #[test]
    fn a_perfect_link_delivers_at_once() {
        for (index, verdict) in run(Shape::default(), false, 100).into_iter().enumerate() {
            assert_eq!(verdict, Verdict::Deliver { at_us: 10 * index as u64 });
        }
    }

    #[test]
    fn bandwidth_and_delay_add_up() {
        // 1000 bytes at 1 MB/s take 1000 us each; they enter every 10 us and wait for each other.
        let shape = Shape { delay_us: 500, bytes_per_s: 1_000_000, ..Shape::default() };
        for (index, verdict) in run(shape, true, 50).into_iter().enumerate() {
            assert_eq!(verdict, Verdict::Deliver { at_us: 1000 * (index as u64 + 1) + 500 });
        }
    }

    #[test]
    fn loss_is_as_asked_and_repeats() {
        let shape = Shape { loss_ppm: 100_000, jitter_us: 300, ..Shape::default() };
        let (first, second) = (run(shape, false, 10_000), run(shape, false, 10_000));
        assert_eq!(first, second);
        let lost = first.iter().filter(|verdict| **verdict == Verdict::Drop).count();
        // Binomial(10,000, 0.1): mean 1000, standard deviation 30; five of them.
        assert!((850..1150).contains(&lost), "{lost}");
        assert!(!run(shape, true, 10_000).contains(&Verdict::Drop));
    }

    #[test]
    fn only_unordered_links_overtake() {
        let shape = Shape { jitter_us: 1000, ..Shape::default() };
        let overtakes = |ordered| {
            let at = |verdict: &Verdict| match verdict {
                Verdict::Deliver { at_us } => *at_us,
                Verdict::Drop => panic!("no loss was asked for"),
            };
            run(shape, ordered, 1000).windows(2).filter(|pair| at(&pair[0]) > at(&pair[1])).count()
        };
        assert!(overtakes(false) > 100);
        assert_eq!(overtakes(true), 0);
    }

    #[test]
    fn a_full_queue_drops() {
        let shape = Shape { bytes_per_s: 1_000_000, queue_us_max: 5_000, ..Shape::default() };
        let verdicts = run(shape, false, 1000);
        // 10 ms of input, 1 ms of wire each: the first 10 ms of wire and 5 ms of queue get through.
        let through = verdicts.iter().filter(|verdict| **verdict != Verdict::Drop).count();
        assert!((5..=16).contains(&through), "{through}");
    }
}
