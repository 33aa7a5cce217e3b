//! What each codec promises of one vector.

use super::*;
use littoral_fed::compress::CompressError;
use littoral_fed::compress::eden::Eden;
use littoral_fed::compress::quantise::Quantise;
use littoral_fed::compress::sign::Sign;
use littoral_fed::compress::topk::{TopK, Values, largest};
use proptest::prelude::*;

fn all() -> Vec<Box<dyn Codec>> {
    let mut all: Vec<Box<dyn Codec>> = vec![Box::new(Sign)];
    for (bits, block) in [(2, 8), (4, 256), (8, 1024), (3, 4096)] {
        for entropy in [false, true] {
            all.push(Box::new(Quantise::new(bits, block, entropy).unwrap()));
        }
    }
    for bits in 1..=4 {
        all.push(Box::new(Eden::new(bits).unwrap()));
    }
    for kept in [0.001, 0.1, 1.0] {
        for values in [Values::Signs, Values::Bits(2), Values::Bits(8)] {
            all.push(Box::new(TopK::new(kept, values).unwrap()));
        }
    }
    all
}

#[test]
fn every_length_comes_back_and_zeros_are_small() {
    for codec in all() {
        for len in [0, 1, 7, 8, 63, 64, 65, 200, 4095, 4096, 4097, 4096 + 2048 + 70] {
            let told = through(&*codec, &uneven(len, len as u64), &seed(1));
            assert!(told.iter().all(|v| v.is_finite()), "{}", codec.name());
            assert_eq!(through(&*codec, &vec![0.0; len], &seed(2)), vec![0.0; len], "{}", codec.name());
        }
        let extreme = [f32::MAX, -f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0, 1.0];
        let mut bytes = Vec::new();
        // As large as floats go: finite numbers come back, or it is refused here and not at the edge.
        match codec.encode(&extreme, &seed(3), &mut bytes) {
            Ok(()) => assert!(decoded(&*codec, 6, &bytes).unwrap().iter().all(|v| v.is_finite()), "{}", codec.name()),
            Err(error) => assert!(matches!(error, CompressError::NotFinite { .. })),
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let refused = codec.encode(&[0.0, 1.0, bad], &seed(4), &mut Vec::new()).unwrap_err();
            assert!(matches!(refused, CompressError::NotFinite { index: 2, .. }), "{}: {refused}", codec.name());
        }
    }
}

