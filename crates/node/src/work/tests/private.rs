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
                entropy: Entropy::new([device as u8; 32]),
                collection: collection(Kind::Train, 0),
                task: task.into(),
                model: it.model.clone(),
                state: None,
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
