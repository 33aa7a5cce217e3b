//! What each viewer of a private job may learn, worked out from the noise that is really in what it sees.

use super::*;
use crate::job::privacy::name;
use littoral_fed::dp::Viewer;
use littoral_fed::open::open_section;
use littoral_privacy::account::{self, Composition, Loss, Mechanism, Method};

/// Devices with rows of which nothing can be learnt in such steps: their updates are zero, so that all they send is noise.
fn job_of_noise(agreement: &str, noise: &str) -> JobSpec {
    let idle = "{ epochs = 1, batch = 0, optimiser = { name = \"sgd\", learning_rate = 1e-30 } }";
    let mut text = job("{ name = \"fedavg\" }", 1400, idle, 6, UNIFORM).text().clone();
    text.cohort.min = 5;
    text.data.standardise = false;
    text.secure_aggregation = Some(toml::from_str(agreement).unwrap());
    text.differential_privacy = Some(toml::from_str(noise).unwrap());
    JobSpec::check(text).unwrap()
}

/// ε of so many Gaussians of this variance over this sensitivity: exact.
fn gaussian(variance: f64, l2: f64, count: u64) -> f64 {
    let mechanism = Mechanism::Gaussian { noise_multiplier: variance.sqrt() / l2 };
    let mut all = Composition::new();
    all.add(Loss { mechanism, sampling: account::Sampling::ALL, count }).unwrap();
    all.epsilon(1e-5, Method::default()).unwrap()
}

/// The noise of single devices is measured in what they send. A viewer knows the shares of colluders and sees a sum of as few
/// devices as are opened at least: that noise gives its ε, and the job says no less and hardly more.
#[test]
fn each_viewers_epsilon_is_that_of_the_noise_really_added() {
    let noise = "mechanism = \"distributed-discrete-gaussian\"\nclip = 0.5\nnoise_multiplier = 1.0\nepsilon = 100.0\ncolluding = 0.34\nbits = 24";
    let whole = "adversary = 0.0\ndropout = 0.0";
    let per_edge = "adversary = 0.0\ndropout = 0.0\ngroups = \"per_edge\"\ngroup_min = 3";
    // Survivors at least, and colluders among them: ⌊0.34 · 5⌋ and ⌊0.34 · 3⌋.
    for (agreement, survivors, colluding) in [(whole, 5, 1), (per_edge, 3, 1)] {
        let it = Run::new(job_of_noise(agreement, noise), 9);
        let plan = it.spec.plan(Kind::Train).clone();
        let len = plan.sections()[0].len;
        let mut sum = vec![0; len];
        // Who colludes takes its share out again, so it is as if it had added none.
        for device in 0..survivors - colluding {
            let task = Task { spec: it.spec.clone(), population: 9 }.encode();
            let work = Work::Local {
                steps_max: 0,
                entropy: Entropy::new([device as u8; 32]),
                collection: collection(Kind::Train, 0),
                task: task.into(),
                model: it.model.clone(),
                before: it.before.clone(),
                state: None,
                personal: None,
                learnt: None,
                device: NodeId([device as u8; 32]),
                name: format!("device-{device}"),
            };
            let output = run(&work, &it.shelf, &table(device, 1400, 2)).unwrap();
            let Output::Local { update, .. } = output else { panic!("{output:?}") };
            let mut words = vec![0; len];
            let place = plan.section_bytes(0, 0..len);
            open_section(&plan, 0, 0..len, &it.shelf.bytes(&update)[place], &mut words).unwrap();
            sum.iter_mut().zip(words).for_each(|(sum, word)| *sum += word);
        }
        let variance = sum.iter().map(|&word| (word as f64).powi(2)).sum::<f64>() / len as f64;
        // Of 4,203 draws a variance is known to √(2/4,203) = 2.2 %; five of these.
        let (low, high) = (variance * 0.89, variance * 1.11);
        let l2 = it.spec.noise().unwrap().release.l2;
        let terms = it.spec.terms().unwrap();
        assert_eq!((terms.models, terms.participations), (3, 4));
        for (viewer, count) in [(Viewer::Model, 3), (Viewer::Edge, 4), (Viewer::Cloud, 4)] {
            let told = it.spec.guarantees().iter().find(|guarantee| guarantee.viewer == viewer).unwrap();
            let (told, least, most) = (told.epsilon.unwrap(), gaussian(high, l2, count), gaussian(low, l2, count));
            assert!(told > least && told < most, "{agreement}, {}: {told} told, {least} to {most}", name(viewer));
        }
    }
}

