//! `littoral bench aggregate`: how fast large updates are summed, on one thread, and in how much memory.
//!
//! 50 updates of 10 million parameters in 32-bit words. Their bytes are made as they are needed, a few chunks at a time, and
//! making them is not timed. Two ways of arriving:
//!
//! * *arriving*: one update after another. Chunk by chunk, as soon as its bytes are there: they are decoded to a message of
//!   `wire`, which is added to the partial sum. Not in it: the socket, decryption, the chunk's hash, the disk.
//! * *interleaved*: the same chunk of several devices at a time, as an edge adds spooled updates: the sum passes through
//!   memory once for all of them. Step by step: the devices' chunks, which are in memory, are added together. There are as
//!   many chunks in memory as an edge allows itself.
//!
//! and two loops beside them, in turn with them:
//!
//! * *read+read+write*: `a[i] += b[i]` with the same instructions, over a sum of the same size and as many bytes of a large
//!   buffer, both from memory. A second one takes `b` where *arriving* finds it, in the cache: that is what decoding costs.
//! * *read*: eight-byte words over a buffer much larger than the caches.
//!
//! **How GB/s are counted**, alike for all: bytes of updates that were added (`b`; of the buffer that was read), each counted
//! once, per second of the timed steps; the sum's own way from memory and back is not counted. GB = 10^9 bytes; medians over
//! updates.
//!
//! **Memory**: (peak resident bytes − those before the first update) / bytes of one sealed update. The partial sum counts; the
//! loops' buffers were there before.

use super::fedavg::{device, plan};
use super::{Report, broken, machine, median};
use crate::output::{Failure, talk};
use littoral_fed::aggregate::{Absorbing, Partial};
use littoral_fed::algorithm::fedavg::FedAvg;
use littoral_tensor::fixed::add_packed;
use littoral_wire::object::CHUNK_BYTES;
use littoral_wire::{Blob, Message, ObjectId, Wire};
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Chunks in memory, over all devices: what an edge allows itself for updates of this size.
const IN_FLIGHT: usize = 32;
/// Bytes of the buffer that is read, or an update's if it is larger: several times the last cache.
const READ_BYTES_MIN: usize = 256 << 20;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Updates in each of the two sums.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    updates: u32,
    /// Parameters of the model.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1_000..=1_000_000_000))]
    params: u32,
    /// Devices whose chunks are added at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=32))]
    together: u32,
}

