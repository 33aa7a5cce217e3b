//! Sketches of devices' rows, from rows to what the cloud reads of a sum.

use super::*;
use crate::job::DriftText;

fn watched(job: &JobSpec) -> JobSpec {
    let mut text = job.text().clone();
    text.drift = Some(DriftText { noise: text.differential_privacy.is_some().then_some(0.01), ..DriftText::default() });
    JobSpec::check(text).unwrap()
}

fn six() -> Vec<Rows> {
    (0..6).map(|device| table(device, 5, 6 + 3 * device)).collect()
}

fn trained(it: &mut Run, data: &[Rows]) -> Totals {
    let updates = data.iter().enumerate().map(|(device, data)| it.update(Kind::Train, device, None, data).0).collect();
    it.advance(Kind::Train, updates, data.len() as u32)
}

#[test]
fn a_sketch_is_the_mean_device_and_changes_nothing_of_what_is_learnt() {
    let open = job("{ name = \"fedavg\" }", 5, MINI, 6, BY_ROWS);
    let (mut it, mut open) = (Run::new(watched(&open), 6), Run::new(open, 6));
    let data = six();
    let (totals, without) = (trained(&mut it, &data), trained(&mut open, &data));
    assert_eq!((it.model.id(), totals.train_loss, totals.rows), (open.model.id(), without.train_loss, without.rows));
    let sketch = totals.sketch.unwrap();
    // Three classes, and four projections of eight bins.
    assert_eq!(sketch.len(), 3 + 4 * 8);
    for (class, told) in sketch[..3].iter().enumerate() {
        let of = |rows: &Rows| {
            let Labels::Classes { ids, .. } = rows.examples.labels() else { panic!("classes") };
            let train = rows.train.iter().filter(|row| ids[**row as usize] as usize == class);
            train.count() as f64 / rows.train.len() as f64
        };
        // Devices count alike, however many rows they have; parts are in steps of 2^-16.
        let expected = data.iter().map(of).sum::<f64>() / 6.0;
        assert!((told - expected).abs() <= 2f64.powi(-16), "{class}: {told}, {expected}");
    }
    assert_eq!(without.sketch, None);
    // An evaluation has none.
    let counts =
        data.iter().enumerate().map(|(device, data)| it.update(Kind::Evaluate, device, None, data).0).collect();
    assert_eq!(it.advance(Kind::Evaluate, counts, 6).sketch, None);
}

/// With noise on each bin of the mean device as the job says.
#[test]
fn a_private_sketch_is_noised_with_the_update() {
    let noise = "mechanism = \"central\"\nclip = 0.5\nnoise_multiplier = 0.02\nepsilon = 1e9";
    let mut text = job("{ name = \"fedavg\" }", 5, FULL, 6, UNIFORM).text().clone();
    text.data.standardise = false;
    let plain = watched(&JobSpec::check(text.clone()).unwrap());
    text.differential_privacy = Some(toml::from_str(noise).unwrap());
    let (mut it, mut plain) = (Run::new(watched(&JobSpec::check(text).unwrap()), 6), Run::new(plain, 6));
    assert_eq!(it.spec.sketch_wholes(Kind::Train), 0, "nothing goes without noise");
    let data = six();
    let mut squares = Vec::new();
    for _ in 0..30 {
        let exact = trained(&mut plain, &data).sketch.unwrap();
        let noised = trained(&mut it, &data).sketch.unwrap();
        squares.extend(exact.iter().zip(&noised).map(|(a, b)| (a - b).powi(2)));
    }
    let deviation = (squares.iter().sum::<f64>() / squares.len() as f64).sqrt();
    // Of 1,050 draws a deviation is known to 2.2 %; dividing by noised sums changes it by a few percent.
    assert!((deviation / 0.01 - 1.0).abs() < 0.12, "{deviation}");
    let private = it.spec.noise().unwrap();
    let step = it.spec.plan(Kind::Train).step(0);
    let said = private.release.share_variance.to_f64().sqrt() * step / f64::from(private.sketch.unwrap().height) / 6.0;
    assert!((said - 0.01).abs() < 1e-4, "{said}");
}

#[test]
fn what_cannot_be_watched_is_refused_by_field() {
    let private = |noise: &str, drift: DriftText| {
        let mut text = job("{ name = \"fedavg\" }", 5, FULL, 6, UNIFORM).text().clone();
        text.data.standardise = false;
        text.data.held_out = 0.0;
        text.differential_privacy = Some(toml::from_str(noise).unwrap());
        text.drift = Some(drift);
        JobSpec::check(text).unwrap_err()
    };
    let central = "mechanism = \"central\"\nclip = 0.5\nnoise_multiplier = 1.0\nepsilon = 1e9";
    let others =
        ["local-discrete-gaussian", "dp-ftrl", "example-gaussian"].map(|name| central.replace("central", name));
    let on_bins = |noise| DriftText { noise: Some(noise), ..DriftText::default() };
    // √5 / 6.
    let refused = private(central, on_bins(0.3));
    assert_eq!((refused.place.as_str(), refused.got.as_str()), ("drift.noise", "0.3"));
    assert!(refused.expected.starts_with("more than 0.3727"), "{refused}");
    assert_eq!(private(central, on_bins(-1.0)).place, "drift.noise");
    for other in others {
        assert_eq!(private(&other, DriftText::default()).place, "drift", "{other}");
    }
    assert_eq!(private(&format!("{central}\nadaptive_clip = {{}}"), on_bins(0.9)).place, "drift");
    let mut text = job("{ name = \"fedavg\" }", 5, FULL, 6, UNIFORM).text().clone();
    text.drift = Some(DriftText { baseline: 7, noise: None });
    assert_eq!(JobSpec::check(text.clone()).unwrap_err().place, "drift.baseline");
    text.drift = Some(on_bins(0.1));
    assert_eq!(JobSpec::check(text.clone()).unwrap_err().place, "drift.noise");
    text.drift = Some(DriftText::default());
    text.cohort.min = 1;
    assert_eq!(JobSpec::check(text).unwrap_err().place, "drift");
}