/// A job of 6 devices of which each has `fields` numbers per row, with noise that the cloud adds.
fn central(fields: usize, rounds: u64, local: &str, noise: &str) -> JobSpec {
    let mut text = job("{ name = \"fedavg\" }", fields, local, 6, UNIFORM).text().clone();
    text.rounds.count = rounds;
    text.data.standardise = false;
    text.differential_privacy = Some(toml::from_str(noise).unwrap());
    JobSpec::check(text).unwrap()
}

/// Without noise to speak of: what is learnt is the mean of what was clipped to each version's clip, and the clip follows.
#[test]
fn a_clip_that_follows_is_what_updates_are_clipped_to() {
    let noise = "mechanism = \"central\"\nclip = 0.01\nnoise_multiplier = 1e-3\nepsilon = 1e9\n\
                 adaptive_clip = { quantile = 0.5, learning_rate = 1.0 }";
    let mut it = Run::new(central(40, 12, FULL, noise), 6);
    let data: Vec<Rows> = (0..6).map(|device| table(device, 40, 6 + 3 * device)).collect();
    // The same updates as they are.
    let mut plain = job("{ name = \"fedavg\" }", 40, FULL, 6, UNIFORM).text().clone();
    plain.data.standardise = false;
    let plain = JobSpec::check(plain).unwrap();
    let mut clip = 0.01;
    for version in 0..12 {
        let before = it.read();
        assert!((f64::from(before.clip.unwrap()) / clip - 1.0).abs() < 1e-2, "{version}: {:?}, {clip}", before.clip);
        let mut open = Run::new(plain.clone(), 6);
        // Its object without the clip at the end.
        let bytes = it.shelf.bytes(&it.model);
        open.model = open.shelf.put(&bytes[..open.spec.version().model_bytes()]);
        let (mut mean, mut short) = (vec![0.0; before.w.len()], 0);
        for (device, data) in data.iter().enumerate() {
            let update = open.update(Kind::Train, device, None, data).0;
            let plan = open.spec.plan(Kind::Train);
            let mut words = vec![0; mean.len()];
            let place = plan.section_bytes(0, 0..mean.len());
            open_section(plan, 0, 0..mean.len(), &open.shelf.bytes(&update)[place], &mut words).unwrap();
            let delta: Vec<f64> = words.iter().map(|&word| word as f64 * plan.step(0)).collect();
            let norm = delta.iter().map(|x| x * x).sum::<f64>().sqrt();
            let clip = f64::from(before.clip.unwrap());
            short += u32::from(norm <= clip);
            mean.iter_mut().zip(&delta).for_each(|(mean, x)| *mean += x * (clip / norm).min(1.0) / 6.0);
        }
        let updates =
            data.iter().enumerate().map(|(device, data)| it.update(Kind::Train, device, None, data).0).collect();
        let totals = it.advance(Kind::Train, updates, 6);
        assert_eq!(totals.clip, before.clip);
        // Steps of the plain plan are 8 / 65,536 wide; noise is a thousandth of the clip on each sum of six.
        for ((w, w0), mean) in it.read().w.iter().zip(&before.w).zip(&mean) {
            assert!((f64::from(w - w0) - mean).abs() < 2e-4 + clip * 1e-3, "{version}: {} and {mean}", w - w0);
        }
        // Noise on the mean of bits has σ = 0.05.
        let next = f64::from(it.read().clip.unwrap());
        let share = 0.5 - (next / f64::from(before.clip.unwrap())).ln();
        assert!((share - f64::from(short) / 6.0).abs() < 5.0 * 0.05, "{version}: {share}, {short} of 6");
        clip = next;
    }
    assert!(clip > 0.02, "it followed: {clip}");
}

