//! How fast each kernel is: `cargo run --release -p littoral-tensor --example kernels [THREADS] [KIND …]`.
//!
//! For each kind, a matrix far bigger than any cache times one token (GB/s of weights; the floor is what the machine reads,
//! printed first), and a small one times many tokens (billions of multiplications and additions per second).

use littoral_tensor::pool::Pool;
use littoral_tensor::quant::{Instructions, Kind, Matrix, Memory, Panels, multiply};
use std::time::Instant;

fn best(mut f: impl FnMut()) -> f64 {
    (0..7).fold(f64::INFINITY, |best, _| {
        let start = Instant::now();
        f();
        best.min(start.elapsed().as_secs_f64())
    })
}

fn matrix(kind: Kind, rows: usize, columns: usize, pool: &Pool) -> Matrix {
    let bytes: Vec<u8> = (0..rows * kind.row_bytes(columns).unwrap()).map(|i| (i * 37 % 61) as u8).collect();
    Matrix::pack(kind, rows, columns, &bytes, pool).unwrap()
}

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(2, |n| n.parse().expect("a number of threads"));
    let wanted: Vec<String> = args.collect();
    let pool = Pool::new(threads);
    let mut memory = Memory::zeroed(1 << 30).expect("a gigabyte");
    // Pages that nobody wrote are all the same one.
    memory.fill(1);
    let read = best(|| {
        pool.run(1 << 10, 1, |range| {
            let part = &memory[range.start << 20..range.end << 20];
            let words = part.chunks_exact(64).fold([0u64; 8], |mut sums, line| {
                for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
                    *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap()));
                }
                sums
            });
            std::hint::black_box(words);
        });
    });
    println!("reading: {:.1} GB/s on {threads} threads", (1 << 30) as f64 / read / 1e9);
    for instructions in Instructions::here() {
        if instructions == Instructions::Scalar && !wanted.iter().any(|w| w == "scalar") {
            continue;
        }
        for kind in Kind::ALL {
            if !wanted.is_empty() && !wanted.iter().any(|w| w == kind.name()) {
                continue;
            }
            let columns = 1536;
            let big =
                matrix(kind, (400_000_000 / kind.row_bytes(columns).unwrap()).next_multiple_of(16), columns, &pool);
            let x: Vec<f32> = (0..512 * columns).map(|i| (i * 31 % 1001) as f32 / 500.0 - 1.0).collect();
            let mut panels = Panels::new(instructions);
            let mut line = format!("{:12} {:5}", instructions.name(), kind.name());
            let mut out = vec![0.0; 12 * big.padded_rows()];
            for tokens in [1, 2, 4, 8] {
                panels.renew(tokens, columns);
                panels.prepare(kind, &x[..tokens * columns], &pool);
                let s = best(|| multiply(&[&big], &panels, &mut out, &pool));
                line += &format!("  {tokens}: {:5.1} GB/s {:5.1} ms", big.bytes() as f64 / s / 1e9, s * 1e3);
            }
            drop(big);
            let small = matrix(kind, 1536, columns, &pool);
            let mut out = vec![0.0; 512 * 1536];
            line += "  from cache:";
            for tokens in [1, 2, 4, 8] {
                panels.renew(tokens, columns);
                panels.prepare(kind, &x[..tokens * columns], &pool);
                let s = best(|| (0..50).for_each(|_| multiply(&[&small], &panels, &mut out, &pool))) / 50.0;
                line += &format!(" {tokens}: {:.1} GB/s", small.bytes() as f64 / s / 1e9);
            }
            panels.renew(512, columns);
            panels.prepare(kind, &x, &pool);
            let s = best(|| multiply(&[&small], &panels, &mut out, &pool));
            line += &format!("  512: {:.0} GOP/s", 2.0 * 512.0 * 1536.0 * columns as f64 / s / 1e9);
            println!("{line}");
        }
    }
}
