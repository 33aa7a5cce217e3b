//! PowerSGD by turns: what a version's map keeps, what power iteration makes of the next one's, and what is refused.

use super::*;
use littoral_fed::compress::Linear;
use littoral_fed::compress::alternating::{Alternating, Basis};
use littoral_fed::compress::powersgd::Matrix;

const LEN: usize = 3 + 60 * 40 + 5 + 100 * 20 + 8 * 90;

/// Vectors between a matrix that stays whole, a tall one and a wide one, which are cut.
fn shape(rank: usize) -> Alternating {
    let matrix = |start, rows, columns| Matrix { start, rows, columns };
    let matrices = [matrix(3, 60, 40), matrix(2408, 100, 20), matrix(4408, 8, 90)];
    Alternating::new(LEN, &matrices, rank).unwrap()
}

fn told(shape: &Alternating, basis: &Basis, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let map = shape.with(basis);
    let sent = map.forward(x, &seed(0));
    let back = map.backward(&sent, x.len(), &seed(0));
    (sent, back)
}

#[test]
fn each_turn_is_a_projection_within_the_bound() {
    let shape = shape(4);
    let mut basis = shape.basis_at_first(&seed(1));
    for turn in 0..4 {
        let (x, y) = (uneven(LEN, turn), uneven(LEN, turn + 10));
        let (sent, back) = told(&shape, &basis, &x);
        assert_eq!(sent.len(), shape.sent_len());
        let (size, kept) = (square(&x), square(&back));
        assert!(square(&sent).sqrt() <= shape.l2_bound(size.sqrt()));
        // Pythagoras: what is left out is orthogonal to what is told. f32 in, f32 out.
        assert!((size - kept - square(&difference(&x, &back))).abs() <= 1e-5 * size, "turn {turn}");
        assert!(square(&difference(&told(&shape, &basis, &back).1, &back)) <= 1e-10 * size, "told twice is told once");
        // Images of sums are sums of images.
        let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        let images: Vec<f32> = sent.iter().zip(told(&shape, &basis, &y).0).map(|(x, y)| x + y).collect();
        assert!(square(&difference(&told(&shape, &basis, &sum).0, &images)) <= 1e-10 * square(&sum));
        basis = shape.basis_next(&basis, &sent, &seed(2)).unwrap();
    }
}

/// Eckart and Young: the nearest matrix of rank r has the r largest singular values, so the error is the sum of the squares of
/// the others. Here they are known: columns of a discrete cosine transform are orthonormal.
#[test]
fn turns_over_one_matrix_find_its_best_approximation() {
    let (rows, columns, rank) = (50, 30, 3);
    let values = [8.0, 4.0, 2.0, 0.5, 0.25, 0.125];
    let cosine = |n: usize, k: usize, i: usize| {
        let scale = if k == 0 { 1.0 / n as f64 } else { 2.0 / n as f64 };
        scale.sqrt() * (std::f64::consts::PI / n as f64 * (i as f64 + 0.5) * k as f64).cos()
    };
    let entry = |i: usize, j: usize| -> f64 {
        values.iter().enumerate().map(|(k, s)| s * cosine(rows, k, i) * cosine(columns, k + 1, j)).sum()
    };
    let x: Vec<f32> = (0..rows * columns).map(|at| entry(at / columns, at % columns) as f32).collect();
    let best: f64 = values[rank..].iter().map(|s| s * s).sum();
    let shape = Alternating::new(x.len(), &[Matrix { start: 0, rows, columns }], rank).unwrap();
    let mut basis = shape.basis_at_first(&seed(3));
    let mut errors = Vec::new();
    for _ in 0..24 {
        let (sent, back) = told(&shape, &basis, &x);
        errors.push(square(&difference(&x, &back)));
        basis = shape.basis_next(&basis, &sent, &seed(4)).unwrap();
    }
    // The gap shrinks by (0.5 / 2)^2 and more per turn.
    assert!(errors.windows(2).all(|pair| pair[1] <= pair[0] + 1e-6), "{errors:?}");
    assert!(errors[0] > 10.0 * best && (errors[23] - best).abs() < 1e-5, "{errors:?}, best {best}");
}

#[test]
fn both_turns_are_about_as_long() {
    let matrix = |start, rows, columns| Matrix { start, rows, columns };
    // A perceptron of 784, 200, 200, 10: twelve columns of both halves of the first matrix, and of the second.
    let mlp = [matrix(0, 784, 200), matrix(157_000, 200, 200), matrix(197_200, 200, 10)];
    let shape = Alternating::new(199_210, &mlp, 12).unwrap();
    assert_eq!(shape.sent_len(), 12 * (392 + 200 + 200) + 2000 + 410);
    // Square ones waste nothing, and two of a kind take turns.
    let pair = [matrix(0, 40, 30), matrix(1200, 40, 30)];
    assert_eq!(Alternating::new(2400, &pair, 2).unwrap().sent_len(), 2 * 70);
    // A matrix that has no more rows than rank travels as it is.
    assert_eq!(Alternating::new(12, &[matrix(0, 3, 4)], 3).unwrap().sent_len(), 12);
}

#[test]
fn what_is_no_shape_or_no_basis_is_refused() {
    for (start, rows) in [(1, 3), (0, usize::MAX)] {
        assert!(Alternating::new(12, &[Matrix { start, rows, columns: 4 }], 1).is_err());
    }
    assert!(Alternating::new(12, &[], 0).is_err());
    let shape = shape(3);
    let mut basis = shape.basis_at_first(&seed(6));
    for _ in 0..2 {
        let mut bytes = vec![7; 5];
        shape.put_basis(&basis, &mut bytes);
        let bytes = &bytes[5..];
        assert_eq!((bytes.len(), shape.basis(bytes)), (shape.basis_bytes(), Ok(basis.clone())));
        assert!(shape.basis(&bytes[1..]).is_err());
        for at in [0, 4, 401, bytes.len() / 2] {
            let mut wrong = bytes.to_vec();
            // A turn that there is not, a bit of an exponent.
            wrong[at / 4 * 4 + 3] ^= 0x40;
            assert!(shape.basis(&wrong).is_err(), "byte {at}");
        }
        assert!(shape.basis_next(&basis, &[0.0], &seed(7)).is_err());
        // What nobody said anything about is drawn.
        let next = shape.basis_next(&basis, &vec![0.0; shape.sent_len()], &seed(7)).unwrap();
        assert_ne!(next, shape.basis_next(&basis, &vec![0.0; shape.sent_len()], &seed(8)).unwrap());
        basis = next;
    }
}