/// Devices whose updates are nothing: the model is what the cloud added. Sums of correlated noise have the variance that the matrix
/// promises, and begin anew when they should, whoever restarts.
#[test]
fn correlated_noise_is_what_its_matrix_says() {
    let noise =
        "mechanism = \"dp-ftrl\"\nclip = 0.5\nnoise_multiplier = 2.0\nepsilon = 1e9\nbands = 3\nrestart_rounds = 4";
    let idle = "{ epochs = 1, batch = 0, optimiser = { name = \"sgd\", learning_rate = 1e-30 } }";
    let mut it = Run::new(central(1400, 6, idle, noise), 6);
    let correlated = it.spec.noise().unwrap().correlated.clone().unwrap();
    let start = it.read().w;
    assert_eq!(it.state.as_ref().unwrap().bytes(), 4 * 8 * start.len() as u64);
    let (mut last, mut variances) = (start.clone(), Vec::new());
    for _ in 0..6 {
        let updates = (0..6).map(|device| it.update(Kind::Train, device, None, &table(device, 1400, 2)).0).collect();
        it.advance(Kind::Train, updates, 6);
        let w = it.read().w;
        let over =
            |from: &[f32]| w.iter().zip(from).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / w.len() as f64;
        variances.push((over(&start), over(&last)));
        last = w;
    }
    // Of white noise, on the model: a sum's step over what sums are divided by.
    let step = it.spec.plan(Kind::Train).step(0) / 6.0 / correlated.matrix.grid();
    let white = correlated.variance.to_f64() * step * step;
    // z of the clip, √2 of a device that comes twice in four versions, of a column of the matrix; a little for rounding.
    let sigma = 2.0 * 0.5 * correlated.matrix.sensitivity(2) / 6.0;
    assert!((white.sqrt() / sigma - 1.0).abs() < 0.01, "{} {sigma}", white.sqrt());
    let sum_of = |rounds| correlated.matrix.max_prefix_variance(rounds) * white;
    // Of 4,203 draws a variance is known to 2.2 %; five of these.
    let near = |got: f64, expected: f64| assert!((got / expected - 1.0).abs() < 0.11, "{got} {expected} {variances:?}");
    for rounds in 1..=4 {
        near(variances[rounds - 1].0, sum_of(rounds));
    }
    near(variances[4].0, sum_of(4) + sum_of(1));
    near(variances[5].0, sum_of(4) + sum_of(2));
    near(variances[4].1, sum_of(1));
}

#[test]
fn what_noise_cannot_do_is_refused_by_field() {
    let text = |noise: &str, more: &str| {
        let mut text = job("{ name = \"fedavg\" }", 6, MINI, 6, UNIFORM).text().clone();
        text.data.standardise = false;
        let noise = format!("clip = 0.5\nnoise_multiplier = 1.0\nepsilon = 1e9\n{noise}");
        text.differential_privacy = Some(toml::from_str(&noise).unwrap());
        match more {
            "masks" => text.secure_aggregation = Some(toml::from_str("").unwrap()),
            "map" => text.compression = Some(toml::from_str("uplink = { name = \"rotation\" }").unwrap()),
            _ => {}
        }
        JobSpec::check(text).unwrap_err().place
    };
    let ftrl = "mechanism = \"dp-ftrl\"\nbands = 2";
    let adaptive = "mechanism = \"central\"\nadaptive_clip = {}";
    for (noise, more, place) in [
        (ftrl, "masks", "secure_aggregation"),
        (ftrl, "map", "differential_privacy.mechanism"),
        (adaptive, "map", "differential_privacy.adaptive_clip"),
        ("mechanism = \"dp-ftrl\"", "", "differential_privacy.bands"),
        ("mechanism = \"dp-ftrl\"\nbands = 2000", "", "differential_privacy.bands"),
        ("mechanism = \"central\"\nbands = 2", "", "differential_privacy.bands"),
        ("mechanism = \"dp-ftrl\"\nbands = 2\nrestart_rounds = 0", "", "differential_privacy.restart_rounds"),
        ("mechanism = \"dp-ftrl\"\nbands = 2\nsampling = { poisson = 0.5 }", "", "differential_privacy.sampling"),
        ("mechanism = \"dp-ftrl\"\nbands = 2\nadaptive_clip = {}", "", "differential_privacy.adaptive_clip"),
        ("mechanism = \"local-discrete-gaussian\"\nadaptive_clip = {}", "", "differential_privacy.adaptive_clip"),
        (
            "mechanism = \"central\"\nadaptive_clip = { bit_noise = 0.01 }",
            "",
            "differential_privacy.adaptive_clip.bit_noise",
        ),
    ] {
        assert_eq!(text(noise, more), place, "{noise} {more}");
    }
}
