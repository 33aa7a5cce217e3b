//! How long attention over a long cache takes, on one thread: `cargo run --release -p littoral-tensor --example attention`.

use littoral_tensor::attention::{Cache, CacheType, Layout, Look, Queries, attend};
use littoral_tensor::quant::Instructions;
use std::time::Instant;

fn main() {
    for (width, positions) in [(64, 4096), (256, 4096), (64, 512)] {
        let elements: Vec<f32> = (0..8 * width).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
        let row = |p: usize| &elements[p % 7 * width..][..width];
        for cache_type in CacheType::ALL {
            // More heads than fit in a processor's caches, as a model has.
            let heads: Vec<_> = (0..(64 << 20) / (width * positions * 4))
                .map(|_| {
                    let of = |keys| {
                        let layout = Layout { cache_type, width, keys };
                        let mut bytes = vec![0; cache_type.head_bytes(positions, width)];
                        (0..positions).for_each(|p| layout.store(&mut bytes, p, row(p)));
                        bytes
                    };
                    (of(true), of(false))
                })
                .collect();
            for instructions in Instructions::here() {
                let mut line = format!("{:11} {cache_type:4} {positions} x {width:3}:", instructions.name());
                for count in [1, 2, 8] {
                    let us = time(instructions, cache_type, width, positions, count, &heads, &elements);
                    line += &format!("  {count} at once {us:7.1} us");
                }
                println!("{line}");
            }
        }
    }
}

/// The median time of one head.
fn time(
    instructions: Instructions,
    cache_type: CacheType,
    width: usize,
    positions: usize,
    count: usize,
    heads: &[(Vec<u8>, Vec<u8>)],
    elements: &[f32],
) -> f64 {
    let (mut out, mut room) = (vec![0.0; 8 * width], Vec::new());
    let look = Look { width, scale: 0.125, window: 0, cap: 0.0 };
    let mut times = [0; 7].map(|_| {
        let start = Instant::now();
        for (keys, values) in heads {
            let queries = Queries { position: positions - count, count, elements, stride: width };
            attend(instructions, &look, Cache { cache_type, keys, values }, queries, &mut out, &mut room);
        }
        start.elapsed().as_secs_f64() / heads.len() as f64 * 1e6
    });
    times.sort_by(f64::total_cmp);
    times[3]
}
