//! Maps that sums pass through.

use super::*;
use littoral_fed::compress::Linear;
use littoral_fed::compress::chain::{Then, grid_bound, to_grid};
use littoral_fed::compress::powersgd::{Matrix, PowerSgd};
use littoral_fed::compress::randomk::{Kept, RandomK, Rescaled, indices};
use littoral_fed::compress::rotate::{Rotation, blocks, tail};

fn all() -> Vec<Box<dyn Linear>> {
    vec![
        Box::new(Rotation),
        Box::new(RandomK::<Kept>::new(0.3).unwrap()),
        Box::new(RandomK::<Rescaled>::new(0.3).unwrap()),
        Box::new(Then(Rotation, RandomK::<Kept>::new(0.1).unwrap())),
        Box::new(Then(Rotation, RandomK::<Rescaled>::new(0.1).unwrap())),
    ]
}

#[test]
fn sums_of_images_are_images_of_sums() {
    for map in all() {
        for len in [1, 63, 64, 1000, 4096 + 512 + 3] {
            // Small multiples of 2^-10, so that no addition rounds; a factor of 1/√2 or n/k does.
            let whole =
                |number| uneven(len, number).iter().map(|v| (v * 1024.0).round() / 1024.0).collect::<Vec<f32>>();
            let (a, b) = (whole(1), whole(2));
            let sum: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
            let images: Vec<f32> =
                map.forward(&a, &seed(1)).iter().zip(map.forward(&b, &seed(1))).map(|(a, b)| a + b).collect();
            let image = map.forward(&sum, &seed(1));
            assert_eq!(image.len(), map.sent_len(len));
            let error = square(&difference(&images, &image)).sqrt();
            assert!(error <= 1e-6 * square(&sum).sqrt(), "{} of {len}: {error}", map.name());
        }
    }
}

#[test]
fn a_bound_holds_for_what_is_sent() {
    for map in all() {
        for number in 0..20 {
            let x = uneven(700, number);
            let (before, sent) = (square(&x).sqrt(), square(&map.forward(&x, &seed(number))).sqrt());
            match map.l2_bound(before, 700) {
                Some(bound) => assert!(sent <= bound, "{}: {sent} above {bound}", map.name()),
                None => assert!(map.name().contains("rescaled"), "{}", map.name()),
            }
        }
    }
}

#[test]
fn a_rotation_is_undone_keeps_the_norm_and_spreads() {
    for len in [64, 199_210] {
        let mut x = vec![0.0; len];
        x[17] = 1.0;
        let z = Rotation.forward(&x, &seed(1));
        // A single coordinate is spread over its block evenly: 1/√block each.
        let block = blocks(len).next().unwrap().len();
        assert!(z[..block].iter().all(|v| (v.abs() * (block as f32).sqrt() - 1.0).abs() < 1e-6));
        let x = uneven(len, 2);
        let z = Rotation.forward(&x, &seed(3));
        assert!((square(&z) / square(&x) - 1.0).abs() < 1e-6);
        let back = Rotation.backward(&z, len, &seed(3));
        // 24 additions on the way, each within 2^-24.
        assert!(square(&difference(&back, &x)) <= (24.0 * 2f64.powi(-24)).powi(2) * square(&x));
        assert_eq!(back[tail(len)], x[tail(len)], "the tail stays as it is");
    }
    let sizes: Vec<usize> = blocks(199_210).map(|block| block.len()).collect();
    assert_eq!((sizes.len(), &sizes[48..]), (50, &[2048, 512][..]));
    assert_eq!(tail(199_210).len(), 42);
}

