//! Machines die several times a second, run after run: minutes, so `.ci/long kills` runs it and `cargo test` does not.

use super::trial::{Folder, RECORD, follow, kill, pids, record, up};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const RUNS: u64 = 40;
const KILLS: usize = 16;
const PAUSE_MS: std::ops::Range<u64> = 20..400;
/// The longest time without a round. A device or a partial that was forgotten would be waited for until the round's
/// deadline, 60 seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[test]
#[ignore = "minutes; .ci/long kills"]
fn machines_that_die_all_the_time_change_no_bit() {
    let rounds = ["--rounds", "250"];
    let calm = Folder::new("kills-calm");
    follow(up(&calm.0, &rounds), |_| {});
    let calm = record(&calm.0.join(RECORD));
    for seed in 0..RUNS {
        let folder = Folder::new("kills");
        let (mut draws, mut killed) = (Draws(seed), Vec::new());
        let (begun, mut silence) = (Instant::now(), Duration::ZERO);
        let mut last = begun;
        let (round_made, rounds_made) = channel();
        std::thread::scope(|scope| {
            let (dir, killed) = (&folder.0, &mut killed);
            scope.spawn(move || {
                if rounds_made.recv().is_err() {
                    return;
                }
                while killed.len() < KILLS {
                    let pause = Duration::from_millis(PAUSE_MS.start + draws.below(PAUSE_MS.end - PAUSE_MS.start));
                    let until = Instant::now() + pause;
                    while let Some(left) = until.checked_duration_since(Instant::now()) {
                        // The channel ends with the run.
                        if rounds_made.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                            return;
                        }
                    }
                    let pids = pids(dir);
                    let (name, pid) = pids.iter().nth(draws.below(pids.len() as u64) as usize).unwrap();
                    if kill(*pid) {
                        killed.push(name.clone());
                    }
                }
            });
            follow(up(dir, &rounds), |_| {
                let _ = round_made.send(());
                silence = silence.max(last.elapsed());
                last = Instant::now();
            });
            drop(round_made);
        });
        let (took, count) = (begun.elapsed(), killed.len());
        println!("seed {seed}: {count} kills, {took:.1?}, longest time without a round {silence:.1?}");
        assert_eq!(calm, record(&folder.0.join(RECORD)), "seed {seed}, killed {killed:?}");
        assert!(silence < SILENCE, "seed {seed}, killed {killed:?}");
    }
}
