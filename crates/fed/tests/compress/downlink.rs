//! The model as a chain of deltas.

use super::*;
use littoral_fed::compress::downlink::{Chain, Codes, Image, Needs, delta, whole};
use proptest::prelude::*;

fn moved(model: &mut [f32], number: u64) {
    model.iter_mut().zip(uneven(1000, number)).for_each(|(w, d)| *w += 0.02 * d);
}

fn worst(image: &Image, model: &[f32]) -> f32 {
    difference(&image.values(), model).into_iter().map(f32::abs).fold(0.0, f32::max)
}

#[test]
fn every_road_to_a_version_ends_at_the_same_image() {
    for codes in [Codes::Int8, Codes::Int4] {
        let mut model = uneven(1000, 1);
        let (key, mut cloud) = whole(&model).unwrap();
        let mut follower = Image::of_whole(&key, 1000).unwrap();
        assert_eq!(follower, cloud);
        let mut chain = Chain::new(10, key.len());
        let mut deltas = Vec::new();
        for version in 0..20 {
            moved(&mut model, 2 + version);
            let bytes = delta(&mut cloud, &model, codes).unwrap();
            assert!(bytes.len() < key.len(), "{codes:?}: {} bytes", bytes.len());
            follower.apply(&bytes).unwrap();
            assert_eq!(follower, cloud);
            chain.push(bytes.len());
            deltas.push(bytes);
        }
        // One that comes late takes the key and all deltas, one that slept the last ones.
        let mut late = Image::of_whole(&key, 1000).unwrap();
        assert_eq!(chain.needs(None), Needs::Key { key: 10, newest: 30 });
        deltas.iter().for_each(|bytes| late.apply(bytes).unwrap());
        assert_eq!(late, cloud);
        assert_eq!(chain.needs(Some(27)), Needs::Deltas(28..=30));
        assert_eq!(chain.bytes(&chain.needs(Some(27))), deltas[17..].iter().map(Vec::len).sum::<usize>());
        assert_eq!(chain.needs(Some(30)), Needs::Nothing);
        for stranger in [9, 31] {
            assert!(matches!(chain.needs(Some(stranger)), Needs::Key { .. }));
        }
        assert!(chain.key_is_due());
        assert!(!Chain::new(0, 1).key_is_due());
    }
}

#[test]
fn errors_do_not_add_up_over_versions() {
    let mut model = uneven(1000, 1);
    let (_, mut cloud) = whole(&model).unwrap();
    let mut errors = Vec::new();
    for version in 0..200 {
        moved(&mut model, 2 + version);
        delta(&mut cloud, &model, Codes::Int4).unwrap();
        errors.push(worst(&cloud, &model));
    }
    // Each coordinate moves by 0.02 at most and is corrected to half of the least 2^n with 7 · 2^n ≥ what is due: 2 / 7 of that
    // at most, what is due being the move and the last error. So errors stay below 0.02 · (2/14) / (1 − 2/14).
    assert!(errors.iter().all(|&e| e <= 0.02 / 6.0), "{:?}", errors.iter().fold(0f32, |a, &b| a.max(b)));
    // At rest they go to nothing: a third of the digits each time.
    for _ in 0..10 {
        delta(&mut cloud, &model, Codes::Int4).unwrap();
    }
    // Half a step of 2^-24, and the model's own rounding to f32.
    assert!(worst(&cloud, &model) <= 2f32.powi(-24), "{}", worst(&cloud, &model));
    let still = delta(&mut cloud, &model, Codes::Int4).unwrap();
    assert!(still.len() < 40, "nothing to say costs {} bytes", still.len());
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (_, mut image) = whole(&[0.5, -100.0]).unwrap();
    let before = image.clone();
    assert!(delta(&mut image, &[0.5, -128.5], Codes::Int8).unwrap_err().to_string().contains("within ±128"));
    assert!(delta(&mut image, &[0.5, f32::NAN], Codes::Int8).is_err());
    assert!(delta(&mut image, &[0.5], Codes::Int8).is_err());
    assert_eq!(image, before);
    assert!(whole(&[200.0]).is_err());
    assert!(Image::of_whole(&[0, 0x7c], 1).is_err(), "infinity");
    assert!(Image::of_whole(&[0], 1).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_delta_or_an_error_without_change(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, mut image) = whole(&uneven(500, 1)).unwrap();
        let before = image.clone();
        if image.apply(&bytes).is_err() {
            prop_assert_eq!(image, before);
        }
    }
}