#[test]
fn random_k_is_a_contraction_or_unbiased() {
    let x = uneven(2000, 4);
    let kept = RandomK::<Kept>::new(0.25).unwrap();
    let (mean, error) = over_seeds(&x, 400, |seed| kept.backward(&kept.forward(&x, seed), 2000, seed));
    // E‖x − C(x)‖² = (1 − k/n) ‖x‖²; a few coordinates hold most of ‖x‖², so 400 draws are within 5 %. Its mean is k/n x.
    assert!((error / 0.75 - 1.0).abs() < 0.05, "{error}");
    assert!((bias(&mean, &x) / 0.5625 - 1.0).abs() < 0.05);

    let rescaled = RandomK::<Rescaled>::new(0.25).unwrap();
    let nmse = unbiased("random-k", &x, 400, |seed| rescaled.backward(&rescaled.forward(&x, seed), 2000, seed));
    // n/k − 1
    assert!((nmse / 3.0 - 1.0).abs() < 0.05, "{nmse}");
    // All of the length may be in one draw, which is why it has no bound.
    let mut one = vec![0.0; 2000];
    one[indices(2000, 500, &seed(1)).next().unwrap()] = 1.0;
    assert_eq!(square(&rescaled.backward(&rescaled.forward(&one, &seed(1)), 2000, &seed(1))), 16.0);

    let rotated = Then(Rotation, RandomK::<Rescaled>::new(0.25).unwrap());
    unbiased("rotated random-k", &x, 400, |seed| rotated.backward(&rotated.forward(&x, seed), 2000, seed));
}