pub fn run(args: &Args) -> Result<Report, Failure> {
    let broken = broken("littoral bench aggregate");
    let plan = plan(&FedAvg {}, args.updates, args.params as usize).map_err(|e| broken(&e))?;
    let (format, bits) = (plan.format(), plan.bits());
    let update_bytes = format.bytes();
    let mut source = Source::new(update_bytes);
    // Ones, since zeros would come into memory only when they are first used.
    let buffer = vec![1u8; READ_BYTES_MIN.max(update_bytes)];
    let (mut sum, mut cached_sum) = (vec![1u8; update_bytes], vec![1u8; update_bytes]);
    source.total = total(&cached_sum);
    let mut buffer_at = 0;
    let (mut arriving_s, mut cached_s, mut rrw_s, mut read_s) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());

    let before = machine::rss_bytes()?;
    let mut partial = Partial::empty(format);
    for update in 0..args.updates as usize {
        let mut absorbing = Absorbing::begin(&mut partial, &[device(update)]).map_err(|e| broken(&e))?;
        arriving_s.push(source.pass(|_, frame| {
            let message = Message::from_bytes(frame).map_err(|e| broken(&e))?;
            let Message::Chunk { bytes, .. } = message else { return Err(broken(&"another message")) };
            absorbing.chunk(&mut partial, &[&bytes]).map_err(|e| broken(&e))
        })?);
        absorbing.finish(&mut partial).map_err(|e| broken(&e))?;

        cached_s.push(source.pass(|at, frame| {
            let payload = &frame[FRAME_BYTES..];
            add_packed(&mut cached_sum[at..at + payload.len()], payload, bits).map_err(|e| broken(&e))
        })?);
        if buffer_at + update_bytes > buffer.len() {
            buffer_at = 0;
        }
        let start = Instant::now();
        add_packed(&mut sum, &buffer[buffer_at..buffer_at + update_bytes], bits).map_err(|e| broken(&e))?;
        rrw_s.push(start.elapsed().as_secs_f64());
        buffer_at += update_bytes;
        read_s.push(read_through(&buffer));
        talk(&format!("arriving: update {} of {}", update + 1, args.updates));
    }
    source.check(&[partial.bytes().map_err(|e| broken(&e))?, &cached_sum])?;
    drop(partial);

    let mut interleaved_s = Vec::new();
    let mut source = Source::new(update_bytes);
    let mut partial = Partial::empty(format);
    let updates: Vec<_> = (0..args.updates as usize).map(device).collect();
    for devices in updates.chunks(args.together as usize) {
        let mut absorbing = Absorbing::begin(&mut partial, devices).map_err(|e| broken(&e))?;
        let seconds = source
            .pass_together(devices.len(), |chunks| absorbing.chunk(&mut partial, chunks).map_err(|e| broken(&e)))?;
        absorbing.finish(&mut partial).map_err(|e| broken(&e))?;
        // A last, smaller group tells something else.
        if devices.len() == args.together as usize {
            interleaved_s.push(seconds / devices.len() as f64);
        }
        talk(&format!("interleaved: {} of {} updates", partial.devices().len(), args.updates));
        read_s.push(read_through(&buffer));
    }
    source.check(&[partial.bytes().map_err(|e| broken(&e))?])?;
    let peak = machine::peak_rss_bytes()?;

    let gb_per_s = |seconds: &[f64]| update_bytes as f64 / median(seconds) * 1e-9;
    let arriving = gb_per_s(&arriving_s);
    let (rrw, cached) = (gb_per_s(&rrw_s), gb_per_s(&cached_s));
    let interleaved = gb_per_s(&interleaved_s);
    let read = buffer.len() as f64 / median(&read_s) * 1e-9;
    let ratio = peak.saturating_sub(before) as f64 / update_bytes as f64;
    let percent = |part: f64, whole: f64| format!("{:.0} %", 100.0 * part / whole);
    let rows = vec![
        ["one sealed update, MB".into(), format!("{:.1}", update_bytes as f64 / 1e6)],
        ["arriving one after another, GB/s of updates".into(), format!("{arriving:.2}")],
        ["read+read+write loop, GB/s of updates".into(), format!("{rrw:.2}")],
        ["  arriving / loop".into(), percent(arriving, rrw)],
        ["the same loop, updates in the cache, GB/s".into(), format!("{cached:.2}")],
        ["  arriving / loop in the cache".into(), percent(arriving, cached)],
        [format!("{} devices interleaved, GB/s of updates", args.together), format!("{interleaved:.2}")],
        ["one thread reads, GB/s".into(), format!("{read:.2}")],
        ["  interleaved / read".into(), percent(interleaved, read)],
        ["peak memory / one sealed update".into(), format!("{ratio:.2}")],
    ];
    let numbers = json!({
        "interleaved_gb_per_s": interleaved, "arriving_gb_per_s": arriving, "read_gb_per_s": read, "rrw_gb_per_s": rrw,
        "peak_rss_ratio": ratio,
    });
    Ok(Report { numbers, rows })
}

/// A frame's bytes before the chunk's own: tag, object, index, length.
const FRAME_BYTES: usize = 1 + 32 + 4 + 4;

/// Makes the bytes of updates, and remembers what they add up to.
struct Source {
    update_bytes: usize,
    random: u64,
    /// All words of all updates, modulo 2^32.
    total: u32,
    frames: Vec<Vec<u8>>,
}