#[test]
fn what_is_not_biased_says_so_and_what_cannot_be_masked_says_why() {
    for codec in all() {
        assert!(!codec.why_not_masked().is_empty());
        // Only contractions keep a bound.
        if codec.l2_bound(1.0, 100).is_some() {
            assert!(codec.needs_residual(), "{}", codec.name());
            for len in [5, 1000, 5000] {
                let x = uneven(len, 17 + len as u64);
                let told = through(&*codec, &x, &seed(5));
                let (bound, norm) = (codec.l2_bound(square(&x).sqrt(), len).unwrap(), square(&told).sqrt());
                assert!(norm <= bound, "{}: {norm} above {bound}", codec.name());
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_coordinates_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        len in 0usize..5000,
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let x = uneven(len, 3);
        for codec in all() {
            let count = |bytes: &[u8]| {
                let mut told = 0;
                let done = codec.decode(len, bytes, &mut |block| {
                    told += block.len();
                    assert!(block.len() <= 4096 && block.iter().all(|v| v.is_finite()), "{}", codec.name());
                    assert!(block.len().is_multiple_of(8) || told == len, "only the last block is uneven");
                    Ok(())
                });
                assert!(done.is_err() || told == len, "{}: {told} of {len}", codec.name());
                done
            };
            _ = count(&bytes);
            // Nearly right bytes go deeper.
            let mut right = Vec::new();
            codec.encode(&x, &seed(6), &mut right).unwrap();
            if !right.is_empty() {
                let end = cut.index(right.len());
                prop_assert!(count(&right[..end]).is_err(), "{} cut to {} of {}", codec.name(), end, right.len());
                let at = flip.0.index(right.len());
                right[at] ^= flip.1;
                _ = count(&right);
                right[at] ^= flip.1;
            }
            right.push(0);
            prop_assert!(count(&right).is_err(), "{} with a byte too many", codec.name());
        }
    }
}

#[test]
fn stochastic_quantisation_is_unbiased_within_qsgds_variance() {
    let x = uneven(1024, 1);
    for (bits, block) in [(2, 64), (2, 1024), (4, 256), (8, 256)] {
        for entropy in [false, true] {
            let codec = Quantise::new(bits, block, entropy).unwrap();
            let nmse = unbiased(codec.name(), &x, 400, |seed| through(&codec, &x, seed));
            // Block by block min(n/s², √n/s) ‖x‖², and so for the whole.
            let (n, s) = (block as f64, codec.levels() as f64);
            assert!(nmse <= (n / (s * s)).min(n.sqrt() / s), "{bits} bits, blocks of {block}: {nmse}");
        }
    }
}

#[test]
fn the_largest_coordinate_of_a_block_is_unbiased_too() {
    // 0.7 is no bfloat16: a scale below it would cut every coordinate to 0.699.
    let codec = Quantise::new(8, 1024, false).unwrap();
    let sum: f64 = (0..100).flat_map(|number| through(&codec, &[0.7; 1024], &seed(number))).map(f64::from).sum();
    // A step is 0.0055, so a mean of 102,400 has a deviation of 9e-6 at most: five of them.
    assert!((sum / 102_400.0 - f64::from(0.7f32)).abs() < 4.5e-5, "{}", sum / 102_400.0);
}

#[test]
fn int8_and_int4_are_as_small_as_they_should_be() {
    let x = uneven(100_000, 2);
    let bytes = |bits, block| {
        let mut out = Vec::new();
        Quantise::new(bits, block, false).unwrap().encode(&x, &seed(1), &mut out).unwrap();
        out.len() as f64 / (4.0 * x.len() as f64)
    };
    // Codes, and 2 bytes per block: 25.2 % and 12.7 % of f32; with blocks of 64 13.3 %. (Others: 25.03 % and 14.06 %.)
    assert!((bytes(8, 256) - 0.252).abs() < 0.0005);
    assert!((bytes(4, 256) - 0.127).abs() < 0.0005);
    assert!((bytes(4, 64) - 0.1328).abs() < 0.0005);
}

#[test]
fn eden_is_unbiased_with_the_papers_error() {
    let x = uneven(4096, 3);
    // 1/v − 1, v being the share of a normal's variance that Max's centroids hold: 0.6366, 0.8825, 0.96546, 0.990499.
    for (bits, expected) in [(1, std::f64::consts::PI / 2.0 - 1.0), (2, 0.1331), (3, 0.03578), (4, 0.009592)] {
        let codec = Eden::new(bits).unwrap();
        let nmse = unbiased(codec.name(), &x, 300, |seed| through(&codec, &x, seed));
        // A block of 4,096 is not infinite and 300 rotations not all: within 2 %.
        assert!((nmse / expected - 1.0).abs() < 0.02, "{bits} bits: {nmse}, expected {expected}");
    }
    // Blocks of 2,048 and 64, and 40 plain coordinates, which are exact.
    let x = uneven(2048 + 64 + 40, 4);
    let codec = Eden::new(1).unwrap();
    unbiased("short tail", &x, 400, |seed| through(&codec, &x, seed));
    assert_eq!(through(&codec, &x, &seed(1))[2112..], x[2112..]);
    assert_eq!(codec.bytes_max(199_210), 8 + 199_168 / 8 + 4 * 50 + 4 * 42);
}

#[test]
fn errors_of_devices_that_rotate_alike_would_not_average_out() {
    // Fifty devices with one update: seeds of their own make the mean's error fifty times smaller.
    let x = uneven(4096, 5);
    let codec = Eden::new(1).unwrap();
    let mut mean = vec![0f32; x.len()];
    for device in 0..50 {
        let told = through(&codec, &x, &seed(device));
        mean.iter_mut().zip(told).for_each(|(m, v)| *m += v / 50.0);
    }
    let nmse = square(&difference(&mean, &x)) / square(&x);
    assert!((0.009..0.014).contains(&nmse), "0.571 / 50 = 0.0114, got {nmse}");
}

#[test]
fn top_k_is_a_contraction_and_breaks_ties_by_place() {
    for (len, kept) in [(1000, 0.01), (1000, 0.5), (5000, 0.1), (9, 1.0)] {
        let x = uneven(len, 6);
        let codec = TopK::new(kept, Values::Signs).unwrap();
        let k = codec.k(len);
        let mut exact = vec![0f32; len];
        largest(&x, k).into_iter().for_each(|i| exact[i] = x[i]);
        let left = square(&difference(&x, &exact));
        assert!(left <= (1.0 - k as f64 / len as f64) * square(&x), "k = {k} of {len}");
        // With signs and a mean: ‖x‖² less the kept part's ‖·‖₁²/k, so what is left shrinks too.
        let told = through(&codec, &x, &seed(1));
        let kept: Vec<f32> = exact.iter().copied().filter(|v| *v != 0.0).collect();
        let l1: f64 = kept.iter().map(|v| f64::from(v.abs())).sum();
        let expected = square(&x) - l1 * l1 / kept.len() as f64;
        // One rounding of the mean to f32.
        assert!((square(&difference(&x, &told)) - expected).abs() <= 1e-6 * square(&x));
        // Eight bits of magnitude by chance: unbiased on what is kept.
        let codec = TopK::new(0.5, Values::Bits(8)).unwrap();
        let mut half = vec![0f32; len];
        largest(&x, codec.k(len)).into_iter().for_each(|i| half[i] = x[i]);
        unbiased("top-k", &half, 200, |seed| through(&codec, &x, seed));
    }
    assert_eq!(largest(&[1.0, -2.0, 2.0, 0.0, 2.0, -1.0], 3), [1, 2, 4]);
    assert_eq!(largest(&[2.0, -2.0, 2.0, 2.0], 2), [0, 1]);
    assert_eq!(largest(&[0.0, 0.0, 1.0], 3), [2], "zeros are not worth their index");
}

#[test]
fn positions_cost_what_they_must() {
    // 1 % of 100,000 at random: n H(0.01) = 8,079 bits of places and 1,000 signs.
    let mut draws = Draws::new(&seed(9));
    let x: Vec<f32> =
        (0..100_000).map(|_| if draws.chance(1, 100) { draws.word() as i32 as f32 } else { 0.0 }).collect();
    let kept = x.iter().filter(|v| **v != 0.0).count() as f64;
    let (n, p) = (x.len() as f64, kept / x.len() as f64);
    let least = (n * (-p * p.log2() - (1.0 - p) * (1.0 - p).log2()) + kept) / 8.0;
    let mut bytes = Vec::new();
    TopK::new(0.02, Values::Signs).unwrap().encode(&x, &seed(1), &mut bytes).unwrap();
    // Raw low bits of a gap lose 1 %; counts that are learnt 60 bytes.
    assert!((bytes.len() as f64) < 1.02 * least + 60.0, "{} bytes, {least:.0} at least", bytes.len());
}

#[test]
fn signs_are_the_contraction_of_the_paper() {
    let x = uneven(4096, 7);
    let told = through(&Sign, &x, &seed(1));
    let l1: f64 = x.iter().map(|v| f64::from(v.abs())).sum();
    let expected = square(&x) - l1 * l1 / x.len() as f64;
    assert!((square(&difference(&x, &told)) / expected - 1.0).abs() < 1e-6);
    let mut bytes = Vec::new();
    Sign.encode(&x, &seed(1), &mut bytes).unwrap();
    assert_eq!(bytes.len(), 4 + 512);
}