#[test]
fn indices_are_k_ascending_and_every_one_as_likely() {
    let mut counts = [0u32; 40];
    for number in 0..8000 {
        let drawn: Vec<usize> = indices(40, 10, &seed(number)).collect();
        assert!(drawn.len() == 10 && drawn.is_sorted_by(|a, b| a < b));
        drawn.into_iter().for_each(|i| counts[i] += 1);
    }
    // 2,000 each, deviation √(8000 · ¼ · ¾) = 39: five of them.
    assert!(counts.iter().all(|&count| count.abs_diff(2000) < 195), "{counts:?}");
    assert_eq!(indices(5, 9, &seed(1)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(indices(5, 0, &seed(1)).count(), 0);
}

#[test]
fn the_grid_is_met_without_bias_and_within_its_bound() {
    let x = uneven(500, 5);
    let nmse = unbiased("grid", &x, 400, |seed| {
        let mut on_grid = x.clone();
        to_grid(&mut on_grid, 0.125, seed).unwrap();
        assert!(on_grid.iter().all(|v| v * 8.0 == (v * 8.0).round()));
        assert!(square(&on_grid).sqrt() <= grid_bound(square(&x).sqrt(), 500, 0.125));
        on_grid
    });
    // A quarter of a step squared per coordinate at most.
    assert!(nmse * square(&x) <= 500.0 * 0.125 * 0.125 / 4.0);
}

/// A matrix of some rank: a sum of products of columns and rows.
fn of_rank(rank: usize, rows: usize, columns: usize, number: u64) -> Vec<f32> {
    let (left, right) = (uneven(rows * rank, number), uneven(rank * columns, number + 50));
    (0..rows * columns)
        .map(|i| (0..rank).map(|r| left[i / columns * rank + r] * right[r * columns + i % columns]).sum())
        .collect()
}

#[test]
fn powersgd_is_exact_up_to_its_rank() {
    let (rows, columns) = (60, 40);
    let matrices = [Matrix { start: 3, rows, columns }];
    let len = 3 + rows * columns + 5;
    for rank in 1..=4 {
        let powersgd = PowerSgd::new(len, &matrices, rank).unwrap();
        // Three devices; their sum has rank `rank`, whatever each has.
        let sum: Vec<f32> = [uneven(3, 1), of_rank(rank, rows, columns, 2), uneven(5, 3)].concat();
        let (a, b) = (uneven(len, 4), uneven(len, 5));
        let rest: Vec<f32> = (0..len).map(|i| sum[i] - a[i] - b[i]).collect();
        let devices = [a, b, rest];
        let q = powersgd.q_at_first(&seed(1));
        let add = |vectors: Vec<Vec<f32>>| -> Vec<f32> {
            (0..vectors[0].len()).map(|i| vectors.iter().map(|v| f64::from(v[i])).sum::<f64>() as f32).collect()
        };
        let first = add(devices.iter().map(|x| powersgd.first(x, &q).unwrap()).collect());
        let basis = powersgd.basis(&first).unwrap();
        let second = add(devices.iter().map(|x| powersgd.second(x, &basis).unwrap()).collect());
        assert_eq!((first.len(), second.len()), (powersgd.first_len(), powersgd.second_len()));
        let told = powersgd.approximate(&basis, &second).unwrap();
        // f32 factors: a few 2^-24 of what the devices' parts were before they cancelled.
        let (error, size) = (square(&difference(&told, &sum)), devices.iter().map(|x| square(x)).sum::<f64>());
        assert!(error <= 1e-11 * size, "rank {rank}: {error} of {size}");
        // One rank more is not held by it.
        let more: Vec<f32> = [uneven(3, 1), of_rank(rank + 1, rows, columns, 6), uneven(5, 3)].concat();
        let basis = powersgd.basis(&powersgd.first(&more, &q).unwrap()).unwrap();
        let told = powersgd.approximate(&basis, &powersgd.second(&more, &basis).unwrap()).unwrap();
        assert!(square(&difference(&told, &more)) > 1e-6 * square(&more), "rank {rank}");
        // Both factors keep the bound, and the approximation is a projection.
        for x in &devices {
            let bound = powersgd.l2_bound(square(x).sqrt()).unwrap();
            assert!(square(&powersgd.first(x, &q).unwrap()).sqrt() <= bound);
            assert!(square(&powersgd.second(x, &basis).unwrap()).sqrt() <= bound);
        }
    }
}

#[test]
fn powersgd_goes_on_from_the_last_rounds_q() {
    // One matrix again and again: power iteration finds its best approximation of rank 2, whatever it began with.
    let (rows, columns) = (50, 30);
    let strong = of_rank(2, rows, columns, 7);
    let x: Vec<f32> = strong.iter().zip(uneven(rows * columns, 8)).map(|(s, n)| s + 0.05 * n).collect();
    let powersgd = PowerSgd::new(x.len(), &[Matrix { start: 0, rows, columns }], 2).unwrap();
    let mut q = powersgd.q_at_first(&seed(2));
    let mut errors = Vec::new();
    for _ in 0..30 {
        let basis = powersgd.basis(&powersgd.first(&x, &q).unwrap()).unwrap();
        let second = powersgd.second(&x, &basis).unwrap();
        errors.push(square(&difference(&powersgd.approximate(&basis, &second).unwrap(), &x)));
        q = powersgd.q_next(&second, &seed(3));
    }
    // Eckart and Young: no matrix of rank 2 is nearer, so `strong` is not.
    assert!(errors[29] <= square(&difference(&strong, &x)) && errors[29] < errors[0], "{errors:?}");
    // Directions that a sum lacks are drawn and not lost for ever.
    let drawn = powersgd.q_next(&vec![0.0; powersgd.second_len()], &seed(4));
    assert!((square(&drawn) - 2.0).abs() < 1e-6);
    assert_eq!(powersgd.basis(&vec![0.0; powersgd.first_len()]).unwrap(), vec![0.0; powersgd.first_len()]);
}

#[test]
fn powersgd_sends_what_the_paper_says() {
    let (rows, columns) = (512, 4608);
    for (rank, ratio) in [(1, 461), (2, 230), (4, 115)] {
        let powersgd = PowerSgd::new(rows * columns, &[Matrix { start: 0, rows, columns }], rank).unwrap();
        let sent = powersgd.first_len() + powersgd.second_len();
        assert_eq!((rows * columns + sent / 2) / sent, ratio, "rank {rank}");
    }
    // A matrix that would grow travels as it is, and matrices must fit.
    let small = PowerSgd::new(12, &[Matrix { start: 0, rows: 3, columns: 4 }], 2).unwrap();
    assert_eq!((small.first_len(), small.second_len()), (0, 12));
    for (start, rows) in [(1, 3), (0, usize::MAX)] {
        assert!(PowerSgd::new(12, &[Matrix { start, rows, columns: 4 }], 1).is_err());
    }
}