impl Source {
    fn new(update_bytes: usize) -> Self {
        let frames = (0..IN_FLIGHT).map(|_| Vec::with_capacity(FRAME_BYTES + CHUNK_BYTES)).collect();
        Self { update_bytes, random: 0x9e37_79b9_7f4a_7c15, total: 0, frames }
    }

    /// Seconds that `add(offset, frame)` takes for all frames of one new update, each right after it is made.
    fn pass(&mut self, mut add: impl FnMut(usize, &[u8]) -> Result<(), Failure>) -> Result<f64, Failure> {
        let mut timed = Duration::ZERO;
        for offset in (0..self.update_bytes).step_by(CHUNK_BYTES) {
            self.make(0, offset);
            let start = Instant::now();
            add(offset, &self.frames[0])?;
            timed += start.elapsed();
        }
        Ok(timed.as_secs_f64())
    }

    /// Seconds that `add(chunks)` takes for all chunks of some devices' new updates, the same chunk of all at a time.
    fn pass_together(
        &mut self,
        devices: usize,
        mut add: impl FnMut(&[&[u8]]) -> Result<(), Failure>,
    ) -> Result<f64, Failure> {
        let mut timed = Duration::ZERO;
        let offsets: Vec<usize> = (0..self.update_bytes).step_by(CHUNK_BYTES).collect();
        for offsets in offsets.chunks(IN_FLIGHT / devices) {
            for (row, &offset) in offsets.iter().enumerate() {
                (0..devices).for_each(|device| self.make(row * devices + device, offset));
            }
            let rows = self.frames.chunks(devices).take(offsets.len());
            let rows = rows.map(|frames| frames.iter().map(|frame| &frame[FRAME_BYTES..]).collect::<Vec<_>>());
            for chunks in rows.collect::<Vec<_>>() {
                let start = Instant::now();
                add(&chunks)?;
                timed += start.elapsed();
            }
        }
        Ok(timed.as_secs_f64())
    }

    /// A frame with the chunk at `offset` of a new update.
    fn make(&mut self, slot: usize, offset: usize) {
        let len = CHUNK_BYTES.min(self.update_bytes - offset);
        let mut chunk = Vec::with_capacity(len);
        while chunk.len() < len {
            // xorshift64, Marsaglia 2003.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let words = self.random.to_le_bytes();
            let words = &words[..words.len().min(len - chunk.len())];
            chunk.extend_from_slice(words);
            self.total = self.total.wrapping_add(total(words));
        }
        let frame = &mut self.frames[slot];
        frame.clear();
        if let Ok(bytes) = Blob::new(chunk) {
            let index = (offset / CHUNK_BYTES) as u32;
            Message::Chunk { object: ObjectId([7; 32]), index, bytes }.put(frame);
        }
    }

    /// Are these the sums of all that was made? Wrong sums have no speed.
    fn check(&self, sums: &[&[u8]]) -> Result<(), Failure> {
        match sums.iter().map(|sum| total(sum)).fold(0, u32::wrapping_add) {
            got if got == self.total => Ok(()),
            got => Err(Failure::new("the sum is wrong", "littoral bench aggregate", self.total.to_string(), got)),
        }
    }
}

/// All words of 32 bits, modulo 2^32.
fn total(words: &[u8]) -> u32 {
    let words = words.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    words.fold(0, u32::wrapping_add)
}

/// Seconds to read all words once.
fn read_through(bytes: &[u8]) -> f64 {
    let start = Instant::now();
    // Eight sums side by side, so that adding does not wait for itself.
    let mut sums = [0u64; 8];
    for words in bytes.as_chunks::<64>().0 {
        let words = words.as_chunks::<8>().0;
        sums.iter_mut().zip(words).for_each(|(sum, word)| *sum = sum.wrapping_add(u64::from_le_bytes(*word)));
    }
    black_box(sums);
    start.elapsed().as_secs_f64()
}
